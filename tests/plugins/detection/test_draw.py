"""Boxes and labels are drawn where they belong, and can be seen."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageColor

from modelwright_detection.draw import PALETTE, SMALLEST, color_of, overlay, png

CLASSES = ["cat", "a dog with a long name"]


def test_a_box_has_its_colour_at_its_edges_and_nothing_changes_inside():
    pixels = np.zeros((600, 800, 3), np.uint8)
    image = np.asarray(overlay(pixels, np.array([[100.0, 200, 300, 400]]), np.array([0]), classes=CLASSES))
    color = np.array(ImageColor.getrgb(PALETTE[0]))
    np.testing.assert_array_equal(image[300, 100], color)
    np.testing.assert_array_equal(image[399, 200], color)
    assert not image[210:390, 110:290].any()


def test_a_small_picture_is_enlarged_and_its_boxes_with_it():
    image = overlay(np.zeros((40, 60, 3), np.uint8), np.array([[10.0, 10, 20, 20]]), np.array([0]), classes=CLASSES)
    assert max(image.size) >= SMALLEST
    times = image.width // 60
    assert np.asarray(image)[15 * times, 10 * times].any()


@pytest.mark.parametrize(
    "box", [[0.0, 0, 30, 30], [780, 0, 800, 20], [0, 580, 20, 600], [-5, -5, 900, 700], [9, 9, 9, 9]]
)
def test_labels_stay_inside_the_picture(box):
    pixels = np.zeros((600, 800, 3), np.uint8)
    image = overlay(pixels, np.array([box]), np.array([1]), classes=CLASSES, scores=np.array([0.5]))
    assert image.size == (800, 600)
    assert np.asarray(image).any()


def test_nothing_found_nothing_drawn():
    pixels = np.full((600, 800, 3), 7, np.uint8)
    image = overlay(pixels, np.zeros((0, 4)), np.zeros(0, int), classes=CLASSES)
    np.testing.assert_array_equal(np.asarray(image), pixels)


def test_the_surest_box_lies_on_top():
    boxes = np.array([[100.0, 100, 300, 300], [100, 100, 300, 300]])
    image = overlay(
        np.zeros((600, 800, 3), np.uint8), boxes, np.array([0, 1]), classes=CLASSES, scores=np.array([0.9, 0.3])
    )
    np.testing.assert_array_equal(np.asarray(image)[200, 100], ImageColor.getrgb(PALETTE[0]))


def test_many_classes_have_colours_of_their_own():
    colors = [color_of(label) for label in range(80)]
    assert len(set(colors)) == 80
    assert all(len(color) == 7 for color in colors)


def test_a_picture_becomes_a_file():
    assert Image.open(io.BytesIO(png(Image.new("RGB", (3, 2))))).size == (3, 2)
