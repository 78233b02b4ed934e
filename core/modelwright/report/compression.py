"""The report's part on compression: receipts as a table and two pictures. Knows JSON and matplotlib; knows no torch."""

# matplotlib leaves the types of its keyword arguments open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from modelwright.report.curves import BEST, COLORS, GRID, INK, svg_uri

FOLDER, RECEIPT, CHOSEN = "variants", "receipt.json", "chosen.json"
BATCHES = (1, 32)
MOST_NAMED = 12
"""Points that carry their name; more would cover each other."""


@dataclass(frozen=True)
class Compressions:
    """What the page shows.

    Attributes:
        receipts: as they lie on disk.
        chosen: the name of the variant to deploy.
        targets: what was asked for, by name.
        pictures: (title, SVG address, words) of each.
    """

    receipts: list[dict[str, Any]]
    chosen: str
    targets: dict[str, float]
    pictures: list[tuple[str, str, str]]

    @property
    def verdict(self) -> list[str]:
        """What is said of the chosen variant."""
        return next((each["verdict"] for each in self.receipts if each["variant"] == self.chosen), [])


def read_compressions(run_folder: Path, problems: list[str]) -> Compressions | None:
    """The receipts of a run's variants; None where there are none. A damaged one is left out and said."""
    receipts: list[dict[str, Any]] = []
    for path in sorted((run_folder / FOLDER).glob(f"*/{RECEIPT}")):
        found = _json(path)
        if found is None or not _whole(found):
            problems.append(f"{path.relative_to(run_folder)} is damaged and was left out.")
        else:
            receipts.append(found)
    if not receipts:
        return None
    chosen = _json(run_folder / FOLDER / CHOSEN) or {}
    targets = {name: value for name, value in (chosen.get("targets") or {}).items() if value is not None}
    name = str(chosen.get("variant", ""))
    return Compressions(receipts, name, targets, list(_pictures(receipts, name)))


def best_of(receipt: Mapping[str, Any], who: str, batch: int) -> dict[str, Any]:
    """The row of the quickest runtime of the `variant` or the `original` at a batch size."""
    rows = [row for row in receipt["latency"] if row["model"] == who and row["batch"] == batch]
    return min(rows, key=lambda row: row["p50_ms"])


def receipt_cells(receipt: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A row of the table of variants: metric, drop, bytes, multiply-accumulates, times; each with what stands below."""
    metric, drop, size = receipt["metrics"][receipt["objective"]["metric"]], receipt["drop"], receipt["bytes"]
    between = "" if drop["low"] is None else f"{drop['low']:+.4f} to {drop['high']:+.4f}"
    cells = [
        ("n/a" if metric["variant"] is None else f"{metric['variant']:.4f}", ""),
        ("n/a" if drop["value"] is None else f"{drop['value']:+.4f}", between),
        (f"{size['variant']:,}", f"{size['ratio']:.3f}"),
        ("n/a" if receipt["macs"]["ratio"] is None else f"{receipt['macs']['ratio']:.3f}", ""),
    ]
    for batch in BATCHES:
        best = best_of(receipt, "variant", batch)
        cells.append((f"{best['p50_ms']:.3g} ms", f"{best['ratio']:.3f}"))
    return cells


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def _whole(receipt: Mapping[str, Any]) -> bool:
    wanted = {"variant", "objective", "metrics", "drop", "bytes", "macs", "latency", "verdict", "threads", "processor"}
    return wanted <= set(receipt)


# Pictures -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Point:
    name: str
    cost: float
    value: float


def _pictures(receipts: Sequence[Mapping[str, Any]], chosen: str) -> list[tuple[str, str, str]]:
    metric, goal = receipts[0]["objective"]["metric"], receipts[0]["objective"]["goal"]
    costs = {
        "milliseconds of one sample": lambda each, who: best_of(each, who, 1)["p50_ms"],
        "kilobytes": lambda each, who: each["bytes"][who] / 1000,
    }
    drawn: list[tuple[str, str, str]] = []
    for label, cost in costs.items():
        points = [_point(each["variant"], each, "variant", cost) for each in receipts]
        points = [_point("original", receipts[0], "original", cost), *points]
        shown = [point for point in points if point is not None]
        if len(shown) > 1:
            drawn.append(_picture(shown, metric=metric, goal=goal, label=label, chosen=chosen))
    return drawn


def _point(name: str, receipt: Mapping[str, Any], who: str, cost: Any) -> _Point | None:
    value = receipt["metrics"].get(receipt["objective"]["metric"], {}).get(who)
    return None if value is None else _Point(name, float(cost(receipt, who)), float(value))


def pareto(points: Sequence[tuple[float, float]], *, goal: str) -> list[tuple[float, float]]:
    """Those (cost, value) that no other beats in both, cheapest first.

    >>> pareto([(1, 0.5), (2, 0.9), (3, 0.8)], goal="max")
    [(1, 0.5), (2, 0.9)]
    """
    sign = 1 if goal == "max" else -1
    front: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if not front or sign * value > sign * front[-1][1]:
            front.append((cost, value))
    return front


def _picture(points: Sequence[_Point], *, metric: str, goal: str, label: str, chosen: str) -> tuple[str, str, str]:
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.add_subplot()
    front = pareto([(point.cost, point.value) for point in points], goal=goal)
    axes.step(*zip(*front, strict=True), where="post", color=BEST, linewidth=1.2, zorder=1)
    named = points if len(points) <= MOST_NAMED else [p for p in points if (p.cost, p.value) in front]
    for point in points:
        color = COLORS[1] if point.name == chosen else INK if point.name == "original" else COLORS[0]
        axes.plot(
            [point.cost], [point.value], "o", color=color, markersize=8 if point.name == chosen else 5.5, zorder=3
        )
    for number, point in enumerate(sorted(named, key=lambda p: p.cost)):
        words = f"{point.name} (chosen)" if point.name == chosen else point.name
        above = 6 if number % 2 == 0 else -13
        right = point.cost > 10**0.5 * min(p.cost for p in points)
        axes.annotate(
            words,
            (point.cost, point.value),
            xytext=(-4 if right else 4, above),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize=7.5,
            color=INK,
        )
    _dress(axes, metric=metric, label=label)
    words = "; ".join(f"{point.name}: {metric} {point.value:.4g} at {point.cost:.4g}" for point in points)
    return f"{metric} against {label}", svg_uri(figure), words


def _dress(axes: Axes, *, metric: str, label: str) -> None:
    axes.set_xscale("log")
    axes.grid(color=GRID, linewidth=0.8, which="both")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(BEST)
    axes.tick_params(colors=INK, labelsize=9, length=0, pad=5, which="both")
    axes.set_xlabel(f"{label} (logarithmic)", color=INK, fontsize=9.5)
    axes.set_ylabel(metric, color=INK, fontsize=9.5)
    axes.margins(x=0.12, y=0.14)
