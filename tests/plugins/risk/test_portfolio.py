"""The made-up portfolio is what it says: a known truth that lines cannot reach and trees come close to."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import OneHotEncoder

from modelwright_risk import data, portfolio
from modelwright_risk.config import RiskConfig, RiskData
from modelwright_risk.datasets import Table
from modelwright_risk.schema import names_of


@pytest.fixture(scope="module")
def made() -> portfolio.Portfolio:
    return portfolio.make(20_000, seed=0)


def test_it_is_a_function_of_the_seed(made: portfolio.Portfolio) -> None:
    again = portfolio.make(20_000, seed=0)
    assert again.table.equals(made.table)
    assert (again.probability == made.probability).all()
    assert not portfolio.make(20_000, seed=1).table.equals(made.table)


def test_outcomes_follow_the_true_probability(made: portfolio.Portfolio) -> None:
    bad = made.table["default"].to_numpy()
    assert made.probability.mean() == pytest.approx(portfolio.RATE)
    assert 0.03 < bad.mean() < 0.10
    deciles = np.argsort(made.probability).reshape(10, -1)
    for rows in deciles:
        expected = made.probability[rows].mean()
        deviation = np.sqrt((made.probability[rows] * (1 - made.probability[rows])).sum()) / len(rows)
        assert abs(bad[rows].mean() - expected) < 4 * deviation
    assert 0.84 < roc_auc_score(bad, made.probability) < 0.89


def test_the_columns_are_of_every_kind(made: portfolio.Portfolio) -> None:
    frame = made.table.to_pandas()
    assert frame["applicant"].is_unique
    income = frame["income"].dropna()
    assert income.quantile(0.999) > 5 * income.median(), "heavy tail"
    since = frame["months_since_delinquency"]
    assert ((since == -9) | (since >= 0)).all()
    # What is late is never early.
    early = frame[frame["month"] < "2020-11"]
    assert not {"app"} & set(early["channel"])
    assert not {"solar"} & set(early["purpose"])
    assert {"app"} <= set(frame["channel"])
    rates = frame.groupby("unemployment_rate")["default"].mean()
    assert rates[rates.index > 7.5].mean() > 1.1 * rates[rates.index < 4.5].mean(), "a business cycle"


def test_values_are_missing_not_at_random(made: portfolio.Portfolio) -> None:
    frame = made.table.to_pandas()
    missing = frame["savings"].isna()
    assert 0.1 < missing.mean() < 0.3
    assert made.probability[missing].mean() > 1.2 * made.probability[~missing].mean()


def test_lines_lose_and_trees_do_not(made: portfolio.Portfolio) -> None:
    lightgbm = pytest.importorskip("lightgbm", exc_type=ImportError)
    frame = made.table.drop(["applicant", "month", "age_group"]).to_pandas()
    bad = frame.pop("default").to_numpy()
    train = np.random.default_rng(0).random(len(frame)) < 0.7
    binned = frame.copy()
    for name in frame.select_dtypes("number"):
        binned[name] = pd.qcut(frame[name], 16, duplicates="drop").astype(str)
    encoder = OneHotEncoder(handle_unknown="ignore").fit(binned[train])
    line = LogisticRegression(C=0.1, max_iter=300).fit(encoder.transform(binned[train]), bad[train])
    coded = frame.astype(dict.fromkeys(frame.select_dtypes(exclude="number"), "category"))
    options = {"learning_rate": 0.07, "num_leaves": 15, "min_child_samples": 40, "colsample_bytree": 0.8}
    trees = lightgbm.LGBMClassifier(n_estimators=120, n_jobs=1, verbose=-1, **options).fit(coded[train], bad[train])
    auc = {
        "line": roc_auc_score(bad[~train], line.predict_proba(encoder.transform(binned[~train]))[:, 1]),
        "trees": roc_auc_score(bad[~train], trees.predict_proba(coded[~train])[:, 1]),
        "truth": roc_auc_score(bad[~train], made.probability[~train]),
    }
    assert auc["line"] + 0.02 < auc["trees"] < auc["truth"], auc


def test_as_a_data_set_it_needs_no_settings() -> None:
    found = data.load(RiskConfig(data=RiskData(rows=5000)), seed=0)
    rows = found["train"]
    assert isinstance(rows, Table)
    assert rows.true_probability is not None
    assert abs(float(rows.true_probability.mean()) - float(rows.bad.mean())) < 0.015
    names = names_of(rows.known.schema.features)
    assert not {"applicant", "month", "age_group", "default"} & set(names)
    assert rows.known.identifiers == ("applicant",)
    assert rows.known.protected == {"age_group": portfolio.AGES}
    (since,) = [each for each in rows.known.schema.numeric if each.name == "months_since_delinquency"]
    assert since.special == (-9.0,)
    assert not [note for note in found.notes if "alone" in note or "look like codes" in note or "also in" in note]


def test_its_settings_can_be_overridden() -> None:
    settings = RiskData(rows=2000, split_by="time", protected=["housing"], ignored=["region"])
    found = data.load(RiskConfig(data=settings), seed=0)
    train, test = found["train"], found["test"]
    assert isinstance(train, Table)
    assert isinstance(test, Table)
    assert set(train.known.protected) == {"housing"}
    assert not {"housing", "region", "age_group"} & (set(names_of(train.known.schema.features)) - {"age_group"})
    assert max(train.row(index)["month"] for index in range(len(train))) < test.row(0)["month"]
