"""What model and codec need to know of the training rows: quantiles, shares, rates. Knows arrays; no files."""

from __future__ import annotations

import numpy as np

from modelwright.data import Facts
from modelwright_risk.datasets import Table
from modelwright_risk.schema import FIRST

SAMPLE = 200_000
"""Rows that quantiles are taken from, evenly spread."""
SMALL = 2000
"""Training rows below which there are fewer bins."""


def facts_of(train: Table, *, bins: int | None, rows: int | None = None, base_rate: float | None = None) -> Facts:
    """Facts of training rows, see the brief in `data.find_facts`.

    Args:
        rows, base_rate: of all training rows, where `train` is a sample of them.
    """
    schema = train.known.schema
    count = len(train) if rows is None else rows
    bins = bins or (8 if count < SMALL else 16)
    bad = train.bad.cpu().numpy()
    numbers, codes = train.numbers.cpu().numpy(), train.codes.cpu().numpy()
    width = len(schema.numeric)
    edges, shares = np.zeros((width, bins + 1), dtype=np.float32), np.zeros((width, bins), dtype=np.float32)
    missing: dict[str, float] = {}
    for place, feature in enumerate(schema.numeric):
        values = np.ascontiguousarray(numbers[:, place])
        there = ~np.isnan(values)
        missing[feature.name] = 1 - float(there.mean())
        if feature.special:
            there &= ~np.isin(values, np.asarray(feature.special, dtype=np.float32))
        edges[place], counts = binned(values[there], bins)
        shares[place] = counts / max(len(values), 1)
    categories: dict[str, list[float]] = {}
    for place, feature in enumerate(schema.categorical):
        counts = np.bincount(codes[:, place], minlength=FIRST + len(feature.levels))
        categories[feature.name] = (counts / max(len(codes), 1)).tolist()
        missing[feature.name] = categories[feature.name][1]
    values = {
        **train.known.as_json(),
        "rows": count,
        "base_rate": float(bad.mean(dtype=np.float64)) if base_rate is None else base_rate,
        "missing": missing,
        "categories": categories,
    }
    return Facts(values, {"quantiles": edges, "shares": shares})


def binned(values: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges at quantiles, float32 (bins + 1,) ascending, and how many values lie in each bin.

    Bin i holds what is at least edge i and below edge i + 1; the last one its upper edge too. Of equal edges only
    the last one starts a bin that holds anything.
    """
    if len(values) == 0:
        return np.zeros(bins + 1, dtype=np.float32), np.zeros(bins)
    spread = values if len(values) <= SAMPLE else values[np.linspace(0, len(values) - 1, SAMPLE).astype(np.int64)]
    edges = np.quantile(spread.astype(np.float64), np.linspace(0, 1, bins + 1)).astype(np.float32)
    edges[0], edges[-1] = values.min(), values.max()
    return edges, np.bincount(np.searchsorted(edges[1:-1], values, side="right"), minlength=bins)
