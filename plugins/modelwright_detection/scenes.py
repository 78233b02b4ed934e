"""The embedded data: scenes of real handwritten digits at several scales on clutter. Needs no files; knows no settings.

A scene is a pure function of (seed, number). Training, validation and test draw on different digits of
`sklearn.datasets.load_digits` (Alpaydin and Kaynak 1998), which are sorted by who wrote them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from modelwright.data import Split
from modelwright.training.randomness import generator
from modelwright_detection.labels import Objects, Scene

CLASSES = tuple("0123456789")
WRITERS: dict[Split, tuple[float, float]] = {"train": (0.0, 0.7), "valid": (0.7, 0.8), "test": (0.8, 1.0)}
"""Which part of the digits each split draws on."""
NUMBERED: dict[Split, int] = {"train": 0, "valid": 1 << 40, "test": 2 << 40}
"""Where the numbers of each split's scenes begin."""
MOST = 12
"""Digits in a scene at most."""
EMPTY = 0.03
"""Share of scenes without any digit."""
COMMON = 0.15
"""Share of the smaller of two boxes that they may have in common."""
CONTRAST = 70
"""Grey levels by which a digit differs from what is behind it, at least."""


@dataclass(frozen=True)
class Composer:
    """Makes a scene's pixels when called.

    Attributes:
        size: about the longer side in pixels.
    """

    seed: int
    split: Split
    index: int
    size: int

    def __call__(self) -> np.ndarray:
        """Uint8, height x width x 3."""
        return compose(self.seed, self.split, self.index, size=self.size)[0]


def compose_all(count: int, split: Split, *, seed: int, size: int) -> Iterator[tuple[Scene, np.ndarray]]:
    """The scenes of a split, with their pixels (which can be had again from the scene)."""
    for index in range(count):
        pixels, objects = compose(seed, split, index, size=size)
        again = Composer(seed, split, index, size)
        yield Scene(f"scenes/{split}[{index}]", again, objects, (pixels.shape[1], pixels.shape[0])), pixels


def compose(seed: int, split: Split, index: int, *, size: int) -> tuple[np.ndarray, Objects]:
    """A scene.

    Args:
        size: the longer side is between 0.8 and 1.2 of it.

    Returns:
        Pixels, uint8 height x width x 3, and the digits in them. Two boxes have little in common.
    """
    rng = generator(seed, NUMBERED[split] + index, "scene")
    longer = round(size * rng.uniform(0.8, 1.2))
    shorter = round(longer * rng.uniform(0.65, 1.0))
    width, height = (longer, shorter) if rng.random() < 0.5 else (shorter, longer)
    canvas = _background(rng, width, height)
    _clutter(rng, canvas, split, size)
    boxes: list[tuple[int, int, int, int]] = []
    labels: list[int] = []
    wanted = 0 if rng.random() < EMPTY else int(rng.integers(1, MOST + 1))
    glyphs, numbers = digits(split)
    for _ in range(wanted):
        which = int(rng.integers(len(glyphs)))
        box = _place(rng, glyphs[which], width, height, size, boxes)
        if box is not None:
            _write(rng, canvas, glyphs[which], box)
            boxes.append(box)
            labels.append(int(numbers[which]))
    return np.asarray(canvas), Objects.of(boxes, labels)


@functools.cache
def digits(split: Split) -> tuple[list[Image.Image], np.ndarray]:
    """The digits a split draws on: masks, cut to the strokes, and what each says."""
    images, targets = _all_digits()
    first, last = (round(len(images) * share) for share in WRITERS[split])
    glyphs: list[Image.Image] = []
    for grey in images[first:last]:
        rows, columns = (np.flatnonzero((grey >= 4).any(axis=axis)) for axis in (1, 0))
        stroke = grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        glyphs.append(Image.fromarray(np.minimum(stroke * 16, 255).astype(np.uint8)))
    return glyphs, targets[first:last]


@functools.cache
def _all_digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return bunch.images, bunch.target.astype(np.int64)


def _background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Soft patches of colour with some grain."""
    patches = rng.integers(32, 224, (5, 6, 3), dtype=np.uint8)
    soft = np.asarray(Image.fromarray(patches).resize((width, height), Image.Resampling.BILINEAR))
    grain = np.frombuffer(rng.bytes(height * width), np.uint8).reshape(height, width, 1) & 31
    return Image.fromarray(soft + grain)


def _clutter(rng: np.random.Generator, canvas: Image.Image, split: Split, size: int) -> None:
    """Lines, ellipses and rectangles, and halves of digits, which are none."""
    pen = ImageDraw.Draw(canvas)
    width, height = canvas.size
    count = int(rng.integers(4, 10))
    colours, thicks = rng.integers(0, 256, (count, 3)).tolist(), rng.integers(1, 4, count).tolist()
    for draws, (red, green, blue), thick in zip(rng.random((count, 6)).tolist(), colours, thicks, strict=True):
        x, y = draws[0] * width, draws[1] * height
        across, down = (size * (0.05 + 0.35 * draw) for draw in draws[2:4])
        if draws[4] < 0.5:
            across = -across
        box = (min(x, x + across), y, max(x, x + across), y + down)
        if draws[5] < 0.4:
            pen.line((x, y, x + across, y + down), fill=(red, green, blue), width=thick)
        elif draws[5] < 0.7:
            pen.ellipse(box, outline=(red, green, blue), width=thick)
        else:
            pen.rectangle(box, outline=(red, green, blue), width=thick)
    glyphs, _ = digits(split)
    for _ in range(int(rng.integers(0, 4))):
        glyph = glyphs[int(rng.integers(len(glyphs)))]
        upper = glyph.crop((0, 0, glyph.width, max(2, glyph.height * 2 // 5)))
        side = max(6, round(size * rng.uniform(0.08, 0.25)))
        x, y = int(rng.integers(-side // 2, width)), int(rng.integers(-side // 2, height))
        mask = upper.resize((side, max(4, side // 2)), Image.Resampling.BICUBIC)
        canvas.paste(_colour(rng), (x, y, x + mask.width, y + mask.height), mask)


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def _place(
    rng: np.random.Generator,
    glyph: Image.Image,
    width: int,
    height: int,
    size: int,
    taken: Sequence[tuple[int, int, int, int]],
) -> tuple[int, int, int, int] | None:
    """A box for a digit that has little in common with any other one; None: no room was found."""
    tall = size * 0.08 * (0.5 / 0.08) ** rng.random()
    wide = tall * glyph.width / glyph.height * rng.uniform(0.8, 1.2)
    across, down = max(6, round(wide)), max(10, round(tall))
    if across >= width or down >= height:
        return None
    for _ in range(5):
        x, y = int(rng.integers(0, width - across)), int(rng.integers(0, height - down))
        box = (x, y, x + across, y + down)
        if all(_common(box, other) <= COMMON * min(across * down, _area(other)) for other in taken):
            return box
    return None


def _common(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> int:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0) * max(high, 0)


def _area(box: tuple[int, int, int, int]) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _write(rng: np.random.Generator, canvas: Image.Image, glyph: Image.Image, box: tuple[int, int, int, int]) -> None:
    """A digit in an ink that stands out from what is behind it."""
    mask = glyph.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.BICUBIC)
    behind = np.asarray(canvas.crop(box).resize((1, 1), Image.Resampling.BOX)).tolist()[0][0]
    grey = sum(behind) / 3
    strength = int(rng.integers(CONTRAST, 200)) * (1 if grey < 128 else -1)
    red, green, blue = (min(max(round(grey + strength + tint), 0), 255) for tint in rng.integers(-40, 41, 3).tolist())
    canvas.paste((red, green, blue), box, mask)
