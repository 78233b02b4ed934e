"""Scores of a risk model from columns of numbers. Knows numpy only: no torch, no pictures, no settings.

Bad (default) is the positive class. Rows are sorted once, and everything else is sums along that order, so that a
thousand bootstrap resamples of 30 000 rows take a few seconds. Rows of equal probability are never torn apart: no score
depends on the order of rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modelwright.codec import Column, Columns
from modelwright_risk import fairness
from modelwright_risk.calibration import EDGE, line, log_odds

BINS = 10
"""Groups of equal size in which predicted and actual rates are compared."""
WORST = 0.1
"""Share of applicants that lift and capture look at."""

TINY = float(np.finfo(np.float64).tiny)


def measure(predictions: Columns, truths: Columns) -> dict[str, Column]:
    """What the scores need of each sample.

    Args:
        predictions: with `logit` and `probability`.
        truths: with `bad`, and where the data have them `weight`, `true_probability`, and `group/<column>` for each
            protected column.

    Returns:
        logit, probability, weight and true_probability as float64; bad as int8; groups (codes of categories) as int32.
    """
    found: dict[str, Column] = {name: predictions.array(name).astype(np.float64) for name in ("logit", "probability")}
    found["bad"] = (truths.array("bad") > 0.5).astype(np.int8)
    for name in truths:
        if name in ("weight", "true_probability"):
            found[name] = truths.array(name).astype(np.float64)
        elif name.startswith("group/"):
            found[name] = truths.array(name).astype(np.int32)
    return found


def scores(
    measured: Columns, *, cutoff: float, cost_bad: float, cost_good: float, groups: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Every score of the measured rows; not a number where the rows do not define it (one class only).

    auc, gini, ks, average_precision, brier, log_loss (nats); calibration_error (over ten groups of equal size);
    calibration_slope (of outcomes on predicted log-odds: below 1, predictions are too extreme; Cox 1958); cost (of an
    applicant, at the cut-off) and best_cost (at the cut-off that is best for these rows); lift_10 (bad rate of the
    riskiest tenth over that of all) and capture_10 (share of all bad applicants in that tenth); bad_rate, refusal_rate
    and mean_probability.
    Where `true_probability` is known also true_calibration_error, true_slope (of true on predicted log-odds) and
    bayes_auc, which no model of these data can be expected to beat.
    As details, the scores of the first paragraph for each protected group ("auc/sex=female"), and how groups compare
    (see `fairness.compare`).

    Args:
        measured: columns of `measure`.
        cutoff: probability from which on applicants are refused.
        cost_bad, cost_good: of accepting a bad one; of refusing a good one.
        groups: names of levels by protected column; level i has the code 2 + i.
    """
    order = np.argsort(measured.array("probability"))
    rows = Rows.of(measured, order)
    costs = {"cutoff": cutoff, "cost_bad": cost_bad, "cost_good": cost_good}
    found = rows.scores(**costs)
    for column, levels in groups.items():
        codes = measured.array(f"group/{column}")[order]
        for name, code in fairness.codes_of(codes, levels).items():
            own = rows.where(np.flatnonzero(codes == code)).scores(**costs)
            found |= {f"{score}/{column}={name}": value for score, value in own.items()}
        compared = fairness.compare(codes, bad=rows.bad, refused=rows.probability >= cutoff, weight=rows.weight)
        found |= {f"{score}/{column}": value for score, value in compared.items()}
    return found


@dataclass(frozen=True)
class Rows:
    """Rows in ascending order of the probability.

    Attributes:
        probability: predicted, of bad.
        bad: 1.0 or 0.0.
        weight: of each row; None: they count alike.
        truth: the true probability, where it is known.
    """

    probability: np.ndarray
    bad: np.ndarray
    weight: np.ndarray | None = None
    truth: np.ndarray | None = None

    @staticmethod
    def of(measured: Columns, order: np.ndarray | None = None) -> Rows:
        """From columns of `measure`; `order` sorts them by probability, where it is known already."""
        if order is None:
            order = np.argsort(measured.array("probability"), kind="stable")
        weight, truth = (
            measured.array(name)[order] if name in measured else None for name in ("weight", "true_probability")
        )
        bad = measured.array("bad")[order].astype(np.float64)
        return Rows(measured.array("probability")[order], bad, weight, truth)

    def where(self, places: np.ndarray) -> Rows:
        """Some of them, without the truth; `places` ascend."""
        weight = None if self.weight is None else self.weight[places]
        return Rows(self.probability[places], self.bad[places], weight)

    def scores(self, *, cutoff: float, cost_bad: float, cost_good: float) -> dict[str, float]:
        """Every score of these rows by themselves."""
        p, y, w = self.probability, self.bad, self.weight
        if len(p) == 0:
            return {}
        curve = Curve.of(p, y, w)
        odds = log_odds(p)
        weight = np.ones(len(p)) if w is None else w
        total, bads = curve.total, curve.bads
        accepted = np.searchsorted(p, cutoff)
        known = weight[:accepted].sum(), weight[:accepted] @ y[:accepted]
        worst = curve.captured(WORST)
        auc = curve.auc()
        found = {
            "auc": auc,
            "gini": 2 * auc - 1,
            "ks": curve.ks(),
            "average_precision": curve.average_precision(),
            "brier": weight @ (p - y) ** 2 / total,
            "log_loss": -(weight @ np.log(np.clip(np.where(y > 0, p, 1 - p), EDGE, 1))) / total,
            "calibration_error": calibration_error(p, y, weight, starts=curve.starts()),
            "calibration_slope": line(odds, y, weight)[1],
            "cost": (cost_bad * known[1] + cost_good * (total - bads - (known[0] - known[1]))) / total,
            "best_cost": curve.best_cost(cost_bad=cost_bad, cost_good=cost_good),
            "lift_10": _ratio(worst, WORST * bads),
            "capture_10": _ratio(worst, bads),
            "bad_rate": bads / total,
            "refusal_rate": 1 - known[0] / total,
            "mean_probability": weight @ p / total,
        }
        if self.truth is not None:
            true = log_odds(self.truth)
            centred = odds - weight @ odds / total
            found |= {
                "true_calibration_error": calibration_error(p, self.truth, weight, starts=curve.starts()),
                "true_slope": _ratio(float((weight * centred) @ true), float((weight * centred) @ centred)),
                "bayes_auc": auc_of(self.truth, y, weight=w),
            }
        return {name: float(value) for name, value in found.items()}


@dataclass(frozen=True)
class Curve:
    """Sums over rows up to each distinct probability, in ascending order: what every rank score is made of.

    Attributes:
        rows: weight of the rows so far.
        bad: weight of the bad ones among them.
        ends: place of the last row of each probability.
    """

    rows: np.ndarray
    bad: np.ndarray
    ends: np.ndarray

    @staticmethod
    def of(p: np.ndarray, y: np.ndarray, w: np.ndarray | None) -> Curve:
        """From rows in ascending order of `p`."""
        ends = np.flatnonzero(np.append(p[1:] != p[:-1], True))
        if w is None:
            return Curve(ends + 1.0, np.cumsum(y)[ends], ends)
        return Curve(np.cumsum(w)[ends], np.cumsum(w * y)[ends], ends)

    @property
    def total(self) -> float:
        """Weight of all rows."""
        return float(self.rows[-1])

    @property
    def bads(self) -> float:
        """Weight of all bad ones."""
        return float(self.bad[-1])

    def auc(self) -> float:
        """Chance that a bad row has the higher probability of two, equal ones counted half."""
        good = self.rows - self.bad
        # Twice the area under goods so far over bads so far, by the trapezoid rule.
        area = (good + np.append(0.0, good[:-1])) @ np.diff(self.bad, prepend=0.0)
        return _ratio(float(area), 2 * self.bads * (self.total - self.bads))

    def roc(self) -> tuple[np.ndarray, np.ndarray]:
        """Shares of the good and of the bad refused, with none, the riskiest, ... and all probabilities refused."""
        goods = self.total - self.bads
        bad, good = self.bads - _from_zero(self.bad), goods - _from_zero(self.rows - self.bad)
        return good[::-1] / max(goods, TINY), bad[::-1] / max(self.bads, TINY)

    def ks(self) -> float:
        """Kolmogorov and Smirnov's distance between good and bad."""
        bads, goods = self.bads, self.total - self.bads
        if bads <= 0 or goods <= 0:
            return math.nan
        return float(np.abs((self.rows - self.bad) / goods - self.bad / bads).max())

    def average_precision(self) -> float:
        """Precision, averaged over the bad ones: at the probability of each."""
        found = np.diff(self.bad, prepend=0.0)
        above, bad_above = self.total - np.append(0.0, self.rows[:-1]), self.bads - np.append(0.0, self.bad[:-1])
        return _ratio(float(np.divide(bad_above, above, out=np.zeros_like(above), where=above > 0) @ found), self.bads)

    def best_cost(self, *, cost_bad: float, cost_good: float) -> float:
        """The least mean cost at any cut-off."""
        goods = self.total - self.bads
        costs = cost_bad * self.bad + cost_good * (goods - (self.rows - self.bad))
        return min(cost_good * goods, float(costs.min())) / self.total

    def captured(self, share: float) -> float:
        """Weight of the bad ones among the riskiest `share`; of equal rows, each is as likely to be among them."""
        return self.bads - float(np.interp((1 - share) * self.total, _from_zero(self.rows), _from_zero(self.bad)))

    def starts(self, groups: int = BINS) -> np.ndarray:
        """Places where groups of about equal weight start; fewer where many probabilities are equal."""
        wanted = np.arange(1, groups) * self.total / groups
        inner = self.ends[np.minimum(np.searchsorted(self.rows, wanted), len(self.ends) - 1)] + 1
        return np.unique(np.append(0, inner[inner <= self.ends[-1]]))


def auc_of(score: np.ndarray, bad: np.ndarray, *, weight: np.ndarray | None = None) -> float:
    """Area under the ROC curve of any score that is higher for riskier rows; not a number where one class is empty."""
    order = np.argsort(score)
    return Curve.of(score[order], bad[order].astype(np.float64), None if weight is None else weight[order]).auc()


def calibration_error(p: np.ndarray, happened: np.ndarray, weight: np.ndarray, *, starts: np.ndarray) -> float:
    """Expected calibration error: |mean of p - mean of what happened| of each group, averaged over the rows.

    Naeini, Cooper, Hauskrecht: Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015; here over
    groups of equal size, as most applicants of a portfolio have small probabilities.
    """
    return float(np.abs(np.add.reduceat(weight * (p - happened), starts)).sum() / weight.sum())


def _from_zero(sums: np.ndarray) -> np.ndarray:
    return np.append(0.0, sums)


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else math.nan
