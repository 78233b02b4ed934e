"""What is said where: utterances found but not yet heard, and files by folder. Knows no layout and decodes no sound."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from modelwright.data import Split
from modelwright.errors import ConfigError
from modelwright.listings import split_named
from modelwright.stores import Folder, Store
from modelwright_speech.sounds import to_samples

SPLITS: tuple[Split, ...] = ("train", "valid", "test")

Problem: TypeAlias = "tuple[str, str]"
"""What cannot be used: where, and why."""


@dataclass(frozen=True)
class Utterance:
    """A stretch of sound and the text that is spoken in it.

    Attributes:
        store: where its file lies.
        name: the file's name there.
        text: None: it is not known.
        speaker: None: not known.
        offset: seconds of the file before it begins.
        duration: seconds; None: to the file's end.
        source: where its text is written ("train.csv line 7").
    """

    store: Store
    name: str
    text: str | None
    speaker: str | None = None
    offset: float = 0.0
    duration: float | None = None
    source: str = ""

    @property
    def where(self) -> str:
        """The sound as a person would look it up."""
        part = f" from {self.offset:g} s" if self.offset else ""
        return f"{self.store.where(self.name)}{part}"

    @property
    def told(self) -> str:
        """The same with where its text is written."""
        return f"{self.where} ({self.source})" if self.source else self.where

    @property
    def path(self) -> Path | None:
        """Its file on disk; None: it lies in an archive."""
        return self.store.path / self.name if isinstance(self.store, Folder) else None

    def samples(self, rate: int, data: bytes | None = None) -> np.ndarray:
        """Its sound: float32, (samples,), at `rate`.

        Args:
            data: the bytes of its file, where they are at hand.

        Raises:
            DataError: it cannot be read.
            OSError: its archive cannot be.
        """
        raw = data if data is not None else self.path or self.store.read(self.name)
        return to_samples(raw, rate, where=self.where, offset=self.offset, duration=self.duration)


@dataclass
class Found:
    """The utterances of a split, in an order that does not depend on where they lie.

    Attributes:
        bad: lines and files that cannot be used.
        wanted: where texts belong, to be told where there are none.
    """

    utterances: list[Utterance] = field(default_factory=list[Utterance])
    bad: list[Problem] = field(default_factory=list[Problem])
    wanted: str = ""


Layout: TypeAlias = "dict[Split, Found]"
"""Each split that the data have. Data without splits are one: train."""


def joined(layouts: Iterable[Layout]) -> Layout:
    """Several layouts as one, the splits in their usual order."""
    made: Layout = {}
    for layout in layouts:
        for split, found in layout.items():
            whole = made.setdefault(split, Found(wanted=found.wanted))
            whole.utterances += found.utterances
            whole.bad += found.bad
    return {split: made[split] for split in SPLITS if split in made}


def split_called(name: str) -> Split | None:
    """The split that a word means, those of speech corpora included (dev, eval, train-clean-100); None: none."""
    for word in (name, *name.replace("_", "-").split("-")):
        if found := split_named(word):
            return found
        if word.strip().lower() in ("dev", "devel", "development"):
            return "valid"
        if word.strip().lower() in ("eval", "evaluation"):
            return "test"
    return None


def splits_of(named: Sequence[Split | None]) -> list[Split]:
    """The split of each place of a list: what its name says, or, where one says nothing, all by their order.

    Raises:
        ConfigError: more places than there are splits.
    """
    if None not in named:
        return [split for split in named if split is not None]
    by_order: dict[int, list[Split]] = {1: ["train"], 2: ["train", "test"], 3: ["train", "valid", "test"]}
    if len(named) not in by_order:
        raise ConfigError(f"data.path lists {len(named)} places: give one, or one each for train, valid and test")
    return by_order[len(named)]


class Tree:
    """Files of a store, by name. What is hidden is passed over."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.files = sorted(name for name in store.names() if not name.endswith("/") and not _hidden(name))
        self._set = frozenset(self.files)
        self._ends: dict[str, list[str]] = {}
        for name in self.files:
            self._ends.setdefault(posixpath.basename(name), []).append(name)

    def __contains__(self, name: object) -> bool:
        return name in self._set

    def with_suffix(self, *suffixes: str, under: str = "") -> list[str]:
        """Files of the given endings (lower case), sorted."""
        return [name for name in self.files if name.lower().endswith(suffixes) and name.startswith(under)]

    def called(self, base: str) -> list[str]:
        """Files of a name in any folder, the nearest first."""
        return sorted(self._ends.get(base, []), key=lambda name: (name.count("/"), name))

    def resolve(self, name: str) -> str | None:
        """The file that a path means: itself, or the only one that ends so; archives often have a folder around all."""
        if name in self:
            return name
        ends = [each for each in self._ends.get(posixpath.basename(name), []) if each.endswith(f"/{name}")]
        return ends[0] if len(ends) == 1 else None

    def texts(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | str]]:
        """The named files, each as its bytes or as the reason why it cannot be read; in whatever order is quickest."""
        return self.store.stream(list(names))

    def one(self, name: str) -> bytes | str:
        """One file, or the reason why it cannot be read."""
        return dict(self.store.stream([name]))[name]


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
