"""How far applicants have moved from those a model was trained on. Knows numpy, codes and edges; no model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelwright.data import Facts
from modelwright_risk.schema import Feature, Schema

FLOOR = 1e-4
"""What an empty bin counts as; without it, one applicant in a bin that was empty would be an infinite shift."""
STABLE, SHIFTED = 0.1, 0.25
"""Siddiqi's bounds: below the first nothing has moved, above the second the model is to be looked at."""


def psi(expected: np.ndarray, actual: np.ndarray) -> float:
    """Population stability index; 0 where shares are equal, never below.

    Siddiqi: Credit Risk Scorecards, 2006, chapter 8 (system stability report).

    Args:
        expected, actual: shares of rows in the same bins, each adding up to 1.

    Raises:
        ValueError: different numbers of bins.
    """
    if np.shape(expected) != np.shape(actual):
        raise ValueError(f"shares of {np.shape(expected)} and of {np.shape(actual)} bins cannot be compared")
    before, after = np.maximum(expected, FLOOR), np.maximum(actual, FLOOR)
    return float(np.sum((after - before) * np.log(after / before)))


def even_edges(values: np.ndarray, *, bins: int = 10, weight: np.ndarray | None = None) -> np.ndarray:
    """Inner edges of bins of about equal weight, ascending, each a value that occurs; fewer where many are equal."""
    order = np.argsort(values)
    ranked = values[order]
    so_far = np.arange(1.0, len(values) + 1) if weight is None else np.cumsum(weight[order].astype(np.float64))
    if len(ranked) == 0:
        return ranked
    wanted = np.arange(1, bins) * so_far[-1] / bins
    edges = np.unique(ranked[np.minimum(np.searchsorted(so_far, wanted), len(ranked) - 1)])
    return edges[edges < ranked[-1]]


def shares(values: np.ndarray, edges: np.ndarray, *, weight: np.ndarray | None = None) -> np.ndarray:
    """Shares of rows in the bins between inner edges, each above its lower edge and up to its upper one."""
    counts = np.bincount(np.searchsorted(edges, values), weights=weight, minlength=len(edges) + 1).astype(np.float64)
    return counts / max(counts.sum(), np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Shift:
    """How far the score or a feature has moved.

    Attributes:
        name: "score", or the feature's.
        psi: population stability index.
        most: the bin that adds most to it.
        before, after: its shares.
    """

    name: str
    psi: float
    most: str
    before: float
    after: float

    @property
    def verdict(self) -> str:
        """In Siddiqi's words."""
        return "stable" if self.psi < STABLE else "some shift" if self.psi < SHIFTED else "shifted"


def shifts(facts: Facts, *, inputs: Sequence[np.ndarray], probability: np.ndarray) -> list[Shift]:
    """The score, then the features by how far they moved since training (the score: since validation).

    Args:
        facts: of the training rows; see the plugin's notes on their values.
        inputs: `numbers` and `codes` of the rows to compare, or the one that there is.
        probability: of the rows to compare; these may be others.
    """
    schema = Schema.from_json(facts.values["schema"])
    remaining = list(inputs)
    numbers = remaining.pop(0) if schema.numeric else np.zeros((0, 0))
    codes = remaining.pop(0) if schema.categorical else np.zeros((0, 0), dtype=np.int64)
    found = [_shift(each.name, *_numeric(each, row, numbers[:, row], facts)) for row, each in enumerate(schema.numeric)]
    found += [
        _shift(each.name, *_categorical(each, codes[:, column], facts))
        for column, each in enumerate(schema.categorical)
    ]
    found.sort(key=lambda each: -each.psi)
    settled = facts.values.get("settled")
    if not settled:
        return found
    edges = np.array(settled["score_edges"], dtype=np.float64)
    names = [f"{name} %" for name in _between([-math.inf, *(100 * edges).tolist(), math.inf])]
    score = _shift("score", np.array(settled["score_shares"]), shares(probability, edges), names)
    return [score, *found]


def bins_of(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The bin of each value, as `facts.binned` counts them: a value on an edge is in the bin above.

    Args:
        values: finite.
        edges: ascending, bins + 1; what lies beyond them is in the first or in the last bin.
    """
    return np.searchsorted(edges[1:-1], values, side="right")


def _numeric(feature: Feature, row: int, values: np.ndarray, facts: Facts) -> tuple[np.ndarray, np.ndarray, list[str]]:
    edges = facts.arrays["quantiles"][row].astype(np.float32)
    before = facts.arrays["shares"][row].astype(np.float64)
    absent = float(facts.values["missing"].get(feature.name, 0.0))
    missing, special = np.isnan(values), np.isin(values, np.array(feature.special, dtype=np.float32))
    plain = ~(missing | special)
    counts = np.bincount(bins_of(values[plain], edges), minlength=len(before))
    after = np.concatenate([counts, [missing.sum(), special.sum()]]) / max(len(values), 1)
    rest = max(0.0, 1 - before.sum() - absent)
    return np.concatenate([before, [absent, rest]]), after, [*_between(edges.tolist()), "missing", "special code"]


def _categorical(feature: Feature, codes: np.ndarray, facts: Facts) -> tuple[np.ndarray, np.ndarray, list[str]]:
    before = np.asarray(facts.values["categories"][feature.name], dtype=np.float64)
    after = np.bincount(codes, minlength=len(before)) / max(len(codes), 1)
    return before, after, ["unseen", "missing", *feature.levels]


def _shift(name: str, before: np.ndarray, after: np.ndarray, bins: Sequence[str]) -> Shift:
    parts = [psi(before[i : i + 1], after[i : i + 1]) for i in range(len(before))]
    most = int(np.argmax(parts))
    return Shift(name, psi(before, after), bins[most], float(before[most]), float(after[most]))


def _between(edges: Sequence[float]) -> list[str]:
    """Bins in words."""

    def named(low: float, high: float) -> str:
        if low == high:
            return _text(low)
        if math.isinf(low) or math.isinf(high):
            return f"up to {_text(high)}" if math.isinf(low) else f"above {_text(low)}"
        return f"{_text(low)} to {_text(high)}"

    return [named(low, high) for low, high in itertools.pairwise(edges)]


def _text(value: float) -> str:
    """Three digits; more where the number is large enough to be counted."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"
