"""A scorecard: for each feature and bin, the points that it gives. Knows what a network answers, not how.

Bins, flags and levels are found by asking the network about one feature at a time. The lines of an applicant's bins
and the base line add up to that applicant's points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from modelwright.data import Facts
from modelwright.errors import ConfigError
from modelwright_risk import decision
from modelwright_risk.atoms import Atoms
from modelwright_risk.calibration import sigmoid
from modelwright_risk.schema import Feature, Schema

if TYPE_CHECKING:
    from modelwright_risk.profiles import Predict

BASE = "base"
"""What the first line is called."""
LINEAR = ("none", "platt", "temperature")
"""Calibrators under which points stay a sum."""
TRIED, CLOSE = 64, 2e-3
"""Applicants made up at random to see whether a network is a sum, and how far off its log-odds may be."""


@dataclass(frozen=True)
class Line:
    """What one bin of a feature is worth.

    Attributes:
        feature: its name; "base" in the first line, which everyone has.
        bin: in words.
        share: of the training rows; None where it is not known.
        bad_rate: of those; None where it is not known, or where there are none.
        log_odds: what is added to the (calibrated) log-odds of default.
        points: what is added to the points.
    """

    feature: str
    bin: str
    share: float | None
    bad_rate: float | None
    log_odds: float
    points: float

    @property
    def rounded(self) -> int:
        """Whole points."""
        return round(self.points)


@dataclass(frozen=True)
class Card:
    """A scorecard.

    Attributes:
        lines: the base, then bins by feature. In each feature, the riskiest bin gives 0 points.
        cutoff: an applicant needs more points than this.
        scale: base_points, base_odds, double; see `decision.points`.
        applicants: training rows.
    """

    lines: tuple[Line, ...]
    cutoff: float
    scale: Mapping[str, float]
    applicants: int

    @property
    def rounding(self) -> float:
        """Points that rounding can cost or give an applicant, at most."""
        worst: dict[str, float] = {}
        for line in self.lines:
            worst[line.feature] = max(worst.get(line.feature, 0.0), abs(line.points - line.rounded))
        return sum(worst.values())


@dataclass(frozen=True)
class _Part:
    """A feature with its bins, a cell out of each, and what is known of the training rows there."""

    feature: Feature
    bins: list[str]
    cells: list[float]
    shares: list[float | None]
    bad_rates: list[float | None]


def card_of(
    predict: Predict,
    facts: Facts,
    *,
    calibrator: Mapping[str, Any],
    cutoff: float,
    scale: Mapping[str, float],
    training: tuple[Sequence[np.ndarray], np.ndarray] | None = None,
) -> Card:
    """The scorecard of a network.

    Args:
        predict: says its log-odds.
        calibrator, cutoff, scale: as its codec has them.
        training: inputs and outcomes of training rows, to count shares and bad rates from.

    Raises:
        ConfigError: log-odds are no sum over features, or calibration bends them.
    """
    if calibrator["kind"] not in LINEAR:
        raise ConfigError(
            f"points do not add up under score.calibration={calibrator['kind']}: train again with one of "
            f"{', '.join(LINEAR)}"
        )
    schema = Schema.from_json(facts.values["schema"])
    kinds = [each for each in (schema.numeric, schema.categorical) if each]
    # Which bins a numeric feature has is seen beside the commonest cells of the others.
    usual = [np.zeros((1, len(each)), dtype="float32" if each[0].kind == "numeric" else "int64") for each in kinds]
    parts: list[list[_Part]] = []
    worths: list[list[np.ndarray]] = []
    for place, features in enumerate(kinds):
        parts.append([])
        worths.append([])
        for column, feature in enumerate(features):
            rows = None if training is None else (training[0][place][:, column], training[1])
            ask = _asker(predict, usual, place, column)
            numeric = feature.kind == "numeric"
            part = _numeric(feature, column, ask, facts, rows) if numeric else _levels(feature, facts, rows)
            parts[-1].append(part)
            worths[-1].append(ask(part.cells))
    _check(predict, usual, parts, worths)
    slope, intercept = _linear(calibrator)
    start = float(predict(*usual)[0])
    worst = [[float(each.max()) for each in worth] for worth in worths]
    everyone = start + sum(top - start for tops in worst for top in tops)
    factor = scale["double"] / np.log(2)
    base = float(decision.points(sigmoid(np.array([intercept + slope * everyone])), **scale)[0])
    lines = [Line(BASE, "everyone", 1.0, float(facts.values["base_rate"]), intercept + slope * everyone, base)]
    for place in range(len(kinds)):
        for part, worth, top in zip(parts[place], worths[place], worst[place], strict=True):
            for name, share, rate, value in zip(part.bins, part.shares, part.bad_rates, worth, strict=True):
                added = slope * (float(value) - top)
                lines.append(Line(part.feature.name, name, share, rate, added, 0.0 - factor * added))
    limit = float(decision.points(np.array([cutoff]), **scale)[0])
    return Card(tuple(lines), limit, dict(scale), int(facts.values["rows"]))


def _asker(
    predict: Predict, usual: Sequence[np.ndarray], place: int, column: int
) -> Callable[[Sequence[float]], np.ndarray]:
    """Says the log-odds of the usual applicant with other cells in one column."""

    def ask(cells: Sequence[float]) -> np.ndarray:
        arrays = [np.repeat(each, len(cells), axis=0) for each in usual]
        arrays[place][:, column] = cells
        return predict(*arrays).astype(np.float64)

    return ask


def _numeric(
    feature: Feature,
    row: int,
    ask: Callable[[Sequence[float]], np.ndarray],
    facts: Facts,
    rows: tuple[np.ndarray, np.ndarray] | None,
) -> _Part:
    atoms = Atoms.of(facts.arrays["quantiles"][row], avoid=feature.special)
    groups = atoms.grouped(ask(atoms.cells))
    bins = [atoms.words(group) for group in groups]
    cells = [atoms.cells[group[0]] for group in groups]
    bins += [f"code {each:g}" for each in feature.special] + ["missing"]
    cells += [*feature.special, float("nan")]
    if rows is None:
        # As the facts count them, a bin holds its lower edge.
        own = facts.arrays["shares"][row].astype(np.float64)
        counted = np.bincount(atoms.place(facts.arrays["quantiles"][row][:-1], groups), own, minlength=len(groups))
        absent = float(facts.values["missing"].get(feature.name, 0.0))
        rest = max(0.0, 1 - float(own.sum()) - absent)
        coded = [rest] if len(feature.special) == 1 else [None] * len(feature.special)
        return _Part(feature, bins, cells, [*counted.tolist(), *coded, absent], [None] * len(bins))
    values, bad = rows
    place = atoms.place(values, groups)
    for number, code in enumerate(feature.special, start=len(groups)):
        place[values == np.float32(code)] = number
    place[np.isnan(values)] = len(bins) - 1
    return _Part(feature, bins, cells, *_counted(place, bad, len(bins)))


def _levels(feature: Feature, facts: Facts, rows: tuple[np.ndarray, np.ndarray] | None) -> _Part:
    bins = ["unseen in training", "missing", *feature.levels]
    cells = [float(code) for code in range(len(bins))]
    if rows is not None:
        return _Part(feature, bins, cells, *_counted(rows[0], rows[1], len(bins)))
    shares: list[float | None] = [float(each) for each in facts.values["categories"][feature.name]]
    return _Part(feature, bins, cells, shares, [None] * len(bins))


def _counted(place: np.ndarray, bad: np.ndarray, bins: int) -> tuple[list[float | None], list[float | None]]:
    """Share and bad rate of each bin."""
    rows = np.bincount(place, minlength=bins)
    bads = np.bincount(place, weights=bad, minlength=bins)
    rates = [float(each / count) if count else None for each, count in zip(bads, rows, strict=True)]
    return [float(each) for each in rows / max(len(place), 1)], rates


def _check(
    predict: Predict,
    usual: Sequence[np.ndarray],
    parts: Sequence[Sequence[_Part]],
    worths: Sequence[Sequence[np.ndarray]],
) -> None:
    """Compares applicants made up at random with the sum of their lines.

    Raises:
        ConfigError: they differ.
    """
    rng = np.random.default_rng(0)
    arrays = [np.repeat(each, TRIED, axis=0) for each in usual]
    start = float(predict(*usual)[0])
    wanted = np.full(TRIED, start)
    for place, array in enumerate(arrays):
        for column, (part, worth) in enumerate(zip(parts[place], worths[place], strict=True)):
            chosen = rng.integers(0, len(part.cells), TRIED)
            array[:, column] = np.array(part.cells)[chosen]
            wanted += worth[chosen] - start
    if not np.allclose(predict(*arrays), wanted, rtol=1e-4, atol=CLOSE):
        raise ConfigError("this model is no sum over its features, so it has no scorecard: train model.name=scorecard")


def _linear(calibrator: Mapping[str, Any]) -> tuple[float, float]:
    """Slope and intercept."""
    if calibrator["kind"] == "platt":
        return float(calibrator["slope"]), float(calibrator["intercept"])
    return (1 / float(calibrator["temperature"]), 0.0) if calibrator["kind"] == "temperature" else (1.0, 0.0)
