from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("fairlearn")
from fairlearn import metrics as reference

from modelwright_risk import fairness


def applicants(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    codes = rng.integers(2, 5, 600)
    bad = (rng.random(600) < 0.2).astype(np.int8)
    return codes, bad, rng.random(600) < 0.1 * codes, rng.uniform(0.2, 3, 600)


@pytest.mark.parametrize("weighted", [False, True])
def test_figures_are_those_of_fairlearn(weighted: bool) -> None:
    codes, bad, refused, weight = applicants()
    found = fairness.compare(codes, bad=bad, refused=refused, weight=weight if weighted else None)
    for name, value in found.items():
        wanted = getattr(reference, name)(
            1 - bad, ~refused, sensitive_features=codes, sample_weight=weight if weighted else None
        )
        assert value == pytest.approx(wanted), name


def test_people_without_a_group_are_not_compared() -> None:
    codes, bad, refused, _ = applicants()
    found = fairness.compare(codes, bad=bad, refused=refused)
    more = [np.append(each, np.full(20, value)) for each, value in ((codes, 1), (bad, 0), (refused, True))]
    assert fairness.compare(more[0], bad=more[1], refused=more[2].astype(bool)) == found


def test_a_group_without_bad_applicants_has_no_say_in_how_those_fare() -> None:
    codes = np.array([2, 2, 3, 3])
    found = fairness.compare(codes, bad=np.array([0, 1, 0, 0]), refused=np.array([False, True, False, False]))
    assert found["equalized_odds_difference"] == 0


def test_one_group_has_nothing_to_compare_with() -> None:
    found = fairness.compare(np.full(3, 2), bad=np.zeros(3), refused=np.ones(3, dtype=bool))
    assert all(math.isnan(each) for each in found.values())


def test_where_all_are_refused_there_is_no_ratio() -> None:
    found = fairness.compare(np.array([2, 3]), bad=np.zeros(2), refused=np.ones(2, dtype=bool))
    assert math.isnan(found["demographic_parity_ratio"])
    assert found["demographic_parity_difference"] == 0


def test_groups_have_names() -> None:
    assert fairness.codes_of(np.array([3, 1, 0, 3]), ["female", "male"]) == {"unseen": 0, "missing": 1, "male": 3}
