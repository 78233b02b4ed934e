"""The task as the engine runs it: what it learns, what its bundle says, what a tree ensemble teaches it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelwright as mw
from modelwright.bundle.runtime import Bundle
from modelwright.bundle.writing import export
from modelwright.compression import receipt
from modelwright.compression.variants import find
from modelwright.errors import ConfigError
from modelwright_risk import teacher
from modelwright_risk.portfolio import make

SETTINGS: dict[str, Any] = {
    "data.rows": 6000,
    "train.steps": 300,
    "score.calibration": "platt",
    "score.reasons": {"income": "the income is too low"},
    "evaluate.resamples": 20,
    "observers": [],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; not to be changed."""
    out = tmp_path_factory.mktemp("risk") / "run"
    return mw.train("risk-scoring", recipe="quick", settings=SETTINGS, out=out, warn=lambda line: None).folder


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(export(run, out=tmp_path_factory.mktemp("bundle") / "bundle"))


def people(count: int = 40) -> list[dict[str, Any]]:
    """Applicants that the run has never seen."""
    return make(count, seed=99).table.to_pylist()


def test_it_ranks_better_than_chance_and_no_better_than_the_truth(run: Path):
    metrics = mw.Run(run, "risk-scoring").metrics
    assert 0.7 < metrics["auc"].value < metrics["bayes_auc"].value + 0.02
    settled = json.loads((run / "facts.json").read_text())["settled"]
    assert settled["calibrator"]["kind"] == "platt"
    assert 0 < settled["cutoff"] < 1


def test_the_report_shows_what_an_analyst_asks_for(run: Path):
    drawn = {path.stem.removeprefix("test-") for path in (run / "figures").glob("test-*.svg")}
    assert {"roc", "calibration", "scores", "gains", "importance", "profiles", "stability", "misses"} <= drawn


def test_a_bundle_says_probability_points_decision_and_reasons(bundle: Bundle):
    rows = people()
    records = bundle.predict(rows, explain=True)
    assert [record["applicant"] for record in records] == [row["applicant"] for row in rows]
    for record in records:
        assert 0 < record["probability"] < 1
        assert record["decision"] == ("refuse" if record["probability"] >= bundle.codec.cutoff else "accept")
        assert len(record["reasons"]) <= 4
    order = np.argsort([record["probability"] for record in records])
    points = np.array([record["points"] for record in records])[order]
    assert (np.diff(points) <= 0.1).all()  # points are rounded to tenths
    assert "the income is too low" in {reason for record in records for reason in record["reasons"]}


def test_a_table_is_scored_as_its_rows_are(bundle: Bundle):
    table = make(50, seed=98).table
    by_columns = bundle.columns(table).array("probability")
    by_rows = bundle.columns(table.to_pylist()).array("probability")
    np.testing.assert_allclose(by_columns, by_rows, rtol=1e-5)


def test_trees_teach_a_network(run: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("lightgbm", exc_type=ImportError)
    monkeypatch.setattr(receipt, "SECONDS", 0.05)
    recipe = [{"stage": "distill", "teacher": "lightgbm", "mix": 0.7, "temperature": 1.0, "train": {"steps": 200}}]
    mw.compress(run, recipe=recipe, warn=lambda line: None)
    taught = find(run, "custom")
    assert taught.receipt["metrics"]["auc"]["variant"] > 0.7
    assert taught.settled["calibrator"]["kind"] == "platt"


def test_trees_do_not_teach_from_a_table_on_disk():
    pytest.importorskip("lightgbm", exc_type=ImportError)
    streamed: Any = {"train": object()}
    with pytest.raises(ConfigError, match=r"needs the table in memory: raise data\.memory"):
        teacher.lightgbm(streamed, seed=0)


def test_class_weights_are_two(run: Path):
    with pytest.raises(ConfigError, match=r"loss.class_weights has 3 values: give two, \[good, bad\]"):
        mw.train(
            "risk-scoring",
            recipe="quick",
            settings={**SETTINGS, "loss.class_weights": [1.0, 2.0, 3.0]},
            out=run.parent / "refused",
            warn=lambda line: None,
        )


@pytest.mark.parametrize("further", [{"model.pretrained": "runs/other"}, {"model.freeze": True}])
def test_weights_to_start_from_are_refused_not_ignored(further: dict[str, Any], tmp_path: Path):
    with pytest.raises(ConfigError, match="risk-scoring learns each table from the start"):
        mw.train("risk-scoring", recipe="quick", settings=further, out=tmp_path / "run", warn=lambda line: None)
