"""Rows on disk, in groups that fit in memory: Parquet as it is, or rewritten once. Knows cells; no splits, no torch."""

# pyarrow has no annotations.
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from modelwright.errors import DataError
from modelwright_risk.cells import numbers
from modelwright_risk.files import Piece
from modelwright_risk.kinds import look
from modelwright_risk.tables import Places, blocks, parquet

GROUP = 1 << 16
"""Rows of a group that we write."""
LARGEST = 1 << 18
"""Rows of a group from which on a file is rewritten: several groups must fit in memory at once."""


@dataclass(frozen=True)
class Group:
    """Rows of a Parquet file that are read together. `first`: the number of its first row among all files."""

    file: int
    number: int
    first: int
    rows: int


@dataclass
class Store:
    """Parquet files.

    Attributes:
        paths: of the files.
        groups: of all of them.
        names: of the columns.
        places: where each file's rows stood before they were rewritten.
    """

    paths: Sequence[Path]
    groups: Sequence[Group]
    names: Sequence[str]
    places: Sequence[Places]
    _open: dict[int, pq.ParquetFile] = field(default_factory=dict[int, pq.ParquetFile], repr=False)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": {}}

    @property
    def size(self) -> int:
        """Rows in all."""
        return self.groups[-1].first + self.groups[-1].rows

    def cells(self, place: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of a group.

        Raises:
            DataError: the file was changed or is gone.
        """
        group = self.groups[place]
        try:
            file = self._open.get(group.file)
            if file is None:
                file = self._open[group.file] = pq.ParquetFile(self.paths[group.file], pre_buffer=False)
            return file.read_row_group(group.number, columns=list(columns), use_threads=False)
        except (OSError, pa.ArrowInvalid) as error:
            label = self.places[group.file].label
            raise DataError(
                f"{label} could not be read ({' '.join(str(error).split())[:120]}): check the file"
            ) from error

    def where(self, row: int) -> str:
        """The place of a row, by its number among all files."""
        firsts = [group.first for group in self.groups]
        group = self.groups[int(np.searchsorted(firsts, row, side="right")) - 1]
        start = next(each.first for each in self.groups if each.file == group.file)
        return self.places[group.file](row - start)


def open_store(pieces: Sequence[Piece], *, numeric: Sequence[str], categorical: Sequence[str], skip: bool) -> Store:
    """The rows of some files, one after another.

    Text files, files in archives, and Parquet whose groups are too large are rewritten into a temporary folder, once
    for each process; it is removed when the process ends.

    Args:
        numeric, categorical: columns of text files that are one or the other, whatever they look like.
        skip: leave cells that are no numbers where numbers belong as infinity, rather than to stop at them.

    Raises:
        DataError: a file cannot be read, has other columns, or text where numbers belong.
    """
    paths: list[Path] = []
    groups: list[Group] = []
    first, names = 0, list[str]()
    for place, piece in enumerate(pieces):
        path = piece.path
        if piece.kind == "text" or piece.member is not None or _largest(piece) > LARGEST:
            path = _rewritten(piece, numeric=numeric, categorical=categorical, skip=skip)
        paths.append(path)
        file = parquet(path, piece.label)
        found = list(file.schema_arrow.names)
        names = names or found
        if set(found) != set(names):
            differ = ", ".join(sorted(set(found) ^ set(names))[:5])
            raise DataError(f"{piece.label} and {pieces[0].label} have different columns ({differ}): mend one")
        for number in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(number).num_rows
            if rows:
                groups.append(Group(place, number, first, rows))
                first += rows
    if not groups:
        raise DataError(f"{pieces[0].label} has no rows: check data.path")
    return Store(paths, groups, names, [Places(piece.label, by_row=piece.kind == "parquet") for piece in pieces])


def _largest(piece: Piece) -> int:
    meta = parquet(piece.path, piece.label).metadata
    return max((meta.row_group(number).num_rows for number in range(meta.num_row_groups)), default=0)


_REWRITTEN: dict[tuple[object, ...], Path] = {}


def _rewritten(piece: Piece, *, numeric: Sequence[str], categorical: Sequence[str], skip: bool) -> Path:
    about = piece.path.stat()
    key = (piece, about.st_mtime_ns, about.st_size, tuple(numeric), tuple(categorical), skip)
    if key not in _REWRITTEN:
        path = _scratch() / f"{len(_REWRITTEN)}.parquet"
        _write(path, _typed(piece, numeric=numeric, categorical=categorical, skip=skip))
        _REWRITTEN[key] = path
    return _REWRITTEN[key]


def _scratch() -> Path:
    """A folder that goes when this process does (and stays when a worker that was forked from it does)."""
    folder, owner = tempfile.mkdtemp(prefix="modelwright-rows-"), os.getpid()

    def clear() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(clear)
    return Path(folder)


def _write(path: Path, tables: Iterator[pa.Table]) -> None:
    writer: pq.ParquetWriter | None = None
    try:
        for table in tables:
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table.cast(writer.schema), row_group_size=GROUP)
    finally:
        if writer is not None:
            writer.close()


def _typed(piece: Piece, *, numeric: Sequence[str], categorical: Sequence[str], skip: bool) -> Iterator[pa.Table]:
    """A file's rows in groups of `GROUP`; of text files those columns as numbers that look so in the first group."""
    read: Mapping[str, bool] = {}
    row = 0
    for table in _regrouped(blocks(piece)):
        if piece.kind == "text":
            read = read or {
                name: name in numeric or (name not in categorical and look(name, table[name]).kind == "numeric")
                for name in table.column_names
            }
            converted = {name: numbers(table[name]) for name, wanted in read.items() if wanted}
            if not skip:
                _stop_at_text(piece, table, converted, row)
            table = pa.table(
                {
                    name: pa.array(converted[name].astype(np.float32)) if name in converted else table[name]
                    for name in table.column_names
                }
            )
        row += table.num_rows
        yield table
    if row == 0:
        raise DataError(f"{piece.label} has no rows: check data.path")


def _stop_at_text(piece: Piece, table: pa.Table, converted: Mapping[str, np.ndarray], row: int) -> None:
    for name, values in converted.items():
        wrong = np.flatnonzero(np.isposinf(values))
        if len(wrong):
            place, cell = Places(piece.label)(row + int(wrong[0])), table[name][int(wrong[0])].as_py()
            raise DataError(
                f"{place}: {name} is '{cell[:40]}', which is no finite number: mend it, list {name} in "
                "data.categorical, or set data.on_bad=skip"
            )


def _regrouped(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        if rows >= GROUP:
            joined = pa.concat_tables(waiting)
            while joined.num_rows >= GROUP:
                yield joined.slice(0, GROUP)
                joined = joined.slice(GROUP)
            waiting, rows = [joined], joined.num_rows
    if rows:
        yield pa.concat_tables(waiting)
