"""Scores: equal to faster-coco-eval's, the same in any order of pictures, best for the truth, cheap to resample."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("faster_coco_eval")
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plugins.detection.boxes_made import random_predictions, random_truths

from modelwright.codec import Columns
from modelwright.evaluation.bootstrap import bootstrap, paired
from modelwright_detection import metrics, reference
from modelwright_detection.boxes import Letterbox
from modelwright_detection.counting import CONFIDENCES, RECALLS, averages, counts, precision_by_recall
from modelwright_detection.matching import THRESHOLDS, match

seeds = st.integers(0, 2**32 - 1)


def names(classes):
    return [f"class {label}" for label in range(classes)]


def case(seed, *, pictures=8, classes=4, most=6, ties=False, crowds=0.15):
    rng = np.random.default_rng(seed)
    truths = random_truths(rng, pictures, classes, most=most, crowds=crowds)
    return random_predictions(rng, truths, classes, ties=ties), truths


def near(found, expected, *, tolerance=1e-6):
    assert set(expected) <= set(found)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=tolerance, nan_ok=True), name


# Equal to the reference -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(1, 8), st.integers(1, 5), st.sampled_from([0, 3, 25]))
def test_averages_are_those_of_faster_coco_eval(seed, pictures, classes, most):
    predictions, truths = case(seed, pictures=pictures, classes=classes, most=most)
    measured = metrics.measure(predictions, truths)
    expected = reference.scores(predictions, truths, classes=names(classes), most=(1, 10, 100))
    near(metrics.counted(measured, classes=names(classes)), expected)


@settings(deadline=None, max_examples=12)
@given(seeds, st.integers(2, 7))
def test_averages_of_repeated_pictures_are_those_of_faster_coco_eval(seed, pictures):
    predictions, truths = case(seed, pictures=pictures)
    rows = np.sort(np.random.default_rng(seed).integers(0, pictures, pictures + 3))
    again = metrics.measure(predictions, truths).select(rows)
    repeated = [Columns(dict(each.select(rows))) for each in (predictions, truths)]
    expected = reference.scores(*repeated, classes=names(4), most=(1, 10, 100))
    near(metrics.scores(again, classes=names(4)), expected)


@settings(deadline=None, max_examples=8)
@given(seeds)
def test_equal_scores_are_counted_as_faster_coco_eval_does(seed):
    predictions, truths = case(seed, ties=True)
    expected = reference.scores(predictions, truths, classes=names(4), most=(1, 10, 100))
    near(metrics.counted(metrics.measure(predictions, truths), classes=names(4)), expected)


def test_crowded_pictures_where_more_is_said_than_counts():
    predictions, truths = case(5, pictures=3, classes=2, most=250)
    assert max(len(each) for each in predictions["labels"]) > 150
    expected = reference.scores(predictions, truths, classes=names(2), most=(1, 10, 100))
    near(metrics.counted(metrics.measure(predictions, truths), classes=names(2)), expected)


@pytest.mark.once  # torchmetrics imports all it can find: transformers among it
def test_averages_are_those_of_torchmetrics():
    torch = pytest.importorskip("torch")
    detection = pytest.importorskip("torchmetrics.detection")
    predictions, truths = case(7, pictures=20)
    # torchmetrics' own thresholds are float32: above some values of recall by a hair.
    metric = detection.MeanAveragePrecision(
        iou_thresholds=THRESHOLDS.tolist(),
        rec_thresholds=RECALLS.tolist(),
        class_metrics=True,
        backend="faster_coco_eval",
    )
    said = [{name: torch.from_numpy(values[row]) for name, values in predictions.items()} for row in range(20)]
    true = [{name: torch.from_numpy(values[row]) for name, values in truths.items()} for row in range(20)]
    metric.update(said, [{**each, "iscrowd": each["crowd"].long()} for each in true])
    expected = metric.compute()
    found = metrics.scores(metrics.measure(predictions, truths), classes=names(4))
    for name in ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_1", "mar_10", "mar_100"):
        assert found[name] == pytest.approx(float(expected[name]), abs=1e-6), name
    for label, value in zip(expected["classes"].tolist(), expected["map_per_class"].tolist(), strict=True):
        wanted = value if value >= 0 else np.nan
        assert found[f"map/class {label}"] == pytest.approx(wanted, abs=1e-6, nan_ok=True)


def test_a_whole_split_is_scored_by_the_reference_and_a_selection_of_it_is_not():
    predictions, truths = case(1)
    measured = metrics.measure(predictions, truths)
    expected = reference.scores(predictions, truths, classes=names(4), most=(1, 10, 100))
    found = metrics.scores(measured, classes=names(4))
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=0, nan_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "scores", None)
        near(metrics.scores(measured.select(np.arange(8)), classes=names(4)), expected)


# Laws -----------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(seeds, st.booleans())
def test_the_order_of_pictures_changes_nothing(seed, ties):
    predictions, truths = case(seed, ties=ties)
    measured = metrics.measure(predictions, truths)
    order = np.random.default_rng(seed).permutation(8)
    near(metrics.scores(measured.select(order), classes=names(4)), metrics.scores(measured, classes=names(4)))
    shuffled = metrics.measure(predictions.select(order), truths.select(order))
    near(metrics.scores(shuffled, classes=names(4)), metrics.scores(measured, classes=names(4)))
    near(metrics.counted(shuffled, classes=names(4)), metrics.counted(measured, classes=names(4)))


@settings(deadline=None, max_examples=15)
@given(seeds)
def test_the_truth_scores_best(seed):
    truths = random_truths(np.random.default_rng(seed), 6, 3)
    found = metrics.scores(metrics.measure(metrics.perfect(truths), truths), classes=names(3))
    single = np.concatenate([each[~crowd] for each, crowd in zip(truths["labels"], truths["crowd"], strict=True)])
    if len(single) == 0:
        assert np.isnan(found["map"])
        return
    for name in ("map", "map_50", "map_75", "mar_100", "precision", "recall", "f1"):
        assert found[name] == pytest.approx(1), name
    for label in range(3):
        assert found[f"map/class {label}"] == pytest.approx(1 if label in single else np.nan, nan_ok=True)


@settings(deadline=None, max_examples=15)
@given(seeds)
def test_pictures_without_objects_and_detections_change_nothing(seed):
    predictions, truths = case(seed, pictures=5)
    none = {"boxes": [np.zeros((0, 4), np.float32)], "labels": [np.zeros(0, np.int64)]}
    more = (
        Columns.join([predictions, Columns({**none, "scores": [np.zeros(0, np.float32)]})]).with_ids(np.arange(6)),
        Columns.join([truths, Columns({**none, "crowd": [np.zeros(0, bool)]})]).with_ids(np.arange(6)),
    )
    near(
        metrics.scores(metrics.measure(*more), classes=names(4)),
        metrics.scores(metrics.measure(predictions, truths), classes=names(4)),
    )


@settings(deadline=None, max_examples=15)
@given(seeds)
def test_a_picture_counted_twice_is_as_two_pictures(seed):
    predictions, truths = case(seed, pictures=5)
    rows = np.array([0, 1, 1, 2, 3, 3, 3])
    copies = [Columns(dict(each.select(rows))) for each in (predictions, truths)]
    near(
        metrics.scores(metrics.measure(predictions, truths).select(rows), classes=names(4)),
        metrics.counted(metrics.measure(*copies), classes=names(4)),
    )


def test_scoring_changes_nothing_and_says_the_same_again():
    measured = metrics.measure(*case(3))
    kept = {name: values.copy() for name, values in measured.items()}
    first, again = (metrics.scores(measured, classes=names(4)) for _ in range(2))
    near(first, again, tolerance=0)
    for name, values in kept.items():
        np.testing.assert_array_equal(measured[name], values)


# Small cases by hand --------------------------------------------------------------------------------------------------


def columns(boxes, labels, *, scores=None, crowd=None):
    """One picture."""
    table = {"boxes": [np.array(boxes, np.float32).reshape(-1, 4)], "labels": [np.array(labels, np.int64)]}
    if scores is not None:
        return Columns({**table, "scores": [np.array(scores, np.float32)]})
    return Columns({**table, "crowd": [np.array(crowd or [False] * len(labels), bool)]})


def score(predictions, truths, **options):
    return metrics.scores(metrics.measure(predictions, truths), classes=["cat", "dog"], **options)


BOX, OTHER = [10, 10, 50, 50], [100, 100, 140, 140]


def test_what_lies_on_a_crowd_counts_neither_way():
    truths = columns([BOX, [80, 80, 180, 180]], [0, 0], crowd=[False, True])
    said = columns([BOX, OTHER, [120, 120, 170, 170]], [0, 0, 0], scores=[0.5, 0.9, 0.8])
    found = score(said, truths)
    assert (found["map"], found["precision"], found["recall"]) == pytest.approx((1, 1, 1))


def test_a_second_box_on_an_object_is_a_false_alarm():
    found = score(columns([BOX, BOX], [0, 0], scores=[0.9, 0.8]), columns([BOX], [0]), confidence=0.5)
    assert (found["precision"], found["recall"]) == pytest.approx((0.5, 1))
    assert found["map"] == pytest.approx(1)  # it comes after all that can be found


def test_absent_classes_are_no_numbers_and_do_not_enter_the_mean():
    found = score(columns([BOX, OTHER], [0, 1], scores=[0.9, 0.8]), columns([BOX], [0]))
    assert found["map"] == pytest.approx(1)
    assert np.isnan(found["map/dog"])
    assert np.isnan(found["precision/dog"])


def test_a_split_without_objects_has_no_scores():
    found = score(columns([BOX], [0], scores=[0.9]), columns([], []))
    assert all(np.isnan(value) for value in found.values())


def test_nothing_said_is_nothing_found():
    found = score(columns([], [], scores=[]), columns([BOX], [0]))
    assert (found["map"], found["recall"], found["precision"], found["f1"]) == (0, 0, 0, 0)


def test_sizes_are_told_apart():
    truths = columns([[0, 0, 20, 20], [100, 100, 160, 160]], [0, 0])
    found = score(columns([[0, 0, 20, 20]], [0], scores=[0.9]), truths)
    assert (found["map_small"], found["map_medium"]) == pytest.approx((1, 0))
    assert np.isnan(found["map_large"])


def test_the_best_confidence_parts_right_from_wrong():
    truths = columns([BOX, OTHER], [0, 0])
    said = columns([BOX, OTHER, [200, 0, 240, 40]], [0, 0, 0], scores=[0.9, 0.6, 0.4])
    found = score(said, truths)
    assert 0.4 < found["confidence"] < 0.6
    assert found["f1"] == pytest.approx(1)
    low = score(said, truths, confidence=0.3)
    assert (low["precision"], low["recall"]) == pytest.approx((2 / 3, 1))
    high = score(said, truths, confidence=0.7)
    assert (high["precision"], high["recall"], high["recall/cat"]) == pytest.approx((1, 0.5, 0.5))
    assert high["confidence"] == found["confidence"]


def test_the_confidence_to_settle_is_the_best_one_and_a_default_without_objects():
    measured = metrics.measure(columns([BOX, OTHER], [0, 0], scores=[0.8, 0.4]), columns([BOX], [0]))
    assert 0.4 < metrics.best_confidence(measured, classes=["cat"]) < 0.8
    nothing = metrics.measure(columns([BOX], [0], scores=[0.8]), columns([], []))
    assert metrics.best_confidence(nothing, classes=["cat"]) == 0.25


def test_a_detection_counts_from_its_own_confidence_on():
    found = score(columns([BOX], [0], scores=[0.5]), columns([BOX], [0]), confidence=0.5)
    assert found["recall"] == 1


def test_more_objects_than_coco_counts_can_be_asked_for():
    boxes = [[10 * n, 0, 10 * n + 8, 8] for n in range(120)]
    truths = columns(boxes, [0] * 120)
    said = metrics.perfect(truths)
    assert metrics.scores(metrics.measure(said, truths), classes=["cat"])["map"] < 0.9
    found = metrics.scores(metrics.measure(said, truths, most=120), classes=["cat"])
    assert found["mar_120"] == pytest.approx(1)
    own = metrics.counted(metrics.measure(said, truths, most=120), classes=["cat"])
    assert (own["map"], own["map_small"], own["mar_small"]) == pytest.approx((1, 1, 1))
    near(found, own)


def test_predictions_of_other_pictures_are_refused():
    predictions, truths = case(0)
    with pytest.raises(ValueError, match="different pictures"):
        metrics.measure(predictions.with_ids(np.arange(1, 9)), truths)


# What curves are drawn from -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=10)
@given(seeds)
def test_the_area_below_the_curve_is_the_average_precision(seed):
    measured = metrics.measure(*case(seed))
    curve = precision_by_recall(measured.matches, classes=4)
    area = averages(measured.matches, measured.weights, classes=4, most=(100,)).precision[:, 0, 0]
    np.testing.assert_allclose(curve.mean(axis=1), area, atol=1e-9)
    assert curve.shape == (4, len(RECALLS))


def test_counts_fall_with_confidence_and_are_those_of_a_loop():
    predictions, truths = case(11, crowds=0)
    measured = metrics.measure(predictions, truths)
    found = counts(measured.matches, measured.weights, classes=4)
    assert (np.diff(found.true) <= 0).all()
    assert (np.diff(found.said) <= 0).all()
    every = np.concatenate(predictions["scores"]), np.concatenate(predictions["labels"])
    for place in (0, 300, 750, 1000):
        for label in range(4):
            assert found.said[label, place] == ((every[0] >= CONFIDENCES[place]) & (every[1] == label)).sum()


def test_picture_columns_count_objects_and_hits():
    measured = metrics.measure(columns([BOX, OTHER], [0, 1], scores=[0.9, 0.8]), columns([BOX], [0]))
    assert {name: values.tolist() for name, values in measured.items()} == {
        "picture": [0],
        "objects": [1],
        "said": [2],
        "found": [1],
    }


# Columns of the task --------------------------------------------------------------------------------------------------


def test_targets_come_back_in_pixels_of_the_picture():
    own = np.array([[10, 20, 60, 80], [0, 0, 100, 50]], np.float32)
    boxes = np.zeros((1, 3, 4), np.float32)
    boxes[0, :2] = Letterbox(100, 200, 64).to_input(own)
    found = metrics.truth_columns(
        boxes, np.array([[1, 0, -1]]), np.array([[False, True, False]]), np.array([[100, 200]]), side=64
    )
    np.testing.assert_allclose(found["boxes"][0], own, atol=1e-3)
    assert found["labels"][0].tolist() == [1, 0]
    assert found["crowd"][0].tolist() == [False, True]


# Cost -----------------------------------------------------------------------------------------------------------------


def test_a_thousand_resamples_take_seconds():
    rng = np.random.default_rng(0)
    truths = random_truths(rng, 72, 3, most=30)
    predictions = random_predictions(rng, truths, 3)
    measured = metrics.measure(predictions, truths)
    values = metrics.scores(measured, classes=names(3))
    start = time.perf_counter()
    found = bootstrap(lambda rows: metrics.scores(rows, classes=names(3)), measured, values=values, resamples=100)
    assert time.perf_counter() - start < 2.0  # about 0.3 s on a free core
    assert found["map"].low < found["map"].value < found["map"].high
    better = metrics.measure(metrics.perfect(truths), truths)
    change = paired(lambda rows: metrics.scores(rows, classes=names(3)), measured, better, resamples=20)
    assert change["map"].low > 0


def test_matching_many_pictures_is_quick():
    rng = np.random.default_rng(1)
    truths = random_truths(rng, 300, 5, most=12)
    predictions = random_predictions(rng, truths, 5)
    said = [tuple(predictions[name][row] for name in ("boxes", "scores", "labels")) for row in range(300)]
    true = [tuple(truths[name][row] for name in ("boxes", "labels", "crowd")) for row in range(300)]
    start = time.perf_counter()
    match(said, true)
    assert time.perf_counter() - start < 3.0
