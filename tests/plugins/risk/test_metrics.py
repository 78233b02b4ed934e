from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

pytest.importorskip("sklearn")
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from modelwright.codec import Columns
from modelwright_risk import metrics
from modelwright_risk.calibration import log_odds, sigmoid

COSTS = {"cutoff": 0.15, "cost_bad": 5.0, "cost_good": 1.0}
LEVELS = {"sex": ["female", "male"]}


def rows(count: int = 2000, *, seed: int = 0, rounded: bool = False, **more: np.ndarray) -> Columns:
    """Applicants whose predictions are half right; `rounded`: many of them are equal."""
    rng = np.random.default_rng(seed)
    true = rng.normal(-2, 1.2, count)
    bad = (rng.random(count) < sigmoid(true)).astype(np.float32)
    logit = (true + rng.normal(0.2, 0.7, count)).astype(np.float32)
    logit = np.round(logit, 1) if rounded else logit
    said = Columns({"logit": logit, "probability": sigmoid(logit.astype(np.float64))})
    return Columns(metrics.measure(said, Columns({"bad": bad, **more})))


def scored(measured: Columns, groups: Mapping[str, list[str]] | None = None, **costs: float) -> dict[str, float]:
    return metrics.scores(measured, groups=groups or {}, **{**COSTS, **costs})


def agrees(measured: Columns) -> None:
    p, y = measured.array("probability"), measured.array("bad")
    w = measured.array("weight") if "weight" in measured else np.ones(len(p))
    found = scored(measured)
    wanted = {
        "auc": reference.roc_auc_score(y, p, sample_weight=w),
        "average_precision": reference.average_precision_score(y, p, sample_weight=w),
        "brier": reference.brier_score_loss(y, p, sample_weight=w),
        "log_loss": reference.log_loss(y, p, sample_weight=w),
        "mean_probability": np.average(p, weights=w),
        "bad_rate": np.average(y, weights=w),
        "refusal_rate": np.average(p >= 0.15, weights=w),
    }
    false, true, thresholds = reference.roc_curve(y, p, sample_weight=w, drop_intermediate=False)
    wanted["ks"] = np.abs(true - false).max()
    wanted["gini"] = 2 * wanted["auc"] - 1
    kept = np.isfinite(thresholds)
    good, bad = np.sum(w[y == 0]), np.sum(w[y == 1])
    costs = (5 * (1 - true) * bad + false * good) / (good + bad)
    wanted["best_cost"] = costs[kept].min()
    (tn, fp), (fn, tp) = reference.confusion_matrix(y, p >= 0.15, sample_weight=w)
    wanted["cost"] = (5 * fn + fp) / (tn + fp + fn + tp)
    line = LogisticRegression(C=np.inf, tol=1e-10).fit(log_odds(p)[:, None], y, sample_weight=w)
    wanted["calibration_slope"] = line.coef_[0, 0]
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize("rounded", [False, True])
def test_scores_are_those_of_scikit_learn(rounded: bool) -> None:
    agrees(rows(rounded=rounded))


@pytest.mark.parametrize("rounded", [False, True])
def test_weighted_scores_are_those_of_scikit_learn(rounded: bool) -> None:
    agrees(rows(rounded=rounded, weight=np.random.default_rng(1).uniform(0.1, 4, 2000).astype(np.float32)))


def test_ks_is_that_of_scipy() -> None:
    measured = rows(rounded=True)
    p, bad = measured.array("probability"), measured.array("bad") > 0
    assert scored(measured)["ks"] == pytest.approx(stats.ks_2samp(p[bad], p[~bad]).statistic)


def test_calibration_error_compares_groups_of_equal_size() -> None:
    measured = rows()
    happened, said = calibration_curve(
        measured.array("bad"), measured.array("probability"), n_bins=10, strategy="quantile"
    )
    assert scored(measured)["calibration_error"] == pytest.approx(np.abs(happened - said).mean())


def test_lift_and_capture_look_at_the_riskiest_tenth() -> None:
    measured = rows()
    worst = np.argsort(-measured.array("probability"))[:200]
    bad = measured.array("bad")
    found = scored(measured)
    assert found["capture_10"] == pytest.approx(bad[worst].sum() / bad.sum())
    assert found["lift_10"] == pytest.approx(bad[worst].mean() / bad.mean())


def test_lift_of_a_model_that_knows_nothing_is_one() -> None:
    bad = np.arange(100) % 4 == 0
    said = Columns({"logit": np.zeros(100), "probability": np.full(100, 0.5)})
    found = scored(Columns(metrics.measure(said, Columns({"bad": bad}))))
    assert found["lift_10"] == pytest.approx(1)
    assert found["auc"] == 0.5
    assert found["calibration_error"] == pytest.approx(0.25)
    assert math.isnan(found["calibration_slope"])


def test_a_weight_of_two_is_a_row_twice() -> None:
    weight = np.random.default_rng(2).integers(1, 4, 2000)
    once = rows(weight=weight)
    often = Columns({name: once[name] for name in once if name != "weight"}).select(np.repeat(np.arange(2000), weight))
    assert scored(once) == pytest.approx(scored(often))


def test_truth_where_it_is_known() -> None:
    rng = np.random.default_rng(3)
    true = rng.normal(-2, 1, 5000)
    bad = (rng.random(5000) < sigmoid(true)).astype(np.float32)
    said = Columns({"logit": 2 * true + 1, "probability": sigmoid(2 * true + 1)})
    measured = Columns(metrics.measure(said, Columns({"bad": bad, "true_probability": sigmoid(true)})))
    found = scored(measured)
    assert found["true_slope"] == pytest.approx(0.5)
    assert found["bayes_auc"] == pytest.approx(found["auc"])
    assert found["true_calibration_error"] == pytest.approx(
        np.abs(
            np.subtract(*(np.sort(sigmoid(each)).reshape(10, -1).mean(axis=1) for each in (true, 2 * true + 1)))
        ).mean()
    )
    right = Columns({"logit": true, "probability": sigmoid(true)})
    exact = scored(Columns(metrics.measure(right, Columns({"bad": bad, "true_probability": sigmoid(true)}))))
    assert exact["true_calibration_error"] == 0
    assert exact["true_slope"] == pytest.approx(1)


def test_groups_are_scored_by_themselves() -> None:
    codes = np.random.default_rng(4).choice([0, 1, 2, 3], 2000)
    measured = rows(**{"group/sex": codes})
    found = scored(measured, LEVELS)
    for name, code in {"unseen": 0, "missing": 1, "female": 2, "male": 3}.items():
        alone = scored(measured.select(codes == code))
        for score in ("auc", "brier", "calibration_slope", "refusal_rate", "cost"):
            assert found[f"{score}/sex={name}"] == pytest.approx(alone[score])
    assert 0 < found["demographic_parity_ratio/sex"] <= 1


def test_a_group_that_does_not_occur_has_no_scores() -> None:
    found = scored(rows(**{"group/sex": np.full(2000, 2)}), LEVELS)
    assert "auc/sex=female" in found
    assert not any(name.endswith("male") and "female" not in name for name in found)
    assert math.isnan(found["demographic_parity_ratio/sex"])


@pytest.mark.parametrize("kept", [0, 1])
def test_rows_of_one_class_give_no_number_and_no_error(kept: int) -> None:
    measured = rows(**{"group/sex": np.full(2000, 3), "true_probability": np.full(2000, 0.1)})
    found = scored(measured.select(measured.array("bad") == kept), LEVELS)
    assert math.isnan(found["auc"])
    assert math.isnan(found["ks"])
    assert math.isnan(found["calibration_slope"])
    assert math.isfinite(found["log_loss"])
    assert math.isfinite(found["cost"])


def test_no_rows_give_no_scores() -> None:
    assert scored(rows().select([])) == {}


def test_measured_columns_are_small() -> None:
    measured = rows(**{"group/sex": np.full(2000, 3), "weight": np.ones(2000), "true_probability": np.full(2000, 0.1)})
    kinds = {name: measured.array(name).dtype.name for name in measured}
    assert kinds == {
        "logit": "float64",
        "probability": "float64",
        "bad": "int8",
        "group/sex": "int32",
        "weight": "float64",
        "true_probability": "float64",
    }


some_rows = arrays.arrays(np.float64, 60, elements=st.integers(-20, 20).map(lambda each: each / 4))


@given(logit=some_rows, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_laws(logit: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bad = np.arange(60) % 3 == 0

    def of(logit: np.ndarray, bad: np.ndarray) -> dict[str, float]:
        return scored(
            Columns(metrics.measure(Columns({"logit": logit, "probability": sigmoid(logit)}), Columns({"bad": bad})))
        )

    found = of(logit, bad)
    assert found["gini"] == pytest.approx(2 * found["auc"] - 1)
    assert 0 <= found["auc"] <= 1
    assert found["best_cost"] <= found["cost"] + 1e-12
    assert of(logit**3 / 4 - 1, bad)["auc"] == pytest.approx(found["auc"])
    assert of(-logit, bad)["auc"] == pytest.approx(1 - found["auc"])
    shuffled = rng.permutation(60)
    assert of(logit[shuffled], bad[shuffled]) == pytest.approx(found, nan_ok=True)
