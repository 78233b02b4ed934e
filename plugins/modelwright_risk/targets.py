"""The target: which of its two values means default. Knows one column; no settings but that value."""

# pyarrow has no annotations.
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa

from modelwright.errors import ConfigError, DataError
from modelwright_risk.cells import number, text_of, texts

BAD = frozenset(("1", "true", "t", "yes", "y", "bad", "default", "defaulted"))
GOOD = frozenset(("0", "false", "f", "no", "n", "good", "paid"))
SHOWN = 5


@dataclass(frozen=True)
class Outcome:
    """How each row ended.

    Attributes:
        bad: bool, True where it ended badly; False where it is not known.
        known: bool, whether the target has a value.
        names: of the bad and of the good value, as the table writes them.
    """

    bad: np.ndarray
    known: np.ndarray
    names: tuple[str, str]


def outcome(column: pa.ChunkedArray, name: str, *, bad: Any, names: tuple[str, str] | None = None) -> Outcome:
    """Reads the target.

    Args:
        bad: `data.bad`, the value that means default; None: found, where that is unmistakable.
        names: of the bad and the good value, where they are known already; a table may then have one of them alone.

    Raises:
        ConfigError: it is not clear which value means default, or there is no such value.
        DataError: one value, or more than two.
    """
    coded = texts(column)
    places = coded.indices.fill_null(-1).to_numpy()
    distinct = cast("list[str]", coded.dictionary.to_pylist())
    # A dictionary may hold values that no row has, and one value twice: 1 and 1.0 of numbers.
    counts = np.bincount(places[places >= 0], minlength=len(distinct))
    seen = sorted({value for value, count in zip(distinct, counts.tolist(), strict=True) if count})
    if names is None:
        _need_two(seen, name, rows=len(places))
        names = _named(seen, name, bad)
    if strange := [value for value in seen if value not in names]:
        raise DataError(
            f"the target {name} is '{strange[0]}' in a row, and {names[1]} (good) or {names[0]} (bad) else: mend it"
        )
    is_bad = np.array([value == names[0] for value in distinct] + [False], dtype=bool)
    return Outcome(is_bad[places], places >= 0, names)


def _need_two(seen: list[str], name: str, *, rows: int) -> None:
    shown = ", ".join(seen[:SHOWN]) + (", ..." if len(seen) > SHOWN else "")
    if not seen:
        raise DataError(f"the target {name} has no value in any of {rows} rows: check data.target")
    if len(seen) == 1:
        raise DataError(f"the target {name} has one value only ({shown}) in {rows} rows: both outcomes are needed")
    if len(seen) > 2:
        raise DataError(f"the target {name} has {len(seen)} values ({shown}): two are needed; check data.target")


def _named(seen: list[str], name: str, bad: Any) -> tuple[str, str]:
    """The bad value and the good one."""
    if bad is None:
        meant = [value for value in seen if _word(value) in BAD]
        others = [value for value in seen if _word(value) in GOOD]
        if len(meant) != 1 or len(others) != 1:
            raise ConfigError(
                f"the target {name} is {seen[0]} or {seen[1]}: say which means default, data.bad={seen[1]}"
            )
        return meant[0], others[0]
    found = [value for value in seen if _same(value, bad)]
    if len(found) != 1:
        raise ConfigError(f"data.bad={text_of(bad)} is no value of the target {name}, which is {seen[0]} or {seen[1]}")
    return found[0], next(value for value in seen if value != found[0])


def _word(value: str) -> str:
    """A value in small letters; a number as short as it can be."""
    return text_of(number(value)) if np.isfinite(number(value)) else value.lower()  # type: ignore[return-value]


def _same(value: str, meant: Any) -> bool:
    text = text_of(meant)
    if text is None:
        return False
    if isinstance(meant, bool):  # what YAML makes of yes and no
        return _word(value) in (BAD if meant else GOOD)
    return value == text or _word(value) == _word(text)
