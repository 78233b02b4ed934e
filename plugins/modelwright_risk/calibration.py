"""Log-odds of a network -> probabilities that can be taken at their word. Knows numpy only, no model and no codec.

`apply` runs in the bundle; scikit-learn is imported where `fit` needs it, and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

Kind = Literal["none", "platt", "isotonic", "temperature"]

EDGE = float(np.finfo(np.float64).eps)
"""Probabilities keep this distance from 0 and from 1."""
TILT = 1e-4
"""What an isotonic step rises over one unit of log-odds, so that applicants on it keep their order."""
LEAST_SLOPE = 1e-2
"""Calibration never turns an order around, even where validation data say that it should."""
ITERATIONS = 50


def fit(kind: Kind, logit: np.ndarray, bad: np.ndarray, *, weight: np.ndarray | None = None) -> dict[str, Any]:
    """A calibrator of the given kind.

    platt: a straight line in log-odds, fitted to smoothed targets (Platt: Probabilistic Outputs for Support Vector
    Machines, 1999). temperature: its slope alone (Guo et al.: On Calibration of Modern Neural Networks, ICML 2017).
    isotonic: steps that never fall (Zadrozny, Elkan: Transforming Classifier Scores into Accurate Multiclass
    Probability Estimates, KDD 2002). Where there is nothing to fit, as with one class only, the kind is none.

    Args:
        logit: N, uncalibrated log-odds of bad.
        bad: N, 1 where it was bad, else 0.
        weight: N, of each row.

    Returns:
        JSON values for `apply`.
    """
    x, y = logit.astype(np.float64), (bad > 0.5).astype(np.float64)
    w = np.ones(len(x)) if weight is None else weight.astype(np.float64)
    counts = float(w[y > 0].sum()), float(w[y == 0].sum())
    if kind == "none" or min(counts) <= 0:
        return {"kind": "none"}
    if kind == "isotonic":
        return _isotonic(x, y, w)
    if kind == "temperature":
        slope = line(x, y, w, intercept=False)[1]
        if math.isnan(slope):
            return {"kind": "none"}
        return {"kind": "temperature", "temperature": 1 / max(slope, LEAST_SLOPE)}
    smooth = np.where(y > 0, (counts[0] + 1) / (counts[0] + 2), 1 / (counts[1] + 2))
    intercept, slope = line(x, smooth, w)
    if not slope >= LEAST_SLOPE:
        slope = LEAST_SLOPE
        intercept = float(log_odds(np.average(smooth, weights=w)) - slope * np.average(x, weights=w))
    return {"kind": "platt", "slope": slope, "intercept": intercept}


def apply(calibrator: Mapping[str, Any], logit: np.ndarray) -> np.ndarray:
    """Probabilities of bad, float64, above 0 and below 1; in the order of the log-odds, NaN where those are NaN.

    Raises:
        ValueError: a kind that `fit` does not know.
    """
    x = logit.astype(np.float64)
    match calibrator["kind"]:
        case "none":
            return sigmoid(x)
        case "temperature":
            return sigmoid(x / calibrator["temperature"])
        case "platt":
            return sigmoid(calibrator["intercept"] + calibrator["slope"] * x)
        case "isotonic":
            level = np.interp(x, calibrator["logit"], calibrator["probability"])
            return sigmoid(log_odds(level) + TILT * np.clip(x - calibrator["center"], -1e3, 1e3))
        case other:
            raise ValueError(f"unknown calibrator {other!r}: known are none, platt, isotonic, temperature")


def line(x: np.ndarray, y: np.ndarray, weight: np.ndarray, *, intercept: bool = True) -> tuple[float, float]:
    """Intercept and slope of the logistic regression of `y` on `x`, by Newton's method.

    Args:
        x, y, weight: N; `y` between 0 and 1.
        intercept: False: it is 0.

    Returns:
        (NaN, NaN) where there is no finite best line: one class only, or classes that a threshold separates.
    """
    if len(y) == 0 or y.min() == y.max():
        return math.nan, math.nan
    a, b = 0.0, 1.0
    for _ in range(ITERATIONS):
        p = 1 / (1 + np.exp(-np.clip(a + b * x, -700, 700)))
        error, spread = weight * (y - p), weight * p * (1 - p)
        gradient_b, second_b = float(error @ x), float((spread * x) @ x)
        if intercept:
            gradient_a, second_a, mixed = float(error.sum()), float(spread.sum()), float(spread @ x)
        else:
            gradient_a, second_a, mixed = 0.0, 1.0, 0.0
        determinant = second_a * second_b - mixed * mixed
        if not determinant > 1e-12 * second_a * second_b or not second_b > 0:
            return math.nan, math.nan
        step_a = (second_b * gradient_a - mixed * gradient_b) / determinant
        step_b = (second_a * gradient_b - mixed * gradient_a) / determinant
        # A long step may leave the region where the quadratic says anything.
        scale = max(1.0, abs(step_a) / 4, abs(step_b))
        a, b = a + step_a / scale, b + step_b / scale
        if abs(step_a) + abs(step_b) < 1e-9:
            return a, b
    return math.nan, math.nan


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """Log-odds as probabilities, float64, above 0 and below 1."""
    return np.clip(1 / (1 + np.exp(-np.clip(logit, -700, 700))), EDGE, 1 - EDGE)


def log_odds(probability: np.ndarray | float) -> np.ndarray:
    """The opposite of `sigmoid`."""
    p = np.clip(probability, EDGE, 1 - EDGE)
    return np.log(p / (1 - p))


def _isotonic(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> dict[str, Any]:
    from sklearn.isotonic import IsotonicRegression

    found = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(x, y, sample_weight=w)
    knots = np.asarray(found.X_thresholds_, dtype=np.float64)
    levels = np.asarray(found.y_thresholds_, dtype=np.float64)
    # Nobody is sure to pay because the few in the lowest step did: count half an applicant more on either side.
    lowest = w[x <= knots[levels <= 0].max(initial=-np.inf)].sum()
    highest = w[x >= knots[levels >= 1].min(initial=np.inf)].sum()
    between = levels[(levels > 0) & (levels < 1)]
    low = min(0.5 / (lowest + 1), between.min(initial=1.0) / 2)
    high = max(1 - 0.5 / (highest + 1), (1 + between.max(initial=0.0)) / 2)
    levels = np.where(levels <= 0, low, np.where(levels >= 1, high, levels))
    return {
        "kind": "isotonic",
        "logit": knots.tolist(),
        "probability": levels.tolist(),
        "center": float(np.average(x, weights=w)),
    }
