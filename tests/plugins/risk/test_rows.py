"""Rows behave like a list of dicts, and cost what columns cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from modelwright_risk.rows import Rows

ROWS = [{"age": 31, "job": "clerk"}, {"age": 52, "job": None}, {"age": 40, "job": "smith"}]


def tables() -> list[Any]:
    frame = pd.DataFrame(ROWS)
    return [
        frame,
        frame.astype({"job": "category"}),
        frame.astype({"job": object}),
        frame.astype({"age": "Int64"}),
        pa.table(frame),
        {"age": [31, 52, 40], "job": ["clerk", None, "smith"]},
        {"age": np.array([31, 52, 40]), "job": np.array(["clerk", None, "smith"], dtype=object)},
        {"age": frame["age"], "job": pa.array(["clerk", None, "smith"])},
    ]


@pytest.mark.parametrize("table", tables(), ids=lambda table: type(table).__name__)
def test_whatever_holds_it_a_row_is_a_dict(table: Any) -> None:
    rows = Rows.of(table)
    assert rows is not None
    assert list(rows) == ROWS
    assert rows[-1] == ROWS[2]
    assert list(rows[1:]) == ROWS[1:]
    assert rows[1:][0:1].first == 1
    assert len(rows[5:]) == 0


@pytest.mark.parametrize("thing", [ROWS[0], [1, 2], "text", 5, {}, {"age": 31, "job": [1]}, np.zeros(3)])
def test_what_is_no_table(thing: Any) -> None:
    assert Rows.of(thing) is None


def test_columns_of_several_types_stay_as_they_are() -> None:
    frame = pd.DataFrame({"mixed": ["a", 1, None]})
    rows = Rows.of(frame)
    assert rows is not None
    assert [row["mixed"] for row in rows] == ["a", 1, None]
    assert Rows.of(rows) is rows


def test_rows_of_dicts_keep_the_named_columns() -> None:
    assert list(Rows.of_dicts(ROWS, ["job"])) == [{"job": row["job"]} for row in ROWS]
    assert len(Rows.of_dicts(ROWS, [])) == 3
    with pytest.raises(KeyError) as missing:
        Rows.of_dicts([*ROWS, {"age": 1}], ["age", "job"])
    assert missing.value.args == ("job", 3)


def test_misuse() -> None:
    with pytest.raises(ValueError, match="columns differ in length: a 1, b 2"):
        Rows({"a": [1], "b": [1, 2]})
    rows = Rows({"a": [1, 2]})
    with pytest.raises(IndexError, match="row 2 of 2"):
        rows[2]
    with pytest.raises(ValueError, match="leave out the step"):
        rows[::2]
