"""Credit tables as plain CSVs, with their splits and folds: the rows that everybody sees. Fits nothing.

python benchmarks/risk_references.py --tables runs/tables        writes them (or call `export`); needs pandas

SET.csv             `row` (from 0, as in the saved split), the features as published, the target; empty: missing
SET.json            settings with which the plugin reads it: target, bad, categories, special codes
SET.split.csv       row,split: train, val, test, as saved beside the set
SET.folds.csv       row,r0..r4: the fold of each repeat in which a row is tested (small sets only)
folds/SET-R-F.csv   row,split of fold F in repeat R, which data.split takes: a fifth of the rest is val
portfolio.truth.npy the true probability of default of each row of the made-up portfolio (100,000 applicants)
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold, train_test_split

PORTFOLIO = 100_000
REPEATS = FOLDS = 5
PAST_DUE = [f"NumberOf{name}" for name in ("Time30-59DaysPastDueNotWorse", "Times90DaysLate")]
PAST_DUE.append("NumberOfTime60-89DaysPastDueNotWorse")


@dataclass(frozen=True)
class Table:
    """A set: where it lies (no file: made up here), what it says."""

    file: str | None
    split: str | None
    target: str
    bad: str
    categorical: tuple[str, ...] = ()
    special: dict[str, list[float]] = field(default_factory=dict)
    names: tuple[str, ...] | None = None
    """Of the columns, where the file has none."""
    counter: str | None = None
    """A column that only counts the rows: left out."""
    left_out: tuple[str, ...] = ()
    """Others that no model is to see."""
    small: bool = False
    """Too small for one split: repeated cross-validation."""


GERMAN = (
    "status credit_history purpose savings employment personal_status_sex other_debtors property "
    "other_installment_plans housing job telephone foreign_worker"
)
TABLES = {
    "german_credit": Table(
        "german_credit/german_credit.csv",
        "german_credit/split.csv",
        target="class",
        bad="2",
        categorical=tuple(GERMAN.split()),
        small=True,
    ),
    "credit_approval": Table(
        "credit_approval/crx.data",
        "credit_approval/crx_split.csv",
        target="A16",
        bad="-",
        categorical=("A1", "A4", "A5", "A6", "A7", "A9", "A10", "A12", "A13"),
        names=tuple(f"A{number}" for number in range(1, 17)),
        small=True,
    ),
    "hmeq": Table("hmeq/hmeq.csv", "hmeq/split.csv", target="BAD", bad="1", categorical=("REASON", "JOB")),
    "taiwan_default": Table(
        "taiwan_default/default_of_credit_card_clients.csv.gz",
        "taiwan_default/split.csv",
        target="default payment next month",
        bad="1",
        categorical=("SEX", "EDUCATION", "MARRIAGE"),
        counter="ID",
    ),
    "give_me_some_credit": Table(
        "give_me_some_credit/cs-training.csv.zip",
        "give_me_some_credit/split.csv.gz",
        target="SeriousDlqin2yrs",
        bad="1",
        special={name: [96, 98] for name in PAST_DUE},
        counter="Unnamed: 0",
    ),
    "portfolio": Table(
        None,
        None,
        target="default",
        bad="1",
        categorical=("employment", "housing", "region", "purpose", "channel"),
        special={"months_since_delinquency": [-9]},
        counter="applicant",
        left_out=("month", "age_group"),
    ),
}


def data_root() -> Path:
    """Where the real data lie."""
    return Path(os.environ.get("MODELWRIGHT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def export(name: str, tables: Path) -> None:
    """Writes a set, its split and its folds as CSV, unless they are there already."""
    spec, done = TABLES[name], tables / f"{name}.json"
    if done.exists():
        return
    (tables / "folds").mkdir(parents=True, exist_ok=True)
    source = made_up(tables) if spec.file is None else data_root() / spec.file
    if not source.exists():
        raise SystemExit(f"{source} is not there: say with MODELWRIGHT_DATA where the data lie")
    cells = pd.read_csv(
        source,
        dtype=str,  # as published: 00202 stays 00202
        names=spec.names,
        keep_default_na=False,
        na_values=["", "?", "NA"],
    )
    cells = cells.drop(columns=[*spec.left_out, *([spec.counter] if spec.counter else [])])
    cells.insert(0, "row", np.arange(len(cells)))
    if spec.split is None:
        split = at_random((cells[spec.target] == spec.bad).to_numpy())
    else:
        split = pd.read_csv(data_root() / spec.split)
    if split["row"].tolist() != cells["row"].tolist():
        raise SystemExit(f"{spec.split} does not name the rows of {spec.file} one by one")
    cells.to_csv(tables / f"{name}.csv", index=False)
    split[["row", "split"]].to_csv(tables / f"{name}.split.csv", index=False)
    if spec.small:
        fold_files(name, (cells[spec.target] == spec.bad).to_numpy(), tables)
    features = [column for column in cells if column not in ("row", spec.target)]
    settings = {
        "data.name": "table",
        "data.target": spec.target,
        "data.bad": spec.bad,
        "data.identifiers": ["row"],
        "data.numeric": [column for column in features if column not in spec.categorical],
        "data.categorical": list(spec.categorical),
        "data.special": spec.special,
    }
    done.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def made_up(tables: Path) -> Path:
    """The embedded portfolio as CSV, and what is true of it."""
    from modelwright_risk.portfolio import make

    made, path = make(PORTFOLIO, seed=0), tables / "portfolio.all.csv"
    np.save(tables / "portfolio.truth.npy", made.probability)
    made.table.to_pandas().to_csv(path, index=False)
    return path


def at_random(bad: np.ndarray) -> pd.DataFrame:
    """row,split: 60 % train, 20 % val, 20 % test, by class."""
    rows = np.arange(len(bad))
    rest, test = train_test_split(rows, test_size=0.2, stratify=bad, random_state=0)
    train, _ = train_test_split(rest, test_size=0.25, stratify=bad[rest], random_state=0)
    split = np.full(len(rows), "val", dtype=object)
    split[train], split[test] = "train", "test"
    return pd.DataFrame({"row": rows, "split": split})


def fold_files(name: str, bad: np.ndarray, tables: Path) -> None:
    """Stratified folds, five times; in each a fifth of what is not tested is kept for validation."""
    rows = np.arange(len(bad))
    assigned = pd.DataFrame({"row": rows})
    for repeat in range(REPEATS):
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=repeat).split(rows, bad)
        for fold, (rest, test) in enumerate(folds):
            seed = repeat * FOLDS + fold
            _, valid = train_test_split(rest, test_size=0.2, stratify=bad[rest], random_state=seed)
            split = np.full(len(rows), "train", dtype=object)
            split[valid], split[test] = "val", "test"
            assigned.loc[test, f"r{repeat}"] = fold
            pd.DataFrame({"row": rows, "split": split}).to_csv(
                tables / "folds" / f"{name}-{repeat}-{fold}.csv", index=False
            )
    assigned.astype(int).to_csv(tables / f"{name}.folds.csv", index=False)
