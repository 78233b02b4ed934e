"""Pictures with their objects as datasets: as they are, or changed for training. Knows no formats and no models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from modelwright.data import Example, Key
from modelwright_detection.augment import augment
from modelwright_detection.config import AugmentConfig
from modelwright_detection.labels import Objects, Scene
from modelwright_detection.pictures import shrink

CHUNK = 1 << 26
"""Bytes of decoded pictures that lie together: workers share each chunk, and none is ever moved."""


class Kept:
    """Decoded pictures in memory, as many as fit.

    Attributes:
        left: bytes that are free.
        full: a picture did not fit.
    """

    def __init__(self, limit: float) -> None:
        self.left = limit
        self.full = False
        self._chunks: list[Tensor] = []
        self._used = 0
        self._places: dict[int, tuple[int, int, int, int]] = {}

    def add(self, index: int, pixels: np.ndarray) -> bool:
        """Keeps a picture, uint8 height x width x 3; False: it does not fit any more."""
        if self.full or pixels.nbytes > self.left:
            self.full = True
            return False
        if not self._chunks or self._used + pixels.nbytes > len(self._chunks[-1]):
            self._chunks.append(torch.empty(max(CHUNK, pixels.nbytes), dtype=torch.uint8))
            self._used = 0
        end = self._used + pixels.nbytes
        self._chunks[-1].numpy()[self._used : end] = pixels.reshape(-1)
        self._places[index] = (len(self._chunks) - 1, self._used, *pixels.shape[:2])
        self._used, self.left = end, self.left - pixels.nbytes
        return True

    def close(self, slots: Sequence[int]) -> Kept:
        """Itself, when no more pictures come.

        Args:
            slots: the numbers that pictures were kept under, in the order that they are asked for in: the first
                becomes 0.
        """
        self._places = {index: self._places[slot] for index, slot in enumerate(slots) if slot in self._places}
        if self._chunks:  # what the last chunk has too much is given back
            self._chunks[-1] = self._chunks[-1][: self._used].clone()
        return self

    def get(self, index: int) -> np.ndarray | None:
        """A picture; None: it is not kept. It cannot be written to."""
        place = self._places.get(index)
        if place is None:
            return None
        chunk, start, height, width = place
        pixels = self._chunks[chunk][start : start + height * width * 3].view(height, width, 3).numpy()
        pixels.flags.writeable = False
        return pixels

    def __len__(self) -> int:
        return len(self._places)


class Pictures:
    """Pictures as they are.

    Args:
        scenes: the pictures.
        classes: names, in the order of the labels.
        size: side of what the model sees, for `find_facts`.
        kept: those in memory.
    """

    def __init__(self, scenes: Sequence[Scene], *, classes: Sequence[str], size: int, kept: Kept | None = None) -> None:
        self.scenes = list(scenes)
        self.classes = tuple(classes)
        self.size = size
        self._kept = kept or Kept(0)

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, key: Key) -> Example:
        """The picture, uint8 height x width x 3; targets boxes (n, 4), labels (n,), crowd (n,) in its pixels."""
        return Example(self.picture(key.index), self.scenes[key.index].objects.as_targets())

    def picture(self, index: int) -> np.ndarray:
        """A picture: uint8, height x width x 3."""
        kept = self._kept.get(index)
        return self.scenes[index].open() if kept is None else kept

    def objects(self, index: int) -> Objects:
        """What is in a picture, in its pixels."""
        return self.scenes[index].objects

    def name_of(self, index: int) -> str:
        """Where the picture came from: a file, or "scenes[12]"."""
        return self.scenes[index].name


class TrainPictures:
    """Pictures changed for training, each a square of `size`; the same key gives the same change.

    Args:
        plain: the pictures as they are.
        settings: what to do.
        kept: those in memory, scaled so that the longer side is the plain pictures' `size`.
    """

    def __init__(self, plain: Pictures, settings: AugmentConfig, *, kept: Kept | None = None) -> None:
        self.plain = plain
        self.settings = settings
        self.classes = plain.classes
        self.size = plain.size
        self.scenes = plain.scenes
        self._kept = kept or Kept(0)

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, key: Key) -> Example:
        """A picture, uint8 size x size x 3; targets boxes (n, 4), labels (n,), crowd (n,) in its pixels."""
        pixels, objects = augment(self.scaled, len(self), key, self.settings, size=self.size)
        return Example(pixels, objects.as_targets())

    def scaled(self, index: int) -> tuple[np.ndarray, Objects]:
        """A picture whose longer side is `size`, not changed otherwise, with its objects."""
        scene = self.scenes[index]
        pixels = self._kept.get(index)
        if pixels is None:
            pixels = shrink(scene.open(), self.size)
        height, width = pixels.shape[:2]
        ratio = np.array([width, height] * 2, np.float32) / np.array([*scene.size] * 2, np.float32)
        return pixels, Objects(scene.objects.boxes * ratio, scene.objects.labels, scene.objects.crowd)

    def picture(self, index: int) -> np.ndarray:
        """A picture as it is: uint8, height x width x 3."""
        return self.plain.picture(index)

    def objects(self, index: int) -> Objects:
        """What is in a picture as it is."""
        return self.plain.objects(index)

    def name_of(self, index: int) -> str:
        """Where the picture came from."""
        return self.plain.name_of(index)
