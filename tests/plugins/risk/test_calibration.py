from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any, get_args

import numpy as np
import pytest

pytest.importorskip("sklearn")
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from modelwright_risk import calibration
from modelwright_risk.calibration import Kind, log_odds, sigmoid

KINDS: tuple[Kind, ...] = get_args(Kind)


def applicants(count: int = 3000, *, slope: float = 2.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds too extreme by `slope`, and outcomes."""
    rng = np.random.default_rng(seed)
    true = rng.normal(-2, 1, count)
    return (slope * true + 0.5).astype(np.float32), (rng.random(count) < sigmoid(true)).astype(np.float32)


def log_loss(p: np.ndarray, bad: np.ndarray) -> float:
    return float(-np.log(np.where(bad > 0, p, 1 - p)).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_calibrators_travel_as_json(kind: Kind) -> None:
    logit, bad = applicants()
    calibrator = calibration.fit(kind, logit, bad)
    assert calibrator["kind"] == kind
    again = json.loads(json.dumps(calibrator))
    assert np.array_equal(calibration.apply(again, logit), calibration.apply(calibrator, logit))


@pytest.mark.parametrize("kind", KINDS[1:])
def test_calibration_mends_predictions_that_are_too_extreme(kind: Kind) -> None:
    logit, bad = applicants()
    fresh, outcome = applicants(seed=1)
    before = log_loss(sigmoid(fresh), outcome)
    assert log_loss(calibration.apply(calibration.fit(kind, logit, bad), fresh), outcome) < before - 0.01


def test_none_is_the_logistic_function() -> None:
    assert calibration.apply({"kind": "none"}, np.array([0.0, np.log(3)])) == pytest.approx([0.5, 0.75])


def test_platt_is_a_logistic_regression() -> None:
    logit, bad = applicants()
    weight = np.random.default_rng(2).uniform(0.5, 2, len(bad))
    found = calibration.fit("platt", logit, bad, weight=weight)
    line = LogisticRegression(C=np.inf, tol=1e-10).fit(logit[:, None], bad, sample_weight=weight)
    # Its targets are smoothed by one applicant of each class.
    assert found["slope"] == pytest.approx(line.coef_[0, 0], rel=0.01)
    assert found["intercept"] == pytest.approx(line.intercept_[0], rel=0.01)


def test_temperature_is_a_logistic_regression_through_the_origin() -> None:
    logit, bad = applicants()
    line = LogisticRegression(C=np.inf, fit_intercept=False, solver="newton-cholesky").fit(logit[:, None], bad)
    assert 1 / calibration.fit("temperature", logit, bad)["temperature"] == pytest.approx(line.coef_[0, 0], rel=1e-4)


def test_isotonic_is_that_of_scikit_learn_within_the_tilt() -> None:
    logit, bad = applicants()
    p = calibration.apply(calibration.fit("isotonic", logit, bad), logit)
    wanted = IsotonicRegression(out_of_bounds="clip").fit(logit, bad).predict(logit)
    inside = (wanted > 0) & (wanted < 1)
    assert inside.mean() > 0.9
    assert np.abs(p - wanted)[inside].max() < 1e-3


def test_isotonic_is_never_sure() -> None:
    logit = np.array([-2.0, -1, 0, 1, 2, 3])
    p = calibration.apply(calibration.fit("isotonic", logit, np.array([0, 0, 0, 1, 1, 1])), np.array([-9.0, 9]))
    assert p == pytest.approx([0.125, 0.875], abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_one_class_leaves_nothing_to_fit(kind: Kind, outcome: float) -> None:
    assert calibration.fit(kind, np.arange(5.0), np.full(5, outcome)) == {"kind": "none"}


@pytest.mark.parametrize("kind", ["platt", "temperature"])
def test_classes_apart_and_classes_reversed_keep_a_finite_rising_line(kind: Kind) -> None:
    logit = np.linspace(-3, 3, 40)
    for bad in (logit > 0, logit < 0):
        p = calibration.apply(calibration.fit(kind, logit, bad), logit)
        assert np.all(np.diff(p) > 0)
        assert np.all((p > 0) & (p < 1))


def test_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="unknown calibrator 'beta': known are none, platt"):
        calibration.apply({"kind": "beta"}, np.zeros(1))


def test_nothing_comes_of_nothing() -> None:
    for kind in KINDS:
        calibrator = calibration.fit(kind, *applicants())
        assert math.isnan(calibration.apply(calibrator, np.array([np.nan]))[0])
        assert calibration.apply(calibrator, np.zeros(0)).shape == (0,)


def test_a_line_needs_two_classes() -> None:
    assert all(math.isnan(each) for each in calibration.line(np.arange(3.0), np.ones(3), np.ones(3)))
    apart = calibration.line(np.array([-1.0, 1.0]), np.array([0.0, 1.0]), np.ones(2))
    assert all(math.isnan(each) for each in apart)


def test_log_odds_and_back() -> None:
    assert sigmoid(log_odds(np.array([0.001, 0.5, 0.9]))) == pytest.approx([0.001, 0.5, 0.9])
    assert np.all(np.isfinite(log_odds(np.array([0.0, 1.0]))))


def test_import_brings_neither_torch_nor_scikit_learn() -> None:
    code = (
        "import sys, numpy; from modelwright_risk import calibration, decision; "
        "calibration.apply({'kind': 'isotonic', 'logit': [0.0], 'probability': [0.1], 'center': 0.0}, numpy.zeros(2)); "
        "print(sorted({'torch', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@given(
    kind=st.sampled_from(KINDS),
    rows=st.lists(st.tuples(st.integers(-40, 40), st.booleans()), min_size=2, max_size=60),
    asked=st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=30),
)
@settings(max_examples=150, deadline=None)
def test_calibration_never_turns_an_order_around(kind: Kind, rows: list[tuple[int, bool]], asked: list[float]) -> None:
    logit, bad = (np.array(each, dtype=np.float32) for each in zip(*rows, strict=True))
    calibrator: dict[str, Any] = calibration.fit(kind, logit / 8, bad)
    p = calibration.apply(calibrator, np.sort(np.array(asked)))
    assert np.all(np.diff(p) >= 0)
    assert np.all((p > 0) & (p < 1))


def test_isotonic_keeps_applicants_on_a_step_apart() -> None:
    logit, bad = applicants()
    ranked = np.unique(logit)
    assert np.all(np.diff(calibration.apply(calibration.fit("isotonic", logit, bad), ranked)) > 0)
