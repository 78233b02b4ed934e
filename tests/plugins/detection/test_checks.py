"""Boxes that can be used and those that cannot; the table; equal pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright_detection.checks import Oddities, Problems, Twins, counts_of, split_notes, table_row, usable
from modelwright_detection.entries import Marks
from modelwright_detection.labels import Objects, Scene

sides = st.floats(allow_nan=True, allow_infinity=True, width=64)
corners = st.one_of(sides, st.floats(-60, 60), st.integers(-10, 50).map(float))


def checked(boxes, labels=None, *, size=(40, 30), relative=False, crowd=None):
    """What can be used of boxes; the reasons for the others; and what was odd."""
    labels = [0] * len(boxes) if labels is None else labels
    marks = Marks.of(boxes, labels, source="x.txt line", crowd=crowd, relative=relative)
    bad, odd = [], Oddities()
    number = np.arange(max([*labels, 0]) + 1)
    return usable(marks, size=size, number=number, bad=bad, odd=odd), bad, odd


@given(
    st.lists(st.tuples(corners, corners, corners, corners, st.integers(0, 2)), max_size=8),
    st.integers(1, 50),
    st.integers(1, 50),
    st.booleans(),
)
def test_what_can_be_used_lies_in_the_picture_and_has_an_area(rows, width, height, relative):
    objects, bad, odd = checked(
        [row[:4] for row in rows], [row[4] for row in rows], size=(width, height), relative=relative
    )
    assert len(objects) + len(bad) + odd.twice == len(rows)
    assert np.isfinite(objects.boxes).all()
    assert (objects.boxes[:, :2] >= 0).all()
    assert (objects.boxes[:, 2:] <= [width, height]).all()
    assert (objects.boxes[:, 2:] > objects.boxes[:, :2]).all()
    assert len({(*box, label) for box, label in zip(objects.boxes.tolist(), objects.labels, strict=True)}) <= len(
        objects
    )


def test_good_boxes_pass_unchanged_and_in_order():
    boxes = [[5, 5, 20, 20], [0, 0, 40, 30], [5, 5, 20, 20.5]]
    objects, bad, odd = checked(boxes, [1, 0, 1], crowd=[False, True, False])
    assert objects.boxes.tolist() == boxes
    assert (objects.labels.tolist(), objects.crowd.tolist(), bad) == ([1, 0, 1], [False, True, False], [])
    assert (odd.clipped, odd.twice) == (0, 0)


def test_shares_become_pixels():
    assert checked([[0.25, 0.5, 0.5, 1.0]], relative=True)[0].boxes.tolist() == [[10, 15, 20, 30]]


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([5, 5, 5, 20], "no area (0 x 15 pixels)"),
        ([20, 5, 5, 20], "no area (-15 x 15 pixels)"),
        ([5, 5, 5.001, 20], "no area (0.001 x 15 pixels)"),
        ([np.nan, 5, 9, 20], "not of finite numbers"),
        ([5, 5, np.inf, 20], "not of finite numbers"),
        ([50, 5, 60, 20], "mostly outside of the picture (50 5 60 20 in 40 x 30 pixels)"),
        ([-20, 5, 10, 20], "mostly outside of the picture (-20 5 10 20 in"),
        ([100, 100, 9000, 9000], "mostly outside of the picture"),
    ],
)
def test_boxes_that_cannot_be_used(box, reason):
    objects, bad, _ = checked([[1, 1, 5, 5], box])
    assert len(objects) == 1
    assert bad[0][0] == "x.txt line 2"
    assert reason in bad[0][1]


def test_boxes_over_the_border_are_clipped_and_told_beyond_a_pixel():
    objects, bad, odd = checked([[-0.5, 0, 10, 10], [30, 20, 44, 30], [0, 0, 10, 31.5]])
    assert objects.boxes.tolist() == [[0, 0, 10, 10], [30, 20, 40, 30], [0, 0, 10, 30]]
    assert (bad, odd.clipped, odd.farthest) == ([], 2, 4.0)


def test_objects_listed_twice_are_kept_once():
    box = [1, 1, 5, 5]
    objects, _, odd = checked([box, box, box, [2, 2, 6, 6]], [0, 1, 0, 0])
    assert objects.labels.tolist() == [0, 1, 0]
    assert odd.twice == 1


def scene(*labels, crowd=False):
    objects = Objects.of([[0, 0, 5, 5]] * len(labels), labels, [crowd] * len(labels))
    return Scene("x", lambda: np.zeros((9, 9, 3), np.uint8), objects, (9, 9))


def test_the_table_of_few_and_of_many_classes():
    scenes = [scene(0, 0, 1), scene(), scene(1, crowd=True)]
    expected = "train: 3 pictures, 4 objects (a 2, b 2, c 0), 1 of them crowds or difficult; 1 pictures have none"
    assert table_row("train", scenes, "abc") == expected
    assert counts_of(scenes, "abc").tolist() == [2, 2, 0]
    many = [f"c{number}" for number in range(30)]
    assert table_row("test", [*scenes, scene(*range(29))], many) == (
        "test: 4 pictures, 33 objects of 30 classes (from c0 3 to c29 0), 1 of them crowds or difficult; "
        "1 pictures have none"
    )


def test_what_was_odd_is_told():
    odd = Oddities(clipped=3, farthest=4.4, twice=2, unlabelled=["a", "b"])
    assert list(split_notes("valid", [scene(0)], ["cat", "dog"], odd)) == [
        "valid: 1 pictures, 1 objects (cat 1, dog 0); 0 pictures have none",
        "valid: no object of dog",
        "valid: 2 pictures have no label file and count as empty (a, b)",
        "valid: 3 boxes reach over the border, by up to 4 pixels, and are clipped",
        "valid: 2 objects are listed twice; one of each is kept",
    ]


def test_equal_pictures_within_a_split_and_in_two():
    twins = Twins()
    assert list(twins.add("train", [b"1", b"2", b"1"], ["a", "b", "c"])) == [
        "train: 1 pictures are equal to another (c = a)"
    ]
    assert list(twins.add("valid", [b"3"], ["d"])) == []
    assert list(twins.add("test", [b"2", b"3", b"4"], ["e", "f", "g"])) == [
        "1 pictures of test are in train too, which flatters the score (e = b)",
        "1 pictures of test are in valid too, which flatters the score (f = d)",
    ]


def test_only_ten_problems_are_named():
    problems = Problems([(f"p{number}", "odd") for number in range(13)], 5000)
    assert problems.told().startswith("13 of 5,000 pictures and objects cannot be used: p0: odd; p1: odd; ")
    assert problems.told().endswith("p9: odd; and 3 more")
