"""Pictures found with what their label files say, not yet opened nor checked; and files by folder. Knows no format."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from modelwright.data import Split
from modelwright.errors import ConfigError
from modelwright.stores import Folder, Store

Problem: TypeAlias = "tuple[str, str]"
"""What cannot be used: where, and why."""


@dataclass(frozen=True)
class Marks:
    """The objects of a picture as they are written; any of them may be nonsense.

    Attributes:
        boxes: float64, (n, 4): left, top, right, bottom.
        labels: int64, (n,): an index into the classes of `Found`.
        crowd: bool, (n,).
        source: the label file as people call it, with what a number counts: "train/7.txt line".
        numbers: int64, (n,): which one each is.
        relative: whether boxes are shares of the picture's sides rather than pixels.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    source: str
    numbers: np.ndarray
    relative: bool = False

    @staticmethod
    def of(
        boxes: object,
        labels: object,
        *,
        source: str,
        crowd: object = None,
        numbers: object = None,
        relative: bool = False,
    ) -> Marks:
        """Anything like arrays, in the right types; by default none is a crowd, and numbers count from 1."""
        kinds = np.asarray(labels, dtype=np.int64).reshape(-1)
        return Marks(
            np.asarray(boxes, dtype=np.float64).reshape(-1, 4),
            kinds,
            np.zeros(len(kinds), bool) if crowd is None else np.asarray(crowd, dtype=bool).reshape(-1),
            source,
            np.arange(1, len(kinds) + 1) if numbers is None else np.asarray(numbers, dtype=np.int64).reshape(-1),
            relative,
        )

    def where(self, row: int) -> str:
        """An object as people would look it up."""
        return f"{self.source} {self.numbers[row]}"


@dataclass(frozen=True)
class Entry:
    """A picture that has not been opened yet.

    Attributes:
        store: where it lies.
        name: its name there.
        marks: None: it has no label file.
        size: width and height that its labels speak of; None: they do not say.
    """

    store: Store
    name: str
    marks: Marks | None
    size: tuple[int, int] | None = None

    @property
    def where(self) -> str:
        """The file as a person would call it."""
        return self.store.where(self.name)


@dataclass
class Found:
    """The pictures of a split, in an order that does not depend on where they lie.

    Attributes:
        classes: names, in the order of the marks' labels.
        entries: the pictures.
        bad: label files and lines that cannot be used, pictures that are not there.
        wanted: where labels belong, to be told where there are none.
    """

    classes: tuple[str, ...]
    entries: list[Entry] = field(default_factory=list[Entry])
    bad: list[Problem] = field(default_factory=list[Problem])
    wanted: str = ""


Layout: TypeAlias = "dict[Split, Callable[[], Found]]"
"""Each split the data have, read when called. Data without splits are one: train."""


class Tree:
    """Files of a store by folder. Names are relative to the store; those in a folder on disk may lead out of it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._all: list[str] | None = None

    def under(self, folder: str = "") -> list[str]:
        """Every file in a folder and below, sorted; what is hidden is passed over."""
        if isinstance(self.store, Folder):
            found = [posixpath.join(folder, name) for name in Folder(self.store.path / folder).names()]
        else:
            found = [name for name in self._names() if not folder or name.startswith(f"{folder}/")]
        inner = len(folder)
        return sorted(name for name in found if not name.endswith("/") and not _hidden(name[inner:]))

    def near(self, suffixes: Sequence[str], *, depth: int = 2) -> list[str]:
        """Files of the given endings at most `depth` folders down, the nearest first."""
        if isinstance(self.store, Folder):
            root = self.store.path
            paths = [path for level in range(depth + 1) for path in root.glob("*/" * level + "*")]
            files = [path for path in paths if path.suffix.lower() in suffixes and path.is_file()]
            found = [path.relative_to(root).as_posix() for path in files]
        else:
            found = [name for name in self._names() if posixpath.splitext(name)[1].lower() in suffixes]
        near = [name for name in found if name.count("/") <= depth and not _hidden(name) and not name.endswith("/")]
        return sorted(near, key=lambda name: (name.count("/"), name))

    def is_file(self, name: str) -> bool:
        """Whether there is such a file."""
        if isinstance(self.store, Folder):
            return (self.store.path / name).is_file()
        return name in self._files()

    def is_folder(self, name: str) -> bool:
        """Whether there is such a folder with something in it."""
        if isinstance(self.store, Folder):
            return (self.store.path / name).is_dir()
        return name in ("", ".") or any(each.startswith(f"{name}/") for each in self._names())

    def texts(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | str]]:
        """The named files, each as its bytes or as the reason why it cannot be read; in whatever order is quickest."""
        return self.store.stream(list(names))

    def one(self, name: str) -> bytes | str:
        """One file, or the reason why it cannot be read."""
        return dict(self.store.stream([name]))[name]

    def _names(self) -> list[str]:
        if self._all is None:
            self._all = self.store.names()
            self._set = set(self._all)
        return self._all

    def _files(self) -> set[str]:
        self._names()
        return self._set


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def splits_of(named: Sequence[Split | None]) -> list[Split]:
    """The split of each place of a list: what its name says, or, where one says nothing, all by their order.

    Raises:
        ConfigError: more places than there are splits.
    """
    if None not in named and len(set(named)) == len(named):
        return [split for split in named if split is not None]
    by_order: dict[int, list[Split]] = {1: ["train"], 2: ["train", "test"], 3: ["train", "valid", "test"]}
    if len(named) not in by_order:
        raise ConfigError(f"data.path lists {len(named)} places: give one, or one each for train, valid and test")
    return by_order[len(named)]


def by_name(entries: Iterable[Entry]) -> list[Entry]:
    """Sorted by name, so that the order does not depend on where they lie."""
    return sorted(entries, key=lambda entry: entry.name)
