"""Rows as a dataset: all in tensors, a batch with one index for each. Knows no files and no models."""

# pyarrow has no annotations.
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from modelwright.task import Batch, Example, Key, Keys
from modelwright_risk.cells import number, plain
from modelwright_risk.known import Known


class Table:
    """Rows in memory.

    Args:
        numbers: float32 (N, n), raw; NaN where there is no value.
        codes: int64 (N, c), see `schema`.
        bad: bool (N,).
        cells: the rows as they were read, for people.
        where: the place of a row, by its place here.

    Attributes:
        known: columns, outcomes, groups.
        bad: float32 (N,), 1 where it ended badly.
        weight: float32 (N,), or None.
        groups: protected column -> int64 (N,).
        true_probability: float32 (N,) where it is known, or None.
    """

    def __init__(
        self,
        known: Known,
        *,
        numbers: np.ndarray,
        codes: np.ndarray,
        bad: np.ndarray,
        cells: pa.Table,
        where: Callable[[int], str],
        weight: np.ndarray | None = None,
        groups: Mapping[str, np.ndarray] | None = None,
        true_probability: np.ndarray | None = None,
    ) -> None:
        self.known = known
        self.numbers = torch.from_numpy(np.ascontiguousarray(numbers, dtype=np.float32))
        self.codes = torch.from_numpy(np.ascontiguousarray(codes, dtype=np.int64))
        self.bad = torch.from_numpy(bad.astype(np.float32))
        self.weight = None if weight is None else torch.from_numpy(weight.astype(np.float32))
        self.groups = {name: torch.from_numpy(each.astype(np.int64)) for name, each in (groups or {}).items()}
        self.true_probability = (
            None if true_probability is None else torch.from_numpy(true_probability.astype(np.float32))
        )
        self._cells = cells
        self._where = where

    def __len__(self) -> int:
        return len(self.bad)

    def __getitem__(self, key: Key) -> Example:
        """A row as a dict, and what is true of it."""
        return Example(
            self.row(key.index), {name: values[key.index].cpu().numpy() for name, values in self._targets().items()}
        )

    def __getitems__(self, keys: Keys) -> Batch:
        """A whole batch; an input of no width is left out."""
        ids = np.asarray(keys.indices, dtype=np.int64)
        rows = torch.from_numpy(ids).to(self.bad.device)
        # index_select copies whole rows; indexing with a tensor costs several times as much.
        inputs = tuple(each.index_select(0, rows) for each in (self.numbers, self.codes) if each.shape[1])
        return Batch(inputs, {name: each.index_select(0, rows) for name, each in self._targets().items()}, ids)

    def to(self, device: torch.device) -> Table:
        """Itself, with its tensors on `device`."""
        self.numbers, self.codes, self.bad = (each.to(device) for each in (self.numbers, self.codes, self.bad))
        self.weight = None if self.weight is None else self.weight.to(device)
        self.groups = {name: each.to(device) for name, each in self.groups.items()}
        if self.true_probability is not None:
            self.true_probability = self.true_probability.to(device)
        return self

    def row(self, index: int) -> dict[str, Any]:
        """A row as it was read: column -> cell; numeric features as numbers."""
        return row_of(self._cells, index, self.known)

    def name_of(self, index: int) -> str:
        """Where a row stands: "loans.csv:17"."""
        return self._where(index)

    def _targets(self) -> dict[str, Tensor]:
        targets = {"bad": self.bad, **{f"group/{name}": each for name, each in self.groups.items()}}
        if self.weight is not None:
            targets["weight"] = self.weight
        if self.true_probability is not None:
            targets["true_probability"] = self.true_probability
        return targets


def row_of(cells: pa.Table, index: int, known: Known) -> dict[str, Any]:
    """One row of a table as plain values, by column; text in a numeric feature as a number."""
    row = {name: plain(column[index].as_py()) for name, column in zip(cells.column_names, cells.columns, strict=True)}
    for feature in known.schema.numeric:
        cell = row[feature.name]
        if isinstance(cell, str):
            value = number(cell)
            row[feature.name] = None if value != value else int(value) if value.is_integer() else value
    return row
