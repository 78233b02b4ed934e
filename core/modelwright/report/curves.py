"""Learning curves of a run as small SVG pictures. Knows a run's events and matplotlib; knows no HTML."""

# matplotlib leaves the types of its keyword arguments open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from modelwright.report.run_folder import Run

# Ink, grid and a few line colours that keep their contrast on white and differ for the colour-blind (Okabe and Ito).
INK, GRID, BEST = "#5a6472", "#e8e9ec", "#9aa3b0"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#4b3f72", "#333333")
ROLES = {"training": COLORS[0], "validation": COLORS[1]}
MOST_POINTS = 600
MOST_METRICS = 7

Series: TypeAlias = "dict[int, tuple[float, float]]"
"""step -> (epoch, value). Keyed by step, so that a step which was logged twice counts once."""


@dataclass(frozen=True)
class Curve:
    """One panel.

    Attributes:
        title: what it shows.
        svg: the picture as a data address.
        alt: what it shows, in words.
        legend: (label, colour) of each line, where there are several.
        note: a line below it.
    """

    title: str
    svg: str
    alt: str
    legend: tuple[tuple[str, str], ...] = ()
    note: str = ""


def learning_curves(run: Run) -> list[Curve]:
    """Loss, the objective and other main metrics on validation, the loss's parts and the learning rate."""
    steps = list(run.named("step"))
    metrics = _metrics(run)
    losses = {"training": _series(steps, "loss"), "validation": metrics.pop("loss", {})}
    parts = _parts(steps)
    panels: list[tuple[str, dict[str, Series]]] = [("loss", losses)]
    panels += [(name, {"validation": series}) for name, series in metrics.items()]
    panels += [("parts of the loss", parts)] if len(parts) > 1 else []
    panels += [("learning rate", {"training": _series(steps, "lr")})]
    shown = [(title, {name: series for name, series in lines.items() if series}) for title, lines in panels]
    points = [(step, epoch) for _, lines in shown for series in lines.values() for step, (epoch, _) in series.items()]
    if not points:
        return []
    frame = _Frame(max(step for step, _ in points), max(epoch for _, epoch in points), best_step(run))
    return [_curve(title, lines, frame) for title, lines in shown if lines]


def best_step(run: Run) -> tuple[int, float] | None:
    """(step, epoch) of the evaluation that was the best, or None."""
    marked = [event for event in run.named("evaluation") if event.get("best") is True and _number(event.get("epoch"))]
    return (marked[-1]["step"], float(marked[-1]["epoch"])) if marked else None


@dataclass(frozen=True)
class _Frame:
    """What all panels share: where the run is now, and its best step."""

    last_step: int
    last_epoch: float
    best: tuple[int, float] | None

    @property
    def unit(self) -> str:
        return "epoch" if self.last_epoch > 1 else "step"

    @property
    def end(self) -> float:
        return self.last_epoch if self.unit == "epoch" else self.last_step

    def place(self, step: int, epoch: float) -> float:
        return epoch if self.unit == "epoch" else step


def _metrics(run: Run) -> dict[str, Series]:
    """The main metrics on validation, the objective first."""
    scored = [event for event in run.named("evaluation") if isinstance(event.get("metrics"), dict)]
    flat = [{**event["metrics"], "step": event["step"], "epoch": event.get("epoch")} for event in scored]
    objective = run.objective.metric if run.objective else ""
    names = [name for name in dict.fromkeys(name for event in scored for name in event["metrics"]) if "/" not in name]
    names.sort(key=lambda name: name != objective)
    return {name: _series(flat, name) for name in names[:MOST_METRICS]}


def _parts(steps: Sequence[Mapping[str, Any]]) -> dict[str, Series]:
    flat = [
        {**cast("dict[str, Any]", event["parts"]), "step": event["step"], "epoch": event.get("epoch")}
        for event in steps
        if isinstance(event.get("parts"), dict)
    ]
    names = dict.fromkeys(name for event in flat for name in event if name not in ("step", "epoch"))
    return {name: _series(flat, name) for name in list(names)[: len(COLORS)]}


def _series(events: Iterable[Mapping[str, Any]], name: str) -> Series:
    """A value over time; what is no number (null: it was not finite) is left out."""
    series: Series = {}
    for event in events:
        value, epoch = event.get(name), event.get("epoch")
        if _number(value) and _number(epoch):
            series[int(event["step"])] = (float(cast("float", epoch)), float(cast("float", value)))
    return dict(sorted(series.items()))


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _curve(title: str, lines: Mapping[str, Series], frame: _Frame) -> Curve:
    figure = Figure(figsize=(3.5, 2.3), layout="constrained")
    axes = figure.add_subplot()
    colors = {name: ROLES.get(name, color) for name, color in zip(lines, COLORS, strict=False)}
    words: list[str] = []
    note = ""
    if frame.best:
        axes.axvline(frame.place(*frame.best), color=BEST, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    for name, series in lines.items():
        x, y = _thinned(np.array([(frame.place(step, epoch), v) for step, (epoch, v) in series.items()]))
        marker = "o" if len(x) <= 30 else None
        axes.plot(x, y, color=colors[name], linewidth=1.8, marker=marker, markersize=3, solid_capstyle="round")
        words.append(f"{name} from {y[0]:.4g} to {y[-1]:.4g}")
        if frame.best and name == "validation" and frame.best[0] in series:
            epoch, value = series[frame.best[0]]
            at = frame.place(frame.best[0], epoch)
            axes.plot([at], [value], marker="o", markersize=8, color=colors[name], markeredgecolor="white", zorder=4)
            note = f"{value:.4g} at the best step"
    _dress(axes, frame)
    legend = tuple(colors.items()) if len(lines) > 1 else ()
    return Curve(title, svg_uri(figure), f"{title} by {frame.unit}: {', '.join(words)}", legend, note)


def _thinned(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) points as x and y, neighbours averaged where there are more than a picture can show."""
    if len(points) > MOST_POINTS:
        points = np.stack([part.mean(axis=0) for part in np.array_split(points, MOST_POINTS)])
    return points[:, 0], points[:, 1]


def _dress(axes: Axes, frame: _Frame) -> None:
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(BEST)
    axes.tick_params(colors=INK, labelsize=9.5, length=0, pad=5)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(frame.unit, color=INK, fontsize=9.5)
    axes.margins(y=0.08)
    axes.set_xlim(-0.02 * frame.end, 1.02 * frame.end)


def svg_uri(figure: Figure) -> str:
    """A figure as a data address; the same figure gives the same text."""
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "modelwright"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
