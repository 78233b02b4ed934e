"""A table's row -> numbers and codes; log-odds -> probability, points, decision. Knows numpy; no torch, no model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from modelwright.codec import Codec, Columns, Context, Sample
from modelwright.errors import DataError, did_you_mean
from modelwright_risk import calibration, decision
from modelwright_risk.cells import levels_of, numbers, plain
from modelwright_risk.rows import Rows
from modelwright_risk.schema import Feature, Schema

SHOWN = 40
"""Characters of a cell that an error shows."""
OUTPUTS = ("logit", "probability", "points", "refused", "decision", "reasons")
"""What predictions are called; no identifier may be."""


@dataclass(frozen=True)
class RiskCodec(Codec):
    """Cells as they stand in a table; what they mean to the model is part of the model.

    Attributes:
        columns: the schema, as JSON values.
        identifiers: columns passed through to the predictions.
        calibrator: from log-odds to probabilities, see `calibration.apply`.
        cutoff: refuse from this probability of default on.
        scale: base_points, base_odds and double, see `decision.points`.
        reasons: by feature, what a refused applicant is told.
        top: reasons that are given at most.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".parquet", ".csv.gz", ".csv.zip", ".csv.xz")
    batch_size: ClassVar[int] = 8192

    columns: tuple[Mapping[str, Any], ...]
    identifiers: tuple[str, ...] = ()
    calibrator: Mapping[str, Any] = field(default_factory=lambda: {"kind": "none"})
    cutoff: float = 0.5
    scale: Mapping[str, float] = field(
        default_factory=lambda: {"base_points": 600.0, "base_odds": 50.0, "double": 20.0}
    )
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])
    top: int = 4

    def __post_init__(self) -> None:
        # JSON has no tuples: made again from its settings, the codec must be equal to itself.
        for name in ("columns", "identifiers", "calibrator"):
            object.__setattr__(self, name, _tuples(getattr(self, name)))

    @cached_property
    def schema(self) -> Schema:
        """The columns that the model sees."""
        return Schema.from_json(self.columns)

    # Before the model -------------------------------------------------------------------------------------------

    def prepare(self, raws: Sequence[Any]) -> list[Sample]:
        """Rows (dicts: column -> cell, or `Rows`) as samples; further columns are passed over, the target too.

        Raises:
            DataError: no row, a missing column, text or infinity where a number belongs, or a line that `read` gave
                as an error.
        """
        arrays, context = self._converted(self._rows(raws))
        return [
            Sample(
                {name: array[row] for name, array in arrays.items()},
                row,
                {name: column[row] for name, column in context.columns.items()},
            )
            for row in range(len(context.rows))
        ]

    def collate(self, samples: Sequence[Sample]) -> tuple[dict[str, np.ndarray], Context]:
        """Samples as arrays `numbers` (batch, n) float32 and `codes` (batch, c) int64; one of no width is left out."""
        arrays, context = super().collate(samples)
        columns = {name: [sample.context[name] for sample in samples] for name in self.identifiers}
        return arrays, Context(context.rows, columns=columns)

    def batches(self, raws: Sequence[Any], *, size: int) -> Iterator[tuple[dict[str, np.ndarray], Context]]:
        """The same, whole columns at once.

        Raises:
            DataError: see `prepare`.
        """
        rows = self._rows(raws)
        for start in range(0, len(rows), size):
            arrays, context = self._converted(rows[start : start + size])
            yield arrays, Context(context.rows + start, columns=context.columns)

    def many(self, x: Any) -> Sequence[Any] | None:
        """A table (of pandas, polars, pyarrow; a dict of arrays) as `Rows`, a list as it is; None: it is one row.

        Raises:
            DataError: arrays of different lengths.
        """
        try:
            return x if isinstance(x, list) else Rows.of(x)
        except ValueError as error:
            raise DataError(f"this is no table: {error}") from error

    def _rows(self, raws: Sequence[Any]) -> Rows:
        if isinstance(raws, Rows):
            return raws
        for place, raw in enumerate(raws):
            if isinstance(raw, DataError):  # a line of a file that could not be read
                raise raw
            if not isinstance(raw, Mapping):
                raise DataError(f"row {place} is a {type(raw).__name__}: give a dict from column to cell, or a table")
        try:
            rows = Rows.of_dicts(raws, (feature.name for feature in self.schema.features))
        except KeyError as error:
            name, place = error.args
            raise self._no_column(name, raws[place]) from None
        rows.columns |= {name: [raw.get(name) for raw in raws] for name in self.identifiers}
        return rows

    def _no_column(self, name: str, there: Mapping[str, Any]) -> DataError:
        has = ", ".join(list(there)[:8]) + (", ..." if len(there) > 8 else "")
        return DataError(f"there is no column {name}{did_you_mean(name, there)}: the model needs it; there are {has}")

    def _converted(self, rows: Rows) -> tuple[dict[str, np.ndarray], Context]:
        schema, count = self.schema, len(rows)
        for feature in schema.features:
            if feature.name not in rows.columns:
                raise self._no_column(feature.name, rows.columns)
        arrays: dict[str, np.ndarray] = {}
        if schema.numeric:
            found = np.empty((count, len(schema.numeric)), dtype=np.float32)
            for place, feature in enumerate(schema.numeric):
                values = numbers(rows.columns[feature.name])
                if len(values) and np.isposinf(np.fmax.reduce(values)):
                    raise _no_number(feature, rows, int(np.flatnonzero(np.isposinf(values))[0]))
                found[:, place] = values
            arrays["numbers"] = found
        if schema.categorical:
            codes = np.empty((count, len(schema.categorical)), dtype=np.int64)
            for place, feature in enumerate(schema.categorical):
                codes[:, place] = levels_of(feature.levels).codes(rows.columns[feature.name])
            arrays["codes"] = codes
        columns = {name: _cells(rows.columns.get(name), count) for name in self.identifiers}
        return arrays, Context(np.arange(count, dtype=np.int64), columns=columns)

    # After the model --------------------------------------------------------------------------------------------

    def decode(self, outputs: Mapping[str, np.ndarray], context: Context | None) -> Columns:
        """Columns `logit` (as the model gave it), `probability` of default (calibrated), `points`, `refused` (bool).

        Identifiers stand beside them where `context` has them.
        """
        logit = np.asarray(outputs["logit"])
        probability = calibration.apply(self.calibrator, logit)
        return Columns(
            {
                **(context.columns if context is not None else {}),
                "logit": logit,
                "probability": probability,
                "points": decision.points(probability, **self.scale),
                "refused": probability >= self.cutoff,
            }
        )

    def explain(self, outputs: Mapping[str, np.ndarray], context: Context | None) -> Columns:
        """The columns of `decode` and `reasons`: for each row at most `top` texts, what adds most risk first.

        Args:
            outputs: `logit`, and `attributions` (batch, features): log-odds that each feature of `Schema.ordered` adds.
        """
        attributions = np.asarray(outputs["attributions"])
        words = [self.reasons.get(feature.name, feature.name) for feature in self.schema.ordered]
        leading = np.argsort(-attributions, axis=1, kind="stable")[:, : self.top]
        adds = np.take_along_axis(attributions, leading, axis=1) > 0
        told = [
            [words[place] for place, more in zip(places, mores, strict=True) if more]
            for places, mores in zip(leading.tolist(), adds.tolist(), strict=True)
        ]
        decoded = self.decode(outputs, context)
        return Columns({**dict(decoded.items()), "reasons": told}, decoded.ids)

    def records(self, predictions: Columns) -> list[dict[str, Any]]:
        """Identifiers, decision ("refuse" or "accept"), probability of default, points, and reasons where there are."""
        columns: dict[str, list[Any]] = {
            name: [plain(cell) for cell in predictions[name]] for name in predictions if name not in OUTPUTS
        }
        columns["decision"] = ["refuse" if each else "accept" for each in predictions.array("refused").tolist()]
        columns["probability"] = predictions.array("probability").round(6).tolist()
        columns["points"] = predictions.array("points").round(1).tolist()
        if "reasons" in predictions:
            columns["reasons"] = list(predictions["reasons"])
        names = list(columns)
        return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    # Files ------------------------------------------------------------------------------------------------------

    def read(self, path: Path) -> Iterator[tuple[str, Any]]:
        """The rows of a CSV or Parquet file as dicts, each named "file.csv:17" by its line (Parquet: its row).

        A line with too few or too many cells comes as an error, which `prepare` raises: the others are answered.

        Raises:
            DataError: the file cannot be read, or is no table.
        """
        from modelwright_risk.tables import rows_of  # pyarrow

        return rows_of(path)


def _tuples(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_tuples(each) for each in cast("Sequence[Any]", value))
    if isinstance(value, Mapping):
        return {name: _tuples(each) for name, each in cast("Mapping[str, Any]", value).items()}
    return value


def _no_number(feature: Feature, rows: Rows, row: int) -> DataError:
    cell = rows[row : row + 1][0][feature.name]
    where = f"row {rows.first + row}: " if len(rows) > 1 else ""
    return DataError(
        f"{where}column {feature.name} holds '{str(cell)[:SHOWN]}', which is no finite number: mend it, or leave the "
        "cell empty"
    )


def _cells(column: Any, count: int) -> list[Any] | np.ndarray:
    """A column of identifiers; None throughout where there is none."""
    if column is None:
        return [None] * count
    if isinstance(column, (np.ndarray, list)):
        return cast("list[Any] | np.ndarray", column)
    return column.to_pylist() if hasattr(column, "to_pylist") else list(column)
