"""Confidence intervals by resampling measured rows. Knows columns and functions of them, nothing else."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from modelwright.codec import Columns


class Interval(NamedTuple):
    """A value with its confidence interval; the bounds are None where none was asked for."""

    value: float
    low: float | None = None
    high: float | None = None

    def as_json(self) -> dict[str, float | None]:
        """JSON values; what JSON has no number for (NaN, infinity) becomes null."""
        return {
            name: number if number is not None and math.isfinite(number) else None
            for name, number in self._asdict().items()
        }


def bootstrap(
    metrics: Callable[[Columns], Mapping[str, float]],
    measured: Columns,
    *,
    values: Mapping[str, float],
    resamples: int,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile intervals (Efron and Tibshirani 1993, chapter 13) of every metric.

    Args:
        metrics: a pure function of the measured rows.
        values: the metrics of all rows, as computed before.
        resamples: how often to draw as many rows with replacement; 0: no intervals.
        level: coverage, for example 0.95.
    """
    if resamples == 0:
        return {name: Interval(float(value)) for name, value in values.items()}
    rng = np.random.default_rng(seed)
    drawn = {name: np.full(resamples, np.nan) for name in values}
    for i in range(resamples):
        resampled = metrics(measured.select(rng.integers(0, measured.rows, measured.rows)))
        for name in values:
            drawn[name][i] = resampled.get(name, math.nan)
    bounds = _bounds(drawn, level)
    return {name: Interval(float(value), *bounds[name]) for name, value in values.items()}


def paired(
    metrics: Callable[[Columns], Mapping[str, float]],
    before: Columns,
    after: Columns,
    *,
    resamples: int,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """How every metric changes from one table to another of the same samples, with percentile intervals.

    Each resample draws the same samples from both (paired bootstrap), so that what is hard for both does not widen the
    interval of their difference.

    Args:
        before, after: measured rows of the same samples in the same order.
        resamples: how often to draw; 0: no intervals.

    Raises:
        ValueError: the tables are of different samples.
    """
    if not np.array_equal(before.ids, after.ids):
        raise ValueError("a paired bootstrap needs the same samples on both sides")
    first, second = metrics(before), metrics(after)
    values = {name: float(second[name]) - float(first[name]) for name in first if name in second}
    if resamples == 0:
        return {name: Interval(value) for name, value in values.items()}
    rng = np.random.default_rng(seed)
    drawn = {name: np.full(resamples, np.nan) for name in values}
    for i in range(resamples):
        rows = rng.integers(0, before.rows, before.rows)
        first, second = metrics(before.select(rows)), metrics(after.select(rows))
        for name in values:
            drawn[name][i] = second.get(name, math.nan) - first.get(name, math.nan)
    bounds = _bounds(drawn, level)
    return {name: Interval(value, *bounds[name]) for name, value in values.items()}


def _bounds(drawn: Mapping[str, np.ndarray], level: float) -> dict[str, tuple[float, float]]:
    """The percentile interval of each sample; not a number where no resample defines the metric."""
    tail = (1 - level) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        both = {name: np.nanquantile(sample, [tail, 1 - tail]) for name, sample in drawn.items()}
    return {name: (float(low), float(high)) for name, (low, high) in both.items()}
