"""Compares a written graph with its model on real samples. Knows torch and the contract, no exporter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from modelwright.bundle.runtime import Graph
from modelwright.data import Dataset, Input, Keys, Size
from modelwright.errors import BundleError, ExportError
from modelwright.task import Task
from modelwright.training.loading import fetch

TOLERANCE = 1e-3
"""How far graph and model may lie apart, as a share of the largest value of an output."""
BATCHES = (1, 3)
SEARCHED = 32
"""Samples looked at for one of another size."""

Arrays = tuple[Tensor, ...]


@dataclass(frozen=True)
class Compared:
    """One comparison. `gap`: the largest difference, as a share of the output's largest value; `output`: where."""

    batch: int
    sizes: dict[str, int]
    output: str
    gap: float


@dataclass(frozen=True)
class Agreement:
    """How closely a graph follows its model on real samples.

    Attributes:
        exporter: "dynamo", or "torchscript" where only the older one could write it.
        opset: of an ONNX graph; None for another.
        tolerance: the largest gap that was allowed.
        cases: what was compared: two batches, and another size of each dimension that may change.
    """

    exporter: str
    opset: int | None
    tolerance: float
    cases: tuple[Compared, ...]

    @property
    def gap(self) -> float:
        """The largest gap of all."""
        return max(case.gap for case in self.cases)

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "gap": self.gap}


class Samples:
    """Real samples as the model takes them, in the sizes that are to be compared."""

    def __init__(self, task: Task, dataset: Dataset, *, seed: int) -> None:
        self._task, self._dataset, self._seed = task, dataset, seed
        self._sizes = {s.name: s for spec in task.inputs for s in spec.shape if isinstance(s, Size)}
        self.example = self._rows(max(BATCHES))

    def cases(self) -> Iterator[Arrays]:
        """Batches of 1 and 3, then one sample of another size for each dimension that may change."""
        for batch in BATCHES:
            yield self._rows(batch)
        for name in self._sizes:
            yield self._other(name)

    def sizes(self, arrays: Arrays) -> dict[str, int]:
        """What each changing dimension is in `arrays`."""
        return sizes_of(self._task.inputs, arrays)

    def _rows(self, count: int, *, start: int = 0) -> Arrays:
        """The first samples from `start` on; repeated where there are too few."""
        indices = (start + np.arange(min(count, len(self._dataset)))) % len(self._dataset)
        batch = fetch(self._task, self._dataset, Keys(self._seed, 0, 1, indices.astype(np.int64)))
        assert batch is not None
        rows = torch.arange(count) % len(batch.inputs[0])
        return tuple(tensor[rows] for tensor in batch.inputs)

    def _other(self, name: str) -> Arrays:
        """A sample whose dimension `name` differs from the example's: a real one, else one cut or repeated."""
        usual = self.sizes(self.example)[name]
        for start in range(min(SEARCHED, len(self._dataset))):
            found = self._rows(1, start=start)
            if self.sizes(found)[name] != usual:
                return found
        size = self._sizes[name]
        low = -(-max(size.minimum, 1) // size.multiple) * size.multiple
        wanted = max(low, usual // 2 // size.multiple * size.multiple)
        if wanted == usual:
            wanted = usual + size.multiple
        return tuple(
            _resized(tensor, [axis for axis, s in enumerate(spec.shape, start=1) if s == size], wanted)
            for spec, tensor in zip(self._task.inputs, self._rows(1), strict=True)
        )


def sizes_of(inputs: Sequence[Input], arrays: Sequence[Any]) -> dict[str, int]:
    """What each dimension that may change is in `arrays`."""
    return {
        size.name: int(array.shape[axis])
        for spec, array in zip(inputs, arrays, strict=True)
        for axis, size in enumerate(spec.shape, start=1)
        if isinstance(size, Size)
    }


def _resized(tensor: Tensor, axes: Sequence[int], size: int) -> Tensor:
    for axis in axes:
        rows = torch.arange(size) % tensor.shape[axis]
        tensor = tensor.index_select(axis, rows)
    return tensor


def compare(
    path: Path,
    task: Task,
    served: nn.Module,
    cases: Iterator[Arrays],
    *,
    exporter: str = "dynamo",
    open_graph: Callable[..., Graph] = Graph,
) -> Agreement:
    """Runs graph and model on the same inputs.

    Args:
        exporter: its name, which becomes part of what is given back.
        open_graph: ``(path, threads=...)`` -> the graph, ready to run.

    Raises:
        ExportError: an output is missing or differs by more than the tolerance, or either side fails.
    """
    try:
        graph = open_graph(path, threads=1)
    except BundleError as error:
        raise ExportError(f"its runtime refuses the graph: {error}") from error
    compared: list[Compared] = []
    for arrays in cases:
        sizes = sizes_of(task.inputs, arrays)
        where = ", ".join([f"batch {len(arrays[0])}", *(f"{name} {size}" for name, size in sizes.items())])
        expected = _run("the model", lambda arrays=arrays: served(*arrays), where)
        found = _run("its graph", lambda arrays=arrays: graph(*arrays), where)
        if set(found) != set(expected):
            raise ExportError(
                f"the graph gives {', '.join(found)} and the model {', '.join(expected)}: the exporter has to keep the "
                "names of outputs"
            )
        for name, value in expected.items():
            gap = _gap(value.detach().numpy(), np.asarray(found[name]))
            allowed = TOLERANCE if value.is_floating_point() else 0.0
            if not gap <= allowed:
                raise ExportError(
                    f"graph and model disagree at {where}: '{name}' by {gap:.3g} of its largest value "
                    f"(allowed: {allowed:g}); nothing was written"
                )
            compared.append(Compared(len(arrays[0]), sizes, name, gap))
    return Agreement(exporter, _opset(path), TOLERANCE, tuple(compared))


def _opset(path: Path) -> int | None:
    if path.suffix != ".onnx":
        return None
    return max(each.version for each in onnx.load(path, load_external_data=False).opset_import if not each.domain)


def _run(what: str, call: Callable[[], Mapping[str, Any]], where: str) -> Mapping[str, Any]:
    try:
        return call()
    except Exception as error:
        raise ExportError(
            f"{what} fails at {where}, which `inputs` allows ({reason_of(error)}): mend the model, or `inputs`"
        ) from error


def _gap(expected: np.ndarray, found: np.ndarray) -> float:
    """The largest difference as a share of the largest value; infinite for other shapes or kinds of numbers.

    >>> _gap(np.array([1.0, -2.0]), np.array([1.0, -1.9])).__round__(3)
    0.05
    """
    if expected.shape != found.shape or expected.dtype.kind != found.dtype.kind:
        return float("inf")
    if expected.size == 0:
        return 0.0
    if expected.dtype.kind != "f":
        return 0.0 if np.array_equal(expected, found) else float("inf")
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], found[~finite], equal_nan=True):
        return float("inf")
    scale = float(np.abs(expected[finite]).max(initial=0.0))
    apart = float(np.abs(expected[finite].astype(np.float64) - found[finite]).max(initial=0.0))
    return apart / max(scale, float(np.finfo(np.float32).tiny))


def reason_of(error: BaseException) -> str:
    """What went wrong at the bottom of it, as one short line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
