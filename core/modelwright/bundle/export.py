"""Writes a model as a graph that agrees with it, mostly ONNX. Knows torch's exporters; knows no bundle and no run.

Sizes of model.onnx are what receipts count, so the graph holds what is needed to run it and nothing else.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from modelwright.bundle.agreement import Agreement, Arrays, Samples, compare, reason_of
from modelwright.bundle.exporters import ONNX
from modelwright.data import Dataset, Input, Size
from modelwright.errors import ExportError
from modelwright.hookspecs import ExporterEntry
from modelwright.task import Task

OPSET = 20
"""The newest that every ONNX Runtime we support takes; the quantizers know it too."""
LIMIT = 2**31 - 2**20
"""Bytes above which weights lie in a file beside the graph: a protobuf message ends at 2 GiB."""


@dataclass(frozen=True)
class Export:
    """What an exporter is given.

    Attributes:
        model: what the task serves, in eval mode on the CPU: ``model(*example)`` is a dict of tensors.
        inputs: of the model, in the order of its arguments.
        outputs: their names.
        example: real samples, a batch of more than one.
        warn: told what a user should know.
    """

    model: nn.Module
    inputs: Sequence[Input]
    outputs: Sequence[str]
    example: Arrays
    warn: Callable[[str], None]

    def write_onnx(self, target: Path) -> str:
        """Writes an ONNX graph, not yet compared with the model; gives the name of torch's exporter.

        Raises:
            ExportError: no exporter can write it, or a dimension that may change came out fixed.
        """
        exporter = _export(self, target)
        _clean(target, self.inputs, self.outputs)
        return exporter


def write_graph(
    task: Task,
    model: nn.Module,
    dataset: Dataset,
    target: Path,
    *,
    exporter: ExporterEntry = ONNX,
    seed: int = 0,
    serve: Callable[[nn.Module], nn.Module] | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> Agreement:
    """Writes what `task` serves of `model` as a graph for batches of any size; both end in eval mode.

    Args:
        model: on any device; it is taken to the CPU meanwhile.
        dataset: real samples to compare on; every sample of one size is as good as any.
        target: the file; what is there is replaced once the new one is good. What belongs to it lies beside it.
        exporter: what writes it, and opens it to be compared.
        serve: of the model, what is written; `task.served` when left out.
        warn: told when the older exporter had to be used.

    Raises:
        ExportError: no exporter can write it, a dimension that may change came out fixed, or graph and model disagree.
    """
    with _on_cpu(model), torch.no_grad():
        served = (serve or task.served)(model)
        for module in (model, served):
            module.eval()
        samples = Samples(task, dataset, seed=seed)
        outputs = list(served(*samples.example))
        if clashing := {spec.name for spec in task.inputs}.intersection(outputs):
            raise ExportError(
                f"{', '.join(sorted(clashing))}: an output has the name of an input; give it another in model and codec"
            )
        aside = target.parent / f".{target.name}.{os.getpid()}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            written = aside / target.name
            how = exporter.write(Export(served, task.inputs, outputs, samples.example, warn), written)
            for module in (model, served):  # exporters put back what they believe was there before
                module.eval()
            agreement = compare(written, task, served, samples.cases(), exporter=how, open_graph=exporter.open)
            for file in aside.iterdir():
                file.replace(target.parent / file.name)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return agreement


# Writing --------------------------------------------------------------------------------------------------------------


def _export(export: Export, path: Path) -> str:
    """Writes the file; gives the exporter's name."""
    served, example, inputs = export.model, export.example, export.inputs
    names: dict[str, Any] = {"input_names": [spec.name for spec in inputs], "output_names": list(export.outputs)}
    large = sum(t.numel() * t.element_size() for t in served.state_dict().values() if isinstance(t, Tensor)) > LIMIT
    axes = _axes(inputs)
    try:
        with quiet():
            program = torch.onnx.export(
                served, example, dynamo=True, opset_version=OPSET, dynamic_shapes=_dims(inputs), verbose=False, **names
            )
            assert program is not None
            program.save(path, external_data=large)
            return "dynamo"
    except Exception as error:
        if (declared := _declared(error)) is not None:
            raise declared from error
        reason = reason_of(error)  # exporters fail in as many ways as there are models
    try:
        with quiet():
            torch.onnx.export(served, example, path, dynamo=False, opset_version=17, dynamic_axes=axes, **names)
    except Exception as error:
        raise ExportError(
            f"the model has no ONNX graph: {reason}; the older exporter: {reason_of(error)}; write `served` without it"
        ) from error
    export.warn(f"exported with torch's older exporter, since the newer one failed: {reason}")
    return "torchscript"


def _declared(error: BaseException | None) -> ExportError | None:
    """What the model itself said, in raising it, of why it has no graph; exporters wrap that in errors of their own."""
    while error is not None:
        if isinstance(error, ExportError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _dims(inputs: Sequence[Input]) -> tuple[dict[int, Any], ...]:
    """What may change, as torch.export wants it; a name that comes twice is one size."""
    batch = torch.export.Dim("batch", min=1)
    known: dict[str, Any] = {}

    def dimension(size: Size) -> Any:
        if size.name not in known:
            if size.multiple == 1:
                known[size.name] = torch.export.Dim(size.name, min=size.minimum)
            else:
                steps = torch.export.Dim(f"{size.name}_steps", min=-(-size.minimum // size.multiple))
                known[size.name] = size.multiple * steps
        return known[size.name]

    return tuple(
        {0: batch, **{axis: dimension(size) for axis, size in enumerate(spec.shape, start=1) if isinstance(size, Size)}}
        for spec in inputs
    )


def _axes(inputs: Sequence[Input]) -> dict[str, dict[int, str]]:
    """What may change, by input and axis, with the name it has in the graph."""
    return {
        spec.name: {0: "batch"} | {axis: s.name for axis, s in enumerate(spec.shape, start=1) if isinstance(s, Size)}
        for spec in inputs
    }


def _clean(path: Path, inputs: Sequence[Input], outputs: Sequence[str]) -> None:
    """Takes out what only debugging needs, names what may change, and checks the file.

    Raises:
        ExportError: it is no valid ONNX file, or a dimension that may change is fixed in it.
    """
    proto = onnx.load(path, load_external_data=False)
    graph = proto.graph
    found = {value.name: value for value in graph.input}
    if list(found) != [spec.name for spec in inputs] or [value.name for value in graph.output] != list(outputs):
        raise ExportError(
            f"the graph takes {', '.join(found)}, the task {', '.join(spec.name for spec in inputs)}: "
            "the model must use every input, and give each output under a name of its own"
        )
    renamed: dict[str, str] = {}
    for name, axes in _axes(inputs).items():
        for axis, meant in axes.items():
            dimension = found[name].type.tensor_type.shape.dim[axis]
            if not dimension.HasField("dim_param"):
                raise ExportError(
                    f"'{meant}' of input '{name}' came out fixed at {dimension.dim_value}: nothing in the model may "
                    "depend on that size as a number (int(), .item(), a Python loop)"
                )
            renamed[dimension.dim_param] = meant
    for value in (*graph.input, *graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.HasField("dim_param"):
                dimension.dim_param = renamed.get(dimension.dim_param, dimension.dim_param)
    del graph.value_info[:]
    del proto.metadata_props[:]
    proto.doc_string = graph.doc_string = ""
    _strip(graph)
    for function in proto.functions:
        function.doc_string = ""
        _strip(function)
    onnx.save(proto, path)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exporter wrote no valid ONNX file: {reason_of(error)}; try another torch") from error


def _strip(part: Any) -> None:
    """Metadata and comments of a graph or function, and of what is in it."""
    for field in ("node", "input", "output", "initializer", "sparse_initializer"):
        for each in getattr(part, field, ()):
            if isinstance(each, str):  # a function names its inputs only
                continue
            for noted in ("metadata_props", "doc_string"):
                if noted in each.DESCRIPTOR.fields_by_name:
                    each.ClearField(noted)
            for attribute in getattr(each, "attribute", ()):
                for graph in (attribute.g, *attribute.graphs) if attribute.HasField("g") or attribute.graphs else ():
                    _strip(graph)
    part.ClearField("metadata_props")


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Keeps exporters, which talk much, off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _on_cpu(model: nn.Module) -> Generator[None]:
    device = next((tensor.device for tensor in model.state_dict().values() if isinstance(tensor, Tensor)), None)
    model.to("cpu")
    try:
        yield
    finally:
        if device is not None:
            model.to(device)
