"""Scores against scikit-learn and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from modelwright.codec import Columns
from modelwright_image.metrics import calibration_error, confusion, measure, reliability, scores


def random_case(seed, count, classes, *, spread=3.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes)) + spread * rng.random() * np.eye(classes)[labels]
    probabilities = np.exp(logits)
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 60), classes=st.integers(2, 12))
def test_scores_are_those_of_scikit_learn(seed, count, classes):
    labels, probabilities = random_case(seed, count, classes)
    names = [f"class {label}" for label in range(classes)]
    found = scores(Columns(measure(probabilities, labels)), classes=names)
    predicted = probabilities.argmax(axis=1)

    def near(name, value):
        assert found[name] == pytest.approx(value, abs=1e-12), name

    near("accuracy", sklearn_metrics.accuracy_score(labels, predicted))
    near("log_loss", sklearn_metrics.log_loss(labels, probabilities, labels=range(classes)))
    macro = sklearn_metrics.precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    each = sklearn_metrics.precision_recall_fscore_support(labels, predicted, labels=range(classes), zero_division=0)
    for name, whole, parts in zip(("precision", "recall", "f1"), macro[:3], each[:3], strict=True):
        near(name, whole)
        for label in range(classes):
            near(f"{name}/{names[label]}", parts[label])
    assert ("top5" in found) == (classes > 5)
    if classes > 5:
        near("top5", sklearn_metrics.top_k_accuracy_score(labels, probabilities, k=5, labels=range(classes)))
    expected = sklearn_metrics.confusion_matrix(labels, predicted, labels=range(classes))
    np.testing.assert_array_equal(confusion(labels, predicted, classes=classes), expected)


def test_calibration_error_is_that_of_torchmetrics():
    torchmetrics = pytest.importorskip("torchmetrics")
    import torch

    labels, probabilities = random_case(3, 2000, 10)
    expected = torchmetrics.functional.calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), task="multiclass", num_classes=10, n_bins=15
    )
    measured = measure(probabilities, labels)
    found = calibration_error(measured["confidence"], measured["predicted"] == labels)
    assert found == pytest.approx(float(expected), abs=1e-6)


def test_calibration_error_of_a_known_case():
    # Ten answers with confidence 0.9, seven right: 0.2 apart.
    assert calibration_error(np.full(10, 0.9), np.arange(10) < 7) == pytest.approx(0.2)


def test_a_confidence_on_an_edge_belongs_to_the_lower_bin():
    _, _, _, counts = reliability(np.array([0.2, 0.2000001, 1.0]), np.ones(3, dtype=bool))
    assert counts[[2, 3, 14]].tolist() == [1, 1, 1]


def test_ties_go_to_the_lower_class_in_prediction_and_rank():
    measured = measure(np.full((3, 4), 0.25), np.array([0, 1, 3]))
    assert measured["predicted"].tolist() == [0, 0, 0]
    assert measured["rank"].tolist() == [0, 1, 3]


def test_certain_and_wrong_stays_finite():
    measured = measure(np.array([[1.0, 0.0]], dtype=np.float32), np.array([1]))
    assert measured["log_loss"][0] == pytest.approx(-np.log(np.finfo(np.float32).eps))


def test_a_class_that_a_resample_lacks_does_not_count_in_the_mean():
    perfect = np.eye(3)[[0, 0, 1]]
    found = scores(Columns(measure(perfect, np.array([0, 0, 1]))), classes=["a", "b", "c"])
    assert found["f1"] == 1
    assert found["f1/c"] == 0


def test_no_rows_give_zeros():
    found = scores(Columns(measure(np.zeros((0, 3)), np.zeros(0, dtype=np.int64))), classes=["a", "b", "c"])
    assert set(found.values()) == {0.0}
