"""Scores of a classifier from columns of numbers. Knows numpy only: no torch, no pictures, no settings.

Every score is a few passes over the rows, so that a thousand bootstrap resamples of 10 000 rows take about a second.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelwright.codec import Columns

BINS = 15
TOP = 5


def measure(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """What the scores need of each sample.

    Args:
        probabilities: N x classes, rows sum to 1.
        labels: int, N.

    Returns:
        label; predicted (the first of the largest probabilities); confidence (the largest probability); rank of the
        truth among the classes (0: it comes first; among equals the lower class comes first); log_loss in nats, with
        probabilities clipped at the resolution of their type as scikit-learn does.
    """
    truth = np.take_along_axis(probabilities, labels[:, None], axis=1)
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    ahead = (probabilities > truth) | ((probabilities == truth) & earlier)
    clipped = np.clip(truth[:, 0], np.finfo(probabilities.dtype).eps, 1).astype(np.float64)
    return {
        "label": labels.astype(np.int64),
        "predicted": probabilities.argmax(axis=1).astype(np.int64),
        "confidence": probabilities.max(axis=1, initial=0).astype(np.float64),
        "rank": ahead.sum(axis=1).astype(np.int64),
        "log_loss": -np.log(clipped),
    }


def scores(measured: Columns, *, classes: Sequence[str]) -> dict[str, float]:
    """Every score of the measured rows.

    accuracy; top5 (with more than five classes); macro precision, recall and f1; calibration_error; log_loss;
    and precision, recall and f1 of each class as "f1/<class>". As in scikit-learn with zero_division=0, a ratio
    without a denominator is 0, and the macro means run over the classes that occur among truths or predictions:
    a resample that lacks a rare class is not punished for it.
    """
    labels, predicted = measured.array("label"), measured.array("predicted")
    confidence = measured.array("confidence")
    matrix = confusion(labels, predicted, classes=len(classes))
    hits = np.diagonal(matrix).astype(np.float64)
    asked, answered = matrix.sum(axis=1), matrix.sum(axis=0)
    per_class = {
        "precision": _ratio(hits, answered),
        "recall": _ratio(hits, asked),
        "f1": _ratio(2 * hits, asked + answered),
    }
    occurring = (asked + answered) > 0

    found = {"accuracy": float(hits.sum() / max(len(labels), 1))}
    if len(classes) > TOP:
        found["top5"] = _mean(measured.array("rank") < TOP)
    found |= {name: _mean(values[occurring]) for name, values in per_class.items()}
    found["calibration_error"] = calibration_error(confidence, predicted == labels)
    found["log_loss"] = _mean(measured.array("log_loss"))
    for name, values in per_class.items():
        found |= {f"{name}/{label}": value for label, value in zip(classes, values.tolist(), strict=True)}
    return found


def confusion(labels: np.ndarray, predicted: np.ndarray, *, classes: int) -> np.ndarray:
    """int64, classes x classes: how often a picture of class `row` was taken for class `column`."""
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes)


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error over 15 bins of equal width, ]lower, upper].

    How far confidence and accuracy lie apart, averaged over the samples; 0 is best.
    Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017.
    """
    _, accuracies, confidences, counts = reliability(confidence, correct)
    return float(np.sum(np.abs(accuracies - confidences) * counts) / max(len(confidence), 1))


def reliability(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Per bin: its upper edge, accuracy, mean confidence (0 where it is empty) and number of samples."""
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    accuracies = _ratio(np.bincount(bins, weights=correct, minlength=BINS), counts)
    confidences = _ratio(np.bincount(bins, weights=confidence, minlength=BINS), counts)
    return np.arange(1, BINS + 1) / BINS, accuracies, confidences, counts


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The quotient, and 0 where there is nothing below."""
    return np.divide(above, below, out=np.zeros(len(below)), where=below > 0)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0
