"""Cells -> numbers and codes of categories, a whole column at once. Knows numpy and pyarrow; no files, no torch.

Training and serving convert with this one file: what a cell meant in training it means in a bundle.
A column is a numpy array, a list, or a pyarrow array.
"""

# pyarrow has no annotations.
# pyright: reportUnknownParameterType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from modelwright_risk.schema import FIRST, MISSING, UNSEEN

if TYPE_CHECKING:
    import pyarrow as pa

WORDS = frozenset(
    ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "-nan", "NaT", "NULL", "Null", "null", "None", "?", ".")
)
"""Text that stands for no value."""
LARGEST = float(np.finfo(np.float32).max)
NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
_NUMBER = re.compile(NUMBER)
_SPACES = " \t\n\r\v\f\u00a0"
SHORT = 64
"""Cells from which on pyarrow is quicker than a loop."""


# Numbers ------------------------------------------------------------------------------------------------------------


def number(cell: Any) -> float:
    """A cell as a number: NaN where there is no value, infinity where it is no finite number (or beyond float32)."""
    if cell is None:
        return math.nan
    if isinstance(cell, str):
        text = cell.strip(_SPACES)
        if text in WORDS:
            return math.nan
        value = float(text) if _NUMBER.fullmatch(text) else math.inf
    elif isinstance(cell, (bytes, datetime.date)):
        return math.inf
    else:
        try:
            value = math.nan if str(cell) in WORDS else float(cell)  # pandas.NA; Decimal, Fraction, numpy's scalars
        except (TypeError, ValueError, OverflowError):
            return math.inf
    return math.inf if abs(value) > LARGEST else value


def numbers(column: Any) -> np.ndarray:
    """A column as float64: NaN where there is no value, infinity where a cell is no finite number."""
    if isinstance(column, np.ndarray) and column.dtype.kind in "fiub":
        values = column.astype(np.float64)
        return _bounded(values)
    if is_arrow(column):
        return _arrow_numbers(column)
    cells = _cells(column)
    kinds = set(map(type, cells))
    if kinds <= {float, int, bool, type(None)}:
        try:
            return _bounded(np.array(cells, dtype=np.float64))
        except OverflowError:  # an integer beyond float64
            pass
    if kinds <= {str, type(None)} and len(cells) >= SHORT:
        import pyarrow as pa

        return _arrow_numbers(pa.array(cells, pa.string()))
    return np.array([number(cell) for cell in cells], dtype=np.float64)


def _bounded(values: np.ndarray) -> np.ndarray:
    # Two passes and no array of their own where all is well, which is nearly always.
    if len(values) and not (np.fmax.reduce(values) <= LARGEST and np.fmin.reduce(values) >= -LARGEST):
        return np.where(np.abs(values) > LARGEST, math.inf, values)
    return values


def _arrow_numbers(column: Any) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    plain = decoded(column)
    kind = plain.type
    if pa.types.is_string(kind):
        text = trimmed(plain)
        try:
            values = pc.cast(text, pa.float64())
        except pa.ArrowInvalid:
            good = pc.match_substring_regex(text, f"^{NUMBER}$")
            sure = pc.fill_null(good, fill_value=True)
            values = pc.cast(pc.if_else(sure, text, None), pa.float64())
            found = np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)
            return _bounded(np.where(sure.to_numpy(zero_copy_only=False), found, math.inf))
        return _bounded(np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64))
    if (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    ):
        values = pc.cast(plain, pa.float64(), safe=False)
        return _bounded(np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64))
    if pa.types.is_null(kind):
        return np.full(len(plain), math.nan)
    return np.array([number(cell) for cell in plain.to_pylist()], dtype=np.float64)


# Text ---------------------------------------------------------------------------------------------------------------


def is_arrow(column: Any) -> bool:
    """Whether it is an array of pyarrow; imports nothing."""
    return type(column).__module__.partition(".")[0] == "pyarrow"


def decoded(column: Any) -> pa.Array:
    """An array of pyarrow in one piece, without a dictionary, text as `string`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    plain = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(plain, pa.ChunkedArray):  # what does not fit into one piece: text above 2 GB
        plain = pa.concat_arrays(plain.chunks)
    if pa.types.is_dictionary(plain.type):
        plain = plain.dictionary_decode()
    if pa.types.is_large_string(plain.type) or pa.types.is_string_view(plain.type):
        plain = pc.cast(plain, pa.string())
    return cast("pa.Array", plain)


def trimmed(text: pa.Array) -> pa.Array:
    """Text without spaces around it; null where it stands for no value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    bare = pc.utf8_trim(text, characters=_SPACES)
    none = pc.is_in(bare, value_set=pa.array(sorted(WORDS)))
    return cast("pa.Array", pc.if_else(none, None, bare) if pc.any(none).as_py() else bare)


def text_of(cell: Any) -> str | None:
    """A cell as the text of a category; None where there is no value. 1 and 1.0 are "1", True is "true"."""
    if cell is None:
        return None
    if isinstance(cell, (np.generic, np.ndarray)):
        cell = cell.item() if cell.size == 1 else str(cell)
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        if math.isnan(cell):
            return None
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    text = str(cell).strip(_SPACES)
    return None if text in WORDS else text


def texts(column: pa.ChunkedArray | pa.Array) -> pa.DictionaryArray:
    """A column as texts of categories, each distinct one once; null where there is no value."""
    import pyarrow as pa

    plain = decoded(column)
    if pa.types.is_string(plain.type):
        return cast("pa.DictionaryArray", trimmed(plain).dictionary_encode())
    coded = plain.dictionary_encode()
    distinct = pa.array([text_of(cell) for cell in coded.dictionary.to_pylist()], pa.string())
    return cast("pa.DictionaryArray", pa.DictionaryArray.from_arrays(coded.indices, distinct))


# Categories ---------------------------------------------------------------------------------------------------------


class Levels:
    """The values of a category that were seen in training, and the code of each.

    A cell is looked up as it is written; failing that a number finds the level of the same value ("2" and 2.0), a
    bool that of the same meaning.

    Args:
        levels: level i has the code ``FIRST + i``.
    """

    def __init__(self, levels: Sequence[str]) -> None:
        self._codes: dict[Any, int] = dict.fromkeys(WORDS, MISSING) | {None: MISSING}
        self._codes |= {level: FIRST + place for place, level in enumerate(levels)}
        self._meant: dict[float | str, int] = {}
        for place, level in enumerate(levels):
            meaning = _meaning(level)
            # Of two levels with one meaning ("1" and "01") none is meant by a number.
            self._meant[meaning] = UNSEEN if meaning in self._meant else FIRST + place

    def code(self, cell: Any) -> int:
        """The code of one cell."""
        text = text_of(cell)
        found = self._codes.get(text)
        return found if found is not None else self._meant.get(_meaning(cast("str", text)), UNSEEN)

    def codes(self, column: Any) -> np.ndarray:
        """The codes of a column, int64."""
        if isinstance(column, np.ndarray) and column.dtype.kind in "fiub":
            distinct, places = np.unique(column, return_inverse=True)
            return self._each(distinct.tolist())[places]
        if is_arrow(column):
            coded = decoded(column).dictionary_encode(null_encoding="encode")
            return self._each(coded.dictionary.to_pylist())[coded.indices.to_numpy(zero_copy_only=False)]
        cells, get = _cells(column), self._codes.get
        try:
            found = np.array([get(cell, -1) for cell in cells], dtype=np.int64)
        except TypeError:  # a cell that cannot be looked up: a list
            found = np.full(len(cells), -1, dtype=np.int64)
        for row in np.flatnonzero(found < 0).tolist():
            found[row] = self.code(cells[row])
        return found

    def _each(self, cells: Sequence[Any]) -> np.ndarray:
        return np.array([self.code(cell) for cell in cells], dtype=np.int64)


def _meaning(text: str) -> float | str:
    """What a level stands for, however it is written: a number's value, or true and false in lower case."""
    if _NUMBER.fullmatch(text):
        return float(text)
    return text.lower() if text.lower() in ("true", "false") else text


@lru_cache(maxsize=256)
def levels_of(levels: tuple[str, ...]) -> Levels:
    """The same, made once for each tuple."""
    return Levels(levels)


def _cells(column: Any) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else list(cast("Sequence[Any]", column))


def plain(cell: Any) -> Any:
    """A cell as a JSON value: str, float, int, bool or None."""
    if isinstance(cell, np.generic):
        cell = cell.item()
    if isinstance(cell, float) and not math.isfinite(cell):
        return None if math.isnan(cell) else str(cell)
    if cell is None or isinstance(cell, (str, float, int, bool)):
        return cell
    return str(cell) if text_of(cell) is not None else None


def plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of such."""
    return {name: plain(cell) for name, cell in row.items()}
