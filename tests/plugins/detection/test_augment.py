"""Changes to training pictures: a function of the key, and boxes go with the pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelwright.data import Key
from modelwright_detection.augment import augment, flip, moved, recolour
from modelwright_detection.config import AugmentConfig
from modelwright_detection.labels import Objects

SIZE = 96
OFF = AugmentConfig(mosaic=0, flip=0, scale=0, shift=0, hue=0, saturation=0, value=0)
PLAIN = {"hue": 0.0, "saturation": 0.0, "value": 0.0}
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255)]


def painted(index):
    """A black picture, its longer side `SIZE`, with a rectangle in a colour of its own; the label is the index."""
    rng = np.random.default_rng(index)
    width, height = (SIZE, int(rng.integers(50, SIZE))) if index % 2 else (int(rng.integers(50, SIZE)), SIZE)
    x0, y0 = rng.integers(0, width - 24), rng.integers(0, height - 24)
    x1, y1 = x0 + rng.integers(12, 24), y0 + rng.integers(12, 24)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y0:y1, x0:x1] = COLOURS[index % len(COLOURS)]
    return pixels, Objects.of([[x0, y0, x1, y1]], [index], [index % 2])


def changed(key, settings, count=6):
    return augment(painted, count, key, settings, size=SIZE)


settings_made = st.builds(
    AugmentConfig,
    mosaic=st.sampled_from([0.0, 1.0]),
    close_mosaic=st.integers(0, 2),
    flip=st.floats(0, 1),
    flip_vertical=st.floats(0, 1),
    scale=st.floats(0, 0.9),
    shift=st.floats(0, 0.9),
)
keys = st.builds(Key, st.integers(0, 2**40), st.integers(0, 3), st.just(4), st.integers(0, 5))


@given(keys, settings_made)
def test_the_same_key_gives_the_same_picture(key, settings):
    pixels, objects = changed(key, settings)
    again = changed(key, settings)
    assert np.array_equal(pixels, again[0])
    assert np.array_equal(objects.boxes, again[1].boxes)
    assert (pixels.shape, pixels.dtype) == ((SIZE, SIZE, 3), np.uint8)
    assert pixels.transpose(2, 0, 1).flags.c_contiguous
    assert (objects.boxes.dtype, objects.labels.dtype, objects.crowd.dtype) == (np.float32, np.int64, bool)
    assert ((objects.boxes >= 0) & (objects.boxes <= SIZE)).all()
    assert (objects.boxes[:, 2:] - objects.boxes[:, :2] >= 2).all()
    assert (objects.crowd == objects.labels % 2).all()


@given(keys, settings_made)
def test_boxes_go_with_the_pixels(key, settings):
    """Where a box says there is an object, there is its colour, and it ends where the box does."""
    asked = []

    def read(index):
        asked.append(index)
        return painted(index)

    pixels, objects = augment(read, 6, key, settings.model_copy(update=PLAIN), size=SIZE)
    for box, label in zip(objects.boxes, objects.labels.tolist(), strict=True):
        if asked.count(label) > 1:
            continue  # a mosaic may hold a picture twice
        mine = (pixels.astype(int) == COLOURS[label % len(COLOURS)]).all(axis=2)
        x0, y0, x1, y1 = box
        inner = mine[int(np.ceil(y0 + 2)) : int(y1 - 2), int(np.ceil(x0 + 2)) : int(x1 - 2)]
        assert inner.all()
        rows, columns = np.nonzero(mine)
        if len(rows):
            assert columns.min() >= x0 - 1
            assert columns.max() + 1 <= x1 + 1
            assert rows.min() >= y0 - 1
            assert rows.max() + 1 <= y1 + 1


def test_seed_epoch_and_picture_all_count():
    settings = AugmentConfig(flip=0.5)
    first = changed(Key(0, 0, 100, 1), settings)[0]
    others = [Key(1, 0, 100, 1), Key(0, 1, 100, 1), Key(0, 0, 100, 2)]
    assert all((changed(key, settings)[0] != first).any() for key in others)


@pytest.mark.parametrize("index", range(6))
def test_nothing_asked_nothing_done_but_the_letterbox(index):
    pixels, objects = changed(Key(0, 0, 1, index), OFF)
    own, truth = painted(index)
    top, left = ((SIZE - side + 1) // 2 for side in own.shape[:2])
    expected = np.full((SIZE, SIZE, 3), 114, np.uint8)
    expected[top : top + own.shape[0], left : left + own.shape[1]] = own
    assert np.array_equal(pixels, expected)
    assert np.array_equal(objects.boxes, truth.boxes + np.float32([left, top, left, top]))


def test_mosaic_is_closed_for_the_last_epochs():
    def partners(epoch, close):
        asked = []

        def read(index):
            asked.append(index)
            return painted(index)

        augment(read, 6, Key(0, epoch, 10, 3), AugmentConfig(flip=0, close_mosaic=close), size=SIZE)
        return len(asked)

    assert [partners(epoch, 2) for epoch in (0, 7, 8, 9)] == [4, 4, 1, 1]
    assert partners(9, 0) == 4
    assert partners(0, 10) == 1


def test_mosaic_happens_as_often_as_asked():
    def is_mosaic(seed):
        asked = []
        augment(lambda index: (asked.append(index), painted(index))[1], 6, Key(seed, 0, 99, 0), settings, size=SIZE)
        return len(asked) > 1

    settings = AugmentConfig(mosaic=0.3, flip=0)
    assert 0.2 < np.mean([is_mosaic(seed) for seed in range(200)]) < 0.4


def test_a_single_picture_has_itself_as_partners():
    pixels, objects = changed(Key(0, 0, 100, 0), AugmentConfig(flip=0), count=1)
    assert pixels.shape == (SIZE, SIZE, 3)
    assert set(objects.labels.tolist()) <= {0}


def test_flips_undo_themselves():
    array, objects = painted(2)
    pixels = torch.from_numpy(array).permute(2, 0, 1)
    for vertical in (False, True):
        once = flip(pixels, objects, vertical=vertical)
        assert (once[1].boxes[:, 2:] > once[1].boxes[:, :2]).all()
        twice = flip(*once, vertical=vertical)
        assert torch.equal(twice[0], pixels)
        assert np.array_equal(twice[1].boxes, objects.boxes)


def left_of(objects, right):
    """What is left of objects in a window 12 pixels high."""
    rows = np.ones((len(objects), 2), np.float32)
    return moved(objects, rows, 0 * rows, np.tile(np.float32([0, 0, right, 12]), (len(objects), 1)))


def test_too_little_of_a_box_is_dropped():
    objects = Objects.of([[0, 0, 10, 10], [9, 0, 19, 10], [9.5, 0, 29.5, 10], [0, 0, 1.5, 10]], [0, 1, 2, 3])
    kept = left_of(objects, 12)
    assert kept.labels.tolist() == [0, 1, 2]
    assert kept.boxes[1].tolist() == [9, 0, 12, 10]
    assert left_of(objects, 11).labels.tolist() == [0, 1]  # of the third less than a tenth is left
    assert len(left_of(Objects.none(), 9)) == 0


def test_an_empty_picture_stays_empty():
    pixels, objects = augment(
        lambda index: (np.zeros((SIZE, SIZE, 3), np.uint8), Objects.none()),
        1,
        Key(0, 0, 9, 0),
        AugmentConfig(),
        size=SIZE,
    )
    assert (pixels.shape, objects.boxes.shape) == ((SIZE, SIZE, 3), (0, 4))


# Colour ---------------------------------------------------------------------------------------------------------------


def coloured(colour, *change):
    """A colour, or an array of pixels, after a change."""
    pixels = torch.from_numpy(np.array(colour, dtype=np.uint8).reshape(-1, 1, 3)).permute(2, 0, 1)
    return recolour(pixels, *change).permute(1, 2, 0).numpy().astype(int)[:, 0]


def test_no_change_of_colour_is_none():
    pixels = torch.zeros((3, 2, 2), dtype=torch.uint8)
    assert recolour(pixels, 0, 0, 0) is pixels


@given(st.floats(-0.5, 0.5), st.floats(-1, 1), st.integers(0, 255))
def test_grey_keeps_grey(hue, saturation, grey):
    assert np.abs(coloured([grey] * 3, hue, saturation, 0.0) - grey).max() <= 1


@pytest.mark.parametrize("value", [-0.4, 0.2])
def test_brightness_is_a_factor(value):
    pixels = np.random.default_rng(0).integers(0, 256, (72, 3))
    assert np.abs(coloured(pixels, 0, 0, value) - np.clip(pixels * (1 + value), 0, 255)).max() <= 1


def test_hue_turns_and_saturation_fades():
    red = [200, 60, 60]
    turned = coloured(red, 1 / 3, 0, 0)[0]
    assert turned.argmax() == 1  # a third of the circle from red lies green
    assert np.abs(coloured(coloured(red, 0.1, 0, 0), -0.1, 0, 0) - red).max() <= 3
    pale = coloured(red, 0, -0.7, 0)[0]
    assert 0 < pale.max() - pale.min() < 60
    assert len(set(coloured(red, 0, -1, 0)[0].tolist())) == 1
