"""Precision and recall of matched detections, each picture counted as often as asked. Knows numpy only.

A resample of pictures is no more than a weight for each of them: the order of the detections stays, so that counting
costs a few passes over them, and a thousand resamples some seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelwright_detection.matching import SIZES, THRESHOLDS, Matches

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
    hit_label, hit_weight = matches.label[matches.hit], weights[matches.picture[matches.hit]]
    flat = len(SIZES) * len(THRESHOLDS)
    objects = _by_class(matches.object_label, weights[matches.object_picture], matches.object_inside, classes)
    total = np.repeat(objects, len(THRESHOLDS), axis=1)  # (K, S * T)
    true = (hit_weight[:, None, None] * matches.true).reshape(-1, flat)

    # What was found up to each hit, and how many detections of the size there were, within its class.
    starts = np.searchsorted(hit_label, np.arange(classes + 1))
    found = _running(true, starts[hit_label])
    first = np.searchsorted(matches.label, np.arange(classes))
    inside = _running(weights[matches.picture][:, None] * matches.inside, None)
    seen = _minus_before(inside, matches.hit, first[hit_label])
    both = (matches.true | matches.ignored) & matches.inside[matches.hit][:, :, None]
    excused = _running((hit_weight[:, None, None] * both).reshape(-1, flat), starts[hit_label])
    wrong = np.repeat(seen, len(THRESHOLDS), axis=1) - excused

    answered = found + wrong
    precision = np.divide(found, answered, out=np.zeros_like(found), where=answered > 0)
    recall = np.divide(found, total[hit_label], out=np.zeros_like(found), where=total[hit_label] > 0)
    # Precision at a recall is the best at that recall or a higher one. Each class is lifted above those behind it, so
    # that one pass from the end does for all of them.
    lift = 2.0 * (classes - hit_label)[:, None]
    best = np.maximum.accumulate((precision + lift)[::-1], axis=0)[::-1] - lift
    reached = np.searchsorted(RECALLS, recall, side="right")  # how many of them lie at or below
    before = np.zeros_like(reached)
    before[1:] = reached[:-1]
    before[starts[:-1][np.diff(starts) > 0]] = 0
    area = _summed(best * (reached - before), starts) / len(RECALLS)

    shape = (classes, len(SIZES), len(THRESHOLDS))
    empty = (total == 0).reshape(shape)
    place = matches.place[matches.hit]
    known = np.where(empty, np.nan, total.reshape(shape))
    shares = {each: _summed(true * (place < each)[:, None], starts).reshape(shape) / known for each in most}
    return Averages(np.where(empty, np.nan, area.reshape(shape)), shares)


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

    @property
    def precision(self) -> np.ndarray:
        """(K, C); 0 where nothing was said."""
        return np.divide(self.true, self.said, out=np.zeros_like(self.true), where=self.said > 0)

    @property
    def recall(self) -> np.ndarray:
        """(K, C); 0 where there are no objects."""
        total = np.broadcast_to(self.objects[:, None], self.true.shape)
        return np.divide(self.true, total, out=np.zeros_like(self.true), where=total > 0)

    @property
    def f1(self) -> np.ndarray:
        """(K, C): the harmonic mean of both."""
        both = self.said + self.objects[:, None]
        return np.divide(2 * self.true, both, out=np.zeros_like(self.true), where=both > 0)

    @property
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


def _by_class(labels: np.ndarray, weights: np.ndarray, columns: np.ndarray, classes: int) -> np.ndarray:
    """(K, columns): the weights of what is true in each column, summed by class."""
    return np.stack([np.bincount(labels, weights * column, minlength=classes) for column in columns.T], axis=1)


def _running(values: np.ndarray, starts: np.ndarray | None) -> np.ndarray:
    """Sums down each column up to each row, counted from the row `starts` on (None: from the first)."""
    total = values.cumsum(axis=0, dtype=np.float64)
    return total if starts is None else _minus_before(total, np.arange(len(total)), starts)


def _minus_before(total: np.ndarray, rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Of running sums: those of `rows` without what came before `starts`."""
    padded = np.concatenate([np.zeros((1, total.shape[1])), total])
    return padded[rows + 1] - padded[starts]


def _summed(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Sums down each column of the rows between each two starts."""
    padded = np.concatenate([np.zeros((1, values.shape[1])), values.cumsum(axis=0)])
    return padded[starts[1:]] - padded[starts[:-1]]
