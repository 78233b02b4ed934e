"""What is odd in a table is found before training, and only that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from modelwright_risk import data
from modelwright_risk.checks import auc_of, constants, fingerprints, suspicious
from modelwright_risk.config import RiskConfig, RiskData
from modelwright_risk.datasets import Table
from modelwright_risk.schema import Feature, Schema

Write = Callable[..., str]
Loans = Callable[..., dict[str, list[Any]]]


def notes(path: Any, **settings: Any) -> list[str]:
    config = RiskConfig(data=RiskData(name="table", path=path, target="bad", **settings))
    return data.load(config, seed=0).notes


def test_a_clean_table_gives_no_warnings(table: Write, loans: Loans) -> None:
    told = notes(table({**loans(2000), "rate": np.random.default_rng(1).random(2000).tolist()}))
    assert [note.partition(":")[0].partition(" ")[0] for note in told] == [
        "target",
        "id",
        "dates,",
        "splits",
        "rows",
        "no",
    ]
    assert told[4].startswith("rows: train 1200 (")
    assert told[5].startswith("no value in: income ")


def test_columns_that_know_the_outcome(table: Write, loans: Loans) -> None:
    columns = loans(1000)
    bad = columns["bad"]
    columns["lost"] = [50.0 + place if ended else 0 for place, ended in enumerate(bad)]
    columns["written_off"] = ["yes" if ended else "no" for ended in bad]
    columns["closed"] = ["" if ended else f"{place}" for place, ended in enumerate(bad)]
    columns["nearly"] = [ended if place % 4 else 1 - ended for place, ended in enumerate(bad)]
    columns["town"] = [f"town {place % 600}" for place in range(1000)]
    leaks = [note.partition(" ")[0] for note in notes(table(columns)) if "alone tells bad from good" in note]
    assert leaks == ["lost", "closed", "written_off"]


def test_columns_of_one_value_and_twins(table: Write, loans: Loans) -> None:
    columns = {**loans(), "same": ["a"] * 300, "none": [""] * 300}
    columns["again"] = columns["debts"]
    told = notes(table(columns))
    assert "one value throughout, not seen by the model: same" in told
    assert "no value at all, not seen by the model: none" in told
    assert "again has the same values as debts: list one of them in data.ignored" in told


def test_constants_are_found_with_missing_values_as_one() -> None:
    nan = np.nan
    schema = Schema(
        (*(Feature(name, "numeric") for name in "abcd"), Feature("e", "categorical"), Feature("f", "categorical"))
    )
    numbers = np.array([[1, nan, 1, np.inf], [1, nan, nan, np.inf]], dtype=np.float32)
    assert constants(numbers, np.array([[1, 2], [1, 3]]), schema) == ["a", "b", "e"]


def test_rows_in_two_splits(table: Write, loans: Loans) -> None:
    columns = loans()
    head = {name: cells[:200] for name, cells in columns.items()}
    test = {name: cells[190:] for name, cells in columns.items()}
    told = notes([table(head, "train.csv"), table(test, "test.csv")], valid=0.1)
    shared = [int(note.partition(" ")[0]) for note in told if "by all that the model sees" in note]
    assert sum(shared) == 10


def test_categories_that_training_rows_have_not(table: Write, loans: Loans) -> None:
    columns = loans()
    head = {name: cells[:200] for name, cells in columns.items()}
    test = {name: cells[200:] for name, cells in columns.items()} | {"job": ["pilot"] * 30 + ["clerk"] * 70}
    told = notes([table(head, "train.csv"), table(test, "test.csv")])
    assert "test has categories that the training rows have not: job 30 rows" in told


def test_few_outcomes_and_mixed_cells_are_told(table: Write, loans: Loans) -> None:
    told = notes(table({**loans(), "grade": ["1", "A", "B"] * 100}))
    assert any(
        note.startswith("fewer than 50 bad or good rows in valid and test: scores of it vary much") for note in told
    )
    assert "grade is a category, though 33% of its cells are numbers: if it is none, use data.numeric" in told


def test_codes_are_suggested_until_they_are_named(table: Write, loans: Loans) -> None:
    columns = loans()
    columns["debts"][3], columns["debts"][8] = 98, 96
    columns["since"] = [-9 if place % 3 else place for place in range(300)]
    (told,) = [note for note in notes(table(columns)) if "look like codes" in note]
    assert told == "values that look like codes: debts [96, 98], since [-9]; if so, name them with data.special"
    named = notes(table(columns), special={"debts": [96, 98], "*": [-9]})
    assert not [note for note in named if "look like codes" in note]


@pytest.mark.parametrize(
    ("values", "codes"),
    [
        ([0, 1, 2, 98, 96], [96, 98]),
        ([0, 1, 60, 98], []),
        ([5.5, 9999], [9999]),
        ([1000, 20000, 99999999], [99999999]),
        ([-9, 0, 3], [-9]),
        ([-9, -4, 3], []),
        ([-99, -9, 1], [-99, -9]),
        ([99, 99], []),
        ([1, 2, 3], []),
    ],
)
def test_what_looks_like_a_code(values: list[float], codes: list[float]) -> None:
    assert suspicious(np.array(values, dtype=np.float32)) == codes


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_is_scikit_learns(rows: list[tuple[int, bool]]) -> None:
    score, bad = (np.array(each) for each in zip(*rows, strict=True))
    expected = roc_auc_score(bad, score) if 0 < bad.sum() < len(bad) else 0.5
    assert auc_of(score.astype(float), bad, ~bad) == pytest.approx(expected)


def test_fingerprints_are_equal_for_equal_rows_only(table: Write, loans: Loans) -> None:
    rows = data.load(RiskConfig(data=RiskData(name="table", path=table(loans()), target="bad")), seed=0)["train"]
    assert isinstance(rows, Table)
    features = ("income", "debts", "customer", "job")
    distinct = {tuple(rows.row(index)[name] for name in features) for index in range(len(rows))}
    assert len(np.unique(fingerprints(rows))) == len(distinct) < len(rows)
