"""Reads tables: CSV of any usual kind, and Parquet. Knows cells as text and lines; not what they mean.

Cells of a CSV stay text here, as they were written: what is a number is decided with all of a column at hand.
"""

# pyarrow has no annotations.
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from modelwright.errors import DataError
from modelwright_risk.files import Piece, find

BLOCK = 8 << 20
"""Bytes that are parsed at once."""
HEAD = 1 << 20
"""Bytes that tell how a file is laid out."""
SNIFFED = 50
"""Lines that tell what separates the cells."""
BLANKS = "blanks"
"""Any number of spaces between cells."""
LONGEST = 1 << 24
"""Characters of a cell."""


@dataclass(frozen=True)
class Places:
    """Where the records of a file stand.

    Attributes:
        label: what a person would call the file.
        lines: int64, the line that each record begins in; None: one line each, the first in line 2.
        by_row: it is Parquet, whose places are rows and no lines.
    """

    label: str
    lines: np.ndarray | None = None
    by_row: bool = False

    def __call__(self, record: int) -> str:
        """The place of a record: "loans.csv:17"; of Parquet "loans.parquet row 15"."""
        if self.by_row:
            return f"{self.label} row {record}"
        return f"{self.label}:{record + 2 if self.lines is None else int(self.lines[record])}"


@dataclass(frozen=True)
class Part:
    """What was read from one file.

    Attributes:
        where: the place of each record.
        table: its rows; those of a CSV as text.
        records: int64, each row's number among all of the file, from 0; bad ones are left out but counted.
        bad: (record, reason) of records that cannot be read.
    """

    where: Places
    table: pa.Table
    records: np.ndarray
    bad: tuple[tuple[int, str], ...] = ()

    @property
    def label(self) -> str:
        """What a person would call the file."""
        return self.where.label

    @property
    def size(self) -> int:
        """Records in the file, bad ones included."""
        return len(self.records) + len(self.bad)


def read(piece: Piece, *, layout: Layout | None = None) -> Part:
    """All of a file.

    Args:
        layout: of a CSV, where it is known.

    Raises:
        DataError: it is empty, no table, not UTF-8, or has a quote that is never closed.
    """
    with piece.open() as file:
        if piece.kind == "parquet":
            table = parquet(file, piece.label).read()
            return Part(Places(piece.label, by_row=True), table, np.arange(table.num_rows))
        data = file.read()
    layout = layout or Layout.of(data, piece.label)
    skipped = Counter[str]()
    batches = list(layout.batches(io.BytesIO(data), skipped=skipped))
    table = pa.Table.from_batches(batches, schema=layout.schema)
    # One line for each record is the rule; only where it does not hold is each record's own looked up.
    ends = data.count(b"\n") + (not data.endswith(b"\n"))
    if not skipped and ends == table.num_rows + layout.skip:
        lines = None if layout.skip == 1 else np.arange(table.num_rows) + layout.skip + 1
        return Part(Places(piece.label, lines), table, np.arange(table.num_rows))
    starts: list[int] = []
    bad: list[tuple[int, str]] = []
    for record, (line, cells) in enumerate(layout.scan(io.BytesIO(data))):
        starts.append(line)
        if len(cells) != len(layout.names):
            bad.append((record, f"{len(cells)} cells instead of {len(layout.names)}"))
    kept = np.setdiff1d(np.arange(len(starts)), [record for record, _ in bad])
    if len(kept) != table.num_rows:
        raise DataError(f"{piece.label} has quotes that can be read in two ways: save it anew as CSV")
    return Part(Places(piece.label, np.array(starts, dtype=np.int64)), table, kept, tuple(bad))


def blocks(piece: Piece) -> Iterator[pa.Table]:
    """A file's rows, some at a time; for files that are too large to be held.

    Raises:
        DataError: see `read`; also a line with too few or too many cells.
    """
    if piece.kind == "parquet":
        with piece.open() as file:
            for batch in parquet(file, piece.label).iter_batches(batch_size=1 << 16):
                yield pa.Table.from_batches([batch])
        return
    layout = layout_of(piece)
    if layout.separator == BLANKS:
        raise DataError(f"{piece.label} is too large for cells separated by blanks: save it as CSV or Parquet")
    skipped = Counter[str]()
    last: pa.RecordBatch | None = None
    with piece.open() as file:
        for batch in layout.batches(file, skipped=skipped):
            if skipped:
                break
            last = batch
            yield pa.Table.from_batches([batch])
    # A quote that is never closed takes the rest of the file into the last record.
    if skipped or (
        last is not None and any("\n" in cell for cell in last.slice(last.num_rows - 1).to_pylist()[0].values())
    ):
        for line, cells in records_of(piece, layout):
            if len(cells) != len(layout.names):
                raise DataError(_ragged(piece.label, line, cells, layout))


def rows_of(path: Path) -> Iterator[tuple[str, dict[str, Any] | DataError]]:
    """The rows of a file (or of the files in an archive), each with the place it stands in; read as they are needed.

    A line with too few or too many cells comes as the error that says so: those below it can still be read.

    Raises:
        DataError: see `read`.
    """
    for piece in (piece for pieces in find(str(path)).values() for piece in pieces):
        if piece.kind == "parquet":
            row = 0
            for block in blocks(piece):
                for cells in block.to_pylist():
                    yield f"{piece.label} row {row}", cells
                    row += 1
            continue
        layout = layout_of(piece)
        for line, cells in records_of(piece, layout):
            fits = len(cells) == len(layout.names)
            row = dict(zip(layout.names, cells, strict=True)) if fits else DataError(_ragged("", line, cells, layout))
            yield f"{piece.label}:{line}", row


def parquet(file: IO[bytes] | Path, label: str) -> pq.ParquetFile:
    """A Parquet file, opened.

    Raises:
        DataError: it is none, has no rows, or a column's name twice.
    """
    try:
        found = pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{label} is no Parquet file ({_line(error)}): check data.path") from error
    _check_names(found.schema_arrow.names, label)
    return found


# CSV ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """How a text file holds a table.

    Attributes:
        names: of the columns.
        separator: between cells; `BLANKS` for any number of spaces.
        skip: lines before the first record.
    """

    label: str
    names: tuple[str, ...]
    separator: str
    skip: int = 1

    @staticmethod
    def of(head: bytes, label: str, *, names: tuple[str, ...] | None = None) -> Layout:
        """Found from the first lines.

        Args:
            names: of the columns, where no line of the file names them.

        Raises:
            DataError: nothing in it, no text, or a first line that does not name the columns.
        """
        try:
            text = codecs.getincrementaldecoder("utf-8-sig")().decode(head[:HEAD])
        except UnicodeDecodeError as error:
            line = head.count(b"\n", 0, error.start) + 1
            raise DataError(f"{label} line {line} is no UTF-8 text: save the file as CSV in UTF-8") from error
        above = len(text) - len(text.lstrip("\r\n"))
        lines = [line for line in text.splitlines()[: SNIFFED + above] if line.strip()]
        if not lines:
            raise DataError(f"{label} is empty: check data.path")
        separator = _sniff(lines, label)
        if names is None:
            first = next(_records(io.StringIO(text, newline=""), separator, label))[1]
            # As pandas calls them.
            found = [name.strip() or f"Unnamed: {place}" for place, name in enumerate(first)]
            _check_names(found, label)
            return Layout(label, tuple(found), separator, skip=1 + text[:above].count("\n"))
        return Layout(label, names, separator, skip=0)

    @property
    def schema(self) -> pa.Schema:
        """All text."""
        return pa.schema([(name, pa.string()) for name in self.names])

    def batches(self, stream: IO[bytes], *, skipped: Counter[str]) -> Iterator[pa.RecordBatch]:
        """The records, every cell as text; those of too few or too many cells are passed over and counted.

        Raises:
            DataError: not UTF-8, or a quote is never closed.
        """

        def skip(_: pacsv.InvalidRow) -> str:
            skipped["rows"] += 1
            return "skip"

        blanks = self.separator == BLANKS
        source = io.BytesIO(_with_tabs(stream.read())) if blanks else stream
        try:
            yield from pacsv.open_csv(
                source,
                read_options=pacsv.ReadOptions(
                    block_size=BLOCK, use_threads=False, column_names=self.names, skip_rows=self.skip
                ),
                parse_options=pacsv.ParseOptions(
                    delimiter="\t" if blanks else self.separator, newlines_in_values=True, invalid_row_handler=skip
                ),
                convert_options=pacsv.ConvertOptions(column_types=self.schema, strings_can_be_null=False),
            )
        except pa.ArrowInvalid as error:
            told = _line(error)
            if "Empty CSV" in told or "no columns" in told.lower():
                return
            if "UTF8" in told:
                raise DataError(f"{self.label} is no UTF-8 text: save the file as CSV in UTF-8") from error
            raise DataError(f"{self.label} is no CSV ({told}): is a quote never closed? save it anew") from error

    def scan(self, stream: IO[bytes]) -> Iterator[tuple[int, list[str]]]:
        """Each record's first line and its cells, exactly; slower.

        Raises:
            DataError: not UTF-8, or a quote is never closed.
        """
        text = io.TextIOWrapper(cast("Any", stream), encoding="utf-8-sig", newline="")
        try:
            for line, cells in _records(text, self.separator, self.label):
                if line > self.skip:
                    yield line, cells
        except UnicodeDecodeError as error:
            raise DataError(f"{self.label} is no UTF-8 text: save the file as CSV in UTF-8") from error
        finally:
            text.detach()  # whoever opened the stream closes it


def records_of(piece: Piece, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """`Layout.scan` of a file."""
    with piece.open() as file:
        yield from layout.scan(file)


def layout_of(piece: Piece) -> Layout:
    """The layout of a text file.

    Raises:
        DataError: see `Layout.of`.
    """
    with piece.open() as file:
        return Layout.of(file.read(HEAD), piece.label)


def _records(text: Iterable[str], separator: str, label: str) -> Iterator[tuple[int, list[str]]]:
    """Records of a text with the line each begins in, counted from 1; empty lines are passed over."""
    if separator == BLANKS:
        yield from ((line, cells) for line, each in enumerate(text, 1) if (cells := each.split()))
        return
    limit = csv.field_size_limit(LONGEST)
    reader = csv.reader(text, delimiter=separator, strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        reason = "a quote is never closed" if "end of data" in str(error) else str(error)
        raise DataError(f"{label} line {line}: {reason}; mend the line") from error
    finally:
        csv.field_size_limit(limit)


def _sniff(lines: list[str], label: str) -> str:
    """What separates the cells: what cuts most lines into as many cells as the first one."""
    best, found = 0.0, ""
    for separator in (",", ";", "\t", "|"):
        try:
            widths = [len(cells) for _, cells in _records([f"{line}\n" for line in lines], separator, label)]
        except DataError:  # a quote that goes on below the last of these lines, or is broken
            widths = [line.count(separator) + 1 for line in lines]
        share = float(np.mean([width == widths[0] for width in widths])) if widths[0] > 1 else 0.0
        if share > best:
            best, found = share, separator
    if best < 0.5:
        widths = [len(line.split()) for line in lines]
        if widths[0] > 1 and all(width == widths[0] for width in widths):
            return BLANKS
    return found or ","


def _with_tabs(data: bytes) -> bytes:
    return b"\n".join(b"\t".join(line.split()) for line in data.splitlines()) + b"\n"


def _check_names(names: Iterable[str], label: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{label}: its first line must name the columns, and '{twice[0]}' stands there twice")


def _ragged(label: str, line: int, cells: list[str], layout: Layout) -> str:
    where = f"{label} line {line}" if label else "this line"
    return f"{where} has {len(cells)} cells instead of {len(layout.names)}: mend it; is a quote broken?"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
