"""The report's figures can be drawn for all kinds of tables, and say what is to be said."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from modelwright.codec import Columns
from modelwright.task import Evaluated, Facts, Figure, Keys
from modelwright_risk import curves, decision, figures, metrics, panels, settling
from modelwright_risk.calibration import log_odds, sigmoid
from modelwright_risk.config import ScoreConfig
from modelwright_risk.schema import Feature, Schema

SCALE = {"base_points": 600.0, "base_odds": 50.0, "double": 20.0}
NUMERIC = (Feature("in$come", "numeric"), Feature("lines", "numeric", special=(96.0,)))
CATEGORICAL = (Feature("a column with a rather long name", "categorical", levels=("own", "rent $")),)


class Table:
    """Applicants of which some are missing something."""

    def __init__(self, count: int, schema: Schema, *, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        numbers = np.stack([rng.normal(0, 1, count), rng.poisson(2, count)], axis=1).astype(np.float32)
        numbers[rng.random(count) < 0.1, 0] = np.nan
        numbers[rng.random(count) < 0.1, 1] = 96
        self.schema = schema
        self.arrays = [numbers] if schema.numeric else []
        self.arrays += [rng.integers(0, 4, (count, 1))] if schema.categorical else []

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, key: Any) -> Any:
        raise NotImplementedError

    def __getitems__(self, keys: Keys) -> Any:
        return SimpleNamespace(inputs=tuple(torch.from_numpy(each[keys.indices]) for each in self.arrays))

    def row(self, index: int) -> dict[str, Any]:
        cells = np.concatenate([each[index] for each in self.arrays]).tolist()
        return {each.name: cell for each, cell in zip(self.schema.ordered, cells, strict=True)} | {"other": "$x"}

    def name_of(self, index: int) -> str:
        return f"a/long/folder/of/loans_$.csv:{index + 2}"


def predict(*arrays: np.ndarray) -> np.ndarray:
    """Log-odds that rise with the first number, and with the code of the last column."""
    first = np.nan_to_num(arrays[0][:, 0].astype(np.float64))
    return first + 0.3 * np.nan_to_num(arrays[-1][:, -1]).clip(0, 5) - 2


def case(
    *, schema: Schema, count: int = 600, groups: bool = True, truth: bool = True, weight: bool = False
) -> tuple[Evaluated, Facts, float]:
    table = Table(count, schema)
    rng = np.random.default_rng(1)
    logit = predict(*table.arrays).astype(np.float32)
    true = sigmoid(logit.astype(np.float64) + rng.normal(0, 0.3, count))
    truths: dict[str, np.ndarray] = {"bad": (rng.random(count) < true).astype(np.float32)}
    if groups:
        truths["group/sex"] = rng.integers(1, 4, count)
    if truth:
        truths["true_probability"] = true.astype(np.float32)
    if weight:
        truths["weight"] = rng.uniform(0.2, 2, count).astype(np.float32)
    probability = sigmoid(logit.astype(np.float64))
    settled = settling.settled(logit, truths["bad"], weight=None, config=ScoreConfig())
    predictions = Columns(
        {
            "logit": logit,
            "probability": probability,
            "points": decision.points(probability, **SCALE),
            "refused": probability >= settled["cutoff"],
        }
    )
    measured = Columns(metrics.measure(predictions, Columns(truths)))
    numbers = table.arrays[0]
    edges = np.nanquantile(numbers[:, :2], np.linspace(0, 1, 9), axis=0).T if schema.numeric else np.zeros((0, 9))
    facts = Facts(
        {
            "schema": schema.as_json(),
            "missing": {"in$come": 0.1},
            "categories": {each.name: [0.0, 0.2, 0.4, 0.4] for each in schema.categorical},
            "protected": {"sex": ["female", "male"]} if groups else {},
            "settled": settled,
        },
        {"quantiles": edges.astype(np.float32), "shares": np.full((len(edges), 8), 0.1, dtype=np.float32)},
    )
    return Evaluated("test", table, predictions, Columns(truths), measured, dict), facts, settled["cutoff"]  # type: ignore[arg-type]


def drawn(found: list[Figure]) -> list[str]:
    for figure in found:
        assert len(figure.caption) > 40
        picture = io.BytesIO()
        figure.figure.savefig(picture, format="png", dpi=40)
        assert picture.getvalue().startswith(b"\x89PNG")
    return [figure.name for figure in found]


PLAIN = ["roc", "calibration", "scores", "gains", "stability", "misses"]


def test_all_figures_of_a_table_with_everything() -> None:
    evaluated, facts, cutoff = case(schema=Schema(NUMERIC + CATEGORICAL))
    found = list(figures.draw(evaluated, facts=facts, cutoff=cutoff, predict=predict, monotone={"in$come": "up"}))
    assert drawn(found) == [*PLAIN[:4], "importance", "profiles", "stability", "groups-sex", "misses"]
    captions = {figure.name: figure.caption for figure in found}
    assert "green line" in captions["roc"]
    assert "for every applicant: in$come" in captions["profiles"]
    assert "times as often" in captions["groups-sex"]


@pytest.mark.parametrize("features", [NUMERIC, CATEGORICAL])
def test_tables_of_one_kind_without_a_model_at_hand(features: tuple[Feature, ...]) -> None:
    evaluated, facts, cutoff = case(schema=Schema(features), groups=False, truth=False, weight=True)
    found = list(figures.draw(evaluated, facts=facts, cutoff=cutoff))
    assert drawn(found) == PLAIN
    assert "green" not in found[0].caption


@pytest.mark.parametrize("features", [NUMERIC, CATEGORICAL])
def test_profiles_of_one_kind(features: tuple[Feature, ...]) -> None:
    evaluated, facts, cutoff = case(schema=Schema(features), groups=False, count=100)
    found = figures.draw(evaluated, facts=facts, cutoff=cutoff, predict=predict)
    assert drawn([each for each in found if each.name in ("importance", "profiles")]) == ["importance", "profiles"]


@pytest.mark.parametrize("kept", [0, 1])
def test_applicants_of_one_outcome(kept: int) -> None:
    evaluated, facts, cutoff = case(schema=Schema(NUMERIC))
    rows = np.flatnonzero(evaluated.measured.array("bad") == kept)
    parts = [each.select(rows) for each in (evaluated.predictions, evaluated.truths, evaluated.measured)]
    part = Evaluated("test", evaluated.dataset, *parts, dict)
    found = figures.draw(part, facts=facts, cutoff=cutoff, predict=predict)
    names = drawn([each for each in found if each.name != "profiles"])
    assert "importance" not in names
    assert {"roc", "calibration", "gains"} <= set(names)


@pytest.mark.parametrize("cutoff", [0.0001, 0.9999])
def test_everyone_refused_and_nobody(cutoff: float) -> None:
    measured = case(schema=Schema(NUMERIC), count=60)[0].measured
    probability, bad = measured.array("probability"), measured.array("bad") > 0
    said = Columns({"points": decision.points(probability, **SCALE), "refused": probability >= cutoff})
    for canvas in (curves.score_distribution(said, rows_bad=bad), curves.roc(metrics.Rows.of(measured), cutoff=cutoff)):
        canvas.savefig(io.BytesIO(), format="png", dpi=40)


def test_a_model_that_says_the_same_of_everyone() -> None:
    evaluated, facts, cutoff = case(schema=Schema(NUMERIC), count=80)
    count = evaluated.measured.rows
    same = {"logit": np.zeros(count), "probability": np.full(count, 0.5)}
    predictions = Columns({**same, "points": np.full(count, 500.0), "refused": np.ones(count, dtype=bool)})
    measured = Columns(metrics.measure(predictions, evaluated.truths))
    part = Evaluated("test", evaluated.dataset, predictions, evaluated.truths, measured, dict)
    assert {"roc", "calibration", "gains"} <= set(drawn(list(figures.draw(part, facts=facts, cutoff=cutoff))))


def test_nothing_is_drawn_of_nobody() -> None:
    evaluated, facts, cutoff = case(schema=Schema(NUMERIC), count=60)
    nobody = Evaluated("test", evaluated.dataset, *[evaluated.measured.select([])] * 3, dict)
    assert list(figures.draw(nobody, facts=facts, cutoff=cutoff)) == []


def test_misses_are_the_surest_of_either_kind() -> None:
    probability = np.array([0.1, 0.02, 0.9, 0.6, 0.5, 0.3])
    bad = np.array([1, 1, 0, 0, 1, 0])
    said = Columns({"logit": log_odds(probability), "probability": probability})
    measured = Columns(metrics.measure(said, Columns({"bad": bad})))
    assert figures.worst_misses(measured, cutoff=0.5, most=1) == [1, 2]
    assert figures.worst_misses(measured, cutoff=0.5) == [1, 0, 2, 3]


def warned(shift: float, slope: float) -> str | None:
    true = np.random.default_rng(0).normal(-2, 1, 5000)
    bad = np.random.default_rng(1).random(5000) < sigmoid(true)
    logit = slope * true + shift
    said = Columns({"logit": logit, "probability": sigmoid(logit)})
    return figures.calibration_warning(Columns(metrics.measure(said, Columns({"bad": bad}))))


def test_probabilities_that_cannot_be_trusted_are_warned_of() -> None:
    assert warned(0, 1) is None
    assert "class weights" in (warned(2, 1) or "").lower()
    assert "on average it says" in (warned(2, 1) or "")
    assert re.search(r"slope is 0\.[45]\d instead of 1", warned(-1.5, 2) or "")


def test_intervals_are_those_of_wilson() -> None:
    low, high = panels.wilson(np.array([0.0, 0.1]), np.array([10, 100]))
    # The values of Newcombe 1998 and of statsmodels' proportion_confint.
    assert low == pytest.approx([0.0, 0.05523], abs=1e-4)
    assert high == pytest.approx([0.27753, 0.17437], abs=1e-4)
