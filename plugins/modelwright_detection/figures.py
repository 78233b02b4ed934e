"""Pictures for the report of a detector. Knows matplotlib, measured columns and pictures; no torch, no settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from modelwright.task import Evaluated, Figure
from modelwright_detection import curves
from modelwright_detection.confusion import Outcome, matrix, outcome
from modelwright_detection.counting import averages, counts, precision_by_recall
from modelwright_detection.curves import COLORS, GREY, INK, plain, short
from modelwright_detection.draw import color_of
from modelwright_detection.metrics import Measured
from modelwright_detection.pictures import shrink

NUMBERED = 20  # classes up to which a confusion matrix has room for its numbers
NAMED = 80  # classes up to which names can be read
HARDEST, SAMPLES = 8, 6
DRAWN = 40
"""Detections drawn on one picture, the surest: more would hide it, and a model that knows nothing yet says hundreds."""
LARGEST = 560
"""Pixels of the longer side of a picture in the report."""
FOUND, MISSED, FALSE, MISTAKEN = "#56b4e9", "#d55e00", "#f0e442", "#cc79a7"
KINDS = (
    ("found", FOUND, "-"),
    ("missed", MISSED, "--"),
    ("another class", MISTAKEN, "-"),
    ("false alarm", FALSE, "-"),
)


class Pictures(Protocol):
    """What the figures need of a split."""

    def __len__(self) -> int: ...
    def picture(self, index: int, /) -> np.ndarray: ...
    def name_of(self, index: int, /) -> str: ...


def draw(evaluated: Evaluated, *, classes: Sequence[str], confidence: float) -> Iterator[Figure]:
    """The figures of one evaluation.

    Args:
        evaluated: its dataset is a `Pictures`, whose pictures are uint8, H x W x 3, on the scale of the truths;
            `measured` is what `metrics.measure` gave.
        classes: names by label.
        confidence: in use; what is surer is shown.
    """
    measured, pictures = cast("Measured", evaluated.measured), cast("Pictures", evaluated.dataset)
    if measured.rows == 0:
        return
    matches, weights = measured.matches, measured.weights
    table = counts(matches, weights, classes=len(classes))
    outcomes = _outcomes(evaluated, confidence)
    if table.objects.sum() > 0:
        yield Figure(
            "precision-recall",
            "What finding more objects costs",
            "Going right, more of the objects are found, and more of what is said is wrong. The further up and right "
            "a line, the better; it ends where no more is found at any confidence. A detection is right where it "
            "overlaps its object by half (intersection over union).",
            curves.precision_recall(precision_by_recall(matches, classes=len(classes)), classes=classes),
        )
        yield Figure(
            "confidence",
            "Where to draw the line",
            "A higher confidence leaves fewer false alarms (precision) and misses more objects (recall); F1 joins "
            "both. The dot is where F1 is best on this split; the dashed line is in use, settled on the validation "
            "split.",
            curves.by_confidence(table, confidence=confidence),
        )
        each = averages(matches, weights, classes=len(classes), most=(measured.most,)).precision[:, 0]
        yield Figure(
            "classes",
            "Scores per class",
            "Average precision, the weakest class on top. Dark: the mean over overlaps from 0.5 to 0.95, which asks "
            "for tight boxes; light: at 0.5. A short dark bar beside a long light one: found, but not boxed tightly. "
            "Behind the name: how many objects there are.",
            class_bars(each, table.objects, classes=classes),
        )
    yield Figure(
        "confusion",
        "Confusion matrix with background",
        f"At a confidence of {confidence:.2f}. Each row is what an object is, each column what was said of it, in "
        "percent of the row. Last column: objects that were missed. Last row: detections where nothing is (how many "
        "stands beside it); often it is the labels that lack something there.",
        confusion_matrix(matrix(outcomes, classes=len(classes)), classes=classes),
    )
    if hardest := hardest_rows(outcomes):
        yield Figure(
            "hardest",
            "The hardest pictures",
            "Those with the most mistakes. A yellow box around something real is often no mistake of the model: the "
            "data lack a label there. A dashed box around nothing may be a label too many. Of wrong detections the "
            f"{DRAWN} surest of a picture are drawn.",
            hardest_grid(hardest, outcomes, measured.ids, pictures, classes=classes),
        )
    yield Figure(
        "samples",
        "Truth beside prediction",
        f"Evenly spaced pictures of this split: on the left what is true, on the right what was said with a confidence "
        f"of at least {confidence:.2f}. Dashed: groups, or objects that nobody has to find.",
        sample_grid(outcomes, measured.ids, pictures, classes=classes),
    )


def _outcomes(evaluated: Evaluated, confidence: float) -> list[Outcome]:
    said = zip(*(evaluated.predictions[name] for name in ("boxes", "scores", "labels")), strict=True)
    true = zip(*(evaluated.truths[name] for name in ("boxes", "labels", "crowd")), strict=True)
    return [outcome(each, truth, confidence=confidence) for each, truth in zip(said, true, strict=True)]


def class_bars(precision: np.ndarray, objects: np.ndarray, *, classes: Sequence[str]) -> Canvas:
    """Average precision of each class that has objects, the weakest on top.

    Args:
        precision: (classes, overlaps from 0.5 on).
        objects: (classes,): how many there are.
    """
    there = np.flatnonzero(objects > 0)
    mean, half = 100 * precision.mean(axis=1), 100 * precision[:, 0]
    weakest = there[np.argsort(mean[there], kind="stable")][:NAMED].tolist()
    places = np.arange(len(weakest))
    canvas = Canvas(figsize=(7, float(np.clip(1.1 + 0.3 * len(weakest), 1.8, 14))), layout="constrained")
    axes = canvas.subplots()
    axes.barh(places, mean[weakest], height=0.4, color=COLORS[0], label="mean, 0.5 to 0.95", zorder=3)
    axes.barh(places, half[weakest], height=0.72, color="#bcd9ec", label="at an overlap of 0.5")
    size = 9 if len(weakest) <= 40 else 6
    for place, label in enumerate(weakest):
        told = f"{mean[label]:.0f} / {half[label]:.0f}"
        axes.text(float(half[label]) + 0.8, place, told, va="center", fontsize=size, color=INK)
    names = [f"{short(classes[int(label)])} ({objects[label]:,.0f})" for label in weakest]
    axes.set_yticks(places, names, fontsize=size)
    axes.set_ylim(len(weakest) - 0.4, -0.6)
    axes.set(xlim=(0, 112), xticks=range(0, 101, 20), xlabel="average precision, %: mean / at an overlap of 0.5")
    plain(axes)
    canvas.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return canvas


def confusion_matrix(table: np.ndarray, *, classes: Sequence[str]) -> Canvas:
    """Rows: truth, columns: what was said; the last of each is background.

    Args:
        table: see `confusion.matrix`.
    """
    share = 100 * table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    count = len(table)
    side = float(np.clip(2.6 + 0.42 * count, 4, 13))
    canvas = Canvas(figsize=(side, side * 0.92), layout="constrained")
    axes = canvas.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    canvas.colorbar(image, ax=axes, fraction=0.046, pad=0.03, label="% of the row")
    axes.axhline(count - 1.5, color=GREY, lw=1)
    axes.axvline(count - 1.5, color=GREY, lw=1)
    axes.set(xlabel="said", ylabel="true")
    if count <= NAMED:
        size = 9 if count <= NUMBERED else 7 if count <= 2 * NUMBERED else 5
        names = [short(name) for name in classes]
        upright = count > 4 or max(len(name) for name in names) > 6
        axes.set_xticks(range(count), [*names, "(missed)"], rotation=90 if upright else 0, fontsize=size)
        axes.set_yticks(range(count), [*names, f"(nothing: {table[-1].sum():,})"], fontsize=size)
    if count <= NUMBERED:
        for row, column in np.argwhere(table > 0):
            value = share[row, column]
            text = f"{value:.0f}" if value >= 1 else "<1"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if value > 55 else "black")
    return canvas


def hardest_rows(outcomes: Sequence[Outcome], *, most: int = HARDEST) -> list[int]:
    """Rows of the pictures with the most mistakes; none without any."""
    errors = np.array([each.errors for each in outcomes])
    order = np.argsort(-errors, kind="stable")[:most]
    return order[errors[order] > 0].tolist()


def surest(chosen: np.ndarray, scores: np.ndarray, *, most: int = DRAWN) -> list[int]:
    """Places of the chosen detections that are drawn, the surest first.

    >>> surest(np.array([True, False, True, True]), np.array([0.2, 0.9, 0.8, 0.5]), most=2)
    [2, 3]
    """
    places = np.flatnonzero(chosen)
    return places[np.argsort(-scores[places], kind="stable")][:most].tolist()


def hardest_grid(
    rows: Sequence[int], outcomes: Sequence[Outcome], ids: np.ndarray, pictures: Pictures, *, classes: Sequence[str]
) -> Canvas:
    """Pictures with what was found, missed, mistaken and made up."""
    shown = [_Shown.of(pictures, int(ids[row])) for row in rows]
    canvas, grid = _grid(shown, columns=min(4, len(rows)), width=3.1, above=0.4)
    for axes, picture, row in zip(grid, shown, rows, strict=False):
        picture.show(axes)
        each, scale = outcomes[row], picture.scale
        boxes, scores, labels = each.said
        for place in surest(each.right, scores):
            _box(axes, scale * boxes[place], FOUND, width=1)
        for place in np.flatnonzero(each.missed):
            _box(axes, scale * each.true[0][place], MISSED, dashed=True, text=classes[int(each.true[1][place])])
        for place in surest(each.false | each.mistaken, scores):
            color = FALSE if each.false[place] else MISTAKEN
            _box(axes, scale * boxes[place], color, text=f"{classes[int(labels[place])]}: {scores[place]:.2f}")
        told = ((each.missed, "missed"), (each.mistaken, "mistaken"), (each.false, "false"))
        title = ", ".join(f"{int(which.sum())} {name}" for which, name in told if which.any())
        axes.set_title(f"{short(picture.name, most=34)}\n{title}", fontsize=7)
    handles = [Line2D([], [], color=color, ls=style, lw=3, label=name) for name, color, style in KINDS]
    look = {"frameon": True, "facecolor": INK, "labelcolor": "white", "fontsize": 8, "handlelength": 3}
    canvas.legend(handles=handles, loc="outside upper center", ncols=len(KINDS), **look)
    return canvas


def sample_grid(outcomes: Sequence[Outcome], ids: np.ndarray, pictures: Pictures, *, classes: Sequence[str]) -> Canvas:
    """Evenly spaced pictures, each twice: with what is true and with what was said."""
    rows = np.unique(np.linspace(0, len(outcomes) - 1, min(SAMPLES, len(outcomes))).round().astype(int)).tolist()
    shown = [_Shown.of(pictures, int(ids[row])) for row in rows]
    twice = [picture for picture in shown for _ in range(2)]
    canvas, grid = _grid(twice, columns=2 * min(2, len(rows)), width=2.8)
    for place, (row, picture) in enumerate(zip(rows, shown, strict=True)):
        each, scale = outcomes[row], picture.scale
        left, right = grid[2 * place], grid[2 * place + 1]
        picture.show(left)
        picture.show(right)
        for box, label, crowd in zip(*each.true, strict=True):
            _box(left, scale * box, color_of(int(label)), dashed=bool(crowd), text=classes[int(label)])
        boxes, scores, labels = each.said
        for said in surest(np.ones(len(scores), bool), scores):
            text = f"{classes[int(labels[said])]}: {scores[said]:.2f}"
            _box(right, scale * boxes[said], color_of(int(labels[said])), text=text)
        left.set_title(f"true: {short(picture.name, most=26)}", fontsize=7)
        cut = f", the {DRAWN} surest of {len(scores):,}" if len(scores) > DRAWN else ""
        right.set_title(f"said{cut}", fontsize=7)
    return canvas


@dataclass(frozen=True)
class _Shown:
    """A picture as the report shows it: made smaller where it is large, by `scale`."""

    pixels: np.ndarray
    scale: float
    name: str

    @staticmethod
    def of(pictures: Pictures, index: int) -> _Shown:
        pixels = pictures.picture(index)
        longest = max(pixels.shape[:2])
        pixels = shrink(pixels, min(longest, LARGEST))
        return _Shown(pixels, max(pixels.shape[:2]) / longest, pictures.name_of(index))

    def show(self, axes: Axes) -> None:
        height, width = self.pixels.shape[:2]
        axes.imshow(self.pixels, extent=(0, width, height, 0))
        axes.set(xlim=(0, width), ylim=(height, 0))


def _grid(shown: Sequence[_Shown], *, columns: int, width: float, above: float = 0) -> tuple[Canvas, list[Axes]]:
    """Axes for pictures in lines that are as high as their highest; `width` of one, and `above` all, in inches."""
    ratios = [each.pixels.shape[0] / each.pixels.shape[1] for each in shown]
    heights = [width * min(2.0, max(ratios[start : start + columns])) + 0.4 for start in range(0, len(ratios), columns)]
    size = (max(width * columns, 5.2), sum(heights) + above)
    canvas = Canvas(figsize=size, layout="constrained")
    grid: list[Axes] = canvas.subplots(len(heights), columns, squeeze=False, height_ratios=heights).ravel().tolist()
    for axes in grid:
        axes.set_axis_off()
    return canvas, grid


def _box(axes: Axes, box: np.ndarray, color: str, *, width: float = 1.6, dashed: bool = False, text: str = "") -> None:
    left, top, right, bottom = (float(edge) for edge in box)
    style = (0, (3, 2)) if dashed else "-"
    patch = Rectangle((left, top), right - left, bottom - top, fill=False, ec=color, lw=width, ls=style)
    patch.set_path_effects([withStroke(linewidth=width + 1, foreground="black")])  # seen on any ground
    axes.add_patch(patch)
    if text:
        frame = {"facecolor": color, "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
        above = top > 0.05 * axes.get_ylim()[0]  # where the picture ends, the label stands inside the box
        width = axes.get_xlim()[1]
        far = left > 0.85 * width  # and ends where the picture does
        x, side = (min(right, width), "right") if far else (max(left, 0), "left")
        label = axes.text(x, max(top, 1), short(text, most=20), fontsize=5, color="black", bbox=frame, clip_on=True)
        label.set(ha=side, va="bottom" if above else "top")
