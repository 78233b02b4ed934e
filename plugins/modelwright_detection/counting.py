"""Precision and recall of matched detections, each picture counted as often as asked. Knows numpy only.

A resample of pictures is no more than a weight for each of them: the order of the detections stays, so that counting
costs a few passes over them, and a thousand resamples some seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from modelwright_detection.matching import THRESHOLDS, Matches

RECALLS = np.linspace(0, 1, 101)
"""Where precision is read off for the average."""
CONFIDENCES = np.linspace(0, 1, 1001)
"""Scores from which on detections are counted, for curves over confidence."""


@dataclass(frozen=True)
class Averages:
    """Of each class K; not a number where it has no objects (of the size).

    Attributes:
        precision: (K, S, T): average precision by size and overlap, at 101 recalls.
        recall: most detections of a class in a picture -> (K, S, T): share of the objects that were found.
    """

    precision: np.ndarray
    recall: dict[int, np.ndarray]


def averages(matches: Matches, weights: np.ndarray, *, classes: int, most: tuple[int, ...]) -> Averages:
    """Average precision and recall as COCO defines them.

    Args:
        weights: (pictures,): how often each is counted.
        classes: how many there are.
        most: see `Averages.recall`.
    """
    entries = matches.entries
    size, label = entries.size, entries.label
    of_each = weights[matches.object_picture]
    objects = [
        np.bincount(matches.object_label, of_each * inside, minlength=classes) for inside in matches.object_inside.T
    ]
    total = np.stack(objects)[:, :, None].repeat(len(THRESHOLDS), axis=2).astype(np.float64)  # (S, K, T)

    # Up to each entry of its group: objects found, and detections that count.
    weight = weights[entries.picture]
    true = weight * entries.true
    found = entries.running(true)
    inside = np.pad((weights[matches.picture] * matches.inside.T).cumsum(axis=1), ((0, 0), (1, 0)))
    seen = inside[size, entries.detection + 1] - inside[size, np.searchsorted(matches.label, np.arange(classes))[label]]
    counted = seen + entries.running(weight * entries.difference)
    precision = np.divide(found, counted, out=np.zeros_like(found), where=counted > 0)
    recall = found / np.maximum(total[size, label, 0], np.finfo(np.float64).tiny)
    # Precision at a recall is the best at that recall or a higher one. Each group is lifted above those behind it, so
    # that one pass from the end does for all of them.
    lift = 2.0 * (len(entries.first) - entries.group)
    best = np.maximum.accumulate((precision + lift)[::-1])[::-1] - lift
    reached = np.searchsorted(RECALLS, recall, side="right")  # how many of them lie at or below
    before = np.concatenate([[0], reached])[:-1]
    before[entries.first] = 0

    def summed(values: np.ndarray) -> np.ndarray:
        """By group, in the shape of `total`; what has no entries is 0 there."""
        table = np.zeros_like(total)
        if len(values):
            at = entries.first
            table[size[at], label[at], entries.threshold[at]] = np.add.reduceat(values, at)
        return np.where(total > 0, table, np.nan).transpose(1, 0, 2)

    known = np.maximum(total, 1e-9).transpose(1, 0, 2)
    shares = {each: summed(true * (entries.place < each)) / known for each in most}
    return Averages(summed(best * (reached - before)) / len(RECALLS), shares)


@dataclass(frozen=True)
class Counts:
    """Of each class K from each of the `CONFIDENCES` C on, at an overlap of 0.5.

    Attributes:
        true: (K, C): objects that were found.
        said: (K, C): detections that count.
        objects: (K,): objects that there are.
    """

    true: np.ndarray
    said: np.ndarray
    objects: np.ndarray

    @cached_property
    def precision(self) -> np.ndarray:
        """(K, C); 0 where nothing was said."""
        return np.divide(self.true, self.said, out=np.zeros_like(self.true), where=self.said > 0)

    @cached_property
    def recall(self) -> np.ndarray:
        """(K, C); 0 where there are no objects."""
        total = np.broadcast_to(self.objects[:, None], self.true.shape)
        return np.divide(self.true, total, out=np.zeros_like(self.true), where=total > 0)

    @cached_property
    def f1(self) -> np.ndarray:
        """(K, C): the harmonic mean of both."""
        both = self.said + self.objects[:, None]
        return np.divide(2 * self.true, both, out=np.zeros_like(self.true), where=both > 0)

    @cached_property
    def best(self) -> int:
        """Place of the confidence with the highest F1, averaged over the classes that have objects.

        In the middle, where several in a row are equally good: what is settled has to hold for other pictures.
        """
        mean = self.f1[self.objects > 0].mean(axis=0) if (self.objects > 0).any() else np.zeros(len(CONFIDENCES))
        good = mean >= mean.max() - 1e-12
        first = int(good.argmax())
        worse = np.flatnonzero(~good[first:])
        last = first + int(worse[0]) - 1 if len(worse) else len(good) - 1
        return (first + last) // 2


def counts(matches: Matches, weights: np.ndarray, *, classes: int) -> Counts:
    """Hits and misses from each confidence on.

    Args:
        weights: (pictures,): how often each is counted.
        classes: how many there are.
    """
    bins = np.searchsorted(CONFIDENCES, matches.score, side="right") - 1
    keys = matches.label * len(CONFIDENCES) + np.clip(bins, 0, None)
    each = weights[matches.picture]

    def from_each_on(rows: np.ndarray) -> np.ndarray:
        found = np.bincount(keys[rows], each[rows], minlength=classes * len(CONFIDENCES)).astype(np.float64)
        return found.reshape(classes, -1)[:, ::-1].cumsum(axis=1)[:, ::-1]

    true, ignored = matches.hit[matches.true[:, 0, 0]], matches.hit[matches.ignored[:, 0, 0]]
    objects = np.bincount(matches.object_label, weights[matches.object_picture], minlength=classes).astype(np.float64)
    everything = np.arange(len(matches.label))
    return Counts(from_each_on(true), from_each_on(everything) - from_each_on(ignored), objects)


def precision_by_recall(matches: Matches, *, classes: int) -> np.ndarray:
    """(K, 101): the precision that each class keeps at each of the `RECALLS` and above, at an overlap of 0.5.

    Its mean is the average precision. Not a number for classes without objects.
    """
    curve = np.full((classes, len(RECALLS)), np.nan)
    true = np.zeros(len(matches.label), bool)
    true[matches.hit] = matches.true[:, 0, 0]
    counted = np.ones(len(matches.label), bool)
    counted[matches.hit] = ~matches.ignored[:, 0, 0]
    for label, total in enumerate(np.bincount(matches.object_label, minlength=classes).tolist()):
        if total:
            found = true[counted & (matches.label == label)].cumsum()
            best = np.maximum.accumulate((found / np.arange(1, len(found) + 1))[::-1])[::-1]
            places = np.searchsorted(found / total, RECALLS, side="left")
            curve[label] = np.append(best, 0.0)[places]
    return curve
