"""What of the labels can be used, and what a user should know of them before training. Opens no picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from modelwright.listings import some
from modelwright_detection.entries import Marks, Problem
from modelwright_detection.labels import Objects, Scene

SHOWN = 10
"""Problems that a message names."""
CLASSES_SHOWN = 20
"""Classes that the table names with their counts; of more, only the ends are told."""
INSIDE = 0.5
"""Share of a box that must lie in the picture; other boxes are taken for nonsense."""
THINNEST = 0.01
"""Pixels a side below which a box has no area: float32 would not tell its sides apart in a large picture."""
ROUNDING = 1.0
"""Pixels by which a box may reach over the border without being told."""


@dataclass
class Problems:
    """What cannot be used.

    Attributes:
        bad: where, and why.
        looked_at: pictures, objects, and label files or lines without either.
    """

    bad: list[Problem] = field(default_factory=list[Problem])
    looked_at: int = 0

    def told(self) -> str:
        """The first problems with their reasons, and how many there are."""
        more = f"; and {len(self.bad) - SHOWN} more" if len(self.bad) > SHOWN else ""
        listed = "; ".join(f"{where}: {reason}" for where, reason in self.bad[:SHOWN])
        count = f"{len(self.bad):,} of {self.looked_at:,} pictures and objects cannot be used"
        return f"{count}: {listed}{more}"


@dataclass
class Oddities:
    """What is put right in a split.

    Attributes:
        clipped: boxes that reached over the border.
        farthest: pixels by which the worst of them did.
        twice: objects that were listed twice.
        unlabelled: pictures without a label file, by name.
    """

    clipped: int = 0
    farthest: float = 0.0
    twice: int = 0
    unlabelled: list[str] = field(default_factory=list[str])


def usable(marks: Marks, *, size: tuple[int, int], number: np.ndarray, bad: list[Problem], odd: Oddities) -> Objects:
    """The objects of a picture that can be used: boxes clipped to the picture, none twice.

    Args:
        size: width and height of the picture.
        number: int64: what each label of `marks` becomes.
        bad: receives boxes without area, outside of the picture, or of numbers that are none.
        odd: counts what is put right.
    """
    limits = np.array([*size, *size], dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        boxes = marks.boxes * limits if marks.relative else marks.boxes
        sides = boxes[:, 2:] - boxes[:, :2]
        inside = np.clip(boxes, 0, limits)
        kept = (inside[:, 2:] - inside[:, :2]).clip(0).prod(axis=1)
        finite = np.logical_and.reduce(np.isfinite(boxes), axis=1)
        empty = np.logical_and(finite, (sides < THINNEST).any(axis=1))
        outside = np.logical_and(finite & ~empty, kept < INSIDE * sides.prod(axis=1))
    for row in np.flatnonzero(~finite | empty | outside).tolist():
        if not finite[row]:
            reason = "its box is not of finite numbers"
        elif empty[row]:
            reason = f"its box has no area ({sides[row, 0]:.6g} x {sides[row, 1]:.6g} pixels)"
        else:
            corners = " ".join(f"{side:.6g}" for side in boxes[row])
            reason = f"its box lies mostly outside of the picture ({corners} in {size[0]} x {size[1]} pixels)"
        bad.append((marks.where(row), reason))
    good = np.flatnonzero(finite & ~empty & ~outside)
    over = np.abs(boxes[good] - inside[good]).max(axis=1, initial=0.0)
    odd.clipped += int((over > ROUNDING).sum())
    odd.farthest = max(odd.farthest, float(over.max(initial=0.0)))
    labels = number[marks.labels[good]]
    _, first = np.unique(np.column_stack([inside[good], labels]), axis=0, return_index=True)
    odd.twice += len(good) - len(first)
    rows = np.sort(first)
    return Objects.of(inside[good][rows], labels[rows], marks.crowd[good][rows])


def table_row(split: str, scenes: Sequence[Scene], classes: Sequence[str]) -> str:
    """How many pictures and objects a split has, by class."""
    counts = counts_of(scenes, classes)
    objects = f"{counts.sum():,} objects"
    if len(classes) <= CLASSES_SHOWN:
        objects += f" ({', '.join(f'{name} {count:,}' for name, count in zip(classes, counts.tolist(), strict=True))})"
    else:
        ends = [int(counts.argmax()), int(counts.argmin())]
        most, least = (f"{classes[place]} {counts[place]:,}" for place in ends)
        objects += f" of {len(classes)} classes (from {most} to {least})"
    empty = sum(len(scene.objects) == 0 for scene in scenes)
    crowds = sum(int(scene.objects.crowd.sum()) for scene in scenes)
    groups = f", {crowds:,} of them crowds or difficult" if crowds else ""
    return f"{split}: {len(scenes):,} pictures, {objects}{groups}; {empty:,} pictures have none"


def counts_of(scenes: Sequence[Scene], classes: Sequence[str]) -> np.ndarray:
    """int64, (classes,): objects of each class."""
    labels = [scene.objects.labels for scene in scenes]
    return np.bincount(np.concatenate([np.zeros(0, np.int64), *labels]), minlength=len(classes))


def split_notes(split: str, scenes: Sequence[Scene], classes: Sequence[str], odd: Oddities) -> Iterator[str]:
    """The split's row of the table, and what was odd in it."""
    yield table_row(split, scenes, classes)
    missing = [name for name, count in zip(classes, counts_of(scenes, classes), strict=True) if not count]
    if missing:
        yield f"{split}: no object of {some(missing)}"
    if odd.unlabelled:
        count = len(odd.unlabelled)
        yield f"{split}: {count:,} pictures have no label file and count as empty ({some(odd.unlabelled)})"
    if odd.clipped:
        by = f"{odd.farthest:.0f} pixels"
        yield f"{split}: {odd.clipped:,} boxes reach over the border, by up to {by}, and are clipped"
    if odd.twice:
        yield f"{split}: {odd.twice:,} objects are listed twice; one of each is kept"


class Twins:
    """Finds equal pictures in the splits given so far."""

    def __init__(self) -> None:
        self._seen: dict[str, Mapping[bytes, str]] = {}

    def add(self, split: str, prints: Sequence[bytes], names: Sequence[str]) -> Iterator[str]:
        """What is equal within `split`, and what is in another split too.

        Args:
            prints: a digest of each picture.
            names: what each is called.
        """
        first: dict[bytes, str] = {}
        within: list[str] = []
        for mark, name in zip(prints, names, strict=True):
            if (other := first.setdefault(mark, name)) != name:
                within.append(f"{name} = {other}")
        if within:
            yield f"{split}: {len(within)} pictures are equal to another ({some(within)})"
        for name, marks in self._seen.items():
            twins = [f"{mine} = {marks[mark]}" for mark, mine in zip(prints, names, strict=True) if mark in marks]
            if twins:
                yield f"{len(twins)} pictures of {split} are in {name} too, which flatters the score ({some(twins)})"
        self._seen[split] = first
