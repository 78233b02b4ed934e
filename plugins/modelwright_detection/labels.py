"""What is true of a picture: boxes, classes, crowds. Knows numpy only; no formats, no settings, no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Objects:
    """The objects of a picture.

    Attributes:
        boxes: float32, (n, 4): left, top, right, bottom in pixels of the picture.
        labels: int64, (n,): an index into the names of the classes.
        crowd: bool, (n,): a group (COCO's iscrowd) or a difficult object (VOC's); neither trained on nor missed.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray

    @staticmethod
    def of(boxes: object, labels: object, crowd: object = None) -> Objects:
        """Anything like arrays, in the right types; no `crowd`: none of them is."""
        numbers = np.asarray(labels, dtype=np.int64).reshape(-1)
        groups = np.zeros(len(numbers), bool) if crowd is None else np.asarray(crowd, dtype=bool).reshape(-1)
        return Objects(np.asarray(boxes, dtype=np.float32).reshape(-1, 4), numbers, groups)

    @staticmethod
    def none() -> Objects:
        """Nothing in the picture."""
        return Objects.of([], [])

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: np.ndarray) -> Objects:
        """The objects of the given numbers, or those where a mask is true."""
        return Objects(self.boxes[rows], self.labels[rows], self.crowd[rows])

    def as_targets(self) -> dict[str, np.ndarray]:
        """As a dataset hands them over."""
        return {"boxes": self.boxes, "labels": self.labels, "crowd": self.crowd}


@dataclass(frozen=True)
class Scene:
    """A picture that has not been opened yet, and what is in it.

    Attributes:
        name: what people call it: a file, or "scenes[12]".
        open: gives its pixels: uint8, height x width x 3, RGB, upright. Can be sent to other processes.
        objects: in its pixels.
        size: width, height.
    """

    name: str
    open: Callable[[], np.ndarray]
    objects: Objects
    size: tuple[int, int]
