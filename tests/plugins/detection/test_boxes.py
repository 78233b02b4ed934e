"""Overlap, suppression and letterboxes: laws, and brute force beside them."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plugins.detection.boxes_made import random_boxes

from modelwright_detection import boxes as module
from modelwright_detection.boxes import Letterbox, areas, best_pairs, clipped, detections, iou, nms

quick = settings(deadline=None, max_examples=60)
seeds = st.integers(0, 2**32 - 1)


# Letterbox ------------------------------------------------------------------------------------------------------------


@quick
@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([32, 160, 640]), seeds)
def test_boxes_come_back_from_the_letterbox(height, width, size, seed):
    own = random_boxes(np.random.default_rng(seed), 5, side=1.0) * np.array([width, height] * 2, np.float32)
    box = Letterbox(height, width, size)
    back = box.to_picture(box.to_input(own))
    # What float32 can tell apart in the square, in pixels of the picture.
    step = 1e-6 * size * max(height / box.inner[0], width / box.inner[1])
    np.testing.assert_allclose(back, clipped(own, height=height, width=width), atol=step, rtol=1e-6)


@quick
@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([32, 160, 640]))
def test_the_picture_fills_the_square_as_far_as_it_goes_and_is_centred(height, width, size):
    box = Letterbox(height, width, size)
    inner_height, inner_width = box.inner
    assert max(box.inner) == size
    assert min(box.inner) >= 1
    assert box.left == (size - inner_width) // 2
    assert box.top == (size - inner_height) // 2
    corners = box.to_input(np.array([[0, 0, width, height]]))
    np.testing.assert_allclose(corners, [[box.left, box.top, box.left + inner_width, box.top + inner_height]])


def test_a_square_picture_of_the_right_size_stays_as_it_is():
    box = Letterbox(160, 160, 160)
    assert (box.scale, box.left, box.top, box.inner) == (1.0, 0, 0, (160, 160))


def test_boxes_of_the_padding_are_cut_off():
    np.testing.assert_array_equal(Letterbox(50, 100, 100).to_picture(np.array([[-5, 0, 120, 30]])), [[0, 0, 100, 5]])


# Overlap --------------------------------------------------------------------------------------------------------------


@quick
@given(seeds)
def test_overlap_is_symmetric_one_with_itself_and_between_zero_and_one(seed):
    rng = np.random.default_rng(seed)
    first, second = random_boxes(rng, 7), random_boxes(rng, 4)
    overlap = iou(first, second)
    assert overlap.shape == (7, 4)
    assert overlap.min() >= 0
    assert overlap.max() <= 1
    np.testing.assert_allclose(overlap, iou(second, first).T)
    np.testing.assert_allclose(np.diagonal(iou(first, first)), 1, rtol=1e-6)


def test_overlap_of_known_boxes():
    one, two = np.array([[0.0, 0, 10, 10]]), np.array([[5.0, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 9]])
    np.testing.assert_allclose(iou(one, two), [[1 / 3, 0, 0]])
    np.testing.assert_allclose(iou(one, two, crowd=np.array([True, True, False])), [[0.5, 0, 0]])


def test_boxes_without_area_overlap_nothing_not_even_themselves():
    flat = np.array([[3.0, 3, 3, 9], [9, 9, 2, 2]])
    np.testing.assert_array_equal(areas(flat), [0, 0])
    np.testing.assert_array_equal(iou(flat, flat), np.zeros((2, 2)))


# Suppression ----------------------------------------------------------------------------------------------------------


def brute_force(boxes, scores, labels, overlap, most):
    """As it is defined, one box after the other."""
    kept = []
    for place in sorted(range(len(boxes)), key=lambda place: (-scores[place], place)):
        rivals = [other for other in kept if labels[other] == labels[place]]
        if all(iou(boxes[[other]], boxes[[place]])[0, 0] <= overlap for other in rivals):
            kept.append(place)
    return kept[:most]


@quick
@given(seeds, st.integers(0, 60), st.integers(1, 3), st.sampled_from([0.3, 0.5, 0.7, 1.0]), st.sampled_from([3, 300]))
def test_suppression_is_that_of_brute_force(seed, count, classes, overlap, most):
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, count, side=40)
    scores, labels = np.round(rng.random(count), 1), rng.integers(0, classes, count)
    expected = brute_force(boxes, scores, labels, overlap, most)
    assert nms(boxes, scores, labels, overlap=overlap, most=most).tolist() == expected


@settings(deadline=None, max_examples=20)
@given(seeds, st.integers(1, 9))
def test_the_size_of_a_block_changes_nothing(seed, block):
    rng = np.random.default_rng(seed)
    boxes, scores, labels = random_boxes(rng, 50, side=40), rng.random(50), rng.integers(0, 2, 50)
    whole = nms(boxes, scores, labels, overlap=0.4, most=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        np.testing.assert_array_equal(nms(boxes, scores, labels, overlap=0.4, most=20), whole)


@quick
@given(seeds, st.integers(0, 30), st.integers(1, 4), st.integers(1, 150), st.sampled_from([0.0, 0.25, 0.9]))
def test_the_best_pairs_are_those_of_a_full_sort(seed, count, classes, most, least):
    scores = np.round(np.random.default_rng(seed).random((count, classes)), 1).astype(np.float32)
    rows, labels = best_pairs(scores, least=least, most=most)
    places = [place for place in range(scores.size) if scores.flat[place] >= np.float32(least)]
    expected = sorted(places, key=lambda place: (-scores.flat[place], place))[:most]
    assert (rows * classes + labels).tolist() == expected


def test_scores_that_are_no_numbers_are_no_detections():
    rows, _ = best_pairs(np.array([[np.nan, 0.4], [0.9, np.nan]]), least=0.001, most=10)
    assert rows.tolist() == [1, 0]


def test_without_suppression_the_best_are_kept_though_they_overlap():
    boxes = np.array([[0.0, 0, 10, 10]] * 3)
    scores = np.array([[0.2, 0.0], [0.9, 0.3], [0.5, 0.0]])
    found, sure, labels = detections(boxes, scores, suppress=False, overlap=0.5, least=0.1, most=3)
    assert (len(found), sure.tolist(), labels.tolist()) == (3, [0.9, 0.5, 0.3], [0, 0, 1])
    _, sure, labels = detections(boxes, scores, suppress=True, overlap=0.5, least=0.1, most=3)
    assert (sure.tolist(), labels.tolist()) == ([0.9, 0.3], [0, 1])


def test_an_untrained_network_of_eighty_classes_is_quick():
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 8400, side=640, largest=60)
    scores = (rng.random((8400, 80)) * 0.01).astype(np.float32)
    start = time.perf_counter()
    found, sure, _ = detections(boxes, scores, suppress=True, overlap=0.7, least=0.001, most=300)
    assert len(found) == 300
    assert (np.diff(sure) <= 0).all()
    assert time.perf_counter() - start < 2.0  # about 0.02 s on a free core
