"""Cuts splits from training pictures where the data have none, fair to rare classes. Opens no picture."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from modelwright.data import Split
from modelwright.errors import DataError
from modelwright.training.randomness import generator
from modelwright_detection.entries import Entry, Found, Layout

SPLITS: tuple[Split, ...] = ("train", "valid", "test")


def with_cuts(layout: Layout, wanted: Mapping[Split, float], *, seed: int, notes: list[str]) -> Layout:
    """`layout`, each split read at most once, with those that it lacks cut from its training pictures.

    Args:
        wanted: the share of each split that may be lacking; 0: none is cut.
        seed: of the cuts.
        notes: receives what was cut.
    """
    made: Layout = {split: functools.cache(read) for split, read in layout.items()}
    lacking: dict[Split, float] = {split: share for split, share in wanted.items() if split not in made and share > 0}
    if not lacking:
        return made
    whole = made["train"]

    @functools.cache
    def parts() -> dict[Split, np.ndarray]:
        rows = cut(rarest(whole().entries), lacking, seed=seed)
        counts = ", ".join(f"{split} {len(rows[split])}" for split in SPLITS if split in rows)
        notes.append(f"splits cut from the training pictures by seed {seed}, rare classes in proportion: {counts}")
        return rows

    for split in SPLITS:
        if split in lacking or split == "train":
            made[split] = functools.cache(functools.partial(_part, whole, parts, split))
    return {split: made[split] for split in SPLITS if split in made}


def _part(whole: Callable[[], Found], parts: Callable[[], Mapping[Split, np.ndarray]], split: Split) -> Found:
    found = whole()
    entries = [found.entries[row] for row in parts()[split].tolist()]
    # What names no picture belongs to no split in particular: told once.
    return replace(found, entries=entries, bad=found.bad if split == "train" else [])


def rarest(entries: Sequence[Entry]) -> np.ndarray:
    """int64, (entries,): of each picture's classes the one that the fewest pictures have; -1: it has none."""
    held = [np.unique(entry.marks.labels) if entry.marks else np.zeros(0, np.int64) for entry in entries]
    counts = np.bincount(np.concatenate([np.zeros(0, np.int64), *held]))
    return np.array([labels[counts[labels].argmin()] if len(labels) else -1 for labels in held], dtype=np.int64)


def cut(groups: np.ndarray, shares: Mapping[Split, float], *, seed: int) -> dict[Split, np.ndarray]:
    """Rows as a train split and one split per share; each group is divided in proportion, to within a row or two.

    Pictures hold several classes, so strata in the strict sense do not exist: the rows, shuffled and put in order of
    their groups, are taken at even distances (systematic sampling).

    Args:
        groups: int64, (rows,).
        shares: of all rows.
        seed: of the shuffle; with the other arguments it decides everything.

    Raises:
        DataError: too few rows for so many splits, or nothing is left to train on.
    """
    rng = generator(seed, "cut")
    rest = rng.permutation(len(groups))
    rest = rest[np.argsort(groups[rest], kind="stable")]
    pieces: dict[Split, np.ndarray] = {}
    settings = " and ".join(f"data.{split}={share:g}" for split, share in shares.items())
    for split, share in shares.items():
        rate = share * len(groups) / max(len(rest), 1)
        marks = np.floor(rng.random() + rate * np.arange(len(rest) + 1))
        taken = np.diff(marks) > 0
        pieces[split] = np.sort(rest[taken])
        rest = rest[~taken]
    if not len(rest) or not all(len(piece) for piece in pieces.values()):
        raise DataError(
            f"{len(groups)} pictures are too few for {settings}: add pictures, name the splits with data.split, or "
            "change these shares (0: no such split)"
        )
    pieces["train"] = np.sort(rest)
    return {split: pieces[split] for split in SPLITS if split in pieces}
