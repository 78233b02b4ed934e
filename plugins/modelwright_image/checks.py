"""What a user should know of the splits before training: pictures twice, uneven classes. Reads no files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from modelwright_image.datasets import PictureSet

SHOWN = 10
"""Bad pictures that a message names."""
UNEVEN = 10
"""How many times as large as the smallest class the largest must be to be told."""


def listed(bad: Sequence[tuple[str, str]]) -> str:
    """The first bad pictures with their reasons."""
    more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    return "; ".join(f"{where}: {reason}" for where, reason in bad[:SHOWN]) + more


def class_notes(split: str, pictures: PictureSet) -> Iterator[str]:
    """Classes without a picture, and classes of very different size."""
    counts = np.bincount(pictures.labels, minlength=len(pictures.classes))
    empty = [name for name, count in zip(pictures.classes, counts, strict=True) if not count]
    if empty:
        yield f"{split}: no picture of {', '.join(empty[:5])}{' ...' if len(empty) > 5 else ''}"
    small, large = int(np.where(counts > 0, counts, counts.max()).argmin()), int(counts.argmax())
    if split == "train" and counts[large] >= UNEVEN * counts[small]:
        yield (
            f"classes are uneven: {counts[large]} pictures of {pictures.classes[large]}, {counts[small]} of "
            f"{pictures.classes[small]}; consider loss.class_weights=balanced"
        )


class Twins:
    """Finds equal pictures in the splits given so far."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Mapping[bytes, int], PictureSet]] = {}

    def add(self, split: str, pictures: PictureSet) -> Iterator[str]:
        """What is equal within `split` under two labels, and what is in another split too."""
        prints = pictures.fingerprints()
        first: dict[bytes, int] = {}
        clashes: list[tuple[int, int]] = []
        for row, mark in enumerate(prints):
            other = first.setdefault(mark, row)
            if pictures.labels[other] != pictures.labels[row]:
                clashes.append((row, other))
        if clashes:
            some = ", ".join(_pair(pictures, row, pictures, other) for row, other in clashes[:3])
            yield f"{split}: {len(clashes)} pictures are equal to one of another class ({some})"
        for name, (marks, others) in self._seen.items():
            twins = [(row, marks[mark]) for row, mark in enumerate(prints) if mark in marks]
            if twins:
                some = ", ".join(_pair(pictures, row, others, other) for row, other in twins[:3])
                yield f"{len(twins)} pictures of {split} are in {name} too, which flatters the score ({some})"
        self._seen[split] = (first, pictures)


def _pair(one: PictureSet, row: int, other: PictureSet, other_row: int) -> str:
    return f"{one.name_of(row)} = {other.name_of(other_row)}"
