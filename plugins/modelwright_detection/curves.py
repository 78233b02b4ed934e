"""Curves of a detector: precision over recall, scores over confidence. Knows matplotlib and counts; no pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from modelwright_detection.counting import CONFIDENCES, RECALLS, Counts

# Okabe and Ito's colours: told apart by the colour-blind, and in print by their lightness.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK, GREY = "#4a5568", "#a0aec0"
DASHES = ("-", "--", ":")
NAMED = 12
"""Classes up to which each curve has a colour and a name."""


def precision_recall(curve: np.ndarray, *, classes: Sequence[str]) -> Canvas:
    """Precision over recall at an overlap of 0.5, of each class and on average.

    Args:
        curve: (classes, 101), see `counting.precision_by_recall`; classes of no objects are left out.
    """
    there = np.flatnonzero(~np.isnan(curve[:, 0])).tolist()
    few = len(there) <= NAMED
    canvas = Canvas(figsize=(6.4, 4.4), layout="constrained")
    axes = canvas.subplots()
    for place, label in enumerate(there):
        line = np.where(curve[label] > 0, 100 * curve[label], np.nan)  # it ends where no more is found
        style = DASHES[place // len(COLORS) % len(DASHES)]
        name = f"{short(classes[label])}: {curve[label].mean():.3f}"
        if few:
            axes.plot(100 * RECALLS, line, style, color=COLORS[place % len(COLORS)], lw=1.4, label=name)
        else:
            axes.plot(100 * RECALLS, line, color=GREY, lw=0.6, alpha=0.7, label="" if place else "each class")
    if len(there) != 1:
        area, mean = curve[there].mean(), 100 * curve[there].mean(axis=0)
        mean[mean == 0] = np.nan
        axes.plot(100 * RECALLS, mean, color="black", lw=2.6, label=f"all: {area:.3f}")
    axes.set(xlim=(0, 100.5), ylim=(0, 102), xlabel="recall: % of the objects found")
    axes.set_ylabel("precision: % of the detections right")
    canvas.legend(loc="outside right upper", frameon=False, fontsize=8, title="area below", title_fontsize=8)
    plain(axes)
    return canvas


def by_confidence(counts: Counts, *, confidence: float) -> Canvas:
    """Precision, recall and F1, means over the classes that have objects, from each confidence on."""
    there = counts.objects > 0
    canvas = Canvas(figsize=(6.4, 4), layout="constrained")
    axes = canvas.subplots()
    # Precision ends where the first class falls silent: in a mean, what says nothing would count as 0.
    talking = there & (counts.said[:, 0] > 0)
    least_said = counts.said[talking].min(axis=0) if talking.any() else np.zeros(len(CONFIDENCES))
    axes.axvline(confidence, color=INK, lw=1, ls=(0, (4, 3)), label=f"in use: {confidence:.3f}")
    for name, values, color, width in (
        ("precision", counts.precision, COLORS[0], 1.4),
        ("recall", counts.recall, COLORS[1], 1.4),
        ("F1", counts.f1, "black", 2.4),
    ):
        mean = values[there].mean(axis=0)
        shown = least_said > 0 if name == "precision" else np.ones(len(mean), bool)
        axes.plot(CONFIDENCES[shown], 100 * mean[shown], color=color, lw=width, label=name)
    at, height = float(CONFIDENCES[counts.best]), float(100 * counts.f1[there, counts.best].mean())
    axes.plot([at], [height], "o", color="black", ms=7, mec="white", label=f"best: {at:.3f}")
    axes.set(xlim=(0, 1), ylim=(0, 102), xlabel="confidence from which on a detection counts", ylabel="%")
    canvas.legend(loc="outside right upper", frameon=False, fontsize=8)
    plain(axes)
    return canvas


def plain(axes: Axes) -> None:
    """No frame where there is no scale."""
    axes.spines[["top", "right"]].set_visible(False)


def short(name: str, *, most: int = 18) -> str:
    """A name that fits; its end is kept, where file names differ, and no dollar is left that would start a formula."""
    cut = name if len(name) <= most else "…" + name[-(most - 1) :]
    return cut.replace("$", r"\$")
