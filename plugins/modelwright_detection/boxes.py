"""Arithmetic of boxes: overlap, non-maximum suppression, letterboxes. Knows numpy only; no pictures, no settings.

Boxes are left, top, right, bottom in pixels; arrays of them are (n, 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BLOCK = 256
"""Boxes that suppression looks at together."""
CANDIDATES = 30_000
"""Most boxes of a picture that are looked at, the best ones; a trained network gives some hundreds."""


@dataclass(frozen=True)
class Letterbox:
    """A picture scaled into a square as large as it goes, centred; what is left over is padding.

    Args:
        height, width: of the picture, in pixels.
        size: side of the square, in pixels.

    >>> Letterbox(240, 320, 640).to_picture(np.array([[0, 80, 640, 560]]))
    array([[  0.,   0., 320., 240.]], dtype=float32)
    """

    height: int
    width: int
    size: int

    @property
    def scale(self) -> float:
        """Pixels of the square per pixel of the picture, before its sides are rounded to whole pixels."""
        return min(self.size / self.height, self.size / self.width)

    @property
    def inner(self) -> tuple[int, int]:
        """Height and width of the scaled picture in the square."""
        height, width = (min(self.size, max(1, round(side * self.scale))) for side in (self.height, self.width))
        return height, width

    @property
    def left(self) -> int:
        """Padding on the left; on the right it is the same or one pixel more."""
        return (self.size - self.inner[1]) // 2

    @property
    def top(self) -> int:
        """Padding above; below it is the same or one pixel more."""
        return (self.size - self.inner[0]) // 2

    def to_input(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes of the picture in pixels of the square, float32."""
        return (np.asarray(boxes, np.float64) * self._factors + self._offsets).astype(np.float32)

    def to_picture(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes of the square in pixels of the picture, clipped to it, float32."""
        found = (np.asarray(boxes, np.float64) - self._offsets) / self._factors
        return clipped(found, height=self.height, width=self.width).astype(np.float32)

    @property
    def _factors(self) -> np.ndarray:
        # By axis: rounding the sides to whole pixels makes the two differ a little.
        height, width = self.inner
        return np.array([width / self.width, height / self.height] * 2)

    @property
    def _offsets(self) -> np.ndarray:
        return np.array([self.left, self.top] * 2, dtype=np.float64)


def clipped(boxes: np.ndarray, *, height: float, width: float) -> np.ndarray:
    """Boxes cut off at the border of a picture; those outside have no area then."""
    return np.clip(boxes, 0, np.array([width, height, width, height], dtype=boxes.dtype))


def areas(boxes: np.ndarray) -> np.ndarray:
    """Of each box; 0 where its sides are the wrong way round."""
    return np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)


def intersections(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The area that each of n boxes shares with each of m: (n, m)."""
    width = np.minimum(first[:, None, 2], second[:, 2]) - np.maximum(first[:, None, 0], second[:, 0])
    height = np.minimum(first[:, None, 3], second[:, 3]) - np.maximum(first[:, None, 1], second[:, 1])
    return np.maximum(width, 0) * np.maximum(height, 0)


def iou(first: np.ndarray, second: np.ndarray, *, crowd: np.ndarray | None = None) -> np.ndarray:
    """Intersection over union of each of n boxes with each of m: (n, m), of the boxes' type; 0 where there is no area.

    Args:
        crowd: bool, (m,): groups, of which any part is as good as the whole: intersection over the first box's area.
    """
    shared = intersections(first, second)
    own = areas(first)[:, None]
    union = own + areas(second) - shared
    if crowd is not None:
        union = np.where(crowd, own, union)
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def nms(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, *, overlap: float, most: int) -> np.ndarray:
    """Greedy non-maximum suppression within each class.

    A box goes if one of its class that is kept and comes before it (by score, then by place) overlaps it by more than
    `overlap`.

    Args:
        boxes: (n, 4).
        scores, labels: (n,).
        overlap: intersection over union.
        most: boxes to keep, over all classes.

    Returns:
        int64: places of the kept boxes, the best first.
    """
    order = np.argsort(-scores, kind="stable")
    kept = order[:0]
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        block = block[~_clashes(boxes, labels, block, kept, overlap).any(axis=1)]
        clashes = np.triu(_clashes(boxes, labels, block, block, overlap), 1)
        alive = np.ones(len(block), bool)
        for row in np.flatnonzero(clashes.any(axis=1)):
            if alive[row]:
                alive &= ~clashes[row]
        kept = np.concatenate([kept, block[alive]])
        if len(kept) >= most:
            break
    return kept[:most]


def _clashes(boxes: np.ndarray, labels: np.ndarray, some: np.ndarray, others: np.ndarray, overlap: float) -> np.ndarray:
    same = labels[some][:, None] == labels[others]
    return same & (iou(boxes[some], boxes[others]) > overlap)


def best_pairs(scores: np.ndarray, *, least: float, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The best (box, class) pairs, best first; of equals the earlier box, then the lower class.

    Args:
        scores: (boxes, classes); what is not a number counts as nothing.
        least: lower scores are left out.
        most: pairs to give.

    Returns:
        Numbers of the boxes and of the classes, int64.
    """
    flat = scores.reshape(-1)
    places = np.flatnonzero(flat >= least)
    if len(places) > most:
        found = flat[places]
        edge = np.partition(found, len(found) - most)[len(found) - most]
        above = places[found > edge]
        places = np.sort(np.concatenate([above, places[found == edge][: most - len(above)]]))
    places = places[np.argsort(-flat[places], kind="stable")]
    return np.divmod(places, scores.shape[1])


def detections(
    boxes: np.ndarray, scores: np.ndarray, *, suppress: bool, overlap: float, least: float, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a network says of one picture, in short. A box may count for several classes.

    Args:
        boxes: (n, 4).
        scores: (n, classes).
        suppress: several boxes of an object are expected: keep the best (`nms`).
        overlap: see `nms`.
        least: pairs of box and class with a lower score are left out.
        most: how many to keep.

    Returns:
        Boxes (k, 4), scores (k,) and labels (k,), the best first.
    """
    rows, labels = best_pairs(scores, least=least, most=max(most, CANDIDATES) if suppress else most)
    found, sure = boxes[rows], scores[rows, labels]
    if suppress:
        kept = nms(found, sure, labels, overlap=overlap, most=most)
        found, sure, labels = found[kept], sure[kept], labels[kept]
    return found, sure, labels
