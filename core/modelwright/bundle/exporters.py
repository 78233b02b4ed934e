"""The runtimes that the core writes graphs for, as records. Imports neither torch nor a runtime.

What writes stands in `export.py` and `openvino_export.py`, what reads in `runtime.py` and `openvino_graph.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from modelwright.hookspecs import ExporterEntry, hookimpl

if TYPE_CHECKING:
    from modelwright.bundle.export import Export
    from modelwright.bundle.runtime import Graph


def write_onnx(export: Export, target: Path) -> str:
    """Imports torch."""
    return export.write_onnx(target)


def open_onnx(path: Path, *, threads: int | None = None) -> Graph:
    """Imports ONNX Runtime."""
    from modelwright.bundle.runtime import Graph

    return Graph(path, threads=threads)


def write_openvino(export: Export, target: Path) -> str:
    """Imports torch and OpenVINO."""
    from modelwright.bundle import openvino_export

    return openvino_export.write(export, target)


def open_openvino(path: Path, *, threads: int | None = None) -> Graph:
    """Imports OpenVINO."""
    from modelwright.bundle.openvino_graph import OpenVINOGraph

    return OpenVINOGraph(path, threads=threads)


ONNX = ExporterEntry("onnxruntime", "ONNX Runtime: runs everywhere", write=write_onnx, open=open_onnx)
OPENVINO = ExporterEntry(
    "openvino",
    "OpenVINO: attention and large batches on processors of Intel's and AMD's",
    write=write_openvino,
    open=open_openvino,
    graph="model.xml",
    opens_onnx=True,
    requires=("openvino",),
    extra="openvino",
)


@hookimpl
def modelwright_exporters() -> Iterator[ExporterEntry]:
    """ONNX Runtime and OpenVINO."""
    yield ONNX
    yield OPENVINO
