"""A clerk who reads the card by its words gets an applicant's points."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("pyarrow")

from modelwright.data import Facts
from modelwright.errors import ConfigError
from modelwright_risk import calibration, decision, scorecard
from modelwright_risk.card import Card, Line, card_of
from modelwright_risk.config import RiskModel
from modelwright_risk.facts import binned
from modelwright_risk.model import build_network
from modelwright_risk.schema import Feature, Schema

SCALE = {"base_points": 600.0, "base_odds": 50.0, "double": 20.0}
PLATT = {"kind": "platt", "slope": 0.8, "intercept": -0.3}
SCHEMA = Schema(
    (
        Feature("income", "numeric"),
        Feature("lines", "numeric", special=(96.0, 98.0)),
        Feature("=housing", "categorical", levels=("own", "rent")),
    )
)


def applicants(count: int = 400, *, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Income of any size and missing at times; few whole numbers of lines, with codes; a home."""
    rng = np.random.default_rng(seed)
    income = np.where(rng.random(count) < 0.1, np.nan, np.exp(rng.normal(8, 1, count)))
    lines = np.where(rng.random(count) < 0.1, rng.choice([96.0, 98.0], count), rng.poisson(1.5, count))
    numbers = np.stack([income, lines], axis=1).astype(np.float32)
    return [numbers, rng.integers(0, 4, (count, 1))], (rng.random(count) < 0.2).astype(np.float32)


def known(inputs: list[np.ndarray]) -> Facts:
    numbers, codes = inputs
    income, lines = numbers[:, 0], numbers[:, 1]
    found = [binned(income[~np.isnan(income)], 8), binned(lines[lines < 90], 8)]
    values: dict[str, Any] = {
        "schema": SCHEMA.as_json(),
        "rows": len(numbers),
        "base_rate": 0.2,
        "missing": {"income": float(np.isnan(income).mean()), "lines": 0.0},
        "categories": {"=housing": (np.bincount(codes[:, 0], minlength=4) / len(codes)).tolist()},
    }
    shares = np.stack([counts / len(numbers) for _, counts in found]).astype(np.float32)
    return Facts(values, {"quantiles": np.stack([edges for edges, _ in found]), "shares": shares})


def network(facts: Facts, *, name: str = "scorecard") -> Callable[..., np.ndarray]:
    torch.manual_seed(0)
    made = build_network(RiskModel.model_validate({"name": name}), facts).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))

    def predict(*arrays: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return made(*(torch.from_numpy(np.ascontiguousarray(each)) for each in arrays))["logit"].numpy()

    return predict


def fits(words: str, value: float) -> bool:
    """Whether a number belongs to a bin, by its words alone."""
    parts = words.replace("between ", "above ").replace(" and more", " to inf").replace(" and ", " to below ").split()
    if math.isnan(value) or words == "missing":
        return math.isnan(value) and words == "missing"
    if parts[0] == "code":
        return value == float(parts[1])
    if words == "any":
        return True
    if len(parts) == 1:
        return value == np.float32(parts[0])
    if parts[0] == "up" or parts[0] == "below":
        return value <= np.float32(parts[-1]) if parts[0] == "up" else value < np.float32(parts[1])
    low_open = parts[0] == "above"
    low = np.float32(parts[1] if low_open else parts[0])
    over = value > low if low_open else value >= low
    if "to" not in parts:
        return bool(over)
    high = np.float32(parts[-1])
    return bool(over and (value < high if "below" in parts else value <= high))


def read(card: Card, row: tuple[float, float, int]) -> tuple[float, float]:
    """Points and log-odds of an applicant by the card; codes come before ranges."""
    points, log_odds = card.lines[0].points, card.lines[0].log_odds
    for feature, cell in zip(SCHEMA.ordered, row, strict=True):
        lines = [line for line in card.lines if line.feature == feature.name]
        if feature.kind == "categorical":
            found = lines[int(cell)]
        else:
            coded = [line for line in lines if line.bin.startswith("code") and fits(line.bin, float(cell))]
            plain = [line for line in lines if not line.bin.startswith("code") and fits(line.bin, float(cell))]
            assert len(plain) <= 1 or coded
            found = (coded or plain)[0]
        points, log_odds = points + found.points, log_odds + found.log_odds
    return points, log_odds


def made(**more: Any) -> tuple[Card, Callable[..., np.ndarray], list[np.ndarray]]:
    inputs, _ = applicants()
    facts = known(inputs)
    predict = network(facts)
    card = card_of(predict, facts, **{"calibrator": PLATT, "cutoff": 0.2, "scale": SCALE, **more})
    return card, predict, inputs


@pytest.mark.parametrize("calibrator", [PLATT, {"kind": "none"}, {"kind": "temperature", "temperature": 2.0}])
def test_lines_add_up_to_points(calibrator: dict[str, Any]) -> None:
    card, predict, inputs = made(calibrator=calibrator)
    numbers, codes = (each.copy() for each in inputs)
    edges = known(inputs).arrays["quantiles"]
    # Values on edges and right beside them are where a card could go wrong.
    count = len(edges[0])
    numbers[:count, 0], numbers[count : 2 * count, 0] = edges[0], np.nextafter(edges[0], np.float32(np.inf))
    numbers[2 * count : 3 * count, 0] = np.nextafter(edges[0], np.float32(-np.inf))
    numbers[-2:, 0] = (-1e9, 1e9)
    probability = calibration.apply(calibrator, predict(numbers, codes))
    wanted = decision.points(probability, **SCALE)
    for row in range(len(numbers)):
        points, log_odds = read(card, (float(numbers[row, 0]), float(numbers[row, 1]), int(codes[row, 0])))
        assert points == pytest.approx(wanted[row], abs=1e-3)
        assert log_odds == pytest.approx(calibration.log_odds(probability[row]), abs=1e-4)


def test_the_riskiest_bin_of_each_feature_gives_nothing() -> None:
    card, _, _ = made()
    for feature in SCHEMA.ordered:
        points = [line.points for line in card.lines if line.feature == feature.name]
        assert min(points) == 0
        assert max(points) > 0


def test_bins_are_those_of_the_network() -> None:
    card, _, _ = made()
    bins = [line.bin for line in card.lines if line.feature == "lines"]
    assert bins[-3:] == ["code 96", "code 98", "missing"]
    assert [line.bin for line in card.lines if line.feature == "=housing"] == [
        "unseen in training",
        "missing",
        "own",
        "rent",
    ]


def test_shares_and_bad_rates_are_counted_where_the_rows_are_known() -> None:
    inputs, bad = applicants()
    card, _, _ = made(training=(inputs, bad))
    for feature in SCHEMA.ordered:
        lines = [line for line in card.lines if line.feature == feature.name]
        assert sum(line.share or 0 for line in lines) == pytest.approx(1)
        assert sum((line.share or 0) * (line.bad_rate or 0) for line in lines) == pytest.approx(bad.mean())
    missing = next(line for line in card.lines if line.feature == "income" and line.bin == "missing")
    assert missing.share == pytest.approx(np.isnan(inputs[0][:, 0]).mean())
    code = next(line for line in card.lines if line.bin == "code 96")
    assert code.bad_rate == pytest.approx(bad[inputs[0][:, 1] == 96].mean())


def test_without_the_rows_shares_are_those_of_the_facts() -> None:
    inputs, bad = applicants()
    counted, _, _ = made(training=(inputs, bad))
    card, _, _ = made()
    for line, other in zip(card.lines[1:], counted.lines[1:], strict=True):
        assert line.bad_rate is None
        if line.bin.startswith("code"):  # how many of each of two codes is not known
            assert line.share is None
        else:
            assert line.share == pytest.approx(other.share, abs=1e-6)


def test_the_share_of_a_single_code_is_what_is_left() -> None:
    inputs, _ = applicants()
    facts = known(inputs)
    schema = facts.values["schema"]
    schema[1]["special"] = [96.0]
    card = card_of(network(facts), facts, calibrator=PLATT, cutoff=0.2, scale=SCALE)
    code = next(line for line in card.lines if line.bin == "code 96")
    assert code.share == pytest.approx((inputs[0][:, 1] > 90).mean(), abs=1e-6)


def test_tables_of_numbers_only_and_of_categories_only() -> None:
    inputs, _ = applicants()
    facts = known(inputs)
    for kind, place in (("numeric", 0), ("categorical", 1)):
        schema = Schema(tuple(each for each in SCHEMA.features if each.kind == kind))
        part = Facts({**facts.values, "schema": schema.as_json()}, facts.arrays)
        predict = network(part)
        card = card_of(predict, part, calibrator=PLATT, cutoff=0.2, scale=SCALE)
        assert {line.feature for line in card.lines[1:]} == {each.name for each in schema.features}
        assert predict(inputs[place]).shape == (400,)


def test_what_bends_points_has_no_card() -> None:
    isotonic = {"kind": "isotonic", "logit": [0.0], "probability": [0.1], "center": 0.0}
    with pytest.raises(
        ConfigError, match=r"do not add up under score\.calibration=isotonic: train again with one of none"
    ):
        made(calibrator=isotonic)


def test_a_network_that_is_no_sum_has_no_card() -> None:
    facts = known(applicants()[0])
    with pytest.raises(ConfigError, match=r"no sum over its features.*model\.name=scorecard"):
        card_of(network(facts, name="mlp"), facts, calibrator=PLATT, cutoff=0.2, scale=SCALE)


def test_csv_holds_exact_and_whole_points() -> None:
    card, _, _ = made()
    rows = list(csv.DictReader(io.StringIO(scorecard.as_csv(card).decode())))
    assert [row["feature"] for row in rows][:2] == ["base", "income"]
    for row, line in zip(rows, card.lines, strict=True):
        assert float(row["points"]) == pytest.approx(line.points, abs=1e-4)
        assert int(row["rounded"]) == round(line.points)
    assert rows[0]["share"] == "1"
    assert next(row for row in rows if row["bin"] == "code 96")["share"] == ""


def test_xlsx_holds_the_same_and_says_how_to_read_it() -> None:
    openpyxl = pytest.importorskip("openpyxl")
    card, _, _ = made()
    book = openpyxl.load_workbook(io.BytesIO(scorecard.as_xlsx(card)))
    rows = list(book["scorecard"].iter_rows(values_only=True))
    assert rows[0] == scorecard.HEADER
    assert [row[5] for row in rows[1:]] == pytest.approx([line.points for line in card.lines])
    # A name that starts with "=" is text.
    cell = next(row[0] for row in book["scorecard"].iter_rows(min_row=2) if row[0].value == "=housing")
    assert cell.data_type == "s"
    words = " ".join(str(row[0]) for row in book["about"].iter_rows(values_only=True))
    assert "50 good for 1 bad" in words
    assert f"at most {card.rounding:.2f}" in words


def test_rounding_is_bounded() -> None:
    card, _, inputs = made()
    for row in range(100):
        cells = (float(inputs[0][row, 0]), float(inputs[0][row, 1]), int(inputs[1][row, 0]))
        exact, _ = read(card, cells)
        whole = Card(
            tuple(Line(each.feature, each.bin, None, None, 0.0, each.rounded) for each in card.lines),
            card.cutoff,
            SCALE,
            400,
        )
        assert abs(read(whole, cells)[0] - exact) <= card.rounding + 1e-9


def test_a_file_of_another_kind(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match=r"card\.pdf: a scorecard is written as \.csv or \.xlsx"):
        scorecard.write(tmp_path, tmp_path / "card.pdf")


def test_what_is_there_stays(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "card.csv"
    out.write_text("mine")
    assert scorecard.main([str(tmp_path), "--out", str(out)]) == 1
    assert out.read_text() == "mine"
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "exists already; choose another --out, or add --overwrite" in said


def test_what_is_no_run(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert scorecard.main([str(tmp_path), "--out", str(tmp_path / "card.csv")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no run folder" in said


def test_a_run_of_another_task(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "environment.json").write_text('{"task": "image-classification"}')
    assert scorecard.main([str(tmp_path), "--out", str(tmp_path / "card.csv")]) == 1
    assert "is of the task image-classification: scorecards are made of risk-scoring" in capsys.readouterr().err
