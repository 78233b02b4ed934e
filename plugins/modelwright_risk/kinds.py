"""What a column is: numbers, a category, an identifier, dates. Knows columns of cells; no files, no settings."""

# pyarrow has no annotations.
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelwright_risk.cells import decoded, numbers, texts
from modelwright_risk.schema import FIRST, MISSING, UNSEEN

Kind: TypeAlias = Literal["numeric", "categorical", "identifier", "date", "empty", "other"]

MOSTLY = 0.9
"""A column of text with this share of numbers is one of numbers with mistakes."""
UNIQUE = 0.95
"""A column of text with this share of distinct values tells rows apart."""
FEW = 30
"""Below so many rows nothing is taken for an identifier because its values differ."""
LOOKED_AT = 500
"""Distinct values that tell whether a column holds dates."""
MOST_LEVELS = 1000
"""Levels of a category at most; rarer ones share the code of those never seen."""
_ID = re.compile(
    r"(?:^|[\s_.\-])(?:id|ids|uuid|guid|key|nr|no|number|num|index|idx|row|rownum|unnamed: ?\d+)$|^id(?:[\s_.\-]|$)",
    re.I,
)
_CAMEL_ID = re.compile(r"[a-z](?:ID|Id|Nr|No|Number|Key)$")


@dataclass(frozen=True)
class Look:
    """What a column looks like.

    Attributes:
        kind: what it is taken for.
        share: of numbers among the cells of a category, where only some are.
    """

    kind: Kind
    share: float = 0.0


def look(name: str, column: pa.ChunkedArray) -> Look:
    """What a column is, from its cells and, for counters, its name."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    rows = len(column)
    if column.null_count == rows:
        return Look("empty")
    if pa.types.is_temporal(kind):
        return Look("date")
    if pa.types.is_boolean(kind):
        return Look("categorical")
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or is_text(kind)):
        return Look("other")
    if not is_text(kind):
        values = numbers(column)
        return _counted(name, values) if not pa.types.is_floating(kind) else Look("numeric")
    values = numbers(column)
    filled = int((~np.isnan(values)).sum())
    if filled == 0:
        return Look("empty")
    share = float(np.isfinite(values).sum()) / filled
    if share >= MOSTLY:
        return _counted(name, values)
    distinct = texts(column).dictionary
    if are_dates(cast("list[str]", distinct.slice(0, LOOKED_AT).to_pylist())):
        return Look("date")
    if rows >= FEW and len(distinct) >= UNIQUE * filled:
        return Look("identifier")
    return Look("categorical", share=share)


def is_text(kind: pa.DataType) -> bool:
    """Whether cells of this type are text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _counted(name: str, values: np.ndarray) -> Look:
    """Whole numbers, each once, that only count or name the rows are an identifier."""
    rows = len(values)
    if rows >= FEW and np.isfinite(values).all() and (values == np.rint(values)).all():
        called = bool(_ID.search(name) or _CAMEL_ID.search(name))
        steps = np.diff(values)
        if bool((steps == 1).all()) or (called and len(np.unique(values)) == rows):
            return Look("identifier")
    return Look("numeric")


# Categories -----------------------------------------------------------------------------------------------------------


def levels_of(column: pa.ChunkedArray, rows: np.ndarray) -> tuple[str, ...]:
    """The levels of a category among some rows: numbers by value, then text by letter; the most frequent ones only."""
    coded = texts(column)
    indices = coded.indices.fill_null(-1).to_numpy()[rows]
    counts = np.bincount(indices[indices >= 0], minlength=len(coded.dictionary))
    seen = np.flatnonzero(counts)
    if len(seen) > MOST_LEVELS:
        seen = seen[np.argsort(-counts[seen], kind="stable")[:MOST_LEVELS]]
    names = cast("list[str]", coded.dictionary.take(pa.array(seen)).to_pylist())
    values = numbers(pa.array(names, pa.string()))
    return tuple(name for _, _, name in sorted(zip(~np.isfinite(values), np.nan_to_num(values), names, strict=True)))


def band_edges(values: np.ndarray) -> list[float]:
    """Three values that cut numbers into four bands of about one size; fewer where many are equal."""
    finite = values[np.isfinite(values)]
    found = np.unique(np.quantile(finite, [0.25, 0.5, 0.75], method="lower")) if len(finite) else np.zeros(0)
    return found.astype(np.float64).tolist()


def band_names(edges: Sequence[float]) -> list[str]:
    """What bands are called: "to 31", "31 to 42", "above 42"; an edge belongs to the band below it."""
    spelt = [f"{edge:g}" for edge in edges]
    if not spelt:
        return ["all"]
    between = [f"{low} to {high}" for low, high in itertools.pairwise(spelt)]
    return [f"to {spelt[0]}", *between, f"above {spelt[-1]}"]


def band_codes(values: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """Numbers as codes of bands, like those of categories: int64, MISSING where there is none."""
    codes = FIRST + np.searchsorted(np.asarray(edges, dtype=np.float64), values, side="left")
    return np.where(np.isnan(values), MISSING, np.where(np.isinf(values), UNSEEN, codes)).astype(np.int64)


# Dates ----------------------------------------------------------------------------------------------------------------

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_FORMS: Mapping[str, re.Pattern[str]] = {
    "year-month-day": re.compile(
        r"(?P<y>\d{4})-(?P<m>\d{1,2})-(?P<d>\d{1,2})"
        r"(?:[T ](?P<H>\d{1,2}):(?P<M>\d{2})(?::(?P<S>\d{2}(?:\.\d+)?))?(?:Z|[+-]\d{2}:?\d{2})?)?"
    ),
    "year/month/day": re.compile(r"(?P<y>\d{4})/(?P<m>\d{1,2})/(?P<d>\d{1,2})"),
    "year-month": re.compile(r"(?P<y>\d{4})[-/](?P<m>\d{1,2})"),
    "quarter": re.compile(r"(?P<y>\d{4})[- ]?Q(?P<q>[1-4])", re.I),
    "day.month.year": re.compile(r"(?P<d>\d{1,2})\.(?P<m>\d{1,2})\.(?P<y>\d{4})"),
    "day/month/year": re.compile(r"(?P<d>\d{1,2})/(?P<m>\d{1,2})/(?P<y>\d{4})"),
    "month/day/year": re.compile(r"(?P<m>\d{1,2})/(?P<d>\d{1,2})/(?P<y>\d{4})"),
    "day-month name-year": re.compile(r"(?P<d>\d{1,2})[- ](?P<b>[A-Za-z]{3})[a-z]*[- ](?P<y>\d{4})"),
    "month name-year": re.compile(r"(?P<b>[A-Za-z]{3})[a-z]*[- ](?P<y>\d{4})"),
}


class Undated(ValueError):
    """A column that cannot be ordered in time. `cell`: the one that shows it, `reason`: why."""

    def __init__(self, cell: str | None, reason: str) -> None:
        super().__init__(reason)
        self.cell, self.reason = cell, reason


def are_dates(values: Sequence[str]) -> bool:
    """Whether text is dates of one form."""
    return any(all(_date(pattern, value) is not None for value in values) for pattern in _FORMS.values())


def times(column: pa.ChunkedArray) -> np.ndarray:
    """What orders rows in time, float64: dates in days, numbers as they are; NaN where there is no value.

    Raises:
        Undated: dates of several forms, dates that may be read in two ways, or text.
    """
    plain = decoded(column)
    if pa.types.is_temporal(plain.type):
        stamps = pc.cast(plain, pa.timestamp("us")) if not pa.types.is_time(plain.type) else plain
        found = np.asarray(pc.cast(stamps, pa.int64()).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
        return found / 86_400e6
    if not is_text(plain.type):
        return numbers(plain)
    coded = texts(plain)
    distinct = cast("list[str]", coded.dictionary.to_pylist())
    values = numbers(coded.dictionary)
    if len(distinct) and not np.isfinite(values).all():
        values = _dated(distinct)
    places = coded.indices.fill_null(len(values)).to_numpy()
    return np.append(values, np.nan)[places]


def _dated(distinct: Sequence[str]) -> np.ndarray:
    """Each text as days; all of them by the one form that fits."""
    fitting = {
        form: [_date(pattern, value) for value in distinct]
        for form, pattern in _FORMS.items()
        if _date(pattern, distinct[0]) is not None or form.startswith(("day/", "month/"))
    }
    whole = {form: found for form, found in fitting.items() if None not in found}
    orders = {tuple(cast("list[float]", found)) for found in whole.values()}
    if len(orders) > 1:
        cell = next(value for place, value in enumerate(distinct) if len({each[place] for each in orders}) > 1)
        raise Undated(cell, "may be day/month or month/day")
    if not orders:
        first = next((form for form, pattern in _FORMS.items() if _date(pattern, distinct[0]) is not None), None)
        if first is None:
            raise Undated(distinct[0], "is no date")
        best = max(fitting, key=lambda form: sum(each is not None for each in fitting[form]))
        cell = distinct[fitting[best].index(None)]
        raise Undated(cell, f"is no date like the others ({best})")
    return np.array(orders.pop(), dtype=np.float64)


def _date(pattern: re.Pattern[str], text: str) -> float | None:
    match = pattern.fullmatch(text)
    if match is None:
        return None
    parts: dict[str, Any] = {name: value for name, value in match.groupdict().items() if value is not None}
    named = str(parts.get("b", "")).lower()
    month = int(parts.get("m", 0))
    if named:
        month = _MONTHS.index(named) + 1 if named in _MONTHS else 0
    if "q" in parts:
        month = 3 * int(parts["q"]) - 2
    try:
        day = datetime.date(int(parts["y"]), month, int(parts.get("d", 1))).toordinal()
    except ValueError:
        return None
    seconds = 3600 * int(parts.get("H", 0)) + 60 * int(parts.get("M", 0)) + float(parts.get("S", 0))
    return day + seconds / 86400
