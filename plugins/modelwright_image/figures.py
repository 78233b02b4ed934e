"""Pictures for the report of a classifier. Knows matplotlib and the measured columns, no torch, no settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from modelwright.codec import Columns
from modelwright.task import Figure
from modelwright_image import metrics

BLUE, GREY, RED = "#2b6cb0", "#a0aec0", "#c53030"
NUMBERED = 20  # classes up to which a confusion matrix has room for its numbers
NAMED = 100  # classes up to which their names can be read
TILES = 16


class Pictures(Protocol):
    """What the figures need of a split."""

    def __len__(self) -> int: ...
    def picture(self, index: int, /) -> np.ndarray: ...
    def name_of(self, index: int, /) -> str: ...


def draw(measured: Columns, pictures: Pictures, *, classes: Sequence[str]) -> Iterator[Figure]:
    """The figures of one evaluation.

    Args:
        measured: columns of `metrics.measure`; their ids are indices of `pictures`.
        pictures: H x W x C of uint8 by index.
        classes: names by label.
    """
    if measured.rows == 0:
        return
    yield Figure(
        "confusion",
        "Confusion matrix",
        "Each row is a true class, each column what the model said, in percent of the row. A perfect model has 100 on "
        "the diagonal and nothing beside it; a dark cell beside the diagonal is a pair of classes it mixes up.",
        confusion_matrix(measured, classes=classes),
    )
    yield Figure(
        "classes",
        "Scores per class",
        "Recall: how many pictures of the class were found. Precision: how many of those called so belong there. "
        f"Sorted by F1, which joins both{'' if len(classes) <= NAMED else f'; the {NAMED} weakest'}.",
        class_bars(measured, classes=classes),
    )
    yield Figure(
        "reliability",
        "Is its confidence to be trusted?",
        "Of all answers given with 80 % confidence, 80 % should be right. Bars below the dashed line: the model is "
        "more confident than it should be; above: more careful. The lower part shows how often it answers so.",
        reliability_diagram(measured),
    )
    if mistakes := worst_mistakes(measured):
        yield Figure(
            "mistakes",
            "Most confident mistakes",
            "Wrong answers, the surest first: often wrong labels, pictures of two things, or what the data lack.",
            mistake_grid(measured, mistakes, pictures, classes=classes),
        )
    yield Figure(
        "samples",
        "Some pictures",
        "Pictures of this split as the model sees them, evenly spaced, each with its true class.",
        sample_grid(measured, pictures, classes=classes),
    )


def confusion_matrix(measured: Columns, *, classes: Sequence[str]) -> Canvas:
    """Rows: truth, columns: prediction, in percent of the row."""
    count = len(classes)
    matrix = metrics.confusion(measured.array("label"), measured.array("predicted"), classes=count)
    share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(2.5 + 0.42 * count, 4, 13))
    canvas = Canvas(figsize=(side, side * 0.92), layout="constrained")
    axes = canvas.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    canvas.colorbar(image, ax=axes, shrink=0.8, label="% of the true class")
    axes.set(xlabel="said", ylabel="true")
    if count <= NAMED:
        size = 9 if count <= NUMBERED else 5
        names = [_short(name) for name in classes]
        axes.set_xticks(range(count), names, rotation=90 if count > 4 else 0, fontsize=size)
        axes.set_yticks(range(count), names, fontsize=size)
    if count <= NUMBERED:
        for row, column in np.argwhere(matrix > 0):
            value = share[row, column]
            text = f"{value:.0f}" if value >= 1 else "<1"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if value > 55 else "black")
    return canvas


def class_bars(measured: Columns, *, classes: Sequence[str]) -> Canvas:
    """Precision and recall of each class, the weakest on top."""
    found = metrics.scores(measured, classes=classes)
    weakest = sorted(range(len(classes)), key=lambda label: found[f"f1/{classes[label]}"])[:NAMED]
    places = np.arange(len(weakest))
    canvas = Canvas(figsize=(7, float(np.clip(1.2 + 0.32 * len(weakest), 2.4, 14))), layout="constrained")
    axes = canvas.subplots()
    for name, offset, color in (("precision", -0.2, BLUE), ("recall", 0.2, GREY)):
        values = [100 * found[f"{name}/{classes[label]}"] for label in weakest]
        axes.barh(places + offset, values, height=0.38, color=color, label=name)
    axes.set_yticks(places, [_short(classes[label]) for label in weakest], fontsize=9 if len(weakest) <= 40 else 5)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="%")
    _plain(axes)
    canvas.legend(loc="outside upper center", ncols=2, frameon=False)
    return canvas


def reliability_diagram(measured: Columns) -> Canvas:
    """Accuracy against confidence in bins, and how many samples each bin holds."""
    correct = measured.array("predicted") == measured.array("label")
    edges, accuracy, _, counts = metrics.reliability(measured.array("confidence"), correct)
    filled = counts > 0
    width = edges[0]
    canvas = Canvas(figsize=(5.5, 5), layout="constrained")
    upper, lower = canvas.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.bar(edges[filled] - width / 2, accuracy[filled], width=width * 0.92, color=BLUE, label="right answers")
    upper.plot([0, 1], [0, 1], "--", color=RED, linewidth=1, label="perfectly calibrated")
    upper.set(ylabel="share of right answers", ylim=(0, 1), xlim=(0, 1))
    upper.legend(frameon=False, loc="upper left")
    lower.bar(edges - width / 2, counts, width=width * 0.92, color=GREY)
    lower.set(xlabel="confidence of the answer", ylabel="answers")
    _plain(upper)
    _plain(lower)
    return canvas


def worst_mistakes(measured: Columns, *, most: int = TILES) -> list[int]:
    """Rows of the wrong answers, the most confident first."""
    wrong = np.flatnonzero(measured.array("predicted") != measured.array("label"))
    surest = np.argsort(-measured.array("confidence")[wrong], kind="stable")[:most]
    return wrong[surest].tolist()


def mistake_grid(measured: Columns, rows: Sequence[int], pictures: Pictures, *, classes: Sequence[str]) -> Canvas:
    """The pictures of `rows` with what they are, what the model said, how sure it was, and their names."""
    labels: list[int] = measured.array("label").tolist()
    predicted: list[int] = measured.array("predicted").tolist()
    titles = [
        f"true: {_short(classes[labels[row]])}\n"
        f"said: {_short(classes[predicted[row]])} ({100 * measured.array('confidence')[row]:.0f} %)"
        for row in rows
    ]
    return _grid([int(measured.ids[row]) for row in rows], titles, pictures, named=True)


def sample_grid(measured: Columns, pictures: Pictures, *, classes: Sequence[str]) -> Canvas:
    """Evenly spaced pictures with their true classes."""
    spread = np.linspace(0, measured.rows - 1, min(TILES, measured.rows)).round()
    rows: list[int] = spread.astype(int).tolist()
    labels: list[int] = measured.array("label").tolist()
    titles = [_short(classes[labels[row]]) for row in rows]
    return _grid([int(measured.ids[row]) for row in rows], titles, pictures, named=False)


def _grid(indices: Sequence[int], titles: Sequence[str], pictures: Pictures, *, named: bool) -> Canvas:
    columns = min(8, len(indices)) if len(indices) > 4 else 4
    lines = -(-len(indices) // columns)
    canvas = Canvas(figsize=(1.5 * columns, (2.2 if named else 1.8) * lines), layout="constrained")
    grid: list[Axes] = canvas.subplots(lines, columns, squeeze=False).ravel().tolist()
    for axes in grid:
        axes.set_axis_off()
    for axes, index, title in zip(grid, indices, titles, strict=False):
        pixels = pictures.picture(index)
        grey = pixels.shape[2] == 1
        axes.imshow(pixels[:, :, 0] if grey else pixels, cmap="gray" if grey else None, vmin=0, vmax=255)
        axes.set_title(title, fontsize=7)
        if named:
            name = _short(pictures.name_of(index), most=24)
            axes.text(0.5, -0.04, name, transform=axes.transAxes, ha="center", va="top", fontsize=5, color="#4a5568")
    return canvas


def _short(name: str, *, most: int = 16) -> str:
    """A name that fits; its end is kept, where file names differ, and no dollar is left that would start a formula."""
    cut = name if len(name) <= most else "…" + name[-(most - 1) :]
    return cut.replace("$", r"\$")


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
