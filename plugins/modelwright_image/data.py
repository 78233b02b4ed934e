"""Settings -> the three splits, cut where the data have none, read and checked. Knows no file formats and no models."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from modelwright.errors import DataError
from modelwright.listings import split_rows
from modelwright.task import Datasets, Split
from modelwright_image.checks import Twins, class_notes, listed
from modelwright_image.config import ImageData
from modelwright_image.datasets import LazyPictures, Pictures, PictureSet
from modelwright_image.pools import GIB, FilePool, Order, Pool, Problems, PublishedPool
from modelwright_image.published import published
from modelwright_image.sources import Found, find

__all__ = ["Known", "LazyPictures", "PictureSet", "Pictures", "cut", "load"]

SPLITS: tuple[Split, ...] = ("train", "valid", "test")
Share: TypeAlias = "tuple[Pool, np.ndarray]"
"""Samples of a split: a pool and rows of it."""


@dataclass(frozen=True)
class Known:
    """What a run knows already of its training pictures (its facts).

    Attributes:
        classes: names, in the order of the labels.
        size: height and width that pictures are brought to.
        channels: 1 (grey) or 3 (RGB).
    """

    classes: tuple[str, ...]
    size: int
    channels: int


def load(config: ImageData, *, seed: int, known: Known | None = None) -> Datasets:
    """The splits that `config` describes; each is a `Pictures`, or a `LazyPictures` where memory is short.

    Published or own splits are kept; where there is no valid or test split, a stratified share of the training
    pictures is cut off, a pure function of the data and `seed`.

    Args:
        seed: of the cuts.
        known: None for a new run: every split is read and checked at once, so that a broken test picture does not
            show after hours of training. With it, each split is read when first asked for, and what is noticed then
            joins the notes.

    Raises:
        ConfigError: `data.path` is missing or lists too many places.
        DataError: pictures or classes are missing, broken or contradictory (with `known`, some only when a split
            is asked for).
    """
    notes: list[str] = []
    own = config.name in ("folder", "csv")
    given = _own(config, notes=notes) if own else _published(config, notes=notes)
    if "train" not in given:
        raise DataError(f"the data have no train split, only {', '.join(given)}: name one with data.path or data.split")
    shares = _with_cuts(given, {"test": config.test, "valid": config.valid}, seed=seed, notes=notes)
    reader = _Reader(config, shares, notes=notes, known=known)
    if known is None:
        read = reader.all()
        return Datasets(read["train"], read.get("valid"), read.get("test"), notes=notes)
    makers = {split: functools.partial(reader.one, split) for split in shares}
    return Datasets(makers["train"], makers.get("valid"), makers.get("test"), notes=notes)


def _own(config: ImageData, *, notes: list[str]) -> dict[Split, Callable[[], Share]]:
    def share(found: Callable[[], Found]) -> Share:
        return _whole(FilePool(found()))

    layout = find(config, notes=notes)
    return {split: functools.cache(functools.partial(share, found)) for split, found in layout.items()}


def _whole(pool: Pool) -> Share:
    return pool, np.arange(len(pool.labels))


def _published(config: ImageData, *, notes: list[str]) -> dict[Split, Callable[[], Share]]:
    given = published(config)
    if config.split is None:
        titles = {split: config.name if split == "train" else f"{config.name}/{split}" for split in given}
        return {
            split: functools.cache(lambda split=split: _whole(PublishedPool(given[split](), title=titles[split])))
            for split in given
        }
    if len(given) > 1:
        raise DataError(f"data.split does not go with {config.name}, which was published with splits: leave it out")
    pool = PublishedPool(given["train"](), title=config.name)
    rows = np.arange(len(pool.labels))
    spelt = list(zip(pool.names(rows), map(str, rows.tolist()), strict=True))
    named = np.array(split_rows(Path(config.split).expanduser(), spelt, what="pictures", notes=notes))
    return {split: _constant((pool, np.flatnonzero(named == split))) for split in SPLITS if (named == split).any()}


def _constant(share: Share) -> Callable[[], Share]:
    return lambda: share


# Cutting ------------------------------------------------------------------------------------------------------------


def _with_cuts(
    given: Mapping[Split, Callable[[], Share]], wanted: Mapping[Split, float], *, seed: int, notes: list[str]
) -> dict[Split, Callable[[], Share]]:
    """`given`, with the splits that it lacks cut from its training samples."""
    lacking: dict[Split, float] = {split: share for split, share in wanted.items() if split not in given and share > 0}

    @functools.cache
    def parts() -> dict[Split, Share]:
        pool, rows = given["train"]()
        labels = [str(pool.labels[row]) for row in rows.tolist()]
        pieces = cut(labels, lacking, seed=seed)
        counts = ", ".join(f"{split} {len(piece)}" for split, piece in pieces.items())
        notes.append(f"splits cut from the training pictures, stratified, by seed {seed}: {counts}")
        return {split: (pool, rows[piece]) for split, piece in pieces.items()}

    def part(split: Split) -> Share:
        return parts()[split]

    made: dict[Split, Callable[[], Share]] = dict(given)
    for split in SPLITS:
        if split in lacking or (lacking and split == "train"):
            made[split] = functools.partial(part, split)
    return {split: made[split] for split in SPLITS if split in made}


def cut(labels: Sequence[str], shares: Mapping[Split, float], *, seed: int) -> dict[Split, np.ndarray]:
    """Rows of `labels` as a train split and one split per share, stratified; a pure function of its arguments.

    Args:
        shares: of all rows; at least one row per class is cut off for each.

    Raises:
        DataError: a class has too few samples to be in every split, or nothing would be left to train on.
    """
    from sklearn.model_selection import train_test_split

    counts = Counter(labels)
    small = [name for name, count in counts.items() if count < len(shares) + 1]
    if small:
        raise DataError(
            f"too few pictures to cut {' and '.join(shares)} from: {', '.join(small[:5])} has fewer than "
            f"{len(shares) + 1}; add pictures, name the splits with data.split, or set data.valid=0 data.test=0"
        )
    rest = np.arange(len(labels))
    pieces: dict[Split, np.ndarray] = {}
    for split, share in shares.items():
        size = max(round(share * len(labels)), len(counts))
        if len(rest) - size < len(counts):
            raise DataError(
                f"nothing is left to train on: {' and '.join(f'data.{name}={part}' for name, part in shares.items())} "
                f"of {len(labels)} pictures; lower them"
            )
        stratify = [labels[row] for row in rest.tolist()]
        try:
            rest, piece = train_test_split(rest, test_size=size, stratify=stratify, random_state=seed % 2**32)
        except ValueError as error:  # a first cut can leave a small class with a single picture
            name = min(counts, key=counts.__getitem__)
            raise DataError(
                f"{name} has {counts[name]} pictures, too few to cut {split} from after the other split: add pictures, "
                "name the splits with data.split, or lower data.valid and data.test"
            ) from error
        pieces[split] = np.sort(piece)
        rest = np.sort(rest)
    return {"train": rest, **{split: pieces[split] for split in SPLITS if split in pieces}}


# Reading and checking -----------------------------------------------------------------------------------------------


class _Reader:
    """Reads splits, the training split first: it decides on classes, size and channels."""

    def __init__(
        self,
        config: ImageData,
        shares: Mapping[Split, Callable[[], Share]],
        *,
        notes: list[str],
        known: Known | None,
    ) -> None:
        self._config = config
        self._shares = shares
        self._notes = notes
        self._known = known
        self._memory = config.memory * GIB
        self._twins = Twins()

    def all(self) -> dict[Split, PictureSet]:
        """Every split; one error names the bad pictures of all."""
        problems = Problems()
        read: dict[Split, PictureSet | None] = {split: self._read(split, problems) for split in self._shares}
        self._judge(problems)
        return {split: self._checked(split, pictures) for split, pictures in read.items()}

    def one(self, split: Split) -> PictureSet:
        """One split."""
        problems = Problems()
        pictures = self._read(split, problems)
        self._judge(problems)
        return self._checked(split, pictures)

    def _read(self, split: Split, problems: Problems) -> PictureSet | None:
        pool, rows = self._shares[split]()
        config, known = self._config, self._known
        classes = known.classes if known else pool.classes
        if len(classes) < 2:
            raise DataError(f"all pictures are of one class ({', '.join(classes)}): classification needs two or more")
        if unknown := sorted(set(pool.classes) - set(classes)):
            raise DataError(
                f"the {split} split has classes that the training pictures have not ({', '.join(unknown[:5])}): name "
                f"classes alike in all splits; known are {', '.join(classes[:10])}"
            )
        size, channels = (known.size, known.channels) if known else (config.size, None)
        order = Order(split, classes, size, channels, config.resize, self._memory)
        pictures = pool.read(rows, order, problems)
        if pictures is not None:
            self._known = known or Known(classes, pictures.size, pictures.channels)
            if isinstance(pictures, Pictures):
                self._memory -= pictures.pixels.nbytes
        return pictures

    def _judge(self, problems: Problems) -> None:
        """Stops at bad pictures, or counts them, as `data.on_bad` says."""
        self._notes += problems.notes
        if not problems.bad:
            return
        count = f"{len(problems.bad)} of {problems.looked_at} pictures"
        if self._config.on_bad == "error":
            raise DataError(f"{count} cannot be used: {listed(problems.bad)}; set data.on_bad=skip to leave them out")
        self._notes.append(f"{count} cannot be used and are left out: {listed(problems.bad)}")

    def _checked(self, split: Split, pictures: PictureSet | None) -> PictureSet:
        if pictures is None:
            raise DataError(f"not one picture of the {split} split can be used: check data.path")
        empty = [name for label, name in enumerate(pictures.classes) if not (pictures.labels == label).any()]
        if split == "train" and empty:
            raise DataError(f"no training picture of {', '.join(empty[:5])}: add some, or leave the class out")
        self._notes += [*class_notes(split, pictures), *self._twins.add(split, pictures)]
        return pictures
