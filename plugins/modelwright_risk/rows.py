"""A table as a sequence of rows that is sliced and converted column by column. Knows numpy; no files, no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast, overload

import numpy as np

from modelwright_risk.cells import is_arrow, plain_row


class Rows(Sequence[dict[str, Any]]):
    """Rows held as columns.

    A slice shares the columns' memory; an index gives the row as a dict.

    Args:
        columns: name -> numpy array, list or pyarrow array, all of one length.
        first: the number of its first row in the table that it is a slice of.

    Raises:
        ValueError: the columns differ in length.

    >>> table = Rows({"age": [31, 52], "job": ["clerk", None]})
    >>> table[1]
    {'age': 52, 'job': None}
    >>> len(table[1:])
    1
    """

    def __init__(self, columns: Mapping[str, Any], *, size: int | None = None, first: int = 0) -> None:
        self.columns = dict(columns)
        self.first = first
        sizes = {len(column) for column in self.columns.values()}
        if len(sizes) > 1:
            lengths = ", ".join(f"{name} {len(column)}" for name, column in self.columns.items())
            raise ValueError(f"columns differ in length: {lengths}")
        self._size = sizes.pop() if sizes else size or 0

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int, /) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice, /) -> Rows: ...
    def __getitem__(self, index: int | slice, /) -> dict[str, Any] | Rows:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._size)
            if step != 1:
                raise ValueError("rows are sliced in one piece: leave out the step")
            size = max(stop - start, 0)
            return Rows(
                {name: _part(column, start, size) for name, column in self.columns.items()},
                size=size,
                first=self.first + start,
            )
        if not -self._size <= index < self._size:
            raise IndexError(f"row {index} of {self._size}")
        return plain_row({name: _cell(column, index % self._size) for name, column in self.columns.items()})

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[row] for row in range(self._size))

    @staticmethod
    def of_dicts(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> Rows:
        """Rows given as dicts, of which only the columns `names` are kept.

        Raises:
            KeyError: (name, row) of a cell that is not there.
        """
        columns: dict[str, list[Any]] = {}
        for name in names:
            try:
                columns[name] = [row[name] for row in rows]
            except KeyError:
                missing = next(place for place, row in enumerate(rows) if name not in row)
                raise KeyError(name, missing) from None
        return Rows(columns, size=len(rows))

    @staticmethod
    def of(x: Any) -> Rows | None:
        """A table of pandas, polars or pyarrow, or a dict of arrays; None where `x` is something else.

        Raises:
            ValueError: columns of different lengths.
        """
        if isinstance(x, Rows):
            return x
        package = type(x).__module__.partition(".")[0]
        if isinstance(x, Mapping):
            columns = {str(name): column for name, column in cast("Mapping[Any, Any]", x).items()}
            return Rows(columns) if columns and all(map(_is_column, columns.values())) else None
        if package == "pandas" and hasattr(x, "columns"):
            return Rows({str(name): _of_series(series) for name, series in x.items()}, size=len(x))
        if package == "polars" and hasattr(x, "to_arrow"):
            x, package = x.to_arrow(), "pyarrow"
        if package == "pyarrow" and hasattr(x, "column_names"):
            return Rows({name: x.column(place) for place, name in enumerate(x.column_names)}, size=x.num_rows)
        return None


def _is_column(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple)) or (hasattr(value, "__len__") and hasattr(value, "dtype")) or is_arrow(value)
    )


def _of_series(series: Any) -> Any:
    if isinstance(series.dtype, np.dtype):
        return series.to_numpy()
    values = series.array
    if hasattr(values, "__arrow_array__"):  # text of pandas 3, nullable and categorical columns
        import pyarrow as pa

        try:
            return pa.array(series, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            pass  # cells of several types
    return series.to_numpy(dtype=object)


def _part(column: Any, start: int, size: int) -> Any:
    return column.slice(start, size) if is_arrow(column) else column[start : start + size]


def _cell(column: Any, row: int) -> Any:
    cell = column.iloc[row] if hasattr(column, "iloc") else column[row]
    return cell.as_py() if is_arrow(cell) else cell
