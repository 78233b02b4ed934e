"""Writes graphs with 8-bit numbers in them. Knows ONNX and ONNX Runtime's quantizer; knows no model and no score.

Weights are signed and symmetric, with a scale for each output channel; activations unsigned, with one scale and zero
point a tensor; biases are int32 (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference"; Krishnamoorthi 2018, "Quantizing deep convolutional networks").
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from modelwright.compression.tidy import copied, save, taken_within

MULTIPLY = ("Conv", "Gemm", "MatMul")
"""Operators that a CPU can compute in integers; mostly, but not always, faster than in float."""
JOIN = ("Add", "Concat", "Mul")
"""Operators that bring several tensors together; in 8 bits only where all of these are."""
CURVE = ("Sigmoid",)
"""Operators that bend their input, a table of 256 numbers in 8 bits; with Mul they make SiLU and gates."""
PASS = (
    *("Relu", "Clip", "MaxPool", "AveragePool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"),
    *("Slice", "Pad", "Split", "Resize"),
)
"""Operators that take their first input's numbers on."""
STORED = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": -1, "Gather": 0, "LSTM": 1, "GRU": 1, "RNN": 1}
"""Operators whose weights can be stored in 8 bits, with the axis of channels in them."""
WEIGHTS = {"Gather": (0,), "LSTM": (1, 2), "GRU": (1, 2), "RNN": (1, 2)}
"""Where weights stand among an operator's inputs; elsewhere: second."""
DYNAMIC = ("MatMul", "Gemm", "LSTM")
"""Operators whose activations can be quantized at run time with a gain.

Convolutions cannot: with ONNX Runtime's integer convolution `lenet`, `cnn` and `resnet20` take 2.4 to 5.4 times as long
as in float. Their weights are stored in 8 bits and the rest stays as it is.
"""
LEAST = 64
"""Numbers below which a tensor is not worth a scale."""
THIN = 32
"""Numbers in a patch (channels times the kernel's area) below which a network's first convolution is slower in 8 bits.

What it takes is in float, and rounding and copying it costs more than multiplying so few integers gains: 3 channels
under a kernel of 3 are better left, under one of 4 or 7 they are not (ONNX Runtime, with VNNI).
"""


class Writer(ABC):
    """Writes a float graph anew, with some of its nodes in 8 bits.

    Attributes:
        layers: names of the nodes that can be, in the graph's order.
        apart: names of those that could be and are not, with the reason.
        model: the float graph, prepared: batch norms are part of convolutions, every node has a name.
        operators: node -> its operator.
    """

    def __init__(self, source: Path, folder: Path) -> None:
        self.model = prepared(source, folder)
        self.operators = {node.name: node.op_type for node in self.model.graph.node}
        self.layers: list[str] = []
        self.apart: dict[str, str] = {}
        self._folder = folder

    @abstractmethod
    def write(self, target: Path, layers: Collection[str]) -> None:
        """Writes the graph with exactly these layers in 8 bits, and whatever only passes their numbers on."""

    def possible(self, layers: Collection[str]) -> list[str]:
        """Those of some layers that are worth it together, in the graph's order."""
        return [name for name in self.layers if name in layers]


class Static(Writer):
    """Weights and activations in 8 bits, ranges of activations from samples.

    Args:
        batches: what the graph takes, in the order of its inputs.
        reduce_range: weights within 7 bits, so that no processor's 16-bit sums overflow.
    """

    def __init__(
        self, source: Path, folder: Path, batches: Iterable[Sequence[np.ndarray]], *, reduce_range: bool
    ) -> None:
        super().__init__(source, folder)
        self._reduce_range = reduce_range
        path = folder / "prepared.onnx"
        onnx.save(self.model, path)
        self._ranges = _calibrated(path, folder / "augmented.onnx", batches)
        endless = {name for name in self._ranges if not np.isfinite([*self._ranges[name].range_value]).all()}
        for name in endless:  # the quantizer would make scales of them, used or not
            del self._ranges.data[name]
        # What a graph within the graph takes goes by its name, which the quantizer would give to something else.
        floats, constant = _floats(self.model) - taken_within(self.model.graph), _constant(self.model)
        self._usable, self._constant = floats - endless, set(constant)
        thin = _thin(self.model)
        for node in self.model.graph.node:
            around = {name for name in (*node.input, *node.output) if name}
            if node.op_type not in (*MULTIPLY, *JOIN):
                if _stored(constant, node):
                    self.layers.append(node.name)
            elif node.name in thin:
                self.apart[node.name] = "it would be slower in 8 bits"
            elif around <= self._usable:
                self.layers.append(node.name)
            elif around <= floats:
                self.apart[node.name] = "its values are not finite"

    def possible(self, layers: Collection[str]) -> list[str]:
        """Without joins of tensors that are not all in 8 bits: numbers would go to and fro."""
        together = {*self._nodes(layers), *self._only_stored(layers)}
        return [name for name in self.layers if name in together]

    def _only_stored(self, layers: Collection[str]) -> list[str]:
        """Layers that are computed in float from weights stored in 8 bits."""
        return [name for name in layers if self.operators[name] not in (*MULTIPLY, *JOIN)]

    def write(self, target: Path, layers: Collection[str]) -> None:
        """As quantize/dequantize pairs around each layer, which a runtime fuses with it."""
        from onnxruntime.quantization import QDQQuantizer, QuantType

        nodes = {*self._nodes(layers), *layers}
        model = copied(self.model)
        store_weights(model, self._only_stored(layers))
        with quiet():
            quantizer = QDQQuantizer(
                model,
                per_channel=True,
                reduce_range=self._reduce_range,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=self._ranges,
                nodes_to_quantize=sorted(nodes),
                nodes_to_exclude=[],
                op_types_to_quantize=[*MULTIPLY, *JOIN, *CURVE, *PASS],
                extra_options={},
            )
            quantizer.quantize_model()
        written = quantizer.model.model
        _keep_float_results(written, nodes)
        save(written, target)

    def _nodes(self, layers: Collection[str]) -> list[str]:
        """Layers and what stands between them, as far as numbers are in 8 bits there."""
        multiplying = [node for node in self.model.graph.node if node.op_type in MULTIPLY and node.name in layers]
        # What such a layer takes is rounded for all that take it.
        small = {name for node in multiplying for name in node.input} - self._constant
        nodes: list[NodeProto] = []
        for node in self.model.graph.node:
            if node.op_type in MULTIPLY:
                chosen = node.name in layers
            elif node.op_type in JOIN:
                chosen = node.name in layers and all(name in small for name in node.input)
            else:
                goes_on = node.op_type in (*PASS, *CURVE) and self._usable.issuperset(node.output)
                chosen = goes_on and node.input[0] in small
            if chosen:
                nodes.append(node)
                small.update(node.output)
        # A curve at the end (the scores of a detector) is worth more than 256 steps.
        taken = {name for node in nodes for name in node.input}
        return [node.name for node in nodes if node.op_type not in CURVE or taken.intersection(node.output)]


class Weights(Writer):
    """Weights stored in 8 bits, all arithmetic in float: smaller, not faster."""

    def __init__(self, source: Path, folder: Path) -> None:
        super().__init__(source, folder)
        constant = _constant(self.model)
        self.layers = [node.name for node in self.model.graph.node if _stored(constant, node)]

    def write(self, target: Path, layers: Collection[str]) -> None:
        """Each weight as int8 numbers with scales."""
        model = copied(self.model)
        store_weights(model, layers)
        save(model, target)


class Dynamic(Weights):
    """Weights in 8 bits; activations of linear and recurrent layers too, with ranges found at run time."""

    def __init__(self, source: Path, folder: Path, *, reduce_range: bool) -> None:
        super().__init__(source, folder)
        self._reduce_range = reduce_range

    def write(self, target: Path, layers: Collection[str]) -> None:
        """Linear and recurrent layers as integer operators; other weights are only stored in 8 bits."""
        from onnxruntime.quantization import QuantType, quantize_dynamic

        operators = self.operators
        run = [name for name in layers if operators[name] in DYNAMIC]
        model = copied(self.model)
        store_weights(model, [name for name in layers if name not in run])
        if run:
            path, written = self._folder / "stored.onnx", self._folder / "dynamic.onnx"
            onnx.save(model, path)
            with quiet():
                quantize_dynamic(
                    path,
                    written,
                    op_types_to_quantize=["MatMul", "LSTM"],
                    per_channel=True,
                    reduce_range=self._reduce_range,
                    weight_type=QuantType.QInt8,
                    # A Gemm becomes a MatMul of this name.
                    nodes_to_quantize=[*run, *(f"{name}_MatMul" for name in run)],
                )
            model = onnx.load(written)
        save(model, target)


# Before and after -----------------------------------------------------------------------------------------------------


def prepared(source: Path, folder: Path) -> ModelProto:
    """A graph as the quantizer wants it: batch norms folded, types of all tensors known, each node with a name."""
    from onnxruntime.quantization import quant_pre_process

    with quiet():
        # Symbolic inference of shapes fails on some graphs; types are all that is needed here.
        quant_pre_process(str(source), str(folder / "simple.onnx"), skip_symbolic_shape=True)
    model = onnx.load(folder / "simple.onnx")
    taken: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        taken.add(node.name)
    return model


def _thin(model: ModelProto) -> set[str]:
    """Names of a network's first convolutions, where their patches are small."""
    constant, found = _constant(model), set[str]()
    behind: set[str] = set()  # tensors that a layer has had a part in
    for node in model.graph.node:
        if node.op_type in MULTIPLY or not behind.isdisjoint(node.input):
            if node.op_type == "Conv" and behind.isdisjoint(node.input) and node.input[1] in constant:
                grouped = any(each.name == "group" and each.i > 1 for each in node.attribute)
                if not grouped and np.prod(constant[node.input[1]].dims[1:]) < THIN:
                    found.add(node.name)
            behind.update(node.output)
    return found


def _keep_float_results(model: ModelProto, nodes: Collection[str]) -> None:
    """Takes away the rounding of a linear layer's result where no 8-bit node takes it, as at the graph's end.

    The layer multiplies integers all the same; its result is more exact and costs two operators less. Convolutions
    need it: without, the runtime computes them in float.
    """
    graph = model.graph
    made = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    gone: list[NodeProto] = []
    for node in graph.node:
        rounding = made.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        layer = made.get(rounding.input[0]) if rounding is not None else None
        if rounding is None or layer is None or layer.op_type not in ("Gemm", "MatMul") or layer.name not in nodes:
            continue
        if any(user.name in nodes for user in users.get(node.output[0], [])):
            continue
        if len(users[layer.output[0]]) == len(users[rounding.output[0]]) == 1:
            layer.output[0] = node.output[0]
            gone += [rounding, node]
    for node in gone:
        graph.node.remove(node)


def store_weights(model: ModelProto, layers: Collection[str]) -> None:
    """Replaces the weights of some layers by int8 numbers and their scales, in place.

    A Cast and a Mul bring them back, which the runtime does once, on loading. A DequantizeLinear it would run on each
    call, and take 6 times as long for `resnet20` as with float weights.
    """
    graph = model.graph
    constant = _constant(model)
    done: dict[tuple[str, int], str] = {}
    nodes: list[NodeProto] = []
    for node in graph.node:
        for position, axis in _stored(constant, node) if node.name in layers else []:
            name = node.input[position]
            if (name, axis) not in done:
                numbers, scales = rounded(numpy_helper.to_array(constant[name]), axis=axis)
                stem = f"{name}_{axis}"
                done[name, axis] = f"{stem}_float"
                graph.initializer.append(numpy_helper.from_array(numbers, f"{stem}_int8"))
                graph.initializer.append(numpy_helper.from_array(scales, f"{stem}_scale"))
                nodes.append(helper.make_node("Cast", [f"{stem}_int8"], [f"{stem}_cast"], to=TensorProto.FLOAT))
                nodes.append(helper.make_node("Mul", [f"{stem}_cast", f"{stem}_scale"], [done[name, axis]]))
            node.input[position] = done[name, axis]
        nodes.append(copied(node))
    del graph.node[:]
    graph.node.extend(nodes)


def rounded(values: np.ndarray, *, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights as int8 numbers and one scale per channel; ``numbers * scales`` is at most half a scale away.

    Args:
        axis: of the channels.

    >>> numbers, scales = rounded(np.array([[1.0, -2.0], [0.5, 0.1]], np.float32), axis=0)
    >>> numbers.tolist()
    [[64, -127], [127, 25]]
    """
    others = tuple(each for each in range(values.ndim) if each != axis)
    largest = np.abs(values).max(axis=others, keepdims=True).astype(np.float32)
    # The smallest scales are for channels that are all zero, or as good as.
    scales = np.maximum(largest / np.float32(127), np.finfo(np.float32).tiny)
    numbers = np.clip(np.rint(values / scales), -127, 127).astype(np.int8)
    return numbers, scales


def _stored(constant: Mapping[str, TensorProto], node: NodeProto) -> list[tuple[int, int]]:
    """Inputs of a node that are weights worth storing in 8 bits: (position, axis of channels)."""
    found: list[tuple[int, int]] = []
    for position in WEIGHTS.get(node.op_type, (1,)) if node.op_type in STORED else ():
        weights = constant.get(node.input[position]) if position < len(node.input) else None
        if weights is None or weights.data_type != TensorProto.FLOAT or len(weights.dims) < 2:
            continue
        if np.prod(weights.dims) >= LEAST:
            turned = any(each.name == "transB" and each.i for each in node.attribute)
            found.append((position, 0 if turned else STORED[node.op_type] % len(weights.dims)))
    return found


def _constant(model: ModelProto) -> dict[str, TensorProto]:
    return {each.name: each for each in model.graph.initializer}


# Calibration ----------------------------------------------------------------------------------------------------------


def _calibrated(path: Path, augmented: Path, batches: Iterable[Sequence[np.ndarray]]) -> Any:
    """The least and the greatest value of each tensor around a layer, over all batches."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):
        def __init__(self, names: Sequence[str]) -> None:
            self._left: Iterator[Sequence[np.ndarray]] = iter(batches)
            self._names = names

        def get_next(self) -> dict[str, np.ndarray] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
            batch = next(self._left, None)
            return None if batch is None else dict(zip(self._names, batch, strict=True))

    with quiet():
        calibrator = create_calibrator(
            path, [*MULTIPLY, *JOIN, *CURVE, *PASS], str(augmented), calibrate_method=CalibrationMethod.MinMax
        )
        calibrator.collect_data(Reader([each.name for each in onnx.load(path).graph.input]))
        return calibrator.compute_data()


def _floats(model: ModelProto) -> set[str]:
    """Names of the tensors that hold float32 numbers."""
    graph = model.graph
    typed = (*graph.value_info, *graph.input, *graph.output)
    found = {each.name for each in typed if each.type.tensor_type.elem_type == TensorProto.FLOAT}
    return found | {each.name for each in graph.initializer if each.data_type == TensorProto.FLOAT}


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Keeps the quantizer's advice off the terminal."""
    before, severity = logging.root.manager.disable, 2  # onnxruntime's own: warnings
    logging.disable(logging.CRITICAL)
    onnxruntime.set_default_logger_severity(3)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        onnxruntime.set_default_logger_severity(severity)
