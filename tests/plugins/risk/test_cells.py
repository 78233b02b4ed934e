"""Every way to hand over a column gives the same numbers and codes."""

from __future__ import annotations

import datetime
import decimal
import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright_risk import cells
from modelwright_risk.cells import Levels, number, numbers, plain, text_of, texts
from modelwright_risk.schema import MISSING, UNSEEN

WORDS = st.sampled_from(["", " ", "NA", "nan", "NULL", "?", "abc", "1_000", "0x10", "1,5", "inf", "-Infinity", "1e400"])
SPELT = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
    st.integers(-(10**6), 10**6).map(str),
    st.sampled_from(["+5", "5.", ".5", " 12 ", "1e3", "-2E-3", "\t7\u00a0"]),
    WORDS,
    st.text(max_size=4),
)


@given(st.lists(st.one_of(st.none(), SPELT), max_size=8))
def test_text_is_read_alike_one_by_one_and_as_a_column(texts: list[str | None]) -> None:
    alone = np.array([number(cell) for cell in texts])
    column = pa.array(texts, pa.string())
    boxed = np.array([*texts, None], dtype=object)[:-1]
    for given_as in (texts, boxed, column, pa.chunked_array([column]), column.dictionary_encode()):
        np.testing.assert_array_equal(numbers(given_as), alone)


def test_long_columns_of_text_are_read_like_short_ones() -> None:
    column = ["1", "x", None, " 2 ", "?", "inf"] * 30
    np.testing.assert_array_equal(numbers(column), [number(cell) for cell in column])
    np.testing.assert_array_equal(numbers(["1", "2.5", ""] * 30), [1, 2.5, math.nan] * 30)


@given(st.lists(st.one_of(st.none(), st.integers(-5, 5), st.floats(width=32), st.booleans()), max_size=6))
def test_numbers_are_taken_as_they_are_and_what_is_not_finite_is_marked(column: list[Any]) -> None:
    expected = [number(cell) for cell in column]
    np.testing.assert_array_equal(numbers(column), expected)
    np.testing.assert_array_equal(numbers(np.array(column, dtype=np.float64)), expected)
    assert not np.isneginf(numbers(column)).any()


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (decimal.Decimal("1.5"), 1.5),
        (np.float32(2), 2.0),
        (np.bool_(True), 1.0),
        (pd.NA, math.nan),
        (10**400, math.inf),
        (1e39, math.inf),
        (b"1", math.inf),
        (datetime.date(2020, 1, 1), math.inf),
        ([1, 2], math.inf),
    ],
)
def test_odd_cells(cell: Any, expected: float) -> None:
    np.testing.assert_equal(number(cell), expected)
    np.testing.assert_equal(numbers([cell])[0], expected)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, None, 3]), [1, math.nan, 3]),
        (pa.array([True, None]), [1, math.nan]),
        (pa.array([decimal.Decimal("1.25"), None]), [1.25, math.nan]),
        (pa.nulls(2), [math.nan, math.nan]),
        (pa.array([datetime.date(2020, 1, 1), None]), [math.inf, math.nan]),
        (pa.array(["1", "2"], pa.large_string()), [1, 2]),
    ],
)
def test_columns_of_pyarrow(column: pa.Array, expected: list[float]) -> None:
    np.testing.assert_array_equal(numbers(column), expected)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (1, "1"),
        (1.0, "1"),
        (1.5, "1.5"),
        (True, "true"),
        (np.int64(3), "3"),
        (np.float32(2.0), "2"),
        (" a ", "a"),
        ("NA", None),
        (None, None),
        (math.nan, None),
        (pd.NaT, None),
        (1e300, "1e+300"),
    ],
)
def test_the_text_of_a_cell(cell: Any, text: str | None) -> None:
    assert text_of(cell) == text


def test_texts_of_a_column_of_any_type() -> None:
    assert texts(pa.array([" a", "b", "?", None])).to_pylist() == ["a", "b", None, None]
    assert texts(pa.array([1.0, None, 2.5])).to_pylist() == ["1", None, "2.5"]
    assert texts(pa.chunked_array([pa.array(["a"]), pa.array(["b", "a"])]).dictionary_encode()).to_pylist() == [*"aba"]


LEVELS = ("1", "2", "02", "B", "true")


@given(
    st.lists(st.one_of(st.none(), st.sampled_from([*LEVELS, " B", "b", "x", "NA", "2.0", "True", "1e0"])), max_size=8)
)
def test_categories_are_looked_up_alike_whatever_holds_them(column: list[str | None]) -> None:
    levels = Levels(LEVELS)
    alone = [levels.code(cell) for cell in column]
    boxed = np.array([*column, None], dtype=object)[:-1]
    arrow = pa.array(column, pa.string())
    for given_as in (column, boxed, arrow, pa.chunked_array([arrow]), arrow.dictionary_encode()):
        found = levels.codes(given_as)
        assert found.dtype == np.int64
        assert found.tolist() == alone


def test_a_category_is_found_by_its_text_then_by_its_value() -> None:
    levels = Levels(LEVELS)
    assert [levels.code(cell) for cell in ("1", 1, 1.0, "1.0", " B ", True, "TRUE")] == [2, 2, 2, 2, 5, 6, 6]
    assert [levels.code(cell) for cell in ("b", "x", 7, [1], b"B", False)] == [UNSEEN] * 6
    assert [levels.code(cell) for cell in (None, "", "NA", math.nan, pd.NA)] == [MISSING] * 5
    # "2" and "02" mean the same number: as text they are told apart, as a number neither is meant.
    assert [levels.code(cell) for cell in ("2", "02", 2.0)] == [3, 4, 3]
    assert levels.code("2.0") == UNSEEN


@pytest.mark.parametrize("column", [np.array([1, 2, 1]), np.array([1.0, 2.0, np.nan]), np.array([True, False, True])])
def test_columns_of_numbers_as_categories(column: np.ndarray) -> None:
    levels = Levels(LEVELS)
    assert levels.codes(column).tolist() == [levels.code(cell) for cell in column.tolist()]


def test_cells_that_cannot_be_looked_up_are_unseen() -> None:
    assert Levels(LEVELS).codes([[1], "1", {"a": 1}]).tolist() == [UNSEEN, 2, UNSEEN]


def test_the_same_levels_are_prepared_once() -> None:
    assert cells.levels_of(("a", "b")) is cells.levels_of(("a", "b"))


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (np.int64(3), 3),
        (math.nan, None),
        (math.inf, "inf"),
        (None, None),
        (datetime.date(2020, 1, 2), "2020-01-02"),
        (pd.NA, None),
    ],
)
def test_plain_cells_are_json_values(cell: Any, value: Any) -> None:
    assert plain(cell) == value
