"""Runs a graph with OpenVINO: model.xml with its model.bin, or model.onnx. Imports no torch; knows no bundle.

OpenVINO is the optional extra `openvino`; nothing of it is imported before a graph is opened.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.bundle.runtime import Graph
from modelwright.data import Input, Size
from modelwright.errors import BundleError

EXTRA = "modelwright[openvino]"
SILENT = {"CI": "true", "NNCF_CI": "1"}
"""What OpenVINO and NNCF look for when they are imported, before they report to their makers what they are used for."""


def silent_import(name: str) -> Any:
    """The module `openvino` or `nncf`, told to keep to itself: nothing leaves the machine.

    Raises:
        ImportError: it is not installed.
    """
    before = {each: os.environ.get(each) for each in SILENT}
    os.environ.update(SILENT)
    try:
        return importlib.import_module(name)
    finally:
        for each, value in before.items():
            if value is None:
                del os.environ[each]
            else:
                os.environ[each] = value


class OpenVINOGraph(Graph):
    """A graph in OpenVINO, on the CPU.

    Raises:
        BundleError: OpenVINO is not installed, there is no such file, or it is no graph that OpenVINO takes.
    """

    runtime = "OpenVINO"
    package = "openvino"

    @property
    def files(self) -> list[Path]:
        """The graph and, where it is one of OpenVINO's own, its weights."""
        if self.path.suffix != ".xml":
            return super().files
        return [self.path.with_suffix(".bin"), self.path]

    def load(self) -> None:
        try:
            core = silent_import("openvino").Core()
        except ImportError as error:
            raise BundleError(f'{self.path} runs in OpenVINO, which is not installed: pip install "{EXTRA}"') from error
        model = core.read_model(str(self.path))
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": self.threads,
                "PERFORMANCE_HINT": "LATENCY",
                # Left alone it computes in 16 bits where the processor can: a graph then says other things there.
                "INFERENCE_PRECISION_HINT": "f32",
                # Pinned, graphs of several processes share some cores and leave others idle.
                "ENABLE_CPU_PINNING": False,
            },
        )
        # One request: it holds the memory of a call, so that calls take turns.
        self._request, self._lock = compiled.create_infer_request(), threading.Lock()
        # Names of the model: the compiled one's outputs are also called by what was folded into them.
        self.inputs, self.outputs = _specs(model.inputs), _specs(model.outputs)

    def run(self, arrays: Sequence[np.ndarray]) -> Sequence[Any]:
        with self._lock:
            found = self._request.infer(dict(enumerate(arrays)), share_inputs=True)
            return [found[number] for number in range(len(self.outputs))]


def _specs(ports: Sequence[Any]) -> tuple[Input, ...]:
    return tuple(
        Input(port.get_any_name(), _shape(port.get_partial_shape()), port.get_element_type().to_dtype().name)
        for port in ports
    )


def _shape(shape: Any) -> tuple[int | Size, ...]:
    """Without the batch axis; what may change has no name in OpenVINO."""
    dimensions = list(shape)[1:] if shape.rank.is_static else []
    return tuple(each.get_length() if each.is_static else Size("?") for each in dimensions)
