"""Tables on disk give the same rows as those in memory, a few groups of rows at a time."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from modelwright.data import Datasets
from modelwright.errors import ConfigError, DataError
from modelwright.task import Key, Keys
from modelwright_risk import data, stores, streaming
from modelwright_risk.config import RiskConfig, RiskData
from modelwright_risk.data import Known, find_facts
from modelwright_risk.schema import names_of
from modelwright_risk.splits import hashed
from modelwright_risk.streaming import StreamedTable

Write = Callable[..., str]
Loans = Callable[..., dict[str, list[Any]]]


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "GROUP", 50)
    monkeypatch.setattr(streaming, "MOST_GROUPS", 3)


def load(path: Any, *, known: Known | None = None, **settings: Any) -> Datasets:
    settings = {"name": "table", "target": "bad", "memory": 0, **settings}
    return data.load(RiskConfig(data=RiskData(path=path, **settings)), seed=0, known=known)


def splits(found: Datasets) -> dict[str, StreamedTable]:
    return {split: found[split] for split in ("train", "valid", "test") if found.has(split)}  # type: ignore[misc]


def batch(rows: Any, indices: Any = None) -> Any:
    return rows.__getitems__(Keys(0, 0, 1, np.arange(len(rows)) if indices is None else np.asarray(indices)))


@pytest.fixture(params=["csv", "parquet", "parquet in large groups", "several"])
def path(request: Any, table: Write, loans: Loans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    columns = loans(500)
    if request.param == "csv":
        return table(columns)
    if request.param == "several":
        halves = [{name: cells[part] for name, cells in columns.items()} for part in (slice(0, 260), slice(260, 500))]
        pq.write_table(pa.table(halves[1]), tmp_path / "b.parquet", row_group_size=70)
        return [table(halves[0], "a.csv"), str(tmp_path / "b.parquet")]
    if request.param == "parquet in large groups":
        monkeypatch.setattr(stores, "LARGEST", 100)
    size = 60 if request.param == "parquet" else 400
    pq.write_table(pa.table(columns), tmp_path / "loans.parquet", row_group_size=size)
    return str(tmp_path / "loans.parquet")


SETTINGS: dict[str, Any] = {
    "protected": ["job"],
    "weight": "debts",
    "special": {"debts": [4]},
    "identifiers": ["customer"],
}


def test_rows_on_disk_are_those_in_memory(path: Any, loans: Loans) -> None:
    columns = loans(500)
    found = load(path, **SETTINGS)
    seen: list[int] = []
    for rows in splits(found).values():
        whole = batch(rows)
        assert names_of(rows.known.schema.numeric) == ["income"]
        assert isinstance(rows, StreamedTable)
        for index in range(0, len(rows), 7):
            row = rows.row(index)
            place = int(row["id"]) - 1
            seen.append(place)
            example = rows[Key(0, 0, 1, index)]
            assert example.raw == row
            expected = columns["income"][place]
            assert float(whole.inputs[0][index]) == pytest.approx(expected, nan_ok=True) or expected is None
            assert int(whole.targets["bad"][index]) == columns["bad"][place] == int(example.targets["bad"])
            assert float(whole.targets["weight"][index]) == columns["debts"][place]
            assert rows.known.protected["job"][int(whole.targets["group/job"][index]) - 2] == columns["job"][place]
    assert len(set(seen)) == len(seen)
    assert sum(len(rows) for rows in splits(found).values()) == 500


def test_the_splits_are_by_hashed_row_number(path: Any) -> None:
    chance = hashed(np.arange(500), seed=0)
    found = splits(load(path))
    assert len(found["test"]) == (chance < 0.2).sum()
    assert len(found["valid"]) == ((chance >= 0.2) & (chance < 0.4)).sum()


def test_an_epoch_has_every_row_once_and_needs_few_groups_at_a_time(path: Any) -> None:
    rows = splits(load(path))["train"]
    order = rows.batches(batch_size=16, rng=np.random.default_rng(0))
    assert [len(each) for each in order[:-1]] == [16] * (len(order) - 1)
    assert sorted(np.concatenate(order).tolist()) == list(range(len(rows)))
    assert [each.tolist() for each in rows.batches(batch_size=16, rng=np.random.default_rng(0))] == [
        each.tolist() for each in order
    ]
    assert [each.tolist() for each in rows.batches(batch_size=16, rng=np.random.default_rng(1))] != [
        each.tolist() for each in order
    ]
    whole = batch(rows)
    for indices in order:
        own = batch(rows, indices)
        assert own.ids.dtype == np.int64
        assert torch.equal(own.inputs[0].nan_to_num(-1), whole.inputs[0][torch.from_numpy(own.ids)].nan_to_num(-1))
        assert len(rows._held) <= 3


def test_each_group_is_read_once_an_epoch(path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = splits(load(path))["train"]
    read: list[int] = []
    fill = rows._fill
    monkeypatch.setattr(rows, "_fill", lambda slot, place: (read.append(place), fill(slot, place))[1])
    for indices in rows.batches(batch_size=16, rng=np.random.default_rng(3)):
        batch(rows, indices)
    assert len(read) == len(set(read)) == len(rows._starts) - 1


def test_facts_of_a_streamed_table(path: Any) -> None:
    found = load(path)
    facts = find_facts(found["train"], bins=4)
    whole = batch(found["train"])
    assert facts.values["rows"] == len(found["train"])
    assert facts.values["base_rate"] == pytest.approx(float(whole.targets["bad"].mean()))
    income = whole.inputs[0][:, 0]
    assert facts.arrays["quantiles"][0, -1] == income[~income.isnan()].max()
    again = splits(load(path, known=Known.of(facts)))["train"]
    assert torch.equal(batch(again).inputs[1], whole.inputs[1])
    assert again.known == splits(found)["train"].known


def test_notes_say_what_is_not_offered(path: Any) -> None:
    told = load(path).notes
    assert told[0].startswith("500 rows are more than data.memory=0 GiB holds: read from disk; ")
    assert any(note.startswith("rows: train ") for note in told)


def test_it_travels_to_workers(path: Any) -> None:
    rows = splits(load(path))["train"]
    batch(rows, [0])
    again = pickle.loads(pickle.dumps(rows))
    assert torch.equal(batch(again).inputs[0].nan_to_num(), batch(rows).inputs[0].nan_to_num())
    assert again.name_of(3) == rows.name_of(3)


def test_places_are_lines_of_the_csv(table: Write, loans: Loans) -> None:
    columns = loans(500)
    rows = splits(load(table(columns)))["train"]
    for index in (0, 100, 200):
        line = int(rows.name_of(index).removeprefix("loans.csv:"))
        assert rows.row(index)["job"] == columns["job"][line - 2]


def test_a_split_file_and_files_by_split(table: Write, loans: Loans, tmp_path: Path) -> None:
    columns = loans(500)
    (tmp_path / "split.csv").write_text(
        "row,split\n" + "".join(f"{row},{'test' if row < 100 else 'train'}\n" for row in range(500))
    )
    found = splits(load(table(columns), split=str(tmp_path / "split.csv"), valid=0.1))
    assert len(found["test"]) == 100
    assert [found["test"].name_of(index) for index in (0, 99)] == ["loans.csv:2", "loans.csv:101"]
    found = splits(load([table(columns, "train.csv"), table(loans(100), "test.csv")], split_by="time", time="month"))
    assert len(found["test"]) == 100


def test_bad_rows_on_disk(table: Write, loans: Loans, tmp_path: Path) -> None:
    columns = loans(500)
    columns["income"][60] = "oops"
    with pytest.raises(
        DataError, match=r"loans.csv:62: income is 'oops', which is no finite number: mend it, list income in"
    ):
        load(table(columns))
    columns["income"][60] = float("inf")
    columns["bad"][61] = None
    pq.write_table(pa.table(columns), tmp_path / "loans.parquet", row_group_size=50)
    told = r"2 of 500 rows cannot be used \(.*row 60: income is 'inf'.*; .*row 61: the target bad has no value\)"
    with pytest.raises(DataError, match=told):
        load(str(tmp_path / "loans.parquet"))
    found = load(str(tmp_path / "loans.parquet"), on_bad="skip")
    assert sum(len(rows) for rows in splits(found).values()) == 498
    columns["income"][60] = "oops"
    columns["bad"][61] = 0
    assert sum(len(rows) for rows in splits(load(table(columns), on_bad="skip")).values()) == 499


def test_what_is_not_offered_or_does_not_fit(table: Write, loans: Loans, tmp_path: Path) -> None:
    columns = loans(500)
    path = table(columns)
    with pytest.raises(ConfigError, match=r"data.split_by=time is not offered for a table that is read from disk"):
        load(path, split_by="time", time="month")
    with pytest.raises(DataError, match=r"b.csv and .*loans.csv have different columns \(more\): mend one"):
        load([path, table({**columns, "more": columns["job"]}, "b.csv")])
    with pytest.raises(DataError, match=r"loans.csv has no rows: check data.path"):
        load(table({name: [] for name in columns}))
    with pytest.raises(DataError, match="the data have no train split"):
        load([table(columns, "valid.csv"), table(columns, "test.csv")])
    with pytest.raises(DataError, match="the target debts has 5 values"):
        load(table(columns), target="debts")
    split = tmp_path / "split.csv"
    split.write_text(
        "row,split\n" + "".join(f"{row},{'test' if bad else 'train'}\n" for row, bad in enumerate(columns["bad"]))
    )
    with pytest.raises(DataError, match="training rows are good: both are needed"):
        load(table(columns), split=str(split), valid=0.1)


def test_a_file_that_goes_away(loans: Loans, tmp_path: Path) -> None:
    pq.write_table(pa.table(loans(500)), tmp_path / "loans.parquet", row_group_size=50)
    rows = pickle.loads(pickle.dumps(splits(load(str(tmp_path / "loans.parquet")))["train"]))
    (tmp_path / "loans.parquet").unlink()
    with pytest.raises(DataError, match=r"loans.parquet could not be read \(.*\): check the file"):
        batch(rows, [0])
