"""What was mistaken for what, missed and made up."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plugins.detection.boxes_made import random_predictions, random_truths

from modelwright.codec import Columns
from modelwright_detection import metrics
from modelwright_detection.confusion import IGNORED, NOBODY, matrix, outcome
from modelwright_detection.counting import CONFIDENCES, counts

BOX, OTHER, FAR = [10, 10, 50, 50], [100, 100, 140, 140], [200, 0, 220, 20]


def said(boxes, labels, scores):
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int64)


def true(boxes, labels, crowd=None):
    flags = np.array([False] * len(labels) if crowd is None else crowd, bool)
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), flags


def test_found_mistaken_missed_and_made_up():
    found = outcome(
        said([BOX, OTHER, FAR], [0, 0, 1], [0.9, 0.8, 0.7]),
        true([BOX, OTHER, [0, 100, 40, 140]], [0, 1, 1]),
        confidence=0.5,
    )
    assert found.right.tolist() == [True, False, False]
    assert found.mistaken.tolist() == [False, True, False]
    assert found.false.tolist() == [False, False, True]
    assert found.missed.tolist() == [False, False, True]
    assert found.errors == 3
    np.testing.assert_array_equal(matrix([found], classes=2), [[1, 0, 0], [1, 0, 1], [0, 1, 0]])


def test_the_right_class_comes_first_though_another_overlaps_more():
    found = outcome(said([BOX, [12, 10, 50, 50]], [1, 0], [0.9, 0.6]), true([BOX], [0]), confidence=0)
    assert found.object_of.tolist() == [NOBODY, 0]


def test_what_is_unsure_does_not_count():
    found = outcome(said([BOX, FAR], [0, 0], [0.4, 0.1]), true([BOX], [0]), confidence=0.5)
    assert (found.missed.tolist(), len(found.object_of)) == ([True], 0)


def test_crowds_are_neither_missed_nor_false_alarms():
    crowd = true([[0, 0, 200, 200]], [0], [True])
    found = outcome(said([BOX, OTHER, OTHER], [0, 0, 1], [0.9, 0.8, 0.7]), crowd, confidence=0)
    assert found.object_of.tolist() == [IGNORED, IGNORED, NOBODY]
    assert not found.missed.any()


def test_an_empty_picture_is_right_about_nothing():
    found = outcome(said([], [], []), true([], []), confidence=0.5)
    assert found.errors == 0
    assert matrix([found], classes=2).sum() == 0


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 300, 700]))
def test_the_diagonal_is_what_precision_and_recall_count(seed, place):
    rng = np.random.default_rng(seed)
    truths = random_truths(rng, 5, 3, crowds=0)
    predictions = random_predictions(rng, truths, 3)
    table = matrix(outcomes(predictions, truths, confidence=CONFIDENCES[place]), classes=3)
    measured = metrics.measure(predictions, truths)
    expected = counts(measured.matches, measured.weights, classes=3)
    np.testing.assert_array_equal(np.diagonal(table)[:3], expected.true[:, place])
    np.testing.assert_array_equal(table.sum(axis=1)[:3], expected.objects)
    np.testing.assert_array_equal(table.sum(axis=0)[:3], expected.said[:, place])


def outcomes(predictions: Columns, truths: Columns, *, confidence):
    spoken = zip(*(predictions[name] for name in ("boxes", "scores", "labels")), strict=True)
    real = zip(*(truths[name] for name in ("boxes", "labels", "crowd")), strict=True)
    return [outcome(each, other, confidence=confidence) for each, other in zip(spoken, real, strict=True)]
