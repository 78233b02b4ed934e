"""A small table as arrays, with the facts of its rows: what networks are made from. No files, no task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from modelwright.data import Facts
from modelwright_risk.schema import FIRST, Feature, Schema
from modelwright_risk.stability import bins_of

LEVELS = ("clerk", "nurse", "smith", "baker")
SPECIAL = 96.0


@dataclass(frozen=True)
class Rows:
    """`numbers` (rows, n), `codes` (rows, c) and outcomes, with their facts."""

    numbers: np.ndarray
    codes: np.ndarray
    bad: np.ndarray
    facts: Facts

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What a network takes."""
        return tuple(torch.from_numpy(each) for each in (self.numbers, self.codes) if each.shape[1])


def rows(
    count: int = 200,
    *,
    seed: int = 0,
    bins: int = 8,
    numeric: bool = True,
    categorical: bool = True,
    plain: bool = False,
) -> Rows:
    """Income (some missing), debts (few values, a special code), age, utilisation (mostly 0); a job and a home.

    Args:
        plain: nothing is missing or special.
    """
    rng = np.random.default_rng(seed)
    income, age = rng.lognormal(8, 0.5, count), rng.uniform(20, 70, count)
    debts = rng.integers(0, 5, count).astype(np.float64)
    used = np.where(rng.random(count) < 0.4, 0.0, rng.uniform(0, 1, count))
    job, home = rng.integers(0, len(LEVELS), count), rng.integers(0, 2, count)
    risk = -1.5 + 0.5 * debts + 2 * used * (age < 40) - 0.8 * np.log(income / 3000) + 0.6 * (job == 1)
    bad = (rng.random(count) < 1 / (1 + np.exp(-risk))).astype(np.float32)
    if not plain:
        income[rng.random(count) < 0.1] = np.nan
        debts[rng.random(count) < 0.05] = SPECIAL
    numbers = np.stack([income, debts, age, used], axis=1).astype(np.float32)[:, : 4 * numeric]
    codes = np.stack([job + FIRST, home + FIRST], axis=1).astype(np.int64)[:, : 2 * categorical]
    specials = {"debts": (SPECIAL,)} if not plain else {}
    features = [
        Feature(name, "numeric", special=specials.get(name, ())) for name in ("income", "debts", "age", "used")
    ] * numeric + [
        Feature("job", "categorical", levels=LEVELS),
        Feature("home", "categorical", levels=("own", "rent")),
    ] * categorical
    return Rows(numbers, codes, bad, facts_of(Schema(tuple(features)), numbers, codes, bad, bins=bins))


def facts_of(schema: Schema, numbers: np.ndarray, codes: np.ndarray, bad: np.ndarray, *, bins: int) -> Facts:
    """What training rows say of themselves."""
    edges, shares = np.zeros((len(schema.numeric), bins + 1)), np.zeros((len(schema.numeric), bins))
    missing: dict[str, float] = {}
    for place, each in enumerate(schema.numeric):
        values = numbers[:, place]
        missing[each.name] = float(np.isnan(values).mean())
        there = values[~np.isnan(values) & ~np.isin(values, each.special)]
        edges[place] = np.quantile(there, np.linspace(0, 1, bins + 1)).astype(np.float32)
        shares[place] = np.bincount(bins_of(there, edges[place].astype(np.float32)), minlength=bins) / len(values)
    categories = {
        each.name: (np.bincount(codes[:, place], minlength=FIRST + len(each.levels)) / len(codes)).tolist()
        for place, each in enumerate(schema.categorical)
    }
    values = {
        "schema": schema.as_json(),
        "rows": len(bad),
        "base_rate": float(bad.mean()),
        "missing": missing,
        "categories": categories,
    }
    return Facts(values, {"quantiles": edges.astype(np.float32), "shares": shares.astype(np.float32)})


def one_feature(values: np.ndarray, *, bins: int, monotone: Literal[-1, 0, 1] = 0, **settings: float) -> Facts:
    """Facts of a table with a single number."""
    special: Mapping[str, tuple[float, ...]] = {"special": (settings["special"],)} if settings else {}
    schema = Schema((Feature("x", "numeric", monotone=monotone, **special),))
    column = values.astype(np.float32)[:, None]
    return facts_of(schema, column, np.zeros((len(values), 0), dtype=np.int64), np.array([0.0, 1.0]), bins=bins)
