"""German credit and Taiwan default are read as they were published."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.data import Datasets
from modelwright.errors import ConfigError, DataError
from modelwright_risk import data
from modelwright_risk.config import RiskConfig, RiskData
from modelwright_risk.datasets import Table
from modelwright_risk.published import GERMAN, TAIWAN
from modelwright_risk.schema import names_of

Real = Callable[[str], Path]
SYMBOLIC = ("status", "credit_history", "purpose", "savings", "employment", "personal_status_sex", "other_debtors",
            "property", "other_installment_plans", "housing", "job", "telephone", "foreign_worker")  # fmt: skip


def load(name: Any, path: Any, **settings: Any) -> Datasets:
    return data.load(RiskConfig(data=RiskData(name=name, path=None if path is None else str(path), **settings)), seed=0)


def rows_of(found: Datasets) -> list[Table]:
    splits: list[Any] = [found[split] for split in ("train", "valid", "test")]
    return splits


def german(rows: int = 60) -> str:
    rng = np.random.default_rng(0)
    lines = []
    for row in range(rows):
        cells = [
            f"A{place}{rng.integers(1, 4)}" if name in SYMBOLIC else str(rng.integers(1, 60))
            for place, name in enumerate(GERMAN)
        ]
        lines.append(" ".join([*cells[:-1], str(1 + row % 2)]) + " \n")
    return "".join(lines)


def taiwan(header: str, rows: int = 60) -> str:
    rng = np.random.default_rng(0)
    body = [",".join(map(str, [row + 1, *rng.integers(0, 9, 23), row % 2])) for row in range(rows)]
    return "\n".join([header, *body]) + "\n"


NAMES = "ID,LIMIT_BAL,SEX,EDUCATION,MARRIAGE,AGE,PAY_0,PAY_2,PAY_3,PAY_4,PAY_5,PAY_6," + ",".join(
    f"{kind}_AMT{month}" for kind in ("BILL", "PAY") for month in range(1, 7)
)


def test_the_symbolic_file_has_names_and_kinds(tmp_path: Path) -> None:
    (tmp_path / "german.data").write_text(german(), encoding="utf-8")
    (tmp_path / "german.data-numeric").write_text("1 2 3\n", encoding="utf-8")
    for path in (tmp_path, tmp_path / "german.data"):
        train, *_ = rows_of(load("german_credit", path))
        assert set(names_of(train.known.schema.categorical)) == set(SYMBOLIC)
        assert (train.known.target, train.known.bad, train.known.good) == ("class", "2", "1")
    lines = {rows.name_of(index) for rows in rows_of(load("german_credit", tmp_path)) for index in range(len(rows))}
    assert lines == {f"german.data:{line}" for line in range(1, 61)}


@pytest.mark.parametrize(
    "header",
    [
        f"{NAMES},{TAIWAN}",
        f"{NAMES},default.payment.next.month",
        ",".join(["", *(f"X{place}" for place in range(1, 24)), "Y"]) + f"\n{NAMES},{TAIWAN}",
    ],
)
def test_the_sheet_of_taiwan_with_any_header(tmp_path: Path, header: str) -> None:
    path = tmp_path / "default_of_credit_card_clients.csv.gz"
    path.write_bytes(gzip.compress(taiwan(header).encode()))
    train, *_ = rows_of(load("taiwan_default", tmp_path))
    assert names_of(train.known.schema.categorical) == ["SEX", "EDUCATION", "MARRIAGE"]
    assert train.known.identifiers == ("ID",)
    first = 2 + header.count("\n")
    line = int(train.name_of(0).rpartition(":")[2])
    assert train.row(0)["ID"] == str(line - first + 1)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"data.name=german_credit needs data.path: the folder that holds german.data"
    ):
        load("german_credit", None)
    (tmp_path / "other.csv").write_text("a,b\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"holds no german.data or german_credit.csv: get german_credit from UCI"):
        load("german_credit", tmp_path)
    header = ",".join(["", *(f"X{place}" for place in range(1, 24)), "Y"])
    (tmp_path / "UCI_Credit_Card.csv").write_text(taiwan(header), encoding="utf-8")
    with pytest.raises(DataError, match=r"has no line of names below X1, X2, ...: get it from UCI again"):
        load("taiwan_default", tmp_path)


# As they are --------------------------------------------------------------------------------------------------------


@pytest.mark.real_data
@pytest.mark.parametrize("file", ["", "german.data", "german_credit.csv"])
def test_german_credit(real_data: Real, file: str) -> None:
    folder = real_data("german_credit")
    train, valid, test = rows_of(load("german_credit", folder / file, split=str(folder / "split.csv")))
    assert [len(rows) for rows in (train, valid, test)] == [600, 200, 200]
    assert sum(float(rows.bad.sum()) for rows in (train, valid, test)) == 300
    assert set(names_of(train.known.schema.categorical)) == set(SYMBOLIC)
    assert not train.numbers.isnan().any()


@pytest.mark.real_data
def test_taiwan_default(real_data: Real) -> None:
    folder = real_data("taiwan_default")
    train, valid, test = rows_of(load("taiwan_default", folder, split=str(folder / "split.csv")))
    assert [len(rows) for rows in (train, valid, test)] == [18_000, 6_000, 6_000]
    assert sum(float(rows.bad.sum()) for rows in (train, valid, test)) == 6_636
    assert len(train.known.schema.numeric) == 20


@pytest.mark.real_data
def test_give_me_some_credit(real_data: Real) -> None:
    folder = real_data("give_me_some_credit")
    settings = {"target": "SeriousDlqin2yrs", "split": str(folder / "split.csv.gz")}
    found = load("table", folder / "cs-training.csv.zip", **settings)
    assert [len(rows) for rows in rows_of(found)] == [90_000, 30_000, 30_000]
    missing = sum(int(rows.numbers.isnan().any(dim=1).sum()) for rows in rows_of(found))
    assert missing == 29_731
    told = "\n".join(found.notes)
    assert "Unnamed: 0 tells rows apart" in told
    for name in ("NumberOfTime30-59DaysPastDueNotWorse", "NumberOfTimes90DaysLate"):
        assert f"{name} [96, 98]" in told


@pytest.mark.real_data
def test_hmeq(real_data: Real) -> None:
    folder = real_data("hmeq")
    train, _, _ = rows_of(load("table", folder / "hmeq.csv", target="BAD", split=str(folder / "split.csv")))
    assert names_of(train.known.schema.categorical) == ["REASON", "JOB"]
    assert len(train) == 3576
