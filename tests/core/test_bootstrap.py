"""Intervals cover what they promise, and what is no number is said."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
import pytest

from modelwright.codec import Columns
from modelwright.evaluation.bootstrap import Interval, bootstrap


def mean(measured: Columns) -> Mapping[str, float]:
    return {"mean": float(measured.array("x").mean())}


def interval(values: np.ndarray, *, resamples: int = 200, level: float = 0.95, seed: int = 0) -> Interval:
    measured = Columns({"x": values})
    return bootstrap(mean, measured, values=mean(measured), resamples=resamples, level=level, seed=seed)["mean"]


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_interval_covers_the_true_mean_about_as_often_as_it_says(level: float) -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(300):
        found = interval(rng.exponential(1.0, 100), level=level, seed=seed)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.value <= found.high
        hits += found.low <= 1.0 <= found.high
    # The percentile interval of a skewed mean is a little too narrow; 300 tries have a deviation of 0.013 to 0.023.
    assert level - 0.07 < hits / 300 < level + 0.05


def test_the_seed_decides() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert interval(values, seed=1) == interval(values, seed=1)
    assert interval(values, seed=1) != interval(values, seed=2)


def test_no_resamples_give_a_value_without_bounds() -> None:
    assert interval(np.array([1.0, 3.0]), resamples=0) == Interval(2.0, None, None)


def test_a_constant_has_an_interval_of_no_width() -> None:
    assert interval(np.full(9, 0.25)) == Interval(0.25, 0.25, 0.25)


def test_resamples_without_a_value_are_left_out() -> None:
    """A class of one sample is in about two thirds of the resamples; there its score is known."""

    def recall(measured: Columns) -> Mapping[str, float]:
        hits = measured.array("hit")[measured.array("label") == 1]
        return {"recall/rare": float(hits.mean())} if len(hits) else {}

    measured = Columns({"hit": np.ones(20), "label": np.eye(20)[0]})
    found = bootstrap(recall, measured, values={"recall/rare": 1.0}, resamples=100)
    assert found["recall/rare"] == Interval(1.0, 1.0, 1.0)


def test_a_metric_that_is_never_defined_becomes_null() -> None:
    measured = Columns({"x": np.ones(5)})
    found = bootstrap(lambda rows: {"auc": math.nan}, measured, values={"auc": math.nan}, resamples=10)["auc"]
    assert found.as_json() == {"value": None, "low": None, "high": None}


def test_everything_written_is_strict_json() -> None:
    text = json.dumps(Interval(math.inf, -math.inf, math.nan).as_json(), allow_nan=False)
    assert json.loads(text) == {"value": None, "low": None, "high": None}
    assert Interval(0.5).as_json() == {"value": 0.5, "low": None, "high": None}
    assert Interval(0.0, 0.0, 1.0).as_json() == {"value": 0.0, "low": 0.0, "high": 1.0}
