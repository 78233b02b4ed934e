"""A line of numbers cut at edges: into the edges themselves and what lies between. Knows numpy only.

Whether a value on an edge belongs to the bin below or above is for the network to say; here both stay possible.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

SAME = 1e-6
"""Log-odds that differ by less are those of one bin."""


@dataclass(frozen=True)
class Atoms:
    """Pieces in ascending order: below the first edge, it, between it and the second, ..., above the last.

    Attributes:
        edges: float32, ascending, each once.
        cells: a value out of each piece; where a piece holds no value, that of the piece before.
    """

    edges: np.ndarray
    cells: list[float]

    @staticmethod
    def of(edges: np.ndarray, *, avoid: Iterable[float] = ()) -> Atoms:
        """From edges, which may repeat.

        Args:
            avoid: values that mean something else (special codes) and stand for no piece.
        """
        kept = np.unique(edges.astype(np.float32))
        special = {float(np.float32(each)) for each in avoid}
        cells: list[float] = []
        lower = float(kept[0]) - 1 - abs(float(kept[0]))
        for edge in kept.tolist():
            cells.append(_between(lower, edge, special))
            cells.append(edge if edge not in special else cells[-1])
            lower = edge
        last = float(kept[-1])
        cells.append(_between(last, last + 1 + abs(last), special))
        return Atoms(kept, cells)

    def grouped(self, worth: np.ndarray) -> list[list[int]]:
        """Neighbouring pieces that are worth the same, together."""
        groups: list[list[int]] = []
        for piece, value in enumerate(worth.tolist()):
            if groups and abs(value - worth[groups[-1][0]]) <= SAME:
                groups[-1].append(piece)
            else:
                groups.append([piece])
        return groups

    def place(self, values: np.ndarray, groups: Sequence[Sequence[int]]) -> np.ndarray:
        """The group of each value; that of NaN means nothing."""
        at = np.searchsorted(self.edges, values)
        on = self.edges[np.minimum(at, len(self.edges) - 1)] == values
        group_of = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        # NaN is sorted behind everything.
        return group_of[np.minimum(2 * at + on, len(group_of) - 1)]

    def words(self, group: Sequence[int]) -> str:
        """A group of neighbouring pieces, for people."""
        first, last = group[0], group[-1]
        # An odd piece is an edge: it is part of the group.
        low = None if first == 0 else _text(self.edges[(first - 1) // 2])
        high = None if last == 2 * len(self.edges) else _text(self.edges[last // 2])
        with_low, with_high = first % 2 == 1, last % 2 == 1
        if low is None and high is None:
            return "any"
        if low is None:
            return f"up to {high}" if with_high else f"below {high}"
        if high is None:
            return f"{low} and more" if with_low else f"above {low}"
        if low == high:
            return low
        if with_low:
            return f"{low} to {high}" if with_high else f"{low} to below {high}"
        return f"above {low} to {high}" if with_high else f"between {low} and {high}"


def _between(low: float, high: float, avoid: set[float]) -> float:
    """A float32 above `low` and below `high`; `low` where there is none."""
    for part in (0.5, 0.4, 0.6, 0.3, 0.7):
        value = float(np.float32(low + part * (high - low)))
        if low < value < high and value not in avoid:
            return value
    return low


def _text(value: np.float32) -> str:
    return np.format_float_positional(value, trim="-")
