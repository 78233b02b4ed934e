"""The torch-free records of the contract: how samples are asked for, a task's inputs, splits and facts.

Knows numpy only; knows neither batches nor models. `modelwright.task` offers all of them too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, cast

import numpy as np

from modelwright.errors import DataError

Split: TypeAlias = Literal["train", "valid", "test"]


@dataclass(frozen=True, slots=True)
class Key:
    """Asks a dataset for one sample. The same key always gives the same sample."""

    seed: int
    epoch: int
    epochs: int
    index: int  # pyright: ignore[reportIncompatibleMethodOverride] - hides tuple.index, which nobody asks of a key


class Keys(NamedTuple):
    """Asks a dataset for a whole batch at once. `indices`: int64, one per sample."""

    seed: int
    epoch: int
    epochs: int
    indices: np.ndarray

    def each(self) -> Iterator[Key]:
        """One Key per sample."""
        for index in self.indices.tolist():
            yield Key(self.seed, self.epoch, self.epochs, index)


class Example(NamedTuple):
    """A raw thing with what is true of it. `targets`: name -> number or array."""

    raw: Any
    targets: Mapping[str, Any]


class Dataset(Protocol):
    """Map-style data; a sample's id is its index.

    Offer ``__getitems__(keys: Keys) -> Batch | list[Example]`` too where a whole batch can be had with one index:
    tensor-resident data then cost no Python per sample. A dataset that changes its samples for training (mosaic) offers
    ``plain`` too: a dataset of the same samples as they are, which is what is scored.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, key: Key, /) -> Example: ...


@dataclass(frozen=True)
class Size:
    """A dimension that may change: its name, its smallest value and what it must be a multiple of."""

    name: str
    minimum: int = 1
    multiple: int = 1


@dataclass(frozen=True)
class Input:
    """One input of the model: raw values (uint8 pixels, sound samples, table cells).

    Attributes:
        name: as the codec calls it.
        shape: without the batch axis; a `Size` where it may change.
        dtype: numpy's name ("uint8", "float32", "int64").
    """

    name: str
    shape: tuple[int | Size, ...]
    dtype: str


@dataclass
class Facts:
    """What model and codec need to know of the training data; computed once, stored with the run.

    Attributes:
        values: JSON values (class names, an alphabet, a size).
        arrays: name -> array (quantiles, means).
    """

    values: dict[str, Any] = field(default_factory=dict[str, Any])
    arrays: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])


@dataclass
class Datasets:
    """A task's splits. Each may be given as a function, called when the split is first asked for.

    Attributes:
        notes: what a user should know of the data (skipped samples, duplicates); shown and kept in the report.
    """

    train: Dataset | Callable[[], Dataset] | None
    valid: Dataset | Callable[[], Dataset] | None = None
    test: Dataset | Callable[[], Dataset] | None = None
    notes: list[str] = field(default_factory=list[str])

    def has(self, split: Split) -> bool:
        """Whether there is such a split."""
        return getattr(self, split) is not None

    def __getitem__(self, split: Split) -> Dataset:
        """The split, made now if it was given as a function.

        Raises:
            DataError: there is no such split, or it is empty.
        """
        found = getattr(self, split, None)
        if found is None:
            raise DataError(f"the data have no {split} split: name one with data.path, or use another --split")
        if not hasattr(type(found), "__len__"):
            found = found()
            setattr(self, split, found)
        if len(found) == 0:
            raise DataError(f"the {split} split is empty: check data.path")
        return cast("Dataset", found)
