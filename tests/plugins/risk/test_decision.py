from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright_risk import decision

SCALE = {"base_points": 600.0, "base_odds": 50.0, "double": 20.0}


def test_points_at_the_base_odds_and_at_twice_those() -> None:
    assert decision.points(np.array([1 / 51, 1 / 101]), **SCALE) == pytest.approx([600, 620])


@given(
    p=st.floats(1e-6, 1 - 1e-6),
    base_points=st.floats(-1000, 1000),
    base_odds=st.floats(0.01, 1000),
    double=st.floats(1, 200),
)
def test_points_and_back(p: float, base_points: float, base_odds: float, double: float) -> None:
    scale = {"base_points": base_points, "base_odds": base_odds, "double": double}
    assert decision.probability_of(decision.points(np.array([p]), **scale), **scale) == pytest.approx([p], rel=1e-6)


def test_more_points_are_safer() -> None:
    assert np.all(np.diff(decision.points(np.linspace(0, 1, 50), **SCALE)) < 0)


def cost(p: np.ndarray, bad: np.ndarray, weight: np.ndarray, cutoff: float) -> float:
    return float(np.sum(weight * np.where(p >= cutoff, 1.0 * (bad == 0), 5.0 * (bad == 1))))


@given(st.lists(st.tuples(st.integers(1, 19), st.booleans(), st.integers(1, 3)), min_size=1, max_size=30))
def test_no_other_cutoff_costs_less(rows: list[tuple[int, bool, int]]) -> None:
    p, bad, weight = (np.array(each, dtype=np.float64) for each in zip(*rows, strict=True))
    p = p / 20
    found = decision.best_cutoff(p, bad, cost_bad=5, cost_good=1, weight=weight)
    assert 0 < found < 1
    others = [cost(p, bad, weight, each) for each in np.arange(0.5, 20) / 20]
    assert cost(p, bad, weight, found) == pytest.approx(min(others))


def test_among_equals_the_cutoff_that_costs_suggest() -> None:
    # Between 0.1 and 0.3 nothing changes: the nearest to 1 / (1 + 5) is their middle.
    p, bad = np.array([0.05, 0.1, 0.3, 0.9]), np.array([0, 0, 1, 1])
    assert decision.best_cutoff(p, bad, cost_bad=5, cost_good=1) == pytest.approx(0.2)
    assert decision.best_cutoff(np.zeros(0), np.zeros(0), cost_bad=4, cost_good=1) == pytest.approx(0.2)
