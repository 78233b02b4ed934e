"""Decodes pictures: straight into one array where it fits into memory, else once each to check them. Knows no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from modelwright_image.pictures import Resize, Unreadable, decode, fit, flatten, is_grey
from modelwright_image.sources import Item

DEFAULT_SIZE = 224
"""Side of the pictures where theirs differ; what most pretrained networks saw."""
TINY = 8
"""Pictures with a side below this are told to the user."""


@dataclass(frozen=True)
class Shape:
    """What pictures become: `size` x `size` pixels of `channels` (1: grey, 3: RGB)."""

    size: int
    channels: int

    def bytes(self, count: int) -> int:
        """Of `count` decoded pictures."""
        return count * self.size * self.size * self.channels


@dataclass(frozen=True)
class Wanted:
    """What is fixed beforehand; None: as the pictures are.

    Attributes:
        memory: bytes of decoded pictures that may be kept.
    """

    size: int | None
    channels: int | None
    resize: Resize
    memory: float


@dataclass
class Reading:
    """What decoding found.

    Attributes:
        shape: None if not one picture could be read.
        pixels: uint8, N x size x size x channels; None where they do not fit into memory.
        kept: int64, which items could be read, ascending; the rows of `pixels`.
        bad: (item, reason) of the others.
        tiny: items with a side below `TINY` pixels.
        digests: of each kept item's file, where `pixels` is None.
    """

    shape: Shape | None
    pixels: np.ndarray | None
    kept: np.ndarray
    bad: list[tuple[int, str]]
    tiny: list[int]
    digests: list[bytes] = field(default_factory=list[bytes])


def read(items: Sequence[Item], wanted: Wanted) -> Reading:
    """Decodes every picture once.

    The shape is taken from the first picture that can be read. Where a later one differs, decoding begins again with
    what is known then, at most twice: one pass is all that a uniform set costs, and no second array is ever needed.

    Raises:
        DataError: an archive breaks off.
    """
    shape: Shape | None = None
    while True:
        found = _fill(items, wanted, shape)
        if isinstance(found, Reading):
            return found
        shape = found
        if shape.bytes(len(items)) > wanted.memory:
            reading = _check(items, wanted)
            if reading.shape is None or reading.shape.bytes(len(items)) > wanted.memory:
                return reading
            shape = reading.shape


def _fill(items: Sequence[Item], wanted: Wanted, shape: Shape | None) -> Reading | Shape:
    """Decodes into one array; the wider shape as soon as a picture needs one, or an array would be too large."""
    pixels: np.ndarray | None = None
    if shape is not None:
        pixels = np.empty((len(items), shape.size, shape.size, shape.channels), np.uint8)
    bad: dict[int, str] = {}
    tiny: list[int] = []
    for slot, image, _ in _images(items):
        if isinstance(image, str):
            bad[slot] = image
            continue
        needed = _widened(shape, image.size, grey=is_grey(image), wanted=wanted)
        if pixels is None and needed.bytes(len(items)) <= wanted.memory:
            pixels = np.empty((len(items), needed.size, needed.size, needed.channels), np.uint8)
            shape = needed
        if pixels is None or needed != shape:
            return needed
        try:
            pixels[slot] = fit(flatten(image, channels=needed.channels), size=needed.size, resize=wanted.resize)
        except Unreadable as error:
            bad[slot] = str(error)
            continue
        if min(image.size) < TINY:
            tiny.append(slot)
    kept = _without(len(items), bad)
    if pixels is None:
        return Reading(None, None, kept, sorted(bad.items()), tiny)
    return Reading(shape, _compact(pixels, kept), kept, sorted(bad.items()), sorted(tiny))


def _check(items: Sequence[Item], wanted: Wanted) -> Reading:
    """Looks at every picture and keeps none."""
    shape: Shape | None = None
    bad: dict[int, str] = {}
    tiny: list[int] = []
    digests: dict[int, bytes] = {}
    for slot, image, data in _images(items, check_only=True):
        if not isinstance(image, str) and image.mode == "F":
            image = "floating-point pixels have no fixed range; save it with 8 or 16 bits"
        if isinstance(image, str):
            bad[slot] = image
            continue
        size: tuple[int, int] = image.info["size"]
        shape = _widened(shape, size, grey=is_grey(image), wanted=wanted)
        digests[slot] = digest(data)
        if min(size) < TINY:
            tiny.append(slot)
    kept = _without(len(items), bad)
    return Reading(shape, None, kept, sorted(bad.items()), sorted(tiny), [digests[slot] for slot in kept.tolist()])


def digest(data: bytes | memoryview) -> bytes:
    """16 bytes that differ where the data differ."""
    return hashlib.blake2b(data, digest_size=16).digest()


def _widened(shape: Shape | None, size: tuple[int, int], *, grey: bool, wanted: Wanted) -> Shape:
    """The smallest shape for what `shape` stands for and one more picture of `size` (width, height)."""
    side = max(size[0], TINY) if size[0] == size[1] else DEFAULT_SIZE
    if shape is not None and side != shape.size:
        side = DEFAULT_SIZE
    colour = not grey or (shape is not None and shape.channels == 3)
    return Shape(wanted.size or side, wanted.channels or (3 if colour else 1))


def _images(items: Sequence[Item], *, check_only: bool = False) -> Iterator[tuple[int, Image.Image | str, bytes]]:
    """Each item's slot with its upright picture, or with the reason why there is none; store by store."""
    stores = {id(item.store): item.store for item in items}
    slots: dict[int, dict[str, int]] = {key: {} for key in stores}
    for slot, item in enumerate(items):
        slots[id(item.store)][item.name] = slot
    for key, store in stores.items():
        for name, data in store.stream(list(slots[key])):
            slot = slots[key][name]
            if isinstance(data, str):
                yield slot, data, b""
                continue
            try:
                yield slot, decode(data, check_only=check_only), data
            except Unreadable as error:
                yield slot, str(error), data


def _without(count: int, bad: dict[int, str]) -> np.ndarray:
    good = np.ones(count, dtype=bool)
    good[list(bad)] = False
    return np.flatnonzero(good)


def _compact(pixels: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The kept rows, moved together in place: a second array could be too much."""
    for row, slot in enumerate(kept.tolist()):
        if row != slot:
            pixels[row] = pixels[slot]
    return pixels[: len(kept)]
