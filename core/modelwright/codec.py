"""The torch-free half of the contract: raw thing -> arrays, arrays -> prediction.

Knows numpy only, so that the same code runs in training, in evaluation and where a bundle is served.
Knows nothing of models, losses or files on disk.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np

Column: TypeAlias = "np.ndarray | list[Any]"
"""One value per sample: an array whose first axis is the sample, or a list where samples differ in size."""


class Columns(Mapping[str, Column]):
    """Named columns with the samples' ids beside them.

    Args:
        data: name -> array (first axis is the sample) or list (one entry per sample).
        ids: int64, one per sample; 0, 1, 2, ... when left out.

    Raises:
        ValueError: the columns differ in length.

    >>> table = Columns({"label": np.array([1, 0]), "boxes": [[1, 2], []]}, ids=np.array([7, 3]))
    >>> table.sorted().ids
    array([3, 7])
    >>> table.select([1, 1])["boxes"]
    [[], []]
    """

    def __init__(self, data: Mapping[str, Column], ids: np.ndarray | None = None) -> None:
        lengths = {name: len(column) for name, column in data.items()}
        if ids is None:
            ids = np.arange(next(iter(lengths.values()), 0), dtype=np.int64)
        if any(length != len(ids) for length in lengths.values()):
            raise ValueError(f"columns differ in length: {len(ids)} ids, {lengths}")
        self.ids = np.asarray(ids, dtype=np.int64)
        self._data = dict(data)

    def __getitem__(self, name: str) -> Column:
        return self._data[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        """The number of columns, as of any mapping; `rows` is the number of samples."""
        return len(self._data)

    @property
    def rows(self) -> int:
        """The number of samples."""
        return len(self.ids)

    def array(self, name: str) -> np.ndarray:
        """The column as an array (a list column becomes an object array)."""
        column = self._data[name]
        if isinstance(column, np.ndarray):
            return column
        boxed = np.empty(len(column), dtype=object)
        boxed[:] = column
        return boxed

    def select(self, rows: np.ndarray | Sequence[int]) -> Columns:
        """The rows of the given numbers, in the given order, repeated where asked twice; or those where a mask is true.

        Raises:
            ValueError: a mask of another length.
        """
        index = np.asarray(rows)
        if index.dtype == bool:
            if len(index) != self.rows:
                raise ValueError(f"a mask of {len(index)} entries does not fit {self.rows} rows")
            index = np.flatnonzero(index)
        index = index.astype(np.int64)  # an empty list comes as floats
        picked: dict[str, Column] = {
            name: column[index] if isinstance(column, np.ndarray) else [column[i] for i in index]
            for name, column in self._data.items()
        }
        return Columns(picked, self.ids[index])

    def sorted(self) -> Columns:
        """The rows in ascending order of their ids (stable)."""
        if len(self.ids) < 2 or bool(np.all(self.ids[1:] >= self.ids[:-1])):
            return self
        return self.select(np.argsort(self.ids, kind="stable"))

    def with_ids(self, ids: np.ndarray) -> Columns:
        """The same columns under other ids."""
        return Columns(self._data, ids)

    def beside(self, other: Columns) -> Columns:
        """The columns of both; both must hold the same samples and no name twice.

        Raises:
            ValueError: other ids, or a name that both have.
        """
        if not np.array_equal(self.ids, other.ids):
            raise ValueError("columns of different samples cannot stand side by side")
        if shared := set(self) & set(other):
            raise ValueError(f"both sides have a column {sorted(shared)}")
        return Columns({**self._data, **other._data}, self.ids)

    @staticmethod
    def join(parts: Iterable[Columns]) -> Columns:
        """The rows of all parts below each other.

        Raises:
            ValueError: no part at all, or parts with different columns.
        """
        tables = list(parts)
        if not tables:
            raise ValueError("there is nothing to join")
        if any(set(table) != set(tables[0]) for table in tables):
            raise ValueError(f"parts have different columns: {sorted({tuple(sorted(t)) for t in tables})}")
        # Parts of no rows carry no shape to trust (a rank that had nothing to do).
        filled = [table for table in tables if table.rows] or tables[:1]
        joined: dict[str, Column] = {}
        for name in filled[0]:
            columns = [table[name] for table in filled]
            if all(isinstance(column, np.ndarray) for column in columns):
                joined[name] = np.concatenate(columns)
            else:
                joined[name] = [value for column in columns for value in column]
        return Columns(joined, np.concatenate([table.ids for table in filled]))


@dataclass(frozen=True)
class Sample:
    """One thing the model can take, made from a raw thing.

    Attributes:
        arrays: input name -> array without a batch axis.
        row: which raw thing it came from (its place in the list given to `Codec.prepare`).
        context: what decoding this sample needs (scale and offset of a letterbox, length, place of a window).
    """

    arrays: Mapping[str, np.ndarray]
    row: int = 0
    context: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Context:
    """What decoding a batch needs: one entry per sample of the batch.

    Attributes:
        rows: int64, the raw thing each sample came from.
        samples: each sample's own context.
        columns: the same by name, one value per sample, where a codec converts whole columns at once.
    """

    rows: np.ndarray
    samples: Sequence[Mapping[str, Any]] = ()
    columns: Mapping[str, Column] = field(default_factory=dict[str, Column])


@dataclass(frozen=True)
class Format:
    """A way to write predictions down.

    Attributes:
        summary: one line, for `--help`.
        write: (name, raw thing, its prediction as one row) -> (file name, content), one file for each raw thing.
    """

    summary: str
    write: Callable[[str, Any, Columns], tuple[str, bytes]]


@dataclass(frozen=True)
class Collection:
    """A way to write all predictions down in one text.

    Attributes:
        summary: one line, for `--help`.
        write: (name, prediction as one row) of each raw thing -> the text.
    """

    summary: str
    write: Callable[[Iterable[tuple[str, Columns]]], str]


class Codec(ABC):
    """Raw thing -> arrays, and arrays -> prediction. A subclass is a frozen dataclass of plain values.

    The four steps, in the order of use: `prepare` and `collate` before the model, `decode` and `merge` after it.
    Only `prepare` and `decode` have to be written.
    """

    @abstractmethod
    def prepare(self, raws: Sequence[Any]) -> list[Sample]:
        """Each raw thing (a picture, a sound, a table row) as one or several samples."""

    def collate(self, samples: Sequence[Sample]) -> tuple[dict[str, np.ndarray], Context]:
        """Samples as arrays with a leading batch axis; the default stacks them.

        Raises:
            ValueError: samples of different shapes (a codec of such things pads them here).
        """
        names = list(samples[0].arrays) if samples else []
        arrays = {name: np.stack([sample.arrays[name] for sample in samples]) for name in names}
        rows = np.array([sample.row for sample in samples], dtype=np.int64)
        return arrays, Context(rows, [sample.context for sample in samples])

    @abstractmethod
    def decode(self, outputs: Mapping[str, np.ndarray], context: Context | None) -> Columns:
        """The model's outputs (batch first) as predictions, one row per sample of the batch."""

    def merge(self, parts: Sequence[Columns]) -> Columns:
        """The predictions of all samples of one raw thing (tiles, windows) as one row.

        Raises:
            ValueError: by default, when there are several: the codec that splits must say how to join.
        """
        if len(parts) != 1:
            raise ValueError(f"{type(self).__name__} splits raw things but does not define merge")
        return parts[0]

    def batches(self, raws: Sequence[Any], *, size: int) -> Iterator[tuple[dict[str, np.ndarray], Context]]:
        """Raw things as batches of at most `size` samples; what a bundle predicts from.

        The default prepares and collates. A codec of tables overrides it where whole columns can be converted at once.
        """
        samples = self.prepare(raws)
        for first in range(0, len(samples), size):
            yield self.collate(samples[first : first + size])

    # Files and people: only what serves a bundle needs these -----------------------------------------------------

    batch_size: ClassVar[int] = 32
    """Raw things that a bundle predicts together; more where each is small."""

    def many(self, x: Any) -> Sequence[Any] | None:
        """What a user hands over as a sequence of raw things; None where it is one raw thing.

        The default takes a list as several. A codec of tables also takes tables.
        """
        return x if isinstance(x, list) else None

    def explain(self, outputs: Mapping[str, np.ndarray], context: Context | None) -> Columns:
        """Like `decode`, with columns that say why; `outputs` are those of the task's explainer.

        Raises:
            NotImplementedError: the task has no explainer.
        """
        raise NotImplementedError(f"{type(self).__name__} does not explain")

    suffixes: ClassVar[tuple[str, ...]] = ()
    """Endings of the files that hold raw things (".png"), lower case; what a folder is searched for; empty: any."""

    def read(self, path: Path) -> Iterator[tuple[str, Any]]:
        """The raw things in a file, each with a name to tell it by; by default the file itself is one.

        Raises:
            modelwright.errors.DataError: the file cannot be read.
        """
        yield str(path), path

    def records(self, predictions: Columns) -> list[dict[str, Any]]:
        """Predictions as people and programs read them: JSON values by name, one dict per row; the first few matter.

        The default gives every column as it is.
        """
        columns = {name: predictions.array(name).tolist() for name in predictions}
        return [{name: column[row] for name, column in columns.items()} for row in range(predictions.rows)]

    def formats(self) -> Mapping[str, Format | Collection]:
        """Further formats of `modelwright predict`, by the name that `--format` takes."""
        return {}

    def settings(self) -> dict[str, Any]:
        """What `type(self)(**settings)` needs to make this codec again; JSON values only."""
        if not dataclasses.is_dataclass(self):
            raise TypeError(f"{type(self).__name__} is no dataclass: define settings()")
        return dataclasses.asdict(self)


def merged(codec: Codec, table: Columns) -> Columns:
    """One row per raw thing, in the order of ids: what was split into several samples is joined by the codec."""
    table = table.sorted()
    ids, starts, counts = np.unique(table.ids, return_index=True, return_counts=True)
    if len(ids) == table.rows:
        return table
    rows = [np.arange(start, start + count) for start, count in zip(starts, counts, strict=True)]
    return Columns.join(codec.merge([table.select([i]) for i in each]).with_ids(table.ids[each[:1]]) for each in rows)
