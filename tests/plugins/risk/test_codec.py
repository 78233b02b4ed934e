"""Rows become the arrays they were trained as, and log-odds become decisions with names beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.bundle.codecs import describe, restore
from modelwright.codec import Columns
from modelwright.errors import DataError
from modelwright_risk import calibration
from modelwright_risk.codec import RiskCodec
from modelwright_risk.rows import Rows
from modelwright_risk.schema import FIRST, MISSING, UNSEEN, Feature, Schema

SCHEMA = Schema(
    (
        Feature("income", "numeric", special=(-9.0,)),
        Feature("job", "categorical", levels=("clerk", "nurse")),
        Feature("debts", "numeric"),
    )
)
CODEC = RiskCodec(columns=tuple(SCHEMA.as_json()), identifiers=("id",), cutoff=0.2, reasons={"debts": "many debts"})
ROWS: list[dict[str, Any]] = [
    {"id": "a1", "income": "1200.5", "job": "nurse", "debts": 3},
    {"id": "a2", "income": None, "job": "", "debts": 0.0, "bad": 1},
    {"id": "a3", "income": "NA", "job": "astronaut", "debts": " 7 "},
    {"income": math.nan, "job": None, "debts": True},
]
NUMBERS = [[1200.5, 3], [math.nan, 0], [math.nan, 7], [math.nan, 1]]
CODES = [[FIRST + 1], [MISSING], [UNSEEN], [MISSING]]


def converted(codec: RiskCodec, raws: Any, *, size: int = 100) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    many = codec.many(raws)
    assert many is not None
    parts = list(codec.batches(many, size=size))
    rows = np.concatenate([context.rows for _, context in parts])
    assert rows.tolist() == list(range(len(many)))
    names = [name for _, context in parts for name in context.columns["id"]]
    return (*(np.concatenate([arrays[each] for arrays, _ in parts]) for each in ("numbers", "codes")), names)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_rows_become_numbers_and_codes(size: int) -> None:
    numbers, codes, names = converted(CODEC, ROWS, size=size)
    assert (numbers.dtype, codes.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(numbers, np.array(NUMBERS, dtype=np.float32))
    assert codes.tolist() == CODES
    assert names == ["a1", "a2", "a3", None]


def test_preparing_one_by_one_gives_the_same() -> None:
    arrays, context = CODEC.collate(CODEC.prepare(ROWS))
    np.testing.assert_array_equal(arrays["numbers"], np.array(NUMBERS, dtype=np.float32))
    assert arrays["codes"].tolist() == CODES
    assert context.columns["id"] == ["a1", "a2", "a3", None]
    assert context.rows.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["pandas", "pyarrow", "dict", "text"])
def test_tables_become_the_same_as_their_rows(kind: str) -> None:
    frame = pd.DataFrame(
        {"id": [1, 2], "job": ["nurse", None], "income": [math.nan, 2.5], "debts": [0, 1], "more": ["x", "y"]}
    )
    table: Any = {
        "pandas": frame,
        "pyarrow": pa.table(frame),
        "dict": {name: frame[name].to_numpy() for name in frame},
        "text": pa.table({name: [str(cell) for cell in frame[name]] for name in frame}),
    }[kind]
    numbers, codes, names = converted(CODEC, table, size=1)
    np.testing.assert_array_equal(numbers, np.array([[math.nan, 0], [2.5, 1]], dtype=np.float32))
    assert codes.tolist() == [[FIRST + 1], [MISSING]]
    assert [str(name) for name in names] == ["1", "2"]


def test_one_row_is_not_many() -> None:
    assert CODEC.many(ROWS[0]) is None
    assert CODEC.many(ROWS) is ROWS


def test_an_input_of_no_width_is_left_out() -> None:
    for kind, left in (("numeric", "numbers"), ("categorical", "codes")):
        codec = RiskCodec(columns=tuple(Schema((Feature("a", kind),)).as_json()))
        arrays, _ = codec.collate(codec.prepare([{"a": "1"}]))
        assert list(arrays) == [left]


CELLS = st.one_of(st.none(), st.integers(-99, 99), st.floats(width=32), st.sampled_from(["", "NA", "4", "1e3", "abc"]))


@given(st.lists(st.fixed_dictionaries({"income": CELLS, "debts": CELLS, "job": CELLS}), min_size=1, max_size=5))
def test_dicts_tables_and_single_rows_are_converted_or_refused_alike(rows: list[dict[str, Any]]) -> None:
    def attempt(raws: Sequence[Any]) -> list[Any] | str:
        try:
            return [arrays["numbers"].tolist() for arrays, _ in CODEC.batches(raws, size=100)]
        except DataError as error:
            return str(error).rpartition("column")[2]

    columns = {name: np.array([*(row[name] for row in rows), None], dtype=object)[:-1] for name in rows[0]}
    whole = attempt(rows)
    assert str(attempt(Rows(columns))) == str(whole)
    if not isinstance(whole, str):
        assert str([attempt([row])[0][0] for row in rows]) == str(whole[0])


# What cannot be used ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "shown"), [("abc", "abc"), ("inf", "inf"), (math.inf, "inf"), (-math.inf, "-inf"), ([1], r"\[1\]")]
)
def test_text_and_infinity_are_refused_with_column_and_value(cell: Any, shown: str) -> None:
    row = {"income": cell, "job": "nurse", "debts": 1}
    with pytest.raises(DataError, match=f"^column income holds '{shown}', which is no finite number"):
        CODEC.prepare([row])
    with pytest.raises(DataError, match=r"^row 1: column income holds"):
        CODEC.prepare([ROWS[0], row])


def test_the_row_is_counted_in_the_whole_table() -> None:
    rows = Rows({"income": [1.0, 2.0, math.inf, 3.0], "job": ["nurse"] * 4, "debts": [1] * 4})
    with pytest.raises(DataError, match=r"^row 2: column income holds 'inf'"):
        list(CODEC.batches(rows, size=2))


@pytest.mark.parametrize("raws", [[{"income": 1, "Job": "nurse", "debts": 1}], Rows({"income": [1], "Job": ["nurse"]})])
def test_a_missing_column_is_named(raws: Any) -> None:
    with pytest.raises(
        DataError, match=r"there is no column job \(did you mean 'Job'\?\): the model needs it; there are"
    ):
        list(CODEC.batches(raws, size=10))


def test_what_is_no_row_is_refused() -> None:
    with pytest.raises(DataError, match="row 1 is a str: give a dict from column to cell, or a table"):
        CODEC.prepare([ROWS[0], "a.csv"])
    with pytest.raises(DataError, match="this is no table: columns differ in length: income 1, job 2"):
        CODEC.many({"income": [1], "job": ["a", "b"]})


# Decisions ----------------------------------------------------------------------------------------------------------


def test_log_odds_become_probabilities_points_and_decisions() -> None:
    _, context = next(CODEC.batches(ROWS, size=10))
    logit = np.array([-3, -1, 0, 2], dtype=np.float32)
    found = CODEC.decode({"logit": logit}, context)
    np.testing.assert_array_equal(found.array("logit"), logit)
    np.testing.assert_allclose(found.array("probability"), 1 / (1 + np.exp(-logit.astype(float))))
    assert (np.diff(found.array("points")) < 0).all()
    assert found.array("refused").tolist() == [False, True, True, True]
    assert list(found["id"]) == ["a1", "a2", "a3", None]
    records = CODEC.records(found)
    assert records[0] == {"id": "a1", "decision": "accept", "probability": 0.047426, "points": pytest.approx(573.7)}
    assert [record["decision"] for record in records] == ["accept", "refuse", "refuse", "refuse"]
    assert json.loads(json.dumps(records)) == records


def test_the_calibrator_is_used() -> None:
    codec = RiskCodec(columns=CODEC.columns, calibrator={"kind": "temperature", "temperature": 2.0})
    found = codec.decode({"logit": np.array([1.0])}, None)
    assert (
        found.array("probability")[0] == calibration.apply({"kind": "temperature", "temperature": 2.0}, np.ones(1))[0]
    )
    assert list(found) == ["logit", "probability", "points", "refused"]


def test_reasons_are_what_adds_most_risk_in_the_users_words() -> None:
    # In the order of Schema.ordered: income, debts, job.
    attributions = np.array([[0.5, 1.0, -2.0], [-1.0, -1.0, -1.0], [0.1, 0.0, 0.2]], dtype=np.float32)
    found = CODEC.explain({"logit": np.zeros(3), "attributions": attributions}, None)
    assert found["reasons"] == [["many debts", "income"], [], ["job", "income"]]
    assert CODEC.records(found)[0]["reasons"] == ["many debts", "income"]
    few = RiskCodec(columns=CODEC.columns, top=1)
    assert few.explain({"logit": np.zeros(3), "attributions": attributions}, None)["reasons"] == [
        ["debts"],
        [],
        ["job"],
    ]


def test_predictions_can_be_joined_and_selected() -> None:
    parts = [CODEC.decode({"logit": np.zeros(2)}, context) for _, context in CODEC.batches(ROWS, size=2)]
    assert list(Columns.join(parts)["id"]) == ["a1", "a2", "a3", None]


def test_made_again_from_json_it_is_the_same() -> None:
    codec = RiskCodec(
        columns=tuple(SCHEMA.as_json()),
        identifiers=("id",),
        calibrator={"kind": "isotonic", "logit": [0.0, 1.0], "probability": [0.1, 0.2], "center": 0.5},
    )
    again = restore(json.loads(json.dumps(describe(codec))), plugins=[type("P", (), {"value": "modelwright_risk"})()])
    assert again == codec
    assert isinstance(again, RiskCodec)
    assert again.schema == SCHEMA


# Files --------------------------------------------------------------------------------------------------------------


def test_the_rows_of_files_are_named_by_line(tmp_path: Path) -> None:
    text = 'id;income;job;debts\na1;1200,5;"two\nlines";3\n\na2;;nurse;0\n'
    (tmp_path / "new.csv").write_text(text, encoding="utf-8")
    assert list(CODEC.read(tmp_path / "new.csv")) == [
        (f"{tmp_path}/new.csv:2", {"id": "a1", "income": "1200,5", "job": "two\nlines", "debts": "3"}),
        (f"{tmp_path}/new.csv:5", {"id": "a2", "income": "", "job": "nurse", "debts": "0"}),
    ]
    pq.write_table(pa.table({"income": [1.0, None], "job": ["a", "b"]}), tmp_path / "new.parquet")
    assert list(CODEC.read(tmp_path / "new.parquet")) == [
        (f"{tmp_path}/new.parquet row 0", {"income": 1.0, "job": "a"}),
        (f"{tmp_path}/new.parquet row 1", {"income": None, "job": "b"}),
    ]


def test_a_broken_line_is_one_bad_row_among_others(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("income,job,debts\n1,nurse,0\n2,b\n3,clerk,0\n", encoding="utf-8")
    rows = [row for _, row in CODEC.read(tmp_path / "new.csv")]
    assert [row["income"] for row in (rows[0], rows[2])] == ["1", "3"]
    CODEC.prepare([rows[0], rows[2]])
    with pytest.raises(DataError, match=r"this line has 2 cells instead of 3: mend it; is a quote broken\?"):
        CODEC.prepare(rows)
