"""What became of each object and each detection at one confidence. Knows numpy only; no averages, no drawing.

Unlike the averages, which look at one class at a time, this tells what was mistaken for what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelwright_detection.boxes import areas, intersections, iou
from modelwright_detection.matching import Said, Truth

NOBODY, IGNORED = -1, -2
OVERLAP = 0.5


@dataclass(frozen=True)
class Outcome:
    """Who found whom in one picture, at an overlap of 0.5.

    Attributes:
        said, true: the detections that are sure enough, and the objects.
        object_of: int64, (n,): each detection's object; NOBODY: a false alarm; IGNORED: it lies on a crowd.
        finder_of: int64, (m,): each object's detection; NOBODY: missed; IGNORED: a crowd, which nobody has to find.
    """

    said: Said
    true: Truth
    object_of: np.ndarray
    finder_of: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """bool, (n,): detections of the object's class."""
        return self._has_object & (self.said[2] == self._their_labels)

    @property
    def mistaken(self) -> np.ndarray:
        """bool, (n,): detections that lie well but name another class."""
        return self._has_object & (self.said[2] != self._their_labels)

    @property
    def false(self) -> np.ndarray:
        """bool, (n,): detections where nothing is."""
        return self.object_of == NOBODY

    @property
    def missed(self) -> np.ndarray:
        """bool, (m,): objects that nobody found."""
        return self.finder_of == NOBODY

    @property
    def errors(self) -> int:
        """How much is wrong."""
        return int(self.mistaken.sum() + self.false.sum() + self.missed.sum())

    @property
    def _has_object(self) -> np.ndarray:
        return self.object_of >= 0

    @property
    def _their_labels(self) -> np.ndarray:
        labels = np.full(len(self.object_of), NOBODY)
        labels[self._has_object] = self.true[1][self.object_of[self._has_object]]
        return labels


def outcome(said: Said, true: Truth, *, confidence: float) -> Outcome:
    """Pairs the detections of a picture with its objects.

    First those of one class, the surest detection first, as the averages do; what is left then by overlap, whatever
    its class.

    Args:
        confidence: detections with a lower score are left out.
    """
    sure = np.flatnonzero(said[1] >= confidence)
    sure = sure[np.argsort(-said[1][sure], kind="stable")]
    boxes, scores, labels = (values[sure] for values in said)
    true_boxes, true_labels, crowd = true
    object_of = np.full(len(labels), NOBODY, np.int64)
    finder_of = np.where(crowd, IGNORED, NOBODY).astype(np.int64)
    overlaps = iou(boxes.astype(np.float64), true_boxes.astype(np.float64))
    overlaps[overlaps < OVERLAP] = 0
    for row in range(len(labels)):
        own = np.where((finder_of == NOBODY) & (true_labels == labels[row]), overlaps[row], 0)
        if own.max(initial=0) > 0:
            # The last of the largest, as the averages do.
            found = len(own) - 1 - int(own[::-1].argmax())
            object_of[row], finder_of[found] = found, row
    left = np.where((object_of == NOBODY)[:, None] & (finder_of == NOBODY), overlaps, 0)
    for place in np.argsort(-left, axis=None, kind="stable")[: int((left > 0).sum())]:
        row, found = divmod(int(place), left.shape[1])
        if object_of[row] == NOBODY and finder_of[found] == NOBODY:
            object_of[row], finder_of[found] = found, row
    on_crowd = intersections(boxes, true_boxes[crowd]) >= OVERLAP * areas(boxes)[:, None]
    on_crowd &= labels[:, None] == true_labels[crowd]
    object_of[(object_of == NOBODY) & on_crowd.any(axis=1)] = IGNORED
    return Outcome((boxes, scores, labels), true, object_of, finder_of)


def matrix(outcomes: Sequence[Outcome], *, classes: int) -> np.ndarray:
    """int64, (classes + 1, classes + 1): how often an object of class `row` was called `column`.

    The last row is background: detections where nothing is; the last column too: objects that nobody found.
    """
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    for each in outcomes:
        paired = each.object_of >= 0
        true, said = each.true[1][each.object_of[paired]], each.said[2][paired]
        counts[:classes, :classes] += np.bincount(true * classes + said, minlength=classes**2).reshape(classes, -1)
        counts[classes, :classes] += np.bincount(each.said[2][each.false], minlength=classes)
        counts[:classes, classes] += np.bincount(each.true[1][each.missed], minlength=classes)
    return counts
