"""Which detection found which object, as COCO decides it. Knows numpy only; no names of classes, no averages.

The costly part of scoring, done once: what is here can be counted for any choice of pictures, repeated ones too.
Lin et al.: Microsoft COCO: Common Objects in Context, ECCV 2014, and its reference implementation, pycocotools.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

from modelwright_detection.boxes import areas, iou

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Overlaps (intersection over union) from which on a detection counts as having found an object."""
SIZES = ("all", "small", "medium", "large")
"""Of objects: any; up to 32 x 32 pixels; between; from 96 x 96 pixels on. By the area of the box, where COCO itself
takes that of the outline, which boxes do not know."""
LIMITS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])
MOST = 100
"""Detections of a class in a picture that count, the surest ones."""

Said: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of a picture: boxes (n, 4), scores (n,), labels (n,)."""
Truth: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of a picture: boxes (m, 4), labels (m,), crowd (m,)."""


@dataclass(frozen=True)
class Matches:
    """Detections and objects of a set of pictures, and who found whom.

    S stands for the `SIZES`, T for the `THRESHOLDS`. Detections are in the order in which they are counted: by class,
    then score (descending), then picture. An object of another size is ignored, as crowds always are: a detection that
    found it counts neither for nor against; nor does one of another size that found nothing.

    Attributes:
        pictures: how many there are.
        label, picture, score, place: (D,), of each detection; `place` is its rank in its class and picture, from 0.
        inside: bool, (D, S): its area is of the size.
        hit: int64, (H,): the detections that found anything at the lowest threshold, ascending.
        true: bool, (H, S, T): it found an object that counts.
        ignored: bool, (H, S, T): it found one that does not.
        object_label, object_picture: int64, (G,), of each object that is no crowd.
        object_inside: bool, (G, S).
    """

    pictures: int
    label: np.ndarray
    picture: np.ndarray
    score: np.ndarray
    place: np.ndarray
    inside: np.ndarray
    hit: np.ndarray
    true: np.ndarray
    ignored: np.ndarray
    object_label: np.ndarray
    object_picture: np.ndarray
    object_inside: np.ndarray

    @cached_property
    def entries(self) -> Entries:
        """What changes precision and recall, in the order of sizes, thresholds, and detections."""
        inside = self.inside[self.hit][:, :, None]
        difference = self.true.astype(np.int8) - ((self.true | self.ignored) & inside)
        size, threshold, hit = np.nonzero((self.true | (difference != 0)).transpose(1, 2, 0))
        at, label = self.hit[hit], self.label[self.hit[hit]]
        group = np.stack([size, threshold, label])
        begins = np.ones(len(hit), bool)
        begins[1:] = (group[:, 1:] != group[:, :-1]).any(axis=0)
        return Entries(
            size,
            threshold,
            label,
            picture=self.picture[at],
            detection=at,
            place=self.place[at],
            true=self.true[hit, size, threshold].astype(np.float64),
            difference=difference[hit, size, threshold].astype(np.float64),
            first=np.flatnonzero(begins),
            group=begins.cumsum() - 1,
        )


@dataclass(frozen=True)
class Entries:
    """The hits that count, for each size and threshold: few of all that could.

    Attributes:
        size, threshold, label, picture, detection, place: (E,), of each.
        true: (E,): 1 where it found an object that counts.
        difference: (E,): what it adds to the number of detections that count, beyond those whose area is of the size.
        first: (groups,): where each group (size, threshold and class) begins.
        group: (E,): which one each belongs to.
    """

    size: np.ndarray
    threshold: np.ndarray
    label: np.ndarray
    picture: np.ndarray
    detection: np.ndarray
    place: np.ndarray
    true: np.ndarray
    difference: np.ndarray
    first: np.ndarray
    group: np.ndarray

    def running(self, values: np.ndarray) -> np.ndarray:
        """Sums up to each entry, that included, from the first of its group on."""
        sums = np.concatenate([[0.0], values.cumsum()])
        return sums[1:] - sums[self.first][self.group]


def match(predictions: Sequence[Said], truths: Sequence[Truth], *, most: int = MOST) -> Matches:
    """Matches the detections of each picture with its objects.

    Args:
        most: detections of a class in a picture that count.
    """
    none, flags = np.zeros(0, np.int64), np.zeros((0, len(SIZES), len(THRESHOLDS)), bool)
    said = _Table(label=none, picture=none, score=np.zeros(0), place=none, inside=flags[:, :, 0])
    true = _Table(object_label=none, object_picture=none, object_inside=flags[:, :, 0])
    hits = _Table(hit=none, true=flags, ignored=flags)
    for picture, ((boxes, scores, labels), objects) in enumerate(zip(predictions, truths, strict=True)):
        order = np.lexsort((-scores, labels))
        place = np.arange(len(order)) - np.searchsorted(labels[order], labels[order])
        order, place = order[place < most], place[place < most]
        found, labels = boxes[order].astype(np.float64), labels[order]
        hits.add(**_hits(found, labels, *objects, first=said.rows))
        said.add(label=labels, picture=picture, score=scores[order], place=place, inside=_inside(found))
        counted = ~objects[2]
        sizes = _inside(objects[0][counted].astype(np.float64))
        true.add(object_label=objects[1][counted], object_picture=picture, object_inside=sizes)
    columns, marks = said.joined(), hits.joined()
    order = np.lexsort((columns["place"], columns["picture"], -columns["score"], columns["label"]))
    moved = np.empty(len(order), np.int64)
    moved[order] = np.arange(len(order))
    ascending = np.argsort(moved[marks["hit"]])
    marks = {**marks, "hit": moved[marks["hit"]]}
    return Matches(
        len(truths),
        **{name: column[order] for name, column in columns.items()},
        **{name: column[ascending] for name, column in marks.items()},
        **true.joined(),
    )


class _Table:
    """Columns that grow picture by picture; each begins with no rows, which says its shape."""

    def __init__(self, **columns: np.ndarray) -> None:
        self._parts = {name: [column] for name, column in columns.items()}
        self.rows = 0

    def add(self, **columns: np.ndarray | int) -> None:
        """Rows; a number stands for a column of it."""
        count = next(len(column) for column in columns.values() if isinstance(column, np.ndarray))
        for name, column in columns.items():
            self._parts[name].append(column if isinstance(column, np.ndarray) else np.full(count, column))
        self.rows += count

    def joined(self) -> dict[str, np.ndarray]:
        return {name: np.concatenate(parts) for name, parts in self._parts.items()}


def _inside(boxes: np.ndarray) -> np.ndarray:
    size = areas(boxes)[:, None]
    return (LIMITS[:, 0] <= size) & (size <= LIMITS[:, 1])


def _hits(
    found: np.ndarray, labels: np.ndarray, boxes: np.ndarray, true_labels: np.ndarray, crowd: np.ndarray, *, first: int
) -> dict[str, np.ndarray]:
    """The hits of one picture; `labels` ascend, within each the surest comes first. `first` is added to their numbers.

    Each detection in turn takes the object that it overlaps most of those that are not taken yet; one that counts
    before one that is ignored, of equals the last.
    """
    hit: list[int] = []
    true: list[np.ndarray] = []
    ignored: list[np.ndarray] = []
    boxes = boxes.astype(np.float64)
    aside = ~_inside(boxes) | crowd[:, None]  # objects x sizes
    for label in np.intersect1d(labels, true_labels):
        start, end = np.searchsorted(labels, [label, label + 1])
        own = np.flatnonzero(true_labels == label)
        overlaps = iou(found[start:end], boxes[own], crowd=crowd[own])
        taken = np.zeros((len(own), len(SIZES), len(THRESHOLDS)), bool)
        for row in np.flatnonzero(overlaps.max(axis=1) >= THRESHOLDS[0]).tolist():
            near = np.flatnonzero(overlaps[row] >= THRESHOLDS[0])
            enough = overlaps[row, near, None, None] >= np.minimum(THRESHOLDS, 1 - 1e-10)
            free = enough & (~taken[near] | crowd[own[near], None, None])  # objects x sizes x thresholds
            counting = free & ~aside[own[near], :, None]
            counts = np.asarray(counting.any(axis=0))
            pool = np.where(counts, counting, free)
            # The last of the largest: as the reference does, where two objects overlap equally.
            best = len(near) - 1 - np.where(pool, overlaps[row, near, None, None], -1.0)[::-1].argmax(axis=0)
            got = np.asarray(pool.any(axis=0))
            taken[near] |= (np.arange(len(near))[:, None, None] == best) & got
            hit.append(first + int(start) + row)
            true.append(counts)
            ignored.append(got & ~counts)
    shape = (0, len(SIZES), len(THRESHOLDS))
    return {
        "hit": np.array(hit, np.int64),
        "true": np.array(true, bool) if true else np.zeros(shape, bool),
        "ignored": np.array(ignored, bool) if ignored else np.zeros(shape, bool),
    }
