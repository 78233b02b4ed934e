"""Tables become splits: read, judged, converted; what a user does wrong is one line."""

from __future__ import annotations

import json
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
from modelwright_risk import data
from modelwright_risk.codec import RiskCodec
from modelwright_risk.config import RiskConfig, RiskData, RiskModel
from modelwright_risk.data import Known, find_facts
from modelwright_risk.datasets import Table
from modelwright_risk.schema import FIRST, MISSING, names_of

Write = Callable[..., str]
Loans = Callable[..., dict[str, list[Any]]]


def load(path: Any, *, seed: int = 0, known: Known | None = None, monotone: Any = None, **settings: Any) -> Datasets:
    settings = {"name": "table", "target": "bad", **settings}
    config = RiskConfig(data=RiskData(path=path, **settings), model=RiskModel(monotone=monotone or {}))
    return data.load(config, seed=seed, known=known)


def tables(found: Datasets) -> dict[str, Table]:
    return {split: found[split] for split in ("train", "valid", "test") if found.has(split)}  # type: ignore[misc]


def batch(table: Table, indices: Any = None) -> Any:
    return table.__getitems__(Keys(0, 0, 1, np.arange(len(table)) if indices is None else np.asarray(indices)))


# What comes out -----------------------------------------------------------------------------------------------------


def test_a_csv_becomes_three_splits(table: Write, loans: Loans) -> None:
    found = load(table(loans()), special={"debts": [4]}, monotone={"debts": "up"})
    splits = tables(found)
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 180, "valid": 60, "test": 60}
    known = splits["train"].known
    assert names_of(known.schema.numeric) == ["income", "debts", "customer"]
    assert names_of(known.schema.categorical) == ["job"]
    assert known.schema.features[1].special == (4.0,)
    assert known.schema.features[1].monotone == 1
    assert known.schema.categorical[0].levels == ("clerk", "nurse", "smith")
    assert (known.target, known.bad, known.good, known.identifiers) == ("bad", "1", "0", ("id",))
    told = "\n".join(found.notes)
    assert "target bad: 1 is bad, 0 good; features: 3 numeric (income, debts, customer); 1 categories (job)" in told
    assert "id tells rows apart: passed through to the predictions, not seen by the model" in told
    assert "dates, not seen by the model: month" in told
    assert "splits cut from the training rows, stratified, by seed 0: test, valid" in told


def test_a_batch_is_what_the_codec_makes_of_its_rows(table: Write, loans: Loans) -> None:
    found = load(table(loans()), protected=["job"], weight="debts", time="month")
    codec_of = {split: _codec(find_facts(rows, bins=None).values) for split, rows in tables(found).items()}
    for split, rows in tables(found).items():
        whole = batch(rows)
        examples = [rows[Key(0, 0, 1, index)] for index in range(len(rows))]
        arrays, context = codec_of[split].collate(codec_of[split].prepare([example.raw for example in examples]))
        assert len(whole.inputs) == 1, "job is protected and no feature: there are no codes"
        np.testing.assert_array_equal(whole.inputs[0].numpy(), arrays["numbers"])
        for name, values in whole.targets.items():
            assert [example.targets[name] for example in examples] == values.tolist()
        assert set(whole.targets) == {"bad", "weight", "group/job"}
        assert whole.targets["group/job"].dtype == torch.int64
        assert context.columns["id"] == [example.raw["id"] for example in examples]
        assert [example.raw["bad"] for example in examples] == [str(int(bad)) for bad in whole.targets["bad"].tolist()]


def _codec(values: dict[str, Any]) -> RiskCodec:
    return RiskCodec(columns=tuple(values["schema"]), identifiers=tuple(values["identifiers"]))


def test_rows_have_names_and_original_cells(table: Write, loans: Loans) -> None:
    columns = loans()
    rows = load(table(columns))["train"]
    assert isinstance(rows, Table)
    for index in (0, 50, 100):
        line = int(rows.name_of(index).removeprefix("loans.csv:")) - 2
        row = rows.row(index)
        assert row["id"] == str(columns["id"][line])
        assert row["income"] == columns["income"][line]
        assert row["month"] == columns["month"][line]
        assert list(row) == list(columns)


def test_with_what_is_known_the_same_rows_come_out(table: Write, loans: Loans) -> None:
    columns = {**loans(), "same": [7] * 300}
    columns["income"][5] = "inf"
    settings = {"on_bad": "skip", "protected": ["customer"], "time": "month"}
    path = table(columns)
    first = load(path, **settings)
    facts = find_facts(first["train"], bins=None)
    facts.values = json.loads(json.dumps(facts.values))
    again = load(path, known=Known.of(facts), **settings)
    assert "one value throughout, not seen by the model: same" in first.notes
    for split, rows in tables(first).items():
        one, two = batch(rows), batch(tables(again)[split])
        assert all(torch.equal(a.nan_to_num(-1), b.nan_to_num(-1)) for a, b in zip(one.inputs, two.inputs, strict=True))
        assert all(torch.equal(one.targets[name], two.targets[name]) for name in one.targets)
    assert again["train"].known == first["train"].known  # type: ignore[attr-defined]


def test_the_split_does_not_change_with_bad_rows(table: Write, loans: Loans) -> None:
    columns = loans()
    whole = load(table(columns))["train"]
    columns["income"][int(whole.name_of(3).partition(":")[2]) - 2] = "oops"  # type: ignore[attr-defined]
    less = load(table(columns), on_bad="skip")["train"]
    names = [[rows.name_of(index) for index in range(len(rows))] for rows in (whole, less)]  # type: ignore[attr-defined]
    assert names[0][:3] + names[0][4:] == names[1]


def test_splits_by_time_and_group(table: Write, loans: Loans) -> None:
    path = table(loans())
    by_time = tables(load(path, split_by="time", time="month"))
    months = {split: [rows.row(index)["month"] for index in range(len(rows))] for split, rows in by_time.items()}
    assert max(months["train"]) < min(months["valid"])
    assert max(months["valid"]) < min(months["test"])
    by_group = tables(load(path, split_by="group", group="customer"))
    customers = [{rows.row(index)["customer"] for index in range(len(rows))} for rows in by_group.values()]
    assert not set.intersection(*customers)
    assert sum(map(len, customers)) == 70
    assert "customer" not in names_of(by_group["train"].known.schema.features)


def test_splits_by_files_and_by_a_list(table: Write, loans: Loans, tmp_path: Path) -> None:
    columns = loans()
    first, last = ({name: cells[part] for name, cells in columns.items()} for part in (slice(0, 200), slice(200, 300)))
    paths = [table(last, "test.csv"), table(first, "train.csv")]
    found = tables(load(paths))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 160, "valid": 40, "test": 100}
    assert found["test"].name_of(0) == "test.csv:2"
    split = tmp_path / "split.csv"
    split.write_text("row,split\n" + "".join(f"{row},{'test' if row % 3 == 0 else 'train'}\n" for row in range(300)))
    found = tables(load(table(columns), split=str(split), valid=0.1))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 180, "valid": 20, "test": 100}
    assert [found["test"].name_of(index) for index in (0, 1)] == ["loans.csv:2", "loans.csv:5"]


def test_several_files_are_one_table(table: Write, loans: Loans) -> None:
    columns = loans()
    paths = [table(columns, "jan.csv"), table({name: columns[name] for name in reversed(columns)}, "feb.csv")]
    found = tables(load(paths, test=0))
    assert set(found) == {"train", "valid"}
    assert sum(map(len, found.values())) == 600
    names = {found["train"].name_of(index).partition(":")[0] for index in range(len(found["train"]))}
    assert names == {"jan.csv", "feb.csv"}


def test_csv_and_parquet_give_the_same_arrays(table: Write, loans: Loans, tmp_path: Path) -> None:
    columns = loans()
    pq.write_table(pa.table(columns), tmp_path / "loans.parquet")
    one, two = (batch(tables(load(path))["train"]) for path in (table(columns), str(tmp_path / "loans.parquet")))
    assert all(torch.equal(a.nan_to_num(-1), b.nan_to_num(-1)) for a, b in zip(one.inputs, two.inputs, strict=True))
    assert torch.equal(one.targets["bad"], two.targets["bad"])
    mixed = load([table(columns, "a.csv"), str(tmp_path / "loans.parquet")])["train"]
    assert {feature.kind for feature in mixed.known.schema.numeric} == {"numeric"}  # type: ignore[attr-defined]


def test_protected_numbers_are_compared_by_bands(table: Write, loans: Loans) -> None:
    columns = {**loans(), "age": [18 + place % 60 for place in range(300)]}
    found = load(table(columns), protected=["age", "job"])
    rows = tables(found)["train"]
    assert rows.known.protected["job"] == ("clerk", "nurse", "smith")
    names = rows.known.protected["age"]
    assert len(names) == 4
    assert names[0].startswith("to ")
    groups = batch(rows).targets["group/age"]
    assert groups.min() == FIRST
    assert groups.max() == FIRST + 3
    ages = [rows.row(index)["age"] for index in range(len(rows))]
    assert all((float(age) <= float(names[0][3:])) == (group == FIRST) for age, group in zip(ages, groups, strict=True))
    assert "age" not in names_of(rows.known.schema.features)
    seen = tables(load(table(columns), protected=["age"], protected_as_features=True))["train"].known.schema
    assert "age" in names_of(seen.features)


def test_columns_are_what_the_settings_say(table: Write, loans: Loans) -> None:
    columns = {**loans(), "letters": ["1", "x"] * 150}
    rows = tables(
        load(
            table(columns), categorical=["debts"], numeric=["id"], ignored=["customer"], identifiers=["job", "letters"]
        )
    )["train"]
    assert names_of(rows.known.schema.numeric) == ["id", "income"]
    assert names_of(rows.known.schema.categorical) == ["debts"]
    assert rows.known.identifiers == ("job", "letters")


def test_a_table_moves_and_travels(table: Write, loans: Loans) -> None:
    rows = tables(load(table(loans()), protected=["job"], weight="debts"))["train"]
    again = pickle.loads(pickle.dumps(rows)).to(torch.device("cpu"))
    assert torch.equal(batch(rows).inputs[0].nan_to_num(), batch(again).inputs[0].nan_to_num())
    assert (again.row(2), again.name_of(2)) == (rows.row(2), rows.name_of(2))
    assert rows.to(torch.device("meta")).numbers.device.type == "meta"


# Facts --------------------------------------------------------------------------------------------------------------


def test_facts_say_what_the_model_needs(table: Write, loans: Loans) -> None:
    rows = tables(load(table(loans(3000)), special={"debts": [4]}))["train"]
    facts = find_facts(rows, bins=None)
    assert facts.values["rows"] == len(rows)
    assert facts.values["base_rate"] == pytest.approx(float(rows.bad.mean()))
    assert facts.values["missing"]["income"] == pytest.approx(float(rows.numbers[:, 0].isnan().double().mean()))
    assert sum(facts.values["categories"]["job"]) == pytest.approx(1)
    assert facts.values["categories"]["job"][MISSING] == 0
    edges, shares = facts.arrays["quantiles"], facts.arrays["shares"]
    assert (edges.dtype, edges.shape, shares.shape) == (np.float32, (3, 9), (3, 8))
    assert (np.diff(edges) >= 0).all()
    income, debts = rows.numbers[:, 0], rows.numbers[:, 1]
    assert (edges[0, 0], edges[0, -1]) == (income[~income.isnan()].min(), income[~income.isnan()].max())
    np.testing.assert_allclose(shares[0], (~income.isnan()).double().mean() / 8, atol=2 / len(rows))
    assert edges[1, -1] == 3, "4 is a special code"
    assert shares[1].sum() == pytest.approx(float((debts != 4).double().mean()))
    assert find_facts(rows, bins=5).arrays["quantiles"].shape == (3, 6)


def test_there_are_more_bins_where_there_are_more_rows(table: Write, loans: Loans) -> None:
    rows = load(table(loans(4000)), test=0)["train"]
    assert find_facts(rows, bins=None).arrays["quantiles"].shape == (3, 17)


# What cannot be used ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "cell", "told"),
    [
        ("income", "much", "loans.csv:9: income is 'much', which is no finite number"),
        ("income", "inf", "loans.csv:9: income is 'inf', which is no finite number"),
        ("income", "1e99", "loans.csv:9: income is '1e99', which is no finite number"),
        ("bad", "", "loans.csv:9: the target bad has no value"),
        ("debts", "-1", "loans.csv:9: debts is '-1', which is no weight"),
        ("debts", "", "loans.csv:9: debts is nothing, which is no weight"),
        ("month", "", "loans.csv:9: month has no value"),
    ],
)
def test_bad_rows_are_told_and_can_be_left_out(table: Write, loans: Loans, column: str, cell: str, told: str) -> None:
    columns = loans()
    columns[column][7] = cell
    settings = {"weight": "debts", "time": "month", "split_by": "time"}
    path = table(columns)
    with pytest.raises(
        DataError, match=rf"^1 of 300 rows cannot be used \(.*{told}\): mend them, or set data.on_bad=skip"
    ):
        load(path, **settings)
    found = load(path, on_bad="skip", **settings)
    assert sum(map(len, tables(found).values())) == 299
    assert any(told in note and note.endswith("left out") for note in found.notes)


def test_many_bad_rows_are_counted(table: Write, loans: Loans, tmp_path: Path) -> None:
    columns = loans()
    for row in range(5, 20):
        columns["income"][row] = "?!"
    text = Path(table(columns)).read_text(encoding="utf-8").splitlines()
    text.insert(3, "1,2,3")
    (tmp_path / "loans.csv").write_text("\n".join(text), encoding="utf-8")
    with pytest.raises(
        DataError, match=r"16 of 301 rows .*loans.csv:4: 3 cells instead of 7; .*loans.csv:8: .*; \.\.\."
    ):
        load(str(tmp_path / "loans.csv"))
    found = tables(load(str(tmp_path / "loans.csv"), on_bad="skip"))
    assert sum(map(len, found.values())) == 285


@pytest.mark.parametrize(
    ("settings", "kind", "told"),
    [
        (
            {"target": None},
            ConfigError,
            "data.target is missing: name the column that says how it ended; there are id, ",
        ),
        ({"target": "Bad"}, DataError, r"there is no column Bad \(did you mean 'bad'\?\): check data.target"),
        ({"target": "debts"}, DataError, "the target debts has 5 values"),
        ({"bad": "x"}, ConfigError, "data.bad=x is no value of the target bad"),
        (
            {"numeric": ["incom"]},
            ConfigError,
            r"data.numeric names incom, which is no column \(did you mean 'income'\?\)",
        ),
        ({"special": {"dept": [1]}}, ConfigError, "data.special names dept, which is no column"),
        ({"ignored": ["bad"]}, ConfigError, "data.ignored names bad, which is the target: take it out"),
        ({"numeric": ["job"], "ignored": ["job"]}, ConfigError, "job is in data.numeric and data.ignored: keep one"),
        ({"special": {"job": [1]}}, ConfigError, "data.special names job, which is no column of numbers"),
        (
            {"monotone": {"job": "up"}},
            ConfigError,
            "model.monotone names job, which is no numeric feature: take it out",
        ),
        ({"monotone": {"jobs": "up"}}, ConfigError, "model.monotone names jobs, which is no column"),
        ({"monotone": {"same": "up"}}, ConfigError, "model.monotone names same, which has one value throughout"),
        ({"split_by": "time"}, ConfigError, "data.split_by=time needs data.time: the column that orders the rows"),
        (
            {"split_by": "group"},
            ConfigError,
            "data.split_by=group needs data.group: the column whose values stay together",
        ),
        ({"time": "job"}, DataError, "loans.csv:2: job is '.*', which is no date: write all dates as 2024-12-31"),
        ({"numeric": ["job"]}, DataError, "300 of 300 rows cannot be used"),
        (
            {"numeric": ["job"], "on_bad": "skip"},
            DataError,
            "not one row of the train split can be used: check data.path",
        ),
        (
            {"ignored": ["income", "debts", "job", "customer", "same"]},
            DataError,
            "no column is left that a model could learn from",
        ),
        (
            {"ignored": ["income", "debts", "job", "customer"]},
            DataError,
            "every column has one value throughout: there is nothing to learn from",
        ),
        ({"valid": 0.5, "test": 0.5}, DataError, "rows are too few to cut test and valid from"),
    ],
)
def test_settings_that_do_not_fit(
    table: Write, loans: Loans, settings: dict[str, Any], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        load(table({**loans(), "same": [1] * 300}), **settings)


def test_an_identifier_cannot_be_called_like_a_prediction(table: Write, loans: Loans) -> None:
    with pytest.raises(ConfigError, match="the identifier points has the name of a prediction: rename the column"):
        load(table({**loans(), "points": [1] * 300}), identifiers=["points"])


def test_mixed_dates_are_named_with_line_and_value(table: Write, loans: Loans) -> None:
    columns = loans()
    columns["month"][11] = "01/2020"
    with pytest.raises(
        DataError, match=r"loans.csv:13: month is '01/2020', which is no date like the others \(year-month\)"
    ):
        load(table(columns), time="month")


def test_files_that_do_not_fit_together(table: Write, loans: Loans) -> None:
    columns = loans()
    one = table(columns, "jan.csv")
    with pytest.raises(DataError, match=r"feb.csv and .*jan.csv have different columns \(more\): mend one"):
        load([one, table({**columns, "more": columns["job"]}, "feb.csv")])
    with pytest.raises(
        DataError, match=r"column debts holds numbers in .*jan.csv and text in .*feb.csv: mend one, or list"
    ):
        load([one, table({**columns, "debts": columns["job"]}, "feb.csv")])
    load([one, table({**columns, "debts": columns["job"]}, "feb.csv")], categorical=["debts"])


def test_tables_without_rows_or_outcomes(table: Write, loans: Loans) -> None:
    with pytest.raises(DataError, match=r"loans.csv has no rows: check data.path"):
        load(table({name: [] for name in loans()}))
    columns = loans()
    train = {name: cells[:200] for name, cells in columns.items()} | {"bad": [0] * 200}
    test = {name: cells[200:] for name, cells in columns.items()}
    with pytest.raises(DataError, match=r"200 good and 0|0 bad rows are too few|all 200 training rows are good"):
        load([table(train, "train.csv"), table(test, "test.csv")])
    with pytest.raises(DataError, match=r"the data have no train split: name one with data.path or data.split"):
        load([table(columns, "valid.csv"), table(test, "test.csv")])
    with pytest.raises(ConfigError, match=r"data.name=table needs data.path"):
        load(None)


def test_the_whole_target_is_missing(table: Write, loans: Loans) -> None:
    with pytest.raises(DataError, match="the target bad has no value in any of 300 rows"):
        load(table({**loans(), "bad": [""] * 300}))
