"""Large pictures in overlapping tiles: where they lie, and how what was found in them becomes one. Knows numpy only.

Akyon, Altinuc, Temizel: Slicing Aided Hyper Inference and Fine-tuning for Small Object Detection, ICIP 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelwright_detection.boxes import areas, intersections, iou

SAME = 0.5
"""Overlap from which on two boxes of a class, seen in two tiles, are one object. Their edges differ by more than those
that a network gives within one tile, where the same overlap may well be two objects."""
MARGIN = 2.0
"""Pixels, as the network sees them, within which a box touches the edge of its tile."""


@dataclass(frozen=True)
class Region:
    """A part of a picture, in its pixels."""

    left: int
    top: int
    width: int
    height: int

    def cuts(self, boxes: np.ndarray, *, height: int, width: int, margin: float) -> np.ndarray:
        """Which boxes touch an edge of the region that is not the picture's: the object may go on behind it.

        Args:
            boxes: (n, 4), in pixels of the region.
            height, width: of the picture.
            margin: distance that counts as touching.

        Returns:
            bool, (n,).
        """
        found = np.zeros(len(boxes), bool)
        if self.left > 0:
            found |= boxes[:, 0] <= margin
        if self.top > 0:
            found |= boxes[:, 1] <= margin
        if self.left + self.width < width:
            found |= boxes[:, 2] >= self.width - margin
        if self.top + self.height < height:
            found |= boxes[:, 3] >= self.height - margin
        return found


def regions(height: int, width: int, *, tile: int, overlap: float, size: int) -> list[Region]:
    """The whole picture, and its tiles where it is larger than a tile and than what the network sees.

    Tiles are as far apart as the overlap allows, moved together so that the last ones end where the picture does.

    Args:
        height, width: of the picture.
        tile: side of a tile; 0: no tiles.
        overlap: share of a tile's side that it has at least in common with its neighbour.
        size: side of what the network sees; a picture that fits into it is not enlarged by tiles.
    """
    whole = Region(0, 0, width, height)
    if not tile or max(height, width) <= max(tile, size):
        return [whole]
    columns, rows = (_starts(length, tile=tile, overlap=overlap) for length in (width, height))
    tiles = [Region(left, top, min(tile, width), min(tile, height)) for top in rows for left in columns]
    return [whole, *tiles]


def _starts(length: int, *, tile: int, overlap: float) -> list[int]:
    if length <= tile:
        return [0]
    step = max(1.0, tile * (1 - overlap))
    count = int(np.ceil((length - tile) / step)) + 1
    return np.linspace(0, length - tile, count).round().astype(int).tolist()


@dataclass(frozen=True)
class Found:
    """What was found in one region, in pixels of the picture: boxes (n, 4), scores, labels and cut (n,)."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    cut: np.ndarray


def join(parts: Sequence[Found], *, most: int) -> Found:
    """What was found in the regions of one picture as one: each object once, the best first.

    Whole boxes come first, by score, then those that an edge cut, by score; whichever comes earlier is kept. A box goes
    if it is of the class of a kept one from another region and overlaps it (`SAME`), or if it is cut and lies for that
    share inside it. Boxes of one region are never compared: there the network has said what is two objects.

    Args:
        parts: at least one.
        most: boxes to keep.
    """
    boxes, scores, labels, cut = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "scores", "labels", "cut")
    )
    part = np.repeat(np.arange(len(parts)), [len(each.labels) for each in parts])
    waiting = np.lexsort((-scores, cut))
    kept: list[int] = []
    while len(waiting) and len(kept) < most:
        best, waiting = int(waiting[0]), waiting[1:]
        kept.append(best)
        rivals = (labels[waiting] == labels[best]) & (part[waiting] != part[best])
        others, own = boxes[waiting], boxes[best : best + 1]
        inside = intersections(others, own)[:, 0] > SAME * areas(others)
        waiting = waiting[~(rivals & ((iou(others, own)[:, 0] > SAME) | (inside & cut[waiting])))]
    chosen = np.array(kept, dtype=np.int64)
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
    return Found(boxes[chosen], scores[chosen], labels[chosen], cut[chosen])
