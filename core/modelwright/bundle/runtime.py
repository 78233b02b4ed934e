"""A graph in ONNX Runtime, as a callable. Knows numpy and onnxruntime; knows no codec, no task and no torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.data import Input, Size
from modelwright.errors import BundleError

DTYPES = {"float": "float32", "double": "float64"}
"""ONNX Runtime's names of types that numpy calls otherwise."""


class Graph:
    """An ONNX file, ready to run on the CPU. Scores like any model: the evaluator takes it as a predictor.

    Args:
        path: the file; what it stores outside itself lies beside it.
        threads: of one call; all cores that this process may use when left out.

    Attributes:
        inputs: as the graph names them, without the batch axis; a `Size` where a dimension may change.
        outputs: the same for what it gives.

    Raises:
        BundleError: there is no such file, or it is no graph that ONNX Runtime takes.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        import onnxruntime  # half a second, which listing tasks must not cost

        self.path = Path(path)
        # A number of our own: with ONNX Runtime's choice it pins its threads, and complains where it may not.
        self.threads = threads or cores()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; its warnings are of optimizations that it left out
        if not self.path.is_file():
            raise BundleError(f"there is no graph {self.path}; write one: modelwright export RUN")
        try:
            self._session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base but this
            raise BundleError(
                f"{self.path} is no graph that ONNX Runtime takes: {_line(error)}; export it again"
            ) from error
        self.inputs = _specs(self._session.get_inputs())
        self.outputs = _specs(self._session.get_outputs())
        self._names = [spec.name for spec in self.outputs]

    def __call__(self, *arrays: Any) -> dict[str, np.ndarray]:
        """Its outputs by name.

        Args:
            arrays: one for each of `inputs`, batch first: whatever numpy takes as an array, tensors on the CPU too.

        Raises:
            BundleError: another number of arrays.
        """
        if len(arrays) != len(self.inputs):
            wanted = ", ".join(spec.name for spec in self.inputs)
            raise BundleError(f"{self.path} takes {len(self.inputs)} arrays ({wanted}), not {len(arrays)}")
        feed = {spec.name: np.asarray(array, order="C") for spec, array in zip(self.inputs, arrays, strict=True)}
        found = self._session.run(self._names, feed)
        return {name: np.asarray(value) for name, value in zip(self._names, found, strict=True)}


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _specs(nodes: Sequence[Any]) -> tuple[Input, ...]:
    return tuple(
        Input(node.name, tuple(_dimension(each) for each in node.shape[1:]), _dtype(node.type)) for node in nodes
    )


def _dimension(size: int | str | None) -> int | Size:
    return size if isinstance(size, int) else Size(size or "?")


def _dtype(kind: str) -> str:
    """``tensor(float)`` as numpy's ``float32``."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    return DTYPES.get(name, name)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
