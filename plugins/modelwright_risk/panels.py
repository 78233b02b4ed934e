"""What several pictures share: colours, tables as pictures, intervals of shares. Knows matplotlib and numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

# Okabe and Ito's colours: told apart by the colour-blind, and in print by their lightness.
GOOD, MIDDLE, BAD, TRUE = "#0072b2", "#e69f00", "#d55e00", "#009e73"
GREY, INK = "#a0aec0", "#4a5568"
LETTER = 0.075
"""Inches that a letter of a table takes."""


def plain(axes: Axes) -> None:
    """No frame where there is no scale."""
    axes.spines[["top", "right"]].set_visible(False)


def short(name: object, *, most: int = 24) -> str:
    """A name that fits; both ends are kept, and no dollar is left that would start a formula."""
    text = str(name)
    half = (most - 1) // 2
    cut = text if len(text) <= most else f"{text[: most - 1 - half]}…{text[-half:]}"
    return cut.replace("$", r"\$")


def percent(share: float) -> str:
    """A share in words; small ones keep a digit that tells.

    >>> percent(0.123), percent(0.0123), percent(0.00512), percent(0.000045), percent(0), percent(float("nan"))
    ('12.3 %', '1.2 %', '0.51 %', '0.0045 %', '0 %', '-')
    """
    if np.isnan(share):
        return "-"
    value = 100 * share
    return f"{value:.1f} %" if value >= 1 else f"{value:.2g} %"


def wilson(share: np.ndarray, count: np.ndarray, *, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound of a share that was seen in `count` rows; 95 % by default.

    Wilson: Probable Inference, the Law of Succession, and Statistical Inference, JASA 1927.
    """
    n = np.maximum(count, np.finfo(np.float64).tiny)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


def table_width(header: Sequence[str], rows: Sequence[Sequence[str]]) -> float:
    """Inches."""
    return LETTER * sum(_letters(header, rows))


def table(axes: Axes, header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Text in columns; the first `left` columns start at their left, the others end at their right."""
    letters = _letters(header, rows)
    ends = np.cumsum(letters)
    axes.set_axis_off()
    axes.set(xlim=(0, ends[-1]), ylim=(len(rows) - 0.4, -1.5))
    for line, cells in enumerate([header, *rows], start=-1):
        for column, (cell, end, size) in enumerate(zip(cells, ends, letters, strict=True)):
            place = end - size if column < left else end - 1
            axes.text(
                place,
                line,
                cell,
                ha="left" if column < left else "right",
                va="center",
                fontsize=8,
                color=INK if line < 0 else "black",
                weight="bold" if line < 0 else "normal",
            )
        if line >= 0:
            axes.axhline(line - 0.5, color=INK if line == 0 else "#e2e8f0", linewidth=0.8)


def table_canvas(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> Canvas:
    """A table as a picture."""
    size = max(table_width(header, rows), 3.0), 0.22 * (len(rows) + 1.6)
    canvas = Canvas(figsize=size, layout="constrained")
    table(canvas.subplots(), header, rows, left=left)
    return canvas


def _letters(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[float]:
    return [max(len(row[column].replace("\\", "")) for row in [header, *rows]) + 2.5 for column in range(len(header))]
