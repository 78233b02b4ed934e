"""Which rows are for training, validation and test. Knows row numbers, classes, groups and times; no cells."""

# pyarrow has no annotations.
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from modelwright.data import Split
from modelwright.errors import DataError
from modelwright_risk.cells import numbers, text_of, texts
from modelwright_risk.files import find, split_named
from modelwright_risk.tables import read

TRAIN, VALID, TEST, NONE = 0, 1, 2, -1
CODES: Mapping[Split, int] = {"train": TRAIN, "valid": VALID, "test": TEST}
ROW = ("row", "index")
"""How a split file calls a row's number; else it names a column of the table."""


def hashed(rows: np.ndarray, *, seed: int) -> np.ndarray:
    """A number in [0, 1) for each row number: a function of it and the seed alone (SplitMix64: Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        mixed = rows.astype(np.uint64) + np.uint64(1)
        for key in (np.uint64(seed % 2**64), np.uint64(0)):
            mixed = (mixed ^ key) + np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed = mixed ^ (mixed >> np.uint64(31))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def stratified(bad: np.ndarray, rows: np.ndarray, *, shares: Mapping[Split, float], seed: int) -> np.ndarray:
    """At random, each class in the same shares everywhere.

    Args:
        bad: bool, of each row.
        rows: int64, the number of each row in its table: what chance depends on.
        shares: of all rows, for valid and test.

    Returns:
        int8, TRAIN, VALID or TEST for each row.

    Raises:
        DataError: a class with too few rows to be in every split.
    """
    found = np.full(len(bad), TRAIN, dtype=np.int8)
    for outcome in (False, True):
        own = np.flatnonzero(bad == outcome)
        own = own[np.argsort(hashed(rows[own], seed=seed), kind="stable")]
        sizes: dict[Split, int] = {}
        for split, share in shares.items():
            if share > 0:
                sizes[split] = max(round(share * len(own)), 1)
        if len(own) <= sum(sizes.values()):
            raise DataError(
                f"{len(own)} {'bad' if outcome else 'good'} rows are too few to cut {' and '.join(sizes)} from: add "
                "rows, name the splits with data.split, or lower data.valid and data.test"
            )
        start = 0
        for split, size in sizes.items():
            found[own[start : start + size]] = CODES[split]
            start += size
    return found


def by_group(groups: np.ndarray, *, shares: Mapping[Split, float], seed: int) -> np.ndarray:
    """At random, a group's rows together.

    Args:
        groups: int64, each row's group, counted in the order of first appearance.

    Raises:
        DataError: too few groups.
    """
    counts = np.bincount(groups)
    order = np.argsort(hashed(np.arange(len(counts)), seed=seed), kind="stable")
    upto = np.cumsum(counts[order]) / len(groups)
    of_group = np.full(len(counts), TRAIN, dtype=np.int8)
    start = 0.0
    for split, share in shares.items():
        if share > 0:
            of_group[order[(upto > start + 1e-12) & (upto <= start + share + 1e-12)]] = CODES[split]
            start += share
    found = of_group[groups]
    _need_rows(found, shares, "data.group has too few groups, or one that is too large")
    return found


def by_time(when: np.ndarray, *, shares: Mapping[Split, float]) -> np.ndarray:
    """The latest rows for the test, those before them for validation; rows of one time stay together.

    Args:
        when: float64, what orders the rows; no NaN.

    Raises:
        DataError: too few different times.
    """
    moments, counts = np.unique(when, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)]) / len(when)
    of_moment = np.full(len(moments), TRAIN, dtype=np.int8)
    end = len(moments)
    left = 1.0
    for code, share in ((TEST, shares.get("test", 0.0)), (VALID, shares.get("valid", 0.0))):
        if share <= 0:
            continue
        left -= share
        # The border between two moments that gives the share most nearly.
        start = int(np.argmin(np.abs(before[: end + 1] - left)))
        of_moment[start:end] = code
        end = start
    found = of_moment[np.searchsorted(moments, when)]
    _need_rows(found, shares, "data.time has too few different values")
    return found


def _need_rows(found: np.ndarray, shares: Mapping[Split, float], reason: str) -> None:
    for split, code in CODES.items():
        if (split == "train" or shares.get(split, 0) > 0) and not (found == code).any():
            raise DataError(f"the {split} split is empty: {reason}; change data.valid and data.test, or data.split_by")


def listed(path: str, table: pa.Table, rows: np.ndarray, *, size: int) -> np.ndarray:
    """The splits that the file of `data.split` names.

    Its columns: `row` (counted from 0, over all files) or a column of the table that tells rows apart, and `split`.

    Args:
        table: the rows.
        rows: int64, the number of each.
        size: rows in all, those that are left out included.

    Returns:
        int8, TRAIN, VALID or TEST for each row.

    Raises:
        DataError: no such file, no such columns, an unknown split, or a row that it does not name.
    """
    (piece, *more) = next(iter(find(path).values()))
    if more:
        raise DataError(f"{path} holds several files: data.split takes one CSV")
    part = read(piece)
    columns = {name.strip().lower(): name for name in part.table.column_names}
    if "split" not in columns:
        raise DataError(f"{path} has no column split (it has {', '.join(columns)}): name its columns row and split")
    named = texts(part.table[columns["split"]])
    codes = np.array([_code(word) for word in (named.dictionary.to_pylist())], dtype=np.int8)
    places = named.indices.fill_null(len(codes)).to_numpy()
    splits = np.append(codes, np.int8(NONE))[places]
    if (splits == NONE).any():
        first = int(np.flatnonzero(splits == NONE)[0])
        word = text_of(part.table[columns["split"]][first].as_py())
        raise DataError(
            f"{part.where(int(part.records[first]))} names the split '{word or ''}': write train, valid or test"
        )
    key = next((columns[name] for name in ROW if name in columns), None)
    if key is not None:
        found = _by_number(part.table[key], splits, size, path)[rows]
    else:
        found = _by_column(part.table, splits, table, path)
    if (found == NONE).any():
        lacking = np.flatnonzero(found == NONE)
        raise DataError(
            f"{path} gives no split to {len(lacking)} of {len(rows)} rows (the first is row {rows[lacking[0]]})"
        )
    return found


def _code(word: str) -> int:
    split = split_named(word)
    return NONE if split is None else CODES[split]


def _by_number(cells: pa.ChunkedArray, splits: np.ndarray, size: int, path: str) -> np.ndarray:
    values = numbers(cells)
    wrong = np.flatnonzero(~((values >= 0) & (values == np.rint(values)) & (values < max(size, 1))))
    if len(wrong):
        raise DataError(
            f"{path} names row '{cells[int(wrong[0])].as_py()}', and the rows are 0 to {size - 1}: check data.split"
        )
    found = np.full(size, NONE, dtype=np.int8)
    found[values.astype(np.int64)] = splits
    twice = np.flatnonzero(found[values.astype(np.int64)] != splits)
    if len(twice):
        raise DataError(f"{path} gives row {values[int(twice[0])]:.0f} two splits: keep one")
    return found


def _by_column(listing: pa.Table, splits: np.ndarray, table: pa.Table, path: str) -> np.ndarray:
    keys = [name for name in listing.column_names if name in table.column_names]
    if len(keys) != 1:
        raise DataError(
            f"{path} has no column row: it numbers the rows from 0, or names a column that tells them apart"
        )
    place = {text_of(cell): int(split) for cell, split in zip(listing[keys[0]].to_pylist(), splits, strict=True)}
    return np.array([place.get(text_of(cell), NONE) for cell in table[keys[0]].to_pylist()], dtype=np.int8)
