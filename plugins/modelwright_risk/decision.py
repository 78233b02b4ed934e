"""From a probability to points and to a decision. Knows numpy only; runs in the bundle."""

from __future__ import annotations

import numpy as np

from modelwright_risk.calibration import log_odds, sigmoid


def points(probability: np.ndarray, *, base_points: float, base_odds: float, double: float) -> np.ndarray:
    """Probabilities of bad as points, float64; the more, the safer.

    Siddiqi: Credit Risk Scorecards, 2006, chapter 6 (scaling).

    Args:
        base_points: points at the base odds.
        base_odds: good applicants for each bad one there.
        double: points that double the odds (PDO).

    >>> points(np.array([1 / 51, 1 / 101]), base_points=600, base_odds=50, double=20).round(6)
    array([600., 620.])
    """
    return base_points - double / np.log(2) * (log_odds(probability) + np.log(base_odds))


def probability_of(points: np.ndarray, *, base_points: float, base_odds: float, double: float) -> np.ndarray:
    """The opposite of `points`."""
    return sigmoid((base_points - points) * np.log(2) / double - np.log(base_odds))


def best_cutoff(
    probability: np.ndarray, bad: np.ndarray, *, cost_bad: float, cost_good: float, weight: np.ndarray | None = None
) -> float:
    """The probability from which on refusing costs least on these rows, above 0 and below 1.

    It lies halfway between two neighbouring probabilities. Where several cost the same, it is the one nearest to the
    cut-off that costs alone suggest (Elkan: The Foundations of Cost-Sensitive Learning, IJCAI 2001).

    Args:
        probability, bad, weight: N; bad is 1 or 0.
        cost_bad: of an accepted applicant who defaults.
        cost_good: of a refused one who would have paid.
    """
    suggested = cost_good / (cost_good + cost_bad)
    if len(probability) == 0:
        return suggested
    w = np.ones(len(probability)) if weight is None else weight.astype(np.float64)
    values, place = np.unique(probability.astype(np.float64), return_inverse=True)
    bads = np.bincount(place, weights=w * (bad > 0.5), minlength=len(values))
    goods = np.bincount(place, weights=w * (bad <= 0.5), minlength=len(values))
    # Entry i: the first i values are accepted.
    accepted_bad = np.concatenate([[0.0], np.cumsum(bads)])
    refused_good = goods.sum() - np.concatenate([[0.0], np.cumsum(goods)])
    cost = cost_bad * accepted_bad + cost_good * refused_good
    padded = np.concatenate([[0.0], values, [1.0]])
    between = (padded[:-1] + padded[1:]) / 2
    least = between[cost <= cost.min() + 1e-9 * (cost_bad + cost_good) * w.sum()]
    return float(least[np.argmin(np.abs(least - suggested))])
