"""Writes ONNX graphs with what is needed to run them and nothing else. Knows ONNX; knows not what a graph computes.

A quantizer leaves long names and zeros behind, which would be a good part of a small model's bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, TypeVar

import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

Message = TypeVar("Message", ModelProto, NodeProto)


def save(model: ModelProto, target: Path) -> None:
    """Tidies a graph in place and writes it; the names of nodes and of what goes in and out stay."""
    graph = model.graph
    del graph.value_info[:]
    del graph.quantization_annotation[:]
    del model.metadata_props[:]
    model.doc_string = graph.doc_string = ""
    _drop_zeros(graph)
    used = set(_used(graph))
    kept = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    _sort(graph)
    if not any(_within(node) for node in graph.node):  # which take tensors by their names
        _shorten(graph)
    onnx.save(model, target)


def copied(message: Message) -> Message:
    """A copy that belongs to nothing yet."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _drop_zeros(graph: Any) -> None:
    """Zero points of biases, which are zero: the format takes them for granted.

    Those of weights stay: without, ONNX Runtime computes a Gemm in float.
    """
    constant = {each.name: each for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and len(node.input) > 2 and node.input[2] in constant:
            zero = constant[node.input[2]]
            if zero.data_type == TensorProto.INT32 and not numpy_helper.to_array(zero).any():
                del node.input[2]


def _used(graph: Any) -> Iterator[str]:
    """Names of tensors that something takes, in graphs within the graph too."""
    for node in graph.node:
        yield from node.input
        for part in _within(node):
            yield from _used(part)
    yield from (each.name for each in graph.output)


def taken_within(graph: Any) -> set[str]:
    """Names of tensors that graphs within the graph take, theirs and those from outside."""
    return {name for node in graph.node for part in _within(node) for name in _used(part)}


def _within(node: NodeProto) -> list[Any]:
    """The graphs within a node: the branches of an If, the body of a Loop."""
    return [part for each in node.attribute for part in (*([each.g] if each.HasField("g") else []), *each.graphs)]


def _sort(graph: Any) -> None:
    """Puts each node behind those that it needs: the quantizer does not see what graphs within graphs take."""
    maker = {name: number for number, node in enumerate(graph.node) for name in node.output if name}

    def needs(node: NodeProto) -> set[int]:
        taken = [*node.input, *(name for part in _within(node) for name in _used(part))]
        return {maker[name] for name in taken if name in maker}

    order = TopologicalSorter({number: needs(node) for number, node in enumerate(graph.node)}).static_order()
    nodes = [copied(graph.node[number]) for number in order]
    del graph.node[:]
    graph.node.extend(nodes)


def _shorten(graph: Any) -> None:
    """Names of tensors, and none for nodes that only change the kind of numbers."""
    outside = {each.name for each in (*graph.input, *graph.output)}
    short = {name: name for name in ("", *outside)}

    def shorter(name: str) -> str:
        if name not in short:
            number = len(short)
            short[name] = f"t{number}" if f"t{number}" not in outside else f"t{number}_"
        return short[name]

    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.name = ""
        node.input[:] = [shorter(name) for name in node.input]
        node.output[:] = [shorter(name) for name in node.output]
    for each in graph.initializer:
        each.name = shorter(each.name)
