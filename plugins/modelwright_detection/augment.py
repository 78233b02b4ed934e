"""Changes to a training picture and its boxes. Knows numpy, torch's resampling and the settings; no files, no models.

Order: mosaic (or the picture alone) with scale and shift in one resampling, flips, colour. Everything drawn comes from
the key, so a picture is changed alike in any batch, worker and run; a mosaic's partners are read unchanged, from no
buffer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from modelwright.data import Key
from modelwright.training.randomness import generator
from modelwright_detection.config import AugmentConfig
from modelwright_detection.labels import Objects

GREY = 114
"""What is outside of pictures; as letterboxes are filled."""
SMALLEST = 2.0
"""Pixels a side that a box must still have."""
VISIBLE = 0.1
"""Share of a box that must still be visible."""
_MEAN = np.array([[0.213, 0.715, 0.072]] * 3)
"""Gives how bright a colour looks, on all three channels (W3C, Filter Effects Module Level 1)."""
_TURN = np.array([[-0.213, -0.715, 0.928], [0.143, 0.140, -0.283], [-0.787, 0.715, 0.072]])
"""The part of hueRotate that goes with the sine (ibid.)."""

Picture: TypeAlias = "tuple[np.ndarray, Objects]"
"""uint8 pixels, height x width x 3, and what is in them."""
Rectangle: TypeAlias = "tuple[int, int, int, int]"
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Part:
    """A piece of a picture, and where on the output it goes.

    Attributes:
        source: which pixels of the picture.
        target: which pixels of the output; what is in the source is stretched to fill it.
    """

    picture: Picture
    source: Rectangle
    target: Rectangle


def augment(read: Callable[[int], Picture], count: int, key: Key, settings: AugmentConfig, *, size: int) -> Picture:
    """The picture that `key` asks for, changed.

    Args:
        read: gives any picture of the split, its longer side `size`.
        count: pictures of the split; partners are drawn from all of them.
        settings: what to do; `flip` is given.

    Returns:
        Pixels of size x size x 3 (channel after channel in memory, as models take them), and the objects that are
        still visible in them.
    """
    rng = generator(key.seed, key.epoch, key.index, "augment")
    draws = rng.random(11).tolist()
    zoom = 1 + settings.scale * (2 * draws[0] - 1)
    middle = size * (0.5 + settings.shift * (2 * draws[1] - 1)), size * (0.5 + settings.shift * (2 * draws[2] - 1))
    closed = key.epoch >= key.epochs - settings.close_mosaic
    if draws[3] < settings.mosaic and not closed:
        partners = [read(index) for index in rng.integers(count, size=3).tolist()]
        centre = size * (0.5 + draws[4]), size * (0.5 + draws[5])
        parts = mosaic([read(key.index), *partners], size=size, centre=centre, zoom=zoom, middle=middle)
    else:
        parts = alone(read(key.index), size=size, zoom=zoom, middle=middle)
    pixels, objects = compose(parts, size=size)
    if draws[6] < (settings.flip or 0.0):
        pixels, objects = flip(pixels, objects)
    if draws[7] < settings.flip_vertical:
        pixels, objects = flip(pixels, objects, vertical=True)
    hue, saturation, value = (2 * draw - 1 for draw in draws[8:])
    pixels = recolour(pixels, hue * settings.hue, saturation * settings.saturation, value * settings.value)
    return pixels.permute(1, 2, 0).numpy(), objects


# Where pictures go ---------------------------------------------------------------------------------------------------


def alone(picture: Picture, *, size: int, zoom: float, middle: tuple[float, float]) -> list[Part]:
    """A picture whose middle comes to lie at `middle` of the output."""
    height, width = picture[0].shape[:2]
    corner = middle[0] - zoom * width / 2, middle[1] - zoom * height / 2
    return placed(picture, zoom, corner, (0, 0, width, height), size=size)


def mosaic(
    pictures: list[Picture], *, size: int, centre: tuple[float, float], zoom: float, middle: tuple[float, float]
) -> list[Part]:
    """Four pictures that meet at `centre` of a canvas of twice the size, whose middle comes to lie at `middle`.

    Bochkovskiy, Wang, Liao: YOLOv4, 2020.
    """
    parts: list[Part] = []
    for place, picture in enumerate(pictures):
        height, width = picture[0].shape[:2]
        left = centre[0] if place % 2 else centre[0] - width
        top = centre[1] if place >= 2 else centre[1] - height
        # A picture is cut where the canvas ends.
        piece = max(-left, 0), max(-top, 0), min(2 * size - left, width), min(2 * size - top, height)
        corner = middle[0] + zoom * (left - size), middle[1] + zoom * (top - size)
        parts += placed(picture, zoom, corner, piece, size=size)
    return parts


def placed(
    picture: Picture,
    zoom: float,
    corner: tuple[float, float],
    piece: tuple[float, float, float, float],
    *,
    size: int,
) -> list[Part]:
    """What of a picture lies on the output, in whole pixels on both sides; none where that is nothing.

    Args:
        corner: where its left upper corner would lie.
        piece: left, top, right, bottom of what may be shown of it, in its own pixels.
    """
    source: list[tuple[int, int]] = []
    target: list[tuple[int, int]] = []
    for axis, length in enumerate((picture[0].shape[1], picture[0].shape[0])):
        (first, low), (last, high) = (_end(edge, corner[axis], zoom, size) for edge in piece[axis::2])
        if high <= low:
            return []
        first = min(max(first, 0), length - 1)
        source.append((first, min(max(last, first + 1), length)))
        target.append((low, high))
    (x0, x1), (y0, y1) = source
    (left, right), (top, bottom) = target
    return [Part(picture, (x0, y0, x1, y1), (left, top, right, bottom))]


def _end(edge: float, corner: float, zoom: float, size: int) -> tuple[int, int]:
    """Where a piece ends, along one axis: in the picture and on the output, which may cut it."""
    place = _nearest(corner + zoom * edge)
    inside = min(max(place, 0), size)
    return _nearest(edge if place == inside else (inside - corner) / zoom), inside


def _nearest(place: float) -> int:
    """The nearest whole number; halves go up, so that two edges at a half keep their distance."""
    return math.floor(place + 0.5)


def compose(parts: list[Part], *, size: int) -> tuple[Tensor, Objects]:
    """Pieces of pictures on a grey square, bilinear and antialiased.

    Returns:
        uint8, 3 x size x size, and what is visible in it.
    """
    canvas = torch.full((3, size, size), GREY, dtype=torch.uint8)
    for part in parts:
        (x0, y0, x1, y1), (left, top, right, bottom) = part.source, part.target
        pixels = torch.from_numpy(part.picture[0][y0:y1, x0:x1].copy()).permute(2, 0, 1)
        if (x1 - x0, y1 - y0) != (right - left, bottom - top):
            shape = [bottom - top, right - left]
            pixels = F.interpolate(pixels[None], size=shape, mode="bilinear", antialias=True)[0]
        canvas[:, top:bottom, left:right] = pixels
    return canvas, _visible(parts)


# What becomes of their objects ---------------------------------------------------------------------------------------


def _visible(parts: list[Part]) -> Objects:
    """The objects of all parts, on the output."""
    if not parts:
        return Objects.none()
    held = [part.picture[1] for part in parts]
    whose = np.repeat(np.arange(len(parts)), [len(objects) for objects in held])  # all at once: each set is small
    together = Objects(
        np.concatenate([objects.boxes for objects in held]),
        np.concatenate([objects.labels for objects in held]),
        np.concatenate([objects.crowd for objects in held]),
    )
    source = np.array([part.source for part in parts], np.float32)
    target = np.array([part.target for part in parts], np.float32)
    scale = (target[:, 2:] - target[:, :2]) / (source[:, 2:] - source[:, :2])
    offset = target[:, :2] - scale * source[:, :2]
    return moved(together, scale[whose], offset[whose], target[whose])


def moved(objects: Objects, scale: np.ndarray, offset: np.ndarray, limits: np.ndarray) -> Objects:
    """Objects scaled, moved and clipped; without those of which too little is left. One row of each argument each.

    Args:
        scale: float32, (n, 2): across, down.
        offset: float32, (n, 2).
        limits: float32, (n, 4): left, top, right, bottom.
    """
    low, high = objects.boxes[:, :2] * scale + offset, objects.boxes[:, 2:] * scale + offset
    whole = (high - low).prod(axis=1)
    low, high = (np.minimum(np.maximum(edge, limits[:, :2]), limits[:, 2:]) for edge in (low, high))
    sides = high - low
    kept = (sides >= SMALLEST).all(axis=1) & (sides.prod(axis=1) >= VISIBLE * whole)
    return Objects(np.concatenate([low, high], axis=1), objects.labels, objects.crowd).select(kept)


# Flips and colour ----------------------------------------------------------------------------------------------------


def flip(pixels: Tensor, objects: Objects, *, vertical: bool = False) -> tuple[Tensor, Objects]:
    """Mirrored left and right, or top and bottom. Pixels: 3 x height x width."""
    axis = int(vertical)
    boxes = objects.boxes.copy()
    boxes[:, [axis, axis + 2]] = pixels.shape[2 - axis] - objects.boxes[:, [axis + 2, axis]]
    return pixels.flip(2 - axis), Objects(boxes, objects.labels, objects.crowd)


def recolour(pixels: Tensor, hue: float, saturation: float, value: float) -> Tensor:
    """Hue turned by a share of the circle; saturation and brightness changed by a factor of 1 + the number given.

    One matrix on the colours, which keeps grey grey: hueRotate and saturate of the W3C's Filter Effects, then the
    factor of the brightness. A tenth of what the way through HSV costs.

    Args:
        pixels: uint8, 3 x height x width.
    """
    if not (hue or saturation or value):
        return pixels
    angle = 2 * math.pi * hue
    turn = _MEAN + math.cos(angle) * (np.eye(3) - _MEAN) + math.sin(angle) * _TURN
    vivid = _MEAN + (1 + saturation) * (np.eye(3) - _MEAN)
    matrix = torch.from_numpy(((1 + value) * (vivid @ turn)).astype(np.float32))
    changed = torch.mm(matrix, pixels.reshape(3, -1).float()).round_().clamp_(0, 255)
    return changed.to(torch.uint8).view(pixels.shape)
