"""Tiles cover a picture, and what is found in them becomes one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright_detection.tiles import Found, Region, join, regions


def found(*boxes, labels=None, scores=None, cut=None):
    count = len(boxes)
    return Found(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores if scores is not None else [0.9] * count, np.float32),
        np.array(labels if labels is not None else [0] * count, np.int64),
        np.array(cut if cut is not None else [False] * count, bool),
    )


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(32, 300), st.floats(0, 0.9))
def test_tiles_cover_the_picture_and_overlap_as_asked(height, width, tile, overlap):
    whole, *tiles = regions(height, width, tile=tile, overlap=overlap, size=32)
    assert whole == Region(0, 0, width, height)
    assert bool(tiles) == (max(height, width) > tile)
    if not tiles:
        return
    covered = np.zeros((height, width), int)
    for each in tiles:
        assert each.left >= 0
        assert each.top >= 0
        assert each.left + each.width <= width
        assert each.top + each.height <= height
        assert (each.width, each.height) == (min(tile, width), min(tile, height))
        covered[each.top : each.top + each.height, each.left : each.left + each.width] += 1
    assert covered.min() >= 1
    lefts = sorted({each.left for each in tiles})
    assert max(np.diff(lefts), default=0) <= max(1, tile * (1 - overlap)) + 1


@pytest.mark.parametrize(("side", "tile", "size"), [(640, 0, 160), (300, 320, 160), (300, 100, 320)])
def test_what_is_small_stays_whole(side, tile, size):
    assert regions(side, side, tile=tile, overlap=0.2, size=size) == [Region(0, 0, side, side)]


def test_a_box_is_cut_where_the_region_ends_and_the_picture_does_not():
    boxes = np.array([[0, 40, 20, 60], [40, 0, 60, 20], [80, 40, 100, 60], [40, 80, 60, 100], [40, 40, 60, 60]], float)
    corner, middle = Region(0, 0, 100, 100), Region(50, 50, 100, 100)
    assert corner.cuts(boxes, height=200, width=200, margin=1).tolist() == [False, False, True, True, False]
    assert middle.cuts(boxes, height=200, width=200, margin=1).tolist() == [True, True, True, True, False]
    assert not Region(0, 0, 100, 100).cuts(boxes, height=100, width=100, margin=1).any()


def test_an_object_seen_in_two_tiles_is_one():
    joined = join([found([10, 10, 50, 50]), found([12, 10, 52, 50], scores=[0.8])], most=10)
    np.testing.assert_array_equal(joined.boxes, [[10, 10, 50, 50]])


def test_two_classes_in_one_place_are_two():
    assert len(join([found([10, 10, 50, 50]), found([10, 10, 50, 50], labels=[1])], most=10).labels) == 2


def test_a_half_that_an_edge_cut_gives_way_to_the_whole_though_it_is_surer():
    half, whole = found([10, 10, 30, 50], scores=[0.95], cut=[True]), found([10, 10, 70, 50], scores=[0.5])
    np.testing.assert_array_equal(join([half, whole], most=10).boxes, whole.boxes)


def test_a_half_whose_whole_nobody_saw_is_kept():
    assert len(join([found([10, 10, 30, 50], cut=[True]), found()], most=10).labels) == 1


def test_neighbours_that_one_tile_tells_apart_stay_two():
    assert len(join([found([10, 10, 50, 50], [14, 10, 54, 50]), found()], most=10).labels) == 2


def test_the_best_come_first_and_no_more_than_asked():
    parts = [found([0, 0, 9, 9], [20, 0, 29, 9], scores=[0.2, 0.7]), found([40, 0, 49, 9], scores=[0.4])]
    np.testing.assert_allclose(join(parts, most=10).scores, [0.7, 0.4, 0.2])
    np.testing.assert_allclose(join(parts, most=2).scores, [0.7, 0.4])
