"""Writes a model as an OpenVINO graph: model.xml and model.bin. Knows OpenVINO and the ONNX graph that it reads."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from modelwright.bundle.agreement import reason_of
from modelwright.bundle.openvino_graph import silent_import
from modelwright.errors import ExportError

if TYPE_CHECKING:
    from modelwright.bundle.export import Export


def write(export: Export, target: Path) -> str:
    """Writes the files; gives the exporter's name.

    By way of ONNX: that graph is needed anyhow, and OpenVINO's own reader of torch models would be a second one to
    find out about.

    Raises:
        ExportError: the model has no ONNX graph, or OpenVINO does not take it.
    """
    with TemporaryDirectory(prefix="modelwright-openvino-") as scratch:
        source = Path(scratch) / "model.onnx"
        how = export.write_onnx(source)
        save(read(source), target)
    return how


def read(source: Path) -> Any:
    """An ONNX graph as a model of OpenVINO's.

    Raises:
        ExportError: OpenVINO does not take it.
    """
    try:
        return silent_import("openvino").Core().read_model(str(source))
    except Exception as error:
        raise ExportError(f"OpenVINO does not take the graph ({reason_of(error)}): leave it to onnxruntime") from error


def save(model: Any, target: Path) -> None:
    """Writes a model of OpenVINO's, its float weights as they are: 16 bits of them would not agree with the model."""
    target.parent.mkdir(parents=True, exist_ok=True)
    silent_import("openvino").save_model(model, target, compress_to_fp16=False)
