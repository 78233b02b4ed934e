"""Scores of a detector: COCO's averages, precision, recall and F1. Knows matched pictures; no models, no settings.

A whole split is scored by faster-coco-eval (`reference`), the implementation that others use. Resamples of its
pictures, of which an interval needs a thousand, are counted by `counting`; a test holds the two together to 1e-6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from modelwright.codec import Column, Columns
from modelwright_detection import reference
from modelwright_detection.boxes import Letterbox
from modelwright_detection.counting import CONFIDENCES, averages, counts
from modelwright_detection.matching import MOST, SIZES, THRESHOLDS, Matches, match

FEW = (1, 10)
"""Detections of a class in a picture for which recall is also given."""


class Measured(Columns):
    """What was found in each picture, one row each; any choice of rows can be scored.

    Columns: `picture` (its number in `matches`); how many `objects` there are that count, how many were `found` at an
    overlap of 0.5 and any confidence, and how many detections were `said`.

    Attributes:
        matches: of all pictures that were measured; shared by all selections of rows.
        whole: predictions and truths, while these are all pictures, each once.
        most: detections of a class in a picture that count.
    """

    def __init__(
        self,
        data: Mapping[str, Column],
        ids: np.ndarray,
        *,
        matches: Matches,
        most: int,
        whole: tuple[Columns, Columns] | None = None,
    ) -> None:
        super().__init__(data, ids)
        self.matches = matches
        self.most = most
        self.whole = whole

    def select(self, rows: np.ndarray | Sequence[int]) -> Measured:
        """As of any columns; what was matched goes along."""
        picked = super().select(rows)
        return Measured(dict(picked), picked.ids, matches=self.matches, most=self.most)

    @property
    def weights(self) -> np.ndarray:
        """(pictures,): how often each stands among the rows."""
        return np.bincount(self.array("picture"), minlength=self.matches.pictures).astype(np.float64)


def measure(predictions: Columns, truths: Columns, *, most: int = MOST) -> Measured:
    """Matches what was said with what is true; the costly part of scoring.

    Args:
        predictions: lists `boxes` (n, 4), `scores` (n,) and `labels` (n,), one array a picture.
        truths: lists `boxes` (m, 4), `labels` (m,) and `crowd` (m,) of the same pictures, on the same scale.
        most: detections of a class in a picture that count; COCO's 100 unless pictures hold more objects.

    Raises:
        ValueError: the two are of different pictures.
    """
    if not np.array_equal(predictions.ids, truths.ids):
        raise ValueError("predictions and truths are of different pictures")
    # Equal scores are counted in the order of ids, however the rows lie.
    predicted, true = predictions.sorted(), truths.sorted()
    matches = match(
        list(zip(*(predicted[name] for name in ("boxes", "scores", "labels")), strict=True)),
        list(zip(*(true[name] for name in ("boxes", "labels", "crowd")), strict=True)),
        most=most,
    )
    picture = np.argsort(np.argsort(truths.ids, kind="stable"), kind="stable")
    hits = matches.picture[matches.hit[matches.true[:, 0, 0]]]
    columns: dict[str, Column] = {"picture": picture}
    for name, pictures in (("objects", matches.object_picture), ("said", matches.picture), ("found", hits)):
        columns[name] = np.bincount(pictures, minlength=truths.rows)[picture]
    return Measured(columns, truths.ids, matches=matches, most=most, whole=(predicted, true))


def scores(measured: Columns, *, classes: Sequence[str], confidence: float | None = None) -> dict[str, float]:
    """Every score of the measured pictures, repeated ones counted again.

    map (mean average precision over classes and overlaps of 0.5 to 0.95), map_50, map_75; map_small, map_medium,
    map_large by size of the objects; mar_1, mar_10, mar_100 (mean recall with so many detections of a class in a
    picture), mar_small, mar_medium, mar_large; at an overlap of 0.5 and a confidence: precision, recall, f1, means over
    the classes that have objects; confidence: the one with the best f1; and map, precision and recall of each class as
    "map/<class>". Not a number where there are no objects to find.

    Args:
        measured: rows of what `measure` gave.
        classes: names by label.
        confidence: score from which on detections count for precision, recall and f1; None: the best on these rows.
    """
    own = cast("Measured", measured)
    found = counted(own, classes=classes)
    if own.whole is not None:
        found |= reference.scores(*own.whole, classes=classes, most=(*FEW, own.most))
    table = counts(own.matches, own.weights, classes=len(classes))
    place = table.best if confidence is None else int(np.searchsorted(CONFIDENCES, confidence - 1e-9))
    there = table.objects > 0
    for name, values in (("precision", table.precision), ("recall", table.recall), ("f1", table.f1)):
        found[name] = _mean(values[there, place])
        if name != "f1":
            each = np.where(there, values[:, place], np.nan).tolist()
            found |= {f"{name}/{label}": value for label, value in zip(classes, each, strict=True)}
    found["confidence"] = float(CONFIDENCES[table.best]) if there.any() else float("nan")
    return dict(sorted(found.items(), key=lambda item: "/" in item[0]))


def best_confidence(measured: Columns, *, classes: Sequence[str], default: float = 0.25) -> float:
    """The confidence with the best f1, to be settled on validation pictures.

    Args:
        measured, classes: as for `scores`.
        default: given where there is no object in them.
    """
    own = cast("Measured", measured)
    table = counts(own.matches, own.weights, classes=len(classes))
    return float(CONFIDENCES[table.best]) if table.objects.any() else default


def counted(measured: Measured, *, classes: Sequence[str]) -> dict[str, float]:
    """COCO's averages of any choice of pictures, counted here."""
    found = averages(measured.matches, measured.weights, classes=len(classes), most=(*FEW, measured.most))
    precision, recall = found.precision, found.recall[measured.most]
    values = {
        "map": precision[:, 0],
        "map_50": precision[:, 0, THRESHOLDS == 0.5],
        "map_75": precision[:, 0, THRESHOLDS == 0.75],
        **{f"map_{size}": precision[:, place] for place, size in enumerate(SIZES) if place},
        **{f"mar_{count}": found.recall[count][:, 0] for count in (*FEW, measured.most)},
        **{f"mar_{size}": recall[:, place] for place, size in enumerate(SIZES) if place},
    }
    each = {f"map/{label}": _mean(row) for label, row in zip(classes, precision[:, 0], strict=True)}
    return {name: _mean(value) for name, value in values.items()} | each


def _mean(values: np.ndarray) -> float:
    """Over what is a number."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


# Columns of the task --------------------------------------------------------------------------------------------------


def truth_columns(
    boxes: np.ndarray, labels: np.ndarray, crowd: np.ndarray, sizes: np.ndarray, *, side: int
) -> dict[str, Column]:
    """A batch's targets as columns that `measure` takes.

    Args:
        boxes: (batch, m, 4), in pixels of a letterbox of `side`.
        labels: (batch, m); -1 where there is none.
        crowd: (batch, m).
        sizes: (batch, 2): height and width of each picture.
    """
    there = labels >= 0
    own = [
        Letterbox(int(size[0]), int(size[1]), side).to_picture(each[rows])
        for each, size, rows in zip(boxes, sizes, there, strict=True)
    ]
    return {
        "boxes": own,
        "labels": [each[rows].astype(np.int64) for each, rows in zip(labels, there, strict=True)],
        "crowd": [each[rows].astype(bool) for each, rows in zip(crowd, there, strict=True)],
    }


def perfect(truths: Columns) -> Columns:
    """The predictions that score best: each object that is no crowd, with all confidence."""
    single = [~crowd for crowd in truths["crowd"]]
    boxes, labels = (
        [values[rows] for values, rows in zip(truths[name], single, strict=True)] for name in ("boxes", "labels")
    )
    return Columns(
        {"boxes": boxes, "scores": [np.ones(len(each), np.float32) for each in labels], "labels": labels}, truths.ids
    )
