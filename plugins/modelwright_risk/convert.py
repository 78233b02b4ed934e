"""Cells -> the arrays that a model is trained on. Knows columns and what is known of them; no files, no splits."""

# pyarrow has no annotations.
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from modelwright_risk.cells import levels_of, numbers, text_of
from modelwright_risk.kinds import band_codes
from modelwright_risk.known import Known
from modelwright_risk.schema import Schema
from modelwright_risk.targets import outcome

SHOWN = 40
"""Characters of a cell that an error shows."""


@dataclass(frozen=True)
class Block:
    """Rows, converted.

    Attributes:
        schema: of the columns below.
        numbers: float32 (N, n), infinite where a cell is no finite number.
        codes: int64 (N, c).
        bad: bool (N,), False where it is not known.
        ended: bool (N,), whether the target has a value.
        weight: float32 (N,), infinite where it is none; None: all weigh the same.
        groups: protected column -> int64 (N,).
    """

    schema: Schema
    numbers: np.ndarray
    codes: np.ndarray
    bad: np.ndarray
    ended: np.ndarray
    weight: np.ndarray | None
    groups: Mapping[str, np.ndarray]

    def usable(self) -> np.ndarray:
        """Which rows a model can be trained or scored on: bool (N,)."""
        fine = self.ended & ~np.isposinf(self.numbers).any(axis=1)
        return fine if self.weight is None else fine & np.isfinite(self.weight)

    def reason(self, row: int, cells: pa.Table, *, target: str, weight: str | None) -> str:
        """Why a row cannot be used."""
        if not self.ended[row]:
            return f"the target {target} has no value"
        wrong = np.flatnonzero(np.isposinf(self.numbers[row]))
        name = self.schema.numeric[int(wrong[0])].name if len(wrong) else str(weight)
        cell = text_of(cells[name][row].as_py())
        shown = "nothing" if cell is None else f"'{cell[:SHOWN]}'"
        return f"{name} is {shown}, which is no {'finite number' if len(wrong) else 'weight'}"

    def without(self, names: Sequence[str]) -> Block:
        """The same without some columns."""
        if not names:
            return self
        schema = Schema(tuple(feature for feature in self.schema.features if feature.name not in names))
        kept = [[each.name not in names for each in side] for side in (self.schema.numeric, self.schema.categorical)]
        return replace(self, schema=schema, numbers=self.numbers[:, kept[0]], codes=self.codes[:, kept[1]])


def convert(cells: pa.Table, known: Known, *, weight: str | None) -> Block:
    """Converts rows; what cannot be used stays in them, see `Block.usable`.

    Args:
        weight: the column of sample weights.

    Raises:
        DataError: the target has a third value.
    """
    schema = known.schema
    columns = np.empty((cells.num_rows, len(schema.numeric)), dtype=np.float32)
    for place, feature in enumerate(schema.numeric):
        columns[:, place] = numbers(cells[feature.name])
    codes = np.empty((cells.num_rows, len(schema.categorical)), dtype=np.int64)
    for place, feature in enumerate(schema.categorical):
        codes[:, place] = levels_of(feature.levels).codes(cells[feature.name])
    ended = outcome(cells[known.target], known.target, bad=None, names=(known.bad, known.good))
    weights = None
    if weight is not None:
        weights = numbers(cells[weight])
        weights = np.where(weights >= 0, weights, np.inf).astype(np.float32)
    groups = {
        name: band_codes(numbers(cells[name]), known.edges[name])
        if name in known.edges
        else levels_of(tuple(levels)).codes(cells[name])
        for name, levels in known.protected.items()
    }
    return Block(schema, columns, codes, ended.bad, ended.known, weights, groups)
