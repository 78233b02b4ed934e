"""Splits depend on rows, classes, groups and times as they should, and on nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.data import Split
from modelwright.errors import DataError
from modelwright_risk.splits import TEST, TRAIN, VALID, by_group, by_time, hashed, listed, stratified

SHARES: dict[Split, float] = {"test": 0.2, "valid": 0.25}


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 2**40), min_size=1, max_size=20))
def test_chance_is_a_function_of_row_and_seed(seed: int, rows: list[int]) -> None:
    found = hashed(np.array(rows), seed=seed)
    assert ((found >= 0) & (found < 1)).all()
    assert hashed(np.array(rows[::-1]), seed=seed)[::-1].tolist() == found.tolist()


def test_chance_is_even_and_differs_with_the_seed() -> None:
    found = hashed(np.arange(100_000), seed=0)
    counts = np.histogram(found, bins=20, range=(0, 1))[0]
    assert abs(counts - 5000).max() < 350
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 0.02
    assert abs(np.corrcoef(found, hashed(np.arange(100_000), seed=1))[0, 1]) < 0.02


@given(st.integers(3, 60), st.integers(3, 60), st.integers(0, 5))
def test_each_class_is_split_in_the_same_shares(bad: int, good: int, seed: int) -> None:
    outcome = np.array([True] * bad + [False] * good)
    found = stratified(outcome, np.arange(len(outcome)), shares=SHARES, seed=seed)
    for own, count in ((found[outcome], bad), (found[~outcome], good)):
        assert (own == TEST).sum() == max(round(0.2 * count), 1)
        assert (own == VALID).sum() == max(round(0.25 * count), 1)
        assert (own == TRAIN).any()


def test_the_order_of_rows_changes_nothing() -> None:
    outcome = np.arange(100) % 3 == 0
    turned = np.arange(100)[::-1]
    found = stratified(outcome, np.arange(100), shares=SHARES, seed=3)
    assert stratified(outcome[turned], turned, shares=SHARES, seed=3)[turned].tolist() == found.tolist()
    assert stratified(outcome, np.arange(100), shares=SHARES, seed=4).tolist() != found.tolist()


def test_a_class_that_is_too_small() -> None:
    with pytest.raises(DataError, match="2 bad rows are too few to cut test and valid from: add rows, name the splits"):
        stratified(np.array([True] * 2 + [False] * 50), np.arange(52), shares=SHARES, seed=0)


def test_groups_stay_together() -> None:
    groups = np.repeat(np.arange(200), 5)
    found = by_group(groups, shares=SHARES, seed=0)
    assert all(len(set(found[groups == group].tolist())) == 1 for group in range(200))
    assert [(found == code).mean() for code in (TEST, VALID)] == pytest.approx([0.2, 0.25])
    with pytest.raises(
        DataError, match=r"the .* split is empty: data.group has too few groups, or one that is too large"
    ):
        by_group(np.zeros(10, dtype=np.int64), shares=SHARES, seed=0)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60))
def test_time_goes_on_from_training_to_the_test(moments: list[int]) -> None:
    when = np.array(moments, dtype=np.float64)
    try:
        found = by_time(when, shares=SHARES)
    except DataError:
        assert len(set(moments)) < 20
        return
    assert when[found == TRAIN].max() < when[found == VALID].min()
    assert when[found == VALID].max() < when[found == TEST].min()


def test_the_latest_rows_are_the_test() -> None:
    assert (
        by_time(np.arange(10.0), shares={"test": 0.2, "valid": 0.3}).tolist() == [TRAIN] * 5 + [VALID] * 3 + [TEST] * 2
    )
    assert by_time(np.arange(10.0), shares={"test": 0.2}).tolist() == [TRAIN] * 8 + [TEST] * 2
    with pytest.raises(DataError, match=r"split is empty: data.time has too few different values"):
        by_time(np.zeros(10), shares=SHARES)


# The file of data.split ---------------------------------------------------------------------------------------------

TABLE = pa.table({"id": ["a", "b", "c"], "x": [1, 2, 3]})


@pytest.mark.parametrize(
    "text",
    [
        "row,split\n0,train\n1,val\n2,test\n",
        "Row;Split\n2;TEST\n0;training\n1;valid\n",
        "index,split\n2,test\n1,valid\n0,train\n1,valid\n",
        "id,split\nc,test\nb,valid\na,train\nunknown,test\n",
    ],
)
def test_a_split_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "split.csv").write_text(text, encoding="utf-8")
    assert listed(str(tmp_path / "split.csv"), TABLE, np.arange(3), size=3).tolist() == [TRAIN, VALID, TEST]


def test_rows_that_were_left_out_are_counted(tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_text("row,split\n0,train\n1,val\n2,test\n3,test\n", encoding="utf-8")
    found = listed(str(tmp_path / "split.csv"), TABLE, np.array([0, 2, 3]), size=4)
    assert found.tolist() == [TRAIN, TEST, TEST]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("row,part\n0,train\n", r"split.csv has no column split \(it has row, part\)"),
        (
            "row,split\n0,train\n1,holdout\n2,test\n",
            "split.csv:3 names the split 'holdout': write train, valid or test",
        ),
        ("row,split\n0,train\n1,\n2,test\n", "split.csv:3 names the split ''"),
        ("row,split\n0,train\n1,test\n", r"split.csv gives no split to 1 of 3 rows \(the first is row 2\)"),
        ("row,split\n0,train\n1,test\n7,test\n", "split.csv names row '7', and the rows are 0 to 2"),
        ("row,split\n0,train\none,test\n", "split.csv names row 'one', and the rows are 0 to 2"),
        ("row,split\n0,train\n1,test\n1,train\n2,test\n", "split.csv gives row 1 two splits: keep one"),
        ("name,split\na,train\n", "split.csv has no column row"),
        ("id,split\na,train\nb,test\n", r"split.csv gives no split to 1 of 3 rows"),
    ],
)
def test_a_split_file_that_does_not_fit(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "split.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=told):
        listed(str(tmp_path / "split.csv"), TABLE, np.arange(3), size=3)


def test_a_folder_is_no_split_file(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("row,split\n0,train\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"holds several files: data.split takes one CSV"):
        listed(str(tmp_path), TABLE, np.arange(3), size=3)
