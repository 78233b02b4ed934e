"""Settings -> all rows of a data set in one table, each with its number, its place and the split it was given.

Knows files and presets; not what cells mean.
"""

# pyarrow has no annotations.
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelwright.data import Split
from modelwright.errors import ConfigError, DataError
from modelwright_risk import portfolio, published
from modelwright_risk.cells import decoded
from modelwright_risk.config import RiskData
from modelwright_risk.files import Piece, find
from modelwright_risk.kinds import is_text
from modelwright_risk.splits import CODES, NONE
from modelwright_risk.tables import Part, Places, parquet, read

GIB = 1 << 30
COST = 4.0
"""Bytes in memory at most for a byte of CSV, or of a Parquet file's cells, while rows are read and converted."""

PORTFOLIO: dict[str, Any] = {
    "target": portfolio.TARGET,
    "bad": "1",
    "time": "month",
    "identifiers": ["applicant"],
    "protected": ["age_group"],
    "special": {"months_since_delinquency": [portfolio.NEVER]},
}


@dataclass(frozen=True)
class RowPlaces:
    """Where the rows of several files stand.

    Attributes:
        firsts: the number of each file's first row.
        files: the places of each.
    """

    firsts: tuple[int, ...]
    files: tuple[Places, ...]

    def __call__(self, row: int) -> str:
        """The place of a row, by its number: "loans.csv:17"."""
        place = int(np.searchsorted(self.firsts, row, side="right")) - 1
        return self.files[place](row - self.firsts[place])


@dataclass(frozen=True)
class Source:
    """All rows.

    Attributes:
        table: the rows, cells as they were read.
        rows: int64, the number of each row, over all files and with the bad ones counted.
        size: rows in all, bad ones included.
        given: int8, the split that each row's file is; NONE: no file says.
        files: each with its rows in `table`.
        where: the place of a row, by its number.
        bad: (row number, reason) of rows that cannot be read.
        probability: the true one of each row, where it is known.
    """

    table: pa.Table
    rows: np.ndarray
    size: int
    given: np.ndarray
    files: tuple[tuple[Part, np.ndarray], ...]
    where: RowPlaces
    bad: tuple[tuple[int, str], ...] = ()
    probability: np.ndarray | None = None


def with_presets(data: RiskData) -> RiskData:
    """The settings, with what is known of the columns of a published or made-up set where the user says nothing."""
    if data.name == "table":
        return data
    presets = PORTFOLIO if data.name == "portfolio" else published.SETS[data.name].settings
    # By value, not by whether they were set: the settings that a run stores name every key.
    return data.model_copy(update={key: value for key, value in presets.items() if not getattr(data, key)})


def pieces_of(data: RiskData) -> dict[Split | None, list[Piece]]:
    """The files of a table.

    Raises:
        ConfigError: `data.path` is missing.
        DataError: nothing there.
    """
    if not data.path:
        raise ConfigError("data.name=table needs data.path: a CSV or Parquet file, a folder or an archive")
    return find(data.path, beside=data.split)


def cost(pieces: dict[Split | None, list[Piece]]) -> float:
    """Bytes of memory that reading all of it takes, about."""
    total = 0.0
    for piece in (piece for own in pieces.values() for piece in own):
        if piece.kind == "text":
            total += COST * piece.size()
            continue
        with piece.open() as file:
            meta = parquet(file, piece.label).metadata
            packed = sum(meta.row_group(group).total_byte_size for group in range(meta.num_row_groups))
            # Dictionaries make columns small on disk; in memory a number takes 8 bytes and more.
            total += COST * max(packed, 8 * meta.num_rows * meta.num_columns)
    return total


def open_source(data: RiskData, *, seed: int) -> Source:
    """Reads everything.

    Raises:
        ConfigError, DataError: settings or files that do not fit; see `files.find` and `tables.read`.
    """
    if data.name == "portfolio":
        made = portfolio.make(data.rows, seed=seed)
        return _joined(
            [(None, Part(Places("portfolio", by_row=True), made.table, np.arange(data.rows)))], made.probability
        )
    if data.name != "table":
        piece, layout = published.locate(data.name, data.path)
        return _joined([(None, read(piece, layout=layout))])
    return _joined([(split, read(piece)) for split, pieces in pieces_of(data).items() for piece in pieces])


def _joined(parts: Sequence[tuple[Split | None, Part]], probability: np.ndarray | None = None) -> Source:
    first = parts[0][1]
    names = first.table.column_names
    firsts, start, place = [], 0, 0
    rows, given, bad = [], [], []
    files: list[tuple[Part, np.ndarray]] = []
    for split, part in parts:
        if set(part.table.column_names) != set(names):
            lacks = sorted(set(names) ^ set(part.table.column_names))
            raise DataError(f"{part.label} and {first.label} have different columns ({', '.join(lacks[:5])}): mend one")
        firsts.append(start)
        rows.append(part.records + start)
        given.append(np.full(len(part.records), NONE if split is None else CODES[split], dtype=np.int8))
        bad += [(start + record, reason) for record, reason in part.bad]
        files.append((part, np.arange(place, place + len(part.records))))
        start, place = start + part.size, place + len(part.records)
    if place == 0:
        raise DataError(
            f"{first.label} has no rows{f' that can be read, of {start}' if start else ''}: check data.path"
        )
    return Source(
        together([part.table.select(names) for _, part in parts]),
        np.concatenate(rows),
        start,
        np.concatenate(given),
        tuple(files),
        RowPlaces(tuple(firsts), tuple(part.where for _, part in parts)),
        tuple(bad),
        probability,
    )


def together(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of all, below each other; a column that is text in one is text in all."""
    if len(tables) == 1:
        return tables[0]
    worded = {name for table in tables for name in table.column_names if is_text(table.schema.field(name).type)}
    alike = [
        pa.table({name: _text(table[name]) if name in worded else table[name] for name in table.column_names})
        for table in tables
    ]
    return pa.concat_tables(alike, promote_options="permissive")


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    plain = decoded(column)
    return pa.chunked_array([plain if pa.types.is_string(plain.type) else pc.cast(plain, pa.string())])
