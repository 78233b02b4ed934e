"""Reads CSVs that list samples: paths and labels, samples and splits. Opens no sample; knows no kind of data."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from modelwright.data import Split
from modelwright.errors import DataError
from modelwright.stores import archive_suffix

PATH = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "name")
LABEL = ("label", "class", "target", "category", "class_name", "y")
SPLIT = ("split", "set", "subset", "partition")
ROW = ("row", "index", "id", "sample")

_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
    "testing": "test",
}


class Row(NamedTuple):
    """A line of a CSV. `line`: counted from 1, the header included. `split`: None where it has no such column."""

    line: int
    path: str
    label: str
    split: Split | None


def split_named(name: str) -> Split | None:
    """The split that a word means ("val" -> "valid"); None if it means none."""
    return _SPLITS.get(name.strip().lower())


def split_in(path: Path) -> Split | None:
    """The split that a file's or folder's name speaks of: train of images-train.tar.gz; None: none, or several."""
    stem = path.name[: -len(archive_suffix(path) or path.suffix) or None]
    named: set[Split] = {split for word in re.split(r"[^a-z]+", stem.lower()) if (split := split_named(word))}
    return named.pop() if len(named) == 1 else None


def some(names: Sequence[str]) -> str:
    """The first three names, to be told in a message."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def read_labels(data: bytes, *, where: str) -> Iterator[Row]:
    """The rows of a CSV of paths, labels and, where it has such a column, splits.

    Raises:
        DataError: it is no CSV text, lacks a column, or names an unknown split.
    """
    table = _Table(data, where=where)
    path, label = table.need(PATH), table.need(LABEL)
    split = table.find(SPLIT)
    for line, cells in table.rows():
        yield Row(line, cells[path], cells[label], _split_of(cells[split], where, line) if split is not None else None)


def read_splits(path: Path) -> dict[str, Split]:
    """Sample -> split by a CSV; a sample is a path, or a row's number.

    Raises:
        DataError: no such file, no CSV text, a column is lacking, an unknown split, or a sample in two splits.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} could not be read ({error.strerror}): check data.split") from error
    table = _Table(data, where=str(path))
    sample, split = table.need((*PATH, *ROW)), table.need(SPLIT)
    found: dict[str, Split] = {}
    for line, cells in table.rows():
        name, named = cells[sample].replace("\\", "/").removeprefix("./"), _split_of(cells[split], str(path), line)
        if found.setdefault(name, named) != named:
            raise DataError(f"{path} line {line}: {name} is in {found[name]} already; a sample has one split")
    return found


def split_rows(path: Path, samples: Sequence[Iterable[str]], *, what: str, notes: list[str]) -> list[Split]:
    """The split of each sample (given in all its spellings) by the CSV at `path`.

    Args:
        what: what messages call the samples ("pictures").
        notes: receives what a user should know: rows that name no sample.

    Raises:
        DataError: no such file, no such columns, or a sample that it does not name.
    """
    splits = read_splits(path)
    used: set[str] = set()
    found: list[Split] = []
    missing: list[str] = []
    for names in samples:
        name = next((name for name in names if name in splits), None)
        if name is None:
            missing.append(next(iter(names)))
        else:
            used.add(name)
            found.append(splits[name])
    if missing:
        raise DataError(
            f"{path} gives no split to {len(missing)} of {len(samples)} {what} ({some(missing)}): "
            "add them, written as in data.path"
        )
    if unused := [name for name in splits if name not in used]:
        notes.append(f"{path}: {len(unused)} rows name none of the {what} and are ignored ({some(unused)})")
    return found


def _split_of(cell: str, where: str, line: int) -> Split:
    split = split_named(cell)
    if split is None:
        raise DataError(f"{where} line {line}: '{cell}' is no split; write train, valid (or val) or test")
    return split


class _Table:
    """A CSV with a header; separated by commas, semicolons or tabs."""

    def __init__(self, data: bytes, *, where: str) -> None:
        self.where = where
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{where} is no UTF-8 text: save it as CSV in UTF-8") from error
        head = text.partition("\n")[0]
        self._reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
        self.header = [cell.strip().lower() for cell in next(self._reader, [])]

    def find(self, names: tuple[str, ...]) -> int | None:
        """The place of the first of `names` that is a column; None: none is."""
        return next((self.header.index(name) for name in names if name in self.header), None)

    def need(self, names: tuple[str, ...]) -> int:
        """The place of the first of `names` that is a column.

        Raises:
            DataError: none is.
        """
        place = self.find(names)
        if place is None:
            has = ", ".join(self.header) or "nothing"
            raise DataError(f"{self.where} has no column {names[0]} (it has {has}): name it {' or '.join(names[:4])}")
        return place

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Each row with its line, filled up to the header's length; empty lines are passed over."""
        try:
            for cells in self._reader:
                if any(cell.strip() for cell in cells):
                    filled = [cell.strip() for cell in cells] + [""] * (len(self.header) - len(cells))
                    yield self._reader.line_num, filled
        except csv.Error as error:
            raise DataError(f"{self.where} line {self._reader.line_num} is no CSV ({error}): save it anew") from error
