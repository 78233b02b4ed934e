"""Changes to a training picture and its boxes. Knows numpy, Pillow and the settings; no files, no models.

Order: mosaic (or the picture alone), scale and shift in one resampling, flips, colour. Everything drawn comes from the
key, so a picture is changed alike in any batch, worker and run; a mosaic's partners are read unchanged, from no buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image

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


@dataclass(frozen=True)
class Placed:
    """A picture on the output: pixel (x, y) of it lies at (left + scale * x, top + scale * y).

    Attributes:
        clip: left, top, right, bottom of the output that it may cover.
    """

    picture: Picture
    scale: float
    left: float
    top: float
    clip: tuple[float, float, float, float]


def augment(read: Callable[[int], Picture], count: int, key: Key, settings: AugmentConfig, *, size: int) -> Picture:
    """The picture that `key` asks for, changed.

    Args:
        read: gives any picture of the split, its longer side `size`.
        count: pictures of the split; partners are drawn from all of them.
        settings: what to do; `flip` is given.

    Returns:
        Pixels of size x size x 3, and the objects that are still visible in them.
    """
    rng = generator(key.seed, key.epoch, key.index, "augment")
    draws = rng.random(12)
    zoom = 1 + settings.scale * (2 * draws[0] - 1)
    shift = size * (0.5 + settings.shift * (2 * draws[1:3] - 1))
    closed = key.epoch >= key.epochs - settings.close_mosaic
    if draws[3] < settings.mosaic and not closed:
        partners = [read(int(index)) for index in rng.integers(count, size=3)]
        centre = size * (0.5 + draws[4:6])
        parts = _mosaic([read(key.index), *partners], size=size, centre=centre, zoom=zoom, shift=shift)
    else:
        parts = [_alone(read(key.index), size=size, zoom=zoom, shift=shift)]
    pixels, objects = compose(parts, size=size)
    if draws[6] < (settings.flip or 0.0):
        pixels, objects = flip(pixels, objects)
    if draws[7] < settings.flip_vertical:
        pixels, objects = flip(pixels, objects, vertical=True)
    gains = 2 * draws[8:11] - 1
    pixels = recolour(pixels, *(gains * (settings.hue, settings.saturation, settings.value)).tolist())
    return np.ascontiguousarray(pixels), objects


def _alone(picture: Picture, *, size: int, zoom: float, shift: np.ndarray) -> Placed:
    """A picture whose middle comes to lie at `shift`."""
    height, width = picture[0].shape[:2]
    left, top = shift[0] - zoom * width / 2, shift[1] - zoom * height / 2
    return Placed(picture, zoom, left, top, (left, top, left + zoom * width, top + zoom * height))


def _mosaic(pictures: list[Picture], *, size: int, centre: np.ndarray, zoom: float, shift: np.ndarray) -> list[Placed]:
    """Four pictures that meet at `centre` of a canvas of twice the size, whose middle comes to lie at `shift`.

    Bochkovskiy, Wang, Liao: YOLOv4, 2020.
    """
    x, y = centre
    placed: list[Placed] = []
    for place, picture in enumerate(pictures):
        height, width = picture[0].shape[:2]
        right, lower = place % 2 == 1, place >= 2
        left, top = (x if right else x - width), (y if lower else y - height)
        # A picture is cut where the canvas ends.
        bounds = (max(left, 0), max(top, 0), min(left + width, 2 * size), min(top + height, 2 * size))
        on_output = [zoom * (bound - size) + shift[axis % 2] for axis, bound in enumerate(bounds)]
        corner = zoom * (left - size) + shift[0], zoom * (top - size) + shift[1]
        placed.append(Placed(picture, zoom, *corner, (on_output[0], on_output[1], on_output[2], on_output[3])))
    return placed


def compose(parts: list[Placed], *, size: int) -> Picture:
    """Pictures of one scale resampled onto a grey square, bilinear and antialiased; and what is visible of them."""
    canvas = np.full((size, size, 3), GREY, dtype=np.uint8)
    for part in parts:
        x0, y0, x1, y1 = (min(max(round(side), 0), size) for side in part.clip)
        if x1 > x0 and y1 > y0:
            canvas[y0:y1, x0:x1] = _resampled(part.picture[0], part, (x0, y0, x1, y1))
    # All boxes at once: a mosaic's four sets are small.
    held = [part.picture[1] for part in parts]
    whose = np.repeat(np.arange(len(parts)), [len(objects) for objects in held])
    together = Objects(
        np.concatenate([objects.boxes for objects in held]),
        np.concatenate([objects.labels for objects in held]),
        np.concatenate([objects.crowd for objects in held]),
    )
    corners = np.array([(part.left, part.top) for part in parts], np.float32)[whose]
    limits = np.array([part.clip for part in parts], np.float32).clip(0, size)[whose]
    return canvas, moved(together, parts[0].scale, corners, limits)


def _resampled(pixels: np.ndarray, part: Placed, area: tuple[int, int, int, int]) -> np.ndarray:
    """What of a picture lies in `area` of the output."""
    x0, y0, x1, y1 = area
    height, width = pixels.shape[:2]
    box = [
        min(max((x0 - part.left) / part.scale, 0.0), width - 1e-3),
        min(max((y0 - part.top) / part.scale, 0.0), height - 1e-3),
        min((x1 - part.left) / part.scale, width),
        min((y1 - part.top) / part.scale, height),
    ]
    # Only what is needed is handed to Pillow, which copies it; two pixels more for the filter.
    reach = 2 + int(1 / part.scale)
    left, top = max(int(box[0]) - reach, 0), max(int(box[1]) - reach, 0)
    piece = pixels[top : int(box[3]) + reach + 1, left : int(box[2]) + reach + 1]
    inner = (
        box[0] - left,
        box[1] - top,
        max(box[2] - left, box[0] - left + 1e-3),
        max(box[3] - top, box[1] - top + 1e-3),
    )
    image = Image.fromarray(np.ascontiguousarray(piece))
    return np.asarray(image.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, box=inner))


def moved(objects: Objects, scale: float, corner: np.ndarray, limits: np.ndarray) -> Objects:
    """Objects scaled, then moved by `corner` and clipped to `limits`; without those of which too little is left.

    Args:
        corner: float32, (2,) or one row per object: x, y.
        limits: float32, (4,) or one row per object: left, top, right, bottom.
    """
    low, high = objects.boxes[:, :2] * np.float32(scale) + corner, objects.boxes[:, 2:] * np.float32(scale) + corner
    whole = (high - low).prod(axis=1)
    first, last = limits[..., :2], np.maximum(limits[..., 2:], limits[..., :2])
    low, high = np.minimum(np.maximum(low, first), last), np.minimum(np.maximum(high, first), last)
    sides = high - low
    kept = (sides >= SMALLEST).all(axis=1) & (sides.prod(axis=1) >= VISIBLE * whole)
    return Objects(np.concatenate([low, high], axis=1), objects.labels, objects.crowd).select(kept)


def flip(pixels: np.ndarray, objects: Objects, *, vertical: bool = False) -> Picture:
    """Mirrored left and right, or top and bottom."""
    axis = int(vertical)
    boxes = objects.boxes.copy()
    boxes[:, [axis, axis + 2]] = pixels.shape[1 - axis] - objects.boxes[:, [axis + 2, axis]]
    turned = pixels[::-1] if vertical else pixels[:, ::-1]
    return turned, Objects(boxes, objects.labels, objects.crowd)


def recolour(pixels: np.ndarray, hue: float, saturation: float, value: float) -> np.ndarray:
    """Hue turned by a share of the circle; saturation and brightness changed by a factor of 1 + the number given.

    One matrix on the colours, which keeps grey grey: hueRotate and saturate of the W3C's Filter Effects, then the
    factor of the brightness. A tenth of what the way through HSV costs.
    """
    if not (hue or saturation or value):
        return pixels
    angle = 2 * np.pi * hue
    turn = _MEAN + np.cos(angle) * (np.eye(3) - _MEAN) + np.sin(angle) * _TURN
    vivid = _MEAN + (1 + saturation) * (np.eye(3) - _MEAN)
    matrix = np.zeros((3, 4))
    matrix[:, :3] = (1 + value) * (vivid @ turn)
    changed = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB", tuple(matrix.reshape(-1).tolist()))
    return np.asarray(changed)
