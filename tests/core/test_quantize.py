"""Graphs in 8 bits: what is written, what stays in float, and what is said of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from modelwright.bundle.runtime import Graph
from modelwright.compression.int8 import rounded
from modelwright.compression.quantize import quantize
from modelwright.compression.sensitivity import fewest, signal_to_noise
from modelwright.errors import CompressionError

RNG = np.random.default_rng(0)
KINDS = ("static", "dynamic", "weights")


class Net:
    """A graph under construction."""

    def __init__(self, shape: Sequence[int | str], kind: int = TensorProto.FLOAT) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.input = helper.make_tensor_value_info("x", kind, shape)
        self.rng = np.random.default_rng(7)

    def constant(self, name: str, value: np.ndarray) -> str:
        kept = value.astype(np.float32) if value.dtype.kind == "f" else value
        self.constants.append(numpy_helper.from_array(kept, name))
        return name

    def drawn(self, name: str, *shape: int, scale: float = 0.3) -> str:
        return self.constant(name, self.rng.normal(0, scale, shape))

    def add(self, operator: str, *inputs: str, name: str, outputs: int = 1, **attributes: Any) -> str:
        made = [name if number == 0 else f"{name}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), made, name=name, **attributes))
        return name

    def save(self, path: Path, *results: str) -> Path:
        outputs = [helper.make_tensor_value_info(each, TensorProto.FLOAT, None) for each in results]
        graph = helper.make_graph(self.nodes, "net", [self.input], outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(onnx.shape_inference.infer_shapes(model))
        onnx.save(model, path)
        return path


def residual(path: Path, *, spoilt: Sequence[str] = ()) -> Path:
    """Pictures -> two convolutions with a shortcut around them -> scores.

    Args:
        spoilt: layers that get a channel of huge values with weight zero, so that 8 bits hold nothing else.
    """
    net = Net(["n", 4, 8, 8])

    def conv(x: str, name: str, channels: int) -> str:
        weights = net.rng.normal(0, 0.3, (8, channels, 3, 3))
        if name in spoilt:
            huge = net.constant(f"{name}_huge", np.array([0.0] * (channels - 1) + [1e5]).reshape(1, -1, 1, 1))
            x = net.add("Add", x, huge, name=f"{name}_shifted")
            weights[:, -1] = 0
        weights = net.constant(f"{name}_w", weights)
        return net.add("Conv", x, weights, net.drawn(f"{name}_b", 8), name=name, pads=[1, 1, 1, 1])

    x = net.add("Relu", conv("x", "first", 4), name="relu1")
    y = net.add("Relu", conv(x, "second", 8), name="relu2")
    x = net.add("Relu", net.add("Add", x, y, name="shortcut"), name="relu3")
    x = net.add("Flatten", net.add("MaxPool", x, name="pool", kernel_shape=[2, 2], strides=[2, 2]), name="flat")
    net.add("Gemm", x, net.drawn("w", 10, 128), net.drawn("b", 10), name="scores", transB=1)
    return net.save(path, "scores")


def pictures(batches: int = 4) -> list[tuple[np.ndarray]]:
    return [(np.random.default_rng(n).normal(0, 1, (16, 4, 8, 8)).astype(np.float32),) for n in range(batches)]


def ratio(a: Path, b: Path, inputs: Sequence[np.ndarray]) -> float:
    return signal_to_noise(Graph(a)(*inputs), Graph(b)(*inputs))


def runs_as(path: Path, folder: Path) -> Counter[str]:
    """The operators that ONNX Runtime makes of a graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def weights_of(path: Path) -> dict[str, np.ndarray]:
    return {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}


# What is written ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "least"), [("static", 25), ("dynamic", 33), ("weights", 40)])
def test_a_graph_in_8_bits_says_nearly_the_same_in_a_fraction_of_the_bytes(kind, least, tmp_path):
    source = residual(tmp_path / "float.onnx")
    before = source.read_bytes()
    made = quantize(source, tmp_path / "new" / "int8.onnx", kind=kind, calibration=pictures())
    assert {"first", "second", "scores"} <= set(made.layers)
    assert ratio(source, tmp_path / "new" / "int8.onnx", pictures(5)[4]) > least
    # Names, scales and the graph itself are a good part of so small a file.
    assert (tmp_path / "new" / "int8.onnx").stat().st_size < 0.55 * source.stat().st_size
    assert source.read_bytes() == before
    assert (made.kind, made.kept, made.drop, made.samples) == (kind, [], None, 64 if kind == "static" else 0)


def test_static_layers_run_in_integers_and_nothing_goes_to_float_between_them(tmp_path):
    quantize(residual(tmp_path / "float.onnx"), tmp_path / "int8.onnx", calibration=pictures())
    ran = runs_as(tmp_path / "int8.onnx", tmp_path)
    assert (ran["QLinearConv"], ran["QLinearAdd"], ran["QGemm"]) == (2, 1, 1)
    assert (ran["QuantizeLinear"], ran["DequantizeLinear"]) == (1, 0)  # the picture; scores come out in float


def test_gates_run_in_integers_and_a_curve_at_the_end_stays_in_float(tmp_path):
    net = Net(["n", 4, 8, 8])
    x = net.add("Conv", "x", net.drawn("w1", 8, 4, 3, 3), net.drawn("b1", 8), name="first", pads=[1, 1, 1, 1])
    x = net.add("Mul", x, net.add("Sigmoid", x, name="gate"), name="silu")
    x = net.add("Conv", x, net.drawn("w2", 4, 8, 3, 3), net.drawn("b2", 4), name="second", pads=[1, 1, 1, 1])
    net.add("Sigmoid", x, name="scores")
    source = net.save(tmp_path / "float.onnx", "scores")
    made = quantize(source, tmp_path / "int8.onnx", calibration=pictures())
    assert made.layers == ["first", "silu", "second"]
    ran = runs_as(tmp_path / "int8.onnx", tmp_path)
    assert (ran["QLinearConv"], ran["QLinearSigmoid"], ran["QLinearMul"]) == (2, 1, 1)
    assert (ran["Sigmoid"], ran["Mul"], ran["DequantizeLinear"]) == (1, 0, 1)
    assert ratio(source, tmp_path / "int8.onnx", pictures(5)[4]) > 25


def test_weights_leave_room_for_the_sums_of_old_processors(tmp_path):
    source = residual(tmp_path / "float.onnx")
    for reduce_range, largest in ((True, 64), (False, 127)):
        made = quantize(source, tmp_path / "int8.onnx", calibration=pictures(), reduce_range=reduce_range)
        found = [w for w in weights_of(tmp_path / "int8.onnx").values() if w.dtype == np.int8 and w.ndim > 1]
        assert len(found) == 3
        assert max(np.abs(w.astype(int)).max() for w in found) == largest
        assert made.reduce_range == reduce_range


def test_stored_weights_are_floats_again_before_the_first_call(tmp_path):
    quantize(residual(tmp_path / "float.onnx"), tmp_path / "int8.onnx", kind="weights")
    assert not {"Cast", "Mul", "DequantizeLinear"} & set(runs_as(tmp_path / "int8.onnx", tmp_path))


def test_dynamic_leaves_convolutions_in_float_arithmetic(tmp_path):
    made = quantize(residual(tmp_path / "float.onnx"), tmp_path / "int8.onnx", kind="dynamic")
    ran = runs_as(tmp_path / "int8.onnx", tmp_path)
    assert ran["DynamicQuantizeMatMul"] == 1
    assert ran["ConvInteger"] == 0
    assert made.layers == ["first", "second", "scores"]


def test_the_same_graph_gives_the_same_file(tmp_path):
    source = residual(tmp_path / "float.onnx")
    for name in ("a", "b"):
        quantize(source, tmp_path / name, calibration=pictures())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_any_number_of_samples_goes_through(tmp_path):
    quantize(residual(tmp_path / "float.onnx"), tmp_path / "int8.onnx", calibration=pictures())
    graph = Graph(tmp_path / "int8.onnx")
    assert [spec.name for spec in (*graph.inputs, *graph.outputs)] == ["x", "scores"]
    assert graph(pictures()[0][0][:3])["scores"].shape == (3, 10)


def words(path: Path) -> Path:
    """Numbers of words -> embedding -> LSTM -> attention-like products -> scores; one weight in two places."""
    net = Net(["n", 6], TensorProto.INT64)
    x = net.add("Gather", net.drawn("table", 50, 16), "x", name="embed")
    turned = net.add("Transpose", x, name="turned", perm=[1, 0, 2])
    w, r = net.drawn("w", 1, 64, 16), net.drawn("r", 1, 64, 16)
    h = net.add("LSTM", turned, w, r, name="lstm", hidden_size=16)
    h = net.add("Squeeze", h, net.constant("axis", np.array([1])), name="squeezed")
    h = net.add("Transpose", h, name="back", perm=[1, 0, 2])
    shared = net.drawn("shared", 16, 16)
    q, k = net.add("MatMul", h, shared, name="query"), net.add("MatMul", x, shared, name="key")
    k = net.add("Transpose", k, name="keys", perm=[0, 2, 1])
    a = net.add("Softmax", net.add("MatMul", q, k, name="match"), name="attend")
    net.add("MatMul", net.add("MatMul", a, h, name="mix"), net.drawn("out", 16, 5), name="scores")
    return net.save(path, "scores")


def sentences(batches: int = 3) -> list[tuple[np.ndarray]]:
    return [(np.random.default_rng(n).integers(0, 50, (8, 6)),) for n in range(batches)]


@pytest.mark.parametrize("kind", KINDS)
def test_tables_of_words_recurrent_layers_and_attention_are_made_small_too(kind, tmp_path):
    source = words(tmp_path / "float.onnx")
    made = quantize(source, tmp_path / "int8.onnx", kind=kind, calibration=sentences())
    assert {"embed", "lstm", "query", "key", "scores"} <= set(made.layers)
    assert ratio(source, tmp_path / "int8.onnx", sentences(4)[3]) > 20
    floats = [w for w in weights_of(tmp_path / "int8.onnx").values() if w.dtype == np.float32]
    assert max(w.size for w in floats) <= 64  # scales


def test_a_join_with_something_in_float_stays_in_float(tmp_path):
    net = Net(["n", 32])
    x = net.add("Gemm", "x", net.drawn("w1", 32, 32), name="linear")
    x = net.add("Add", net.add("Sigmoid", x, name="squashed"), net.add("Exp", x, name="grown"), name="join")
    net.add("Gemm", x, net.drawn("w2", 32, 4), name="scores")
    source = net.save(tmp_path / "float.onnx", "scores")
    made = quantize(source, tmp_path / "int8.onnx", calibration=[(RNG.normal(0, 1, (9, 32)).astype(np.float32),)])
    assert made.layers == ["linear", "scores"]
    assert made.kept == []


def test_a_graph_within_a_graph_keeps_what_it_takes_from_outside(tmp_path):
    net = Net(["n", 32])
    y = net.add("Gemm", "x", net.drawn("w1", 32, 32), name="first")
    y = net.add("Relu", net.add("Gemm", y, net.drawn("w2", 32, 32), name="second"), name="taken")
    branches = {}
    for name, operator in (("then_branch", "Neg"), ("else_branch", "Abs")):
        result = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        branches[name] = helper.make_graph([helper.make_node(operator, [y], [name])], name, [], [result])
    total = net.add("ReduceSum", y, name="total", keepdims=0)
    net.add("If", net.add("Greater", total, net.constant("zero", np.array(0.0)), name="more"), name="out", **branches)
    source = net.save(tmp_path / "float.onnx", "out")
    x = RNG.normal(0, 1, (9, 32)).astype(np.float32)
    assert quantize(source, tmp_path / "int8.onnx", calibration=[(x,)]).layers == ["first", "second"]
    assert ratio(source, tmp_path / "int8.onnx", [x]) > 25


# What stays in float --------------------------------------------------------------------------------------------------


def agreement(source: Path, inputs: Sequence[np.ndarray]):
    """A score: the share of samples of which the greatest number is where the float graph has it."""
    wanted = Graph(source)(*inputs)["scores"].argmax(axis=1)
    return lambda path: float((Graph(path)(*inputs)["scores"].argmax(axis=1) == wanted).mean())


@pytest.mark.parametrize("spoilt", [["first"], ["second"], ["first", "second"]])
def test_layers_that_8_bits_destroy_are_found_and_stay_in_float(spoilt, tmp_path):
    source = residual(tmp_path / "float.onnx", spoilt=spoilt)
    score = agreement(source, pictures(9)[8])
    made = quantize(source, tmp_path / "int8.onnx", calibration=pictures(), score=score, max_drop=0.1)
    assert {each.name for each in made.kept} == set(spoilt)
    assert made.drop_of_all > 0.3
    assert made.drop <= 0.1
    assert made.drop == pytest.approx(1 - score(tmp_path / "int8.onnx"))
    assert all(each.decibels < 10 and each.operator == "Conv" and "drops by" in each.reason for each in made.kept)
    assert "scores" in made.layers
    assert not {each.name for each in made.kept} & set(made.layers)
    assert json.loads(json.dumps(made.as_json(), allow_nan=False))["kept"][0]["name"] in spoilt


def test_a_layer_in_float_does_not_take_the_joins_behind_it_along(tmp_path):
    source = residual(tmp_path / "float.onnx", spoilt=["first"])
    score = agreement(source, pictures(9)[8])
    made = quantize(source, tmp_path / "int8.onnx", calibration=pictures(), score=score, max_drop=0.1)
    assert made.layers == ["second", "shortcut", "scores"]
    ran = runs_as(tmp_path / "int8.onnx", tmp_path)
    assert (ran["QLinearConv"], ran["QLinearAdd"], ran["QGemm"]) == (1, 1, 1)
    assert (ran["QuantizeLinear"], ran["DequantizeLinear"]) == (1, 0)  # behind the layer in float


def test_without_a_limit_the_drop_is_told_and_nothing_is_kept(tmp_path):
    source = residual(tmp_path / "float.onnx", spoilt=["second"])
    score = agreement(source, pictures(9)[8])
    made = quantize(source, tmp_path / "int8.onnx", calibration=pictures(), score=score)
    assert made.drop == made.drop_of_all > 0.3
    assert made.kept == []


def test_where_nothing_hurts_nothing_is_kept(tmp_path):
    source = residual(tmp_path / "float.onnx")
    score = agreement(source, pictures(9)[8])
    made = quantize(source, tmp_path / "int8.onnx", calibration=pictures(), score=score, max_drop=0.2)
    assert (made.kept, made.drop) == ([], made.drop_of_all)


@pytest.mark.parametrize("says", [-1.0, float("nan")])
def test_a_score_that_no_layer_in_8_bits_can_keep_is_an_error(says, tmp_path):
    source = residual(tmp_path / "float.onnx")
    with pytest.raises(CompressionError, match=r"no layer can be in 8 bits with max_drop=0.1: .* raise max_drop"):
        quantize(
            source,
            tmp_path / "int8.onnx",
            calibration=pictures(1),
            score=lambda path: 0.0 if path == source else says,
            max_drop=0.1,
        )
    assert not (tmp_path / "int8.onnx").exists()


def test_a_layer_with_values_that_are_not_finite_stays_in_float(tmp_path):
    net = Net(["n", 32])
    x = net.add("Gemm", "x", net.drawn("w1", 32, 32), name="fine")
    y = net.add("Log", net.add("Relu", x, name="relu"), name="log")  # minus infinity, where a unit is off
    y = net.add("MatMul", y, net.constant("w2", np.eye(32)), name="masked")
    source = net.save(tmp_path / "float.onnx", "masked")
    made = quantize(source, tmp_path / "int8.onnx", calibration=[(RNG.normal(0, 1, (9, 32)).astype(np.float32),)])
    assert made.layers == ["fine"]
    assert [(each.name, each.decibels, each.reason) for each in made.kept] == [
        ("masked", None, "its values are not finite")
    ]


@pytest.mark.parametrize(
    ("channels", "group", "kept"),
    [(3, 1, ["first"]), (4, 1, []), (4, 2, [])],
    ids=["27 numbers a patch", "36", "18, in groups"],
)
def test_only_a_first_convolution_of_small_patches_stays_in_float(channels, group, kept, tmp_path):
    net = Net(["n", channels, 8, 8])
    weights = net.drawn("w1", 8, channels // group, 3, 3)
    x = net.add("Conv", net.add("Relu", "x", name="on"), weights, name="first", group=group)
    x = net.add("Conv", net.add("Relu", x, name="off"), net.drawn("w2", 8, 8, 1, 1), name="second")
    net.add("Conv", x, net.drawn("w3", 8, 8, 1, 1), name="third")
    source = net.save(tmp_path / "float.onnx", "third")
    images = RNG.normal(0, 1, (9, channels, 8, 8)).astype(np.float32)
    made = quantize(source, tmp_path / "int8.onnx", calibration=[(images,)])
    assert made.layers == [name for name in ("first", "second", "third") if name not in kept]
    assert [(each.name, each.reason) for each in made.kept] == [(name, "it would be slower in 8 bits") for name in kept]
    assert runs_as(tmp_path / "int8.onnx", tmp_path)["QLinearConv"] == len(made.layers)


@pytest.mark.parametrize("batches", [[], [(np.zeros((0, 4, 8, 8), np.float32),)]])
def test_no_samples_to_calibrate_on_is_an_error(batches, tmp_path):
    source = residual(tmp_path / "float.onnx")
    with pytest.raises(CompressionError, match="no samples to calibrate on: raise calibrate"):
        quantize(source, tmp_path / "int8.onnx", calibration=batches)
    with pytest.raises(CompressionError, match="no samples to calibrate on"):
        quantize(
            source, tmp_path / "int8.onnx", kind="weights", calibration=batches, score=lambda path: 0.0, max_drop=0.1
        )


def test_a_graph_without_layers_is_an_error(tmp_path):
    net = Net(["n", 4])
    net.add("Tanh", "x", name="scores")
    with pytest.raises(CompressionError, match="has no layer that can be in 8 bits"):
        quantize(net.save(tmp_path / "float.onnx", "scores"), tmp_path / "int8.onnx", kind="weights")


# Laws -----------------------------------------------------------------------------------------------------------------


@given(
    hnp.arrays(np.float32, st.tuples(*[st.integers(1, 5)] * 3), elements=st.floats(-(2.0**99), 2.0**99, width=32)),
    st.integers(0, 2),
)
def test_a_stored_weight_is_at_most_half_a_step_away(values, axis):
    numbers, scales = rounded(values, axis=axis)
    assert numbers.dtype == np.int8
    assert scales.size == values.shape[axis]
    error = np.abs(numbers.astype(np.float64) * scales - values)
    assert (error <= scales.astype(np.float64) * (0.5 + 1e-4)).all()
    assert (numbers[values == 0] == 0).all()


@given(st.integers(1, 70), st.integers(1, 80))
def test_the_fewest_are_found_with_few_questions(size, needed):
    asked: list[int] = []

    def enough(some: Sequence[str]) -> bool:
        asked.append(len(some))
        return len(some) >= needed

    ranked = [str(number) for number in range(size)]
    found = fewest(ranked, enough)
    assert found == (ranked[:needed] if needed < size else None)
    assert all(0 < count < size for count in asked)
    assert len(asked) <= 2 * np.log2(size) + 2


@pytest.mark.parametrize(
    ("reference", "changed", "expected"),
    [
        ([3.0, 4.0], [3.0, 4.0], np.inf),
        ([3.0, 4.0], [3.0, 4.5], 20.0),
        ([3.0, 4.0], [3.0, np.nan], -np.inf),
        ([0.0, 0.0], [0.0, 1.0], -np.inf),
        ([3.0, -np.inf], [3.0, -np.inf], np.inf),
        ([3.0, -np.inf], [3.0, 1.0], -np.inf),
        ([3.0, 4.0], [3.0], -np.inf),
    ],
)
def test_signal_to_noise(reference, changed, expected):
    found = signal_to_noise({"y": np.array(reference)}, {"y": np.array(changed)})
    assert found == pytest.approx(expected)


def test_the_worst_output_counts_and_classes_only_where_there_is_nothing_else():
    reference = {"a": np.array([10.0]), "b": np.array([10.0]), "class": np.array([1])}
    changed = {"a": np.array([11.0]), "b": np.array([10.1]), "class": np.array([5])}
    assert signal_to_noise(reference, changed) == pytest.approx(20.0)
    assert signal_to_noise({"class": np.array([10])}, {"class": np.array([11])}) == pytest.approx(20.0)
