"""Pictures of ranks and probabilities: ROC, calibration, scores, gains. Knows matplotlib, rows, no table."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator

from modelwright.codec import Columns
from modelwright_risk.metrics import TINY, Curve, Rows
from modelwright_risk.panels import BAD, GOOD, GREY, INK, TRUE, percent, plain, table, table_width, wilson


def roc(rows: Rows, *, cutoff: float) -> Canvas:
    """The ROC curve, that of the true probability where it is known, and the cut-off in use."""
    canvas = Canvas(figsize=(5, 4.8), layout="constrained")
    axes = canvas.subplots()
    if rows.truth is not None:
        order = np.argsort(rows.truth)
        weight = None if rows.weight is None else rows.weight[order]
        best = Curve.of(rows.truth[order], rows.bad[order], weight)
        axes.plot(*best.roc(), color=TRUE, linewidth=1.2, label=f"true probability: AUC {best.auc():.4f}")
    curve = Curve.of(rows.probability, rows.bad, rows.weight)
    false, true = curve.roc()
    axes.plot(
        false, true, color=GOOD, linewidth=2, label=f"model: AUC {curve.auc():.4f}, Gini {2 * curve.auc() - 1:.4f}"
    )
    axes.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1)
    # Curves run from nobody refused; the groups at or above the cut-off are those refused.
    distinct = rows.probability[curve.ends]
    place = int((distinct >= cutoff).sum())
    axes.plot([false[place]], [true[place]], "o", color=BAD, label=f"cut-off {percent(cutoff)}, KS {curve.ks():.3f}")
    axes.set(xlim=(0, 1), ylim=(0, 1.005), xlabel="good applicants refused", ylabel="bad applicants refused")
    axes.set_aspect("equal")
    axes.legend(frameon=False, loc="lower right", fontsize=8)
    plain(axes)
    return canvas


def calibration_curve(rows: Rows) -> Canvas:
    """What happened against what was said, by groups of equal size."""
    weight = np.ones(len(rows.bad)) if rows.weight is None else rows.weight
    starts = Curve.of(rows.probability, rows.bad, rows.weight).starts(20 if len(weight) >= 4000 else 10)
    total = np.add.reduceat(weight, starts)
    said = np.add.reduceat(weight * rows.probability, starts) / total
    happened = np.add.reduceat(weight * rows.bad, starts) / total
    low, high = wilson(happened, total**2 / np.add.reduceat(weight**2, starts))
    canvas = Canvas(figsize=(5, 4.8), layout="constrained")
    axes = canvas.subplots()
    true = None if rows.truth is None else np.add.reduceat(weight * rows.truth, starts) / total
    seen = np.concatenate([said, happened] + ([] if true is None else [true]))
    # On an even scale, small probabilities would all lie in the corner; a share of 0 lies on the edge of a log scale.
    stretched = said.max() > 10 * said.min()
    floor = seen[seen > 0].min() / 1.5 if stretched else 0.0
    top = min(1.0, 1.15 * max(said.max(), high.max()))
    axes.plot([floor, top], [floor, top], "--", color=GREY, linewidth=1, label="as said")
    axes.errorbar(
        said,
        np.maximum(happened, floor),
        # A bar whose dot lies below the picture starts at its edge.
        yerr=np.maximum([np.maximum(happened, floor) - np.maximum(low, floor), high - np.maximum(happened, floor)], 0),
        fmt="o",
        color=GOOD,
        markersize=4,
        linewidth=1,
        label="happened",
        zorder=3,
    )
    if true is not None:
        axes.plot(said, np.maximum(true, floor), "x", color=TRUE, markersize=6, label="true probability", zorder=4)
    if stretched:
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.set(xlim=(floor, top), ylim=(floor, top), xlabel="predicted probability of default", ylabel="share in default")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axis.set_minor_formatter(lambda value, _: "")
    axes.legend(frameon=False, loc="upper left", fontsize=8)
    plain(axes)
    return canvas


def score_distribution(predictions: Columns, *, rows_bad: np.ndarray) -> Canvas:
    """Points by outcome, with the cut-off."""
    points, refused = predictions.array("points"), predictions.array("refused")
    low, high = np.quantile(points, [0.001, 0.999])
    # Few defaults make a ragged outline where bins are narrow.
    fewest = min(rows_bad.sum(), (~rows_bad).sum())
    edges = np.linspace(low, max(high, low + 1), int(np.clip(2.5 * fewest**0.4, 12, 50)) + 1)
    canvas = Canvas(figsize=(7, 3.6), layout="constrained")
    axes = canvas.subplots()
    for name, mask, color in (("paid", ~rows_bad, GOOD), ("defaulted", rows_bad, BAD)):
        if mask.any():
            counts, _ = np.histogram(np.clip(points[mask], low, high), edges)
            axes.stairs(100 * counts / mask.sum(), edges, fill=True, color=color, alpha=0.35)
            axes.stairs(100 * counts / mask.sum(), edges, color=color, linewidth=1.4, label=f"{name} ({mask.sum():,})")
    if refused.any() and not refused.all():
        border = (points[refused].max() + points[~refused].min()) / 2
        if low < border < high:
            axes.axvline(border, color=INK, linewidth=1)
        axes.set_title(
            f"{percent(float(refused.mean()))} refused, below {border:.0f} points", fontsize=9, color=INK, loc="left"
        )
    axes.set(xlabel="points (more is safer)", ylabel="% of their kind", xlim=(edges[0], edges[-1]))
    axes.legend(frameon=False, fontsize=8)
    plain(axes)
    return canvas


def gains(rows: Rows) -> Canvas:
    """The gains curve, the bad rate of each tenth, and both as a table."""
    weight = np.ones(len(rows.bad)) if rows.weight is None else rows.weight
    curve = Curve.of(rows.probability, rows.bad, rows.weight)
    starts = curve.starts()
    total = np.add.reduceat(weight, starts)[::-1]
    bad = np.add.reduceat(weight * rows.bad, starts)[::-1]
    said = np.add.reduceat(weight * rows.probability, starts)[::-1] / total
    rate, everyone = bad / total, curve.bads / curve.total
    captured, upto = np.cumsum(bad) / max(curve.bads, TINY), np.cumsum(total) / curve.total
    header = ["tenth", "applicants", "bad", "bad rate", "predicted", "lift", "captured"]
    cells = [
        [
            f"{i + 1}{' (riskiest)' if i == 0 else ''}",
            f"{total[i]:,.0f}",
            f"{bad[i]:,.0f}",
            percent(rate[i]),
            percent(said[i]),
            f"{rate[i] / everyone:.2f}" if everyone else "-",
            percent(captured[i]),
        ]
        for i in range(len(total))
    ]
    canvas = Canvas(figsize=(max(7.0, table_width(header, cells)), 2.9 + 0.22 * (len(cells) + 2)), layout="constrained")
    grid = canvas.add_gridspec(2, 2, height_ratios=(2.9, 0.22 * (len(cells) + 2)))
    left, right = canvas.add_subplot(grid[0, 0]), canvas.add_subplot(grid[0, 1])
    left.plot([0, 100 * everyone, 100], [0, 100, 100], color=GREY, linewidth=1, label="perfect")
    left.plot([0, 100], [0, 100], "--", color=GREY, linewidth=1, label="by chance")
    left.plot(np.append(0, 100 * upto), np.append(0, 100 * captured), "o-", color=GOOD, markersize=3.5, label="model")
    left.set(xlabel="% of applicants, riskiest first", ylabel="% of the bad ones", xlim=(0, 100), ylim=(0, 101))
    left.legend(frameon=False, fontsize=8, loc="lower right")
    low, high = wilson(rate, total)
    places = np.arange(1, len(total) + 1)
    right.bar(places, 100 * rate, color=BAD, alpha=0.75)
    right.errorbar(places, 100 * rate, yerr=100 * np.maximum([rate - low, high - rate], 0), fmt="none", color=INK, lw=1)
    right.axhline(100 * everyone, color=INK, linewidth=1, linestyle="--")
    right.set(xlabel="tenth, riskiest first", ylabel="bad rate, %", xticks=places)
    for axes in (left, right):
        plain(axes)
    table(canvas.add_subplot(grid[1, :]), header, cells)
    return canvas
