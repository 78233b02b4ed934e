"""What a column is, is found from its cells; the rest of what is inferred from columns too."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright_risk import kinds
from modelwright_risk.kinds import Undated, are_dates, band_codes, band_edges, band_names, levels_of, look, times
from modelwright_risk.schema import FIRST, MISSING, UNSEEN

MANY = range(40)


@pytest.mark.parametrize(
    ("name", "cells", "kind"),
    [
        ("x", [f"{each % 7}.5" for each in MANY], "numeric"),
        ("x", [*["1", "2", "", "NA"] * 10], "numeric"),
        ("x", [*["1.5"] * 19, "a mistake"], "numeric"),
        ("x", ["a", "b"] * 20, "categorical"),
        ("x", [*["1"] * 10, *["a", "b", "c"]], "categorical"),
        ("x", [f"name {each}" for each in MANY], "identifier"),
        ("x", [f"name {each}" for each in range(20)], "categorical"),
        ("anything", [str(each) for each in MANY], "identifier"),
        ("x", [str(each * 3) for each in MANY], "numeric"),
        ("customer_id", [str(each * 3) for each in MANY], "identifier"),
        ("loanNumber", [str(each * 3) for each in MANY], "identifier"),
        ("customer_id", [str(each // 2) for each in MANY], "numeric"),
        ("paid", [str(each * 3) for each in MANY], "numeric"),
        ("x", ["2020-01-31", "2020-02-29", ""] * 10, "date"),
        ("x", ["", "NA", "?"], "empty"),
        ("x", [1, 2, 2], "numeric"),
        ("x", [1.0, None, 2.5], "numeric"),
        ("Id", [each * 2 for each in MANY], "identifier"),
        ("x", [True, False, None], "categorical"),
        ("x", [datetime.date(2020, 1, 1)], "date"),
        ("x", [None, None], "empty"),
        ("x", [[1], [2]], "other"),
    ],
)
def test_what_a_column_is(name: str, cells: list[Any], kind: str) -> None:
    column = pa.chunked_array([pa.array(cells)])
    assert look(name, column).kind == kind
    if pa.types.is_string(column.type):
        assert look(name, column.dictionary_encode()).kind == kind


def test_the_share_of_numbers_in_a_category_is_told() -> None:
    assert look("x", pa.chunked_array([["1", "2", "a", "b"]])).share == 0.5


def test_levels_are_sorted_by_value_then_by_letter_and_those_of_other_rows_are_left_out() -> None:
    column = pa.chunked_array([["b", "10", "9", None, "a", "only in test"]])
    assert levels_of(column, np.arange(5)) == ("9", "10", "a", "b")


def test_of_too_many_levels_the_most_frequent_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "MOST_LEVELS", 2)
    assert levels_of(pa.chunked_array([["a", "b", "b", "c", "c"]]), np.arange(5)) == ("b", "c")


@given(st.lists(st.floats(-1e6, 1e6), max_size=30))
def test_bands_hold_every_number_and_nothing_else(values: list[float]) -> None:
    edges = band_edges(np.array([*values, np.nan]))
    names = band_names(edges)
    assert len(names) == len(edges) + 1
    assert edges == sorted(set(edges))
    codes = band_codes(np.array([*values, np.nan, np.inf]), edges)
    assert codes[-2:].tolist() == [MISSING, UNSEEN]
    for value, code in zip(values, codes.tolist(), strict=False):
        place = code - FIRST
        assert place == 0 or edges[place - 1] < value
        assert place == len(edges) or value <= edges[place]


def test_bands_have_names() -> None:
    assert band_names([]) == ["all"]
    assert band_names([30.0, 41.5]) == ["to 30", "30 to 41.5", "above 41.5"]


# Times --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cells",
    [
        ["2019-12-31", "2020-01-01", "2020-03-05"],
        ["2019-12-31 10:00", "2019-12-31T10:00:01", "2020-01-01 00:00:00.5"],
        ["2019-12-31T10:00Z", "2020-01-01T10:00+01:00"],
        ["2019/12/31", "2020/1/1"],
        ["2019-12", "2020-01"],
        ["2019Q4", "2020Q1"],
        ["31.12.2019", "01.01.2020"],
        ["31/12/2019", "01/01/2020"],
        ["12/31/2019", "01/01/2020"],
        ["Dec-2019", "Jan-2020"],
        ["31 Dec 2019", "1 January 2020"],
        ["201912", "202001"],
        ["3", "12"],
        [3, 12],
        [datetime.date(2019, 12, 31), datetime.date(2020, 1, 1)],
        [datetime.datetime(2019, 12, 31, 5), datetime.datetime(2019, 12, 31, 6)],
    ],
)
def test_times_are_in_order(cells: list[Any]) -> None:
    found = times(pa.chunked_array([[*cells, None]]))
    assert (np.diff(found[:-1]) > 0).all()
    assert np.isnan(found[-1])


def test_dates_are_days() -> None:
    assert np.diff(times(pa.chunked_array([["2020-02-28", "2020-03-01"]]))).tolist() == [2]
    assert np.diff(times(pa.chunked_array([[datetime.date(2020, 2, 28), datetime.date(2020, 3, 1)]]))).tolist() == [2]


@pytest.mark.parametrize(
    ("cells", "cell", "reason"),
    [
        (["2020-01-01", "01.02.2020"], "01.02.2020", r"is no date like the others \(year-month-day\)"),
        (["2020-01-01", "soon"], "soon", "is no date like the others"),
        (["31/12/2019", "12/31/2019"], "12/31/2019", "is no date like the others"),
        (["01/02/2020", "03/04/2020"], "01/02/2020", "may be day/month or month/day"),
        (["2020-02-30"], "2020-02-30", "is no date"),
        (["soon", "2020-01-01"], "soon", "is no date"),
        (["Foo-2020"], "Foo-2020", "is no date"),
    ],
)
def test_what_cannot_be_ordered(cells: list[str], cell: str, reason: str) -> None:
    with pytest.raises(Undated, match=reason) as undated:
        times(pa.chunked_array([cells]))
    assert undated.value.cell == cell


def test_dates_of_one_form() -> None:
    assert are_dates(["2020-01-01", "2021-12-31"])
    assert not are_dates(["2020-01-01", "31.12.2021"])
