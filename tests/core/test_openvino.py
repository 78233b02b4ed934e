"""OpenVINO from a recipe to a bundle that predicts with it. Needs the extra `openvino`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import modelwright as mw
from modelwright.bundle.export import write_graph
from modelwright.bundle.exporters import OPENVINO
from modelwright.bundle.runtime import Graph
from modelwright.bundle.scoring import evaluate_bundle, evaluate_variant
from modelwright.cli import main
from modelwright.compression import receipt
from modelwright.compression.variants import find
from modelwright.errors import BundleError, CompressionError, EvaluationError, ExportError
from modelwright.plugins import Catalog, missing_modules
from modelwright.testing.toy import TOY, ToyTask

# Not pytest.importorskip: to import either is to report to its makers, unless `silent_import` does it.
if missing := missing_modules(("openvino", "nncf")):
    pytest.skip(f"needs the extra openvino: no module named {missing[0]}", allow_module_level=True)

from modelwright.bundle.openvino_export import read, save
from modelwright.bundle.openvino_graph import OpenVINOGraph
from modelwright.compression import openvino_int8
from modelwright.compression.openvino_int8 import quantize

INT8 = [{"stage": "quantize", "runtime": "openvino", "calibrate": 64}]
SAMPLES = [(np.random.default_rng(n).normal(0, 1, (4, 8, 4)).astype(np.float32),) for n in range(16)]


@pytest.fixture(scope="module", autouse=True)
def hurry() -> Iterator[None]:
    """What times say is not looked at here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(receipt, "SECONDS", 0.05)
        yield


@pytest.fixture(scope="module")
def compressed(toy_run: Path, toys: Catalog, tmp_path_factory: pytest.TempPathFactory) -> mw.Compressed:
    """The toy in 8 bits for OpenVINO; not to be changed."""
    run = shutil.copytree(toy_run, tmp_path_factory.mktemp("openvino") / "run")
    return mw.compress(run, recipe=INT8, catalog=toys, warn=lambda line: None)


@pytest.fixture(scope="module")
def bundle(compressed: mw.Compressed, toys: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle; not to be changed."""
    out = tmp_path_factory.mktemp("exported") / "bundle"
    return mw.export(compressed.run_folder, variant="custom", out=out, catalog=toys, warn=lambda line: None)


@pytest.fixture(scope="module")
def floats(toy_run: Path, toys: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's own model for OpenVINO; not to be changed."""
    return mw.export(toy_run, runtime="openvino", out=tmp_path_factory.mktemp("floats") / "bundle", catalog=toys)


def network(path: Path, *, attention: bool = False) -> Path:
    """Eight words of four numbers -> the same, by linear layers; or mixed by attention."""
    rng = np.random.default_rng(0)
    weights = [
        onnx.numpy_helper.from_array(rng.normal(0, 0.5, (4, 4)).astype(np.float32), name) for name in ("q", "k", "v")
    ]
    nodes = [helper.make_node("MatMul", ["x", name], [f"x{name}"], name=f"to_{name}") for name in ("q", "k", "v")]
    if attention:
        nodes += [
            helper.make_node("Transpose", ["xk"], ["kt"], perm=[0, 2, 1]),
            helper.make_node("MatMul", ["xq", "kt"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
            helper.make_node("MatMul", ["shares", "xv"], ["y"]),
        ]
    else:
        nodes += [helper.make_node("Sum", ["xq", "xk", "xv"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8, 4])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def chain(path: Path) -> Path:
    """Three linear layers, one after another; the second is given a channel that makes all others small."""
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.5, (4, 4)).astype(np.float32) for name in ("first", "second", "third")}
    weights["huge"] = np.array([0, 0, 0, 300], np.float32)
    weights["second"][3] = 0
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"], name="to_first"),
        helper.make_node("Add", ["a", "huge"], ["b"]),
        helper.make_node("MatMul", ["b", "second"], ["c"], name="to_second"),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "third"], ["y"], name="to_third"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8, 4]) for name in ("x", "y")]
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def gap(source: Path) -> Callable[[Any], float]:
    """How far a predictor is from a graph, as a share of the largest value."""
    batch = np.concatenate([x for (x,) in SAMPLES])
    expected = Graph(source)(batch)["y"]
    return lambda predictor: float(np.abs(predictor(batch)["y"] - expected).max() / np.abs(expected).max())


# Variants -------------------------------------------------------------------------------------------------------------


def test_a_variant_is_an_openvino_graph_with_a_receipt(compressed: mw.Compressed):
    variant, found = find(compressed.run_folder, "custom"), compressed.receipt
    assert variant.runtime == "openvino"
    assert variant.graph == variant.folder / "model.xml"
    names = {path.name for path in variant.folder.iterdir()}
    assert names == {"model.xml", "model.bin", "receipt.json", "variant.json"}
    assert found["bytes"]["variant"] == sum(
        (variant.folder / name).stat().st_size for name in ("model.xml", "model.bin")
    )
    timed = {(row["model"], row["runtime"], row["batch"]) for row in found["latency"]}
    assert timed == {
        *(("original", runtime, batch) for runtime in ("torch eager", "ONNX Runtime", "OpenVINO") for batch in (1, 32)),
        *(("variant", "OpenVINO", batch) for batch in (1, 32)),
    }
    assert found["notes"]["layers"]
    assert found["notes"]["samples"] == 64
    assert found["drop"]["value"] < 0.1
    assert found["parameters"]["ratio"] == 1


def test_it_is_scored_as_it_is_deployed(compressed: mw.Compressed, bundle: Path, toys: Catalog):
    accuracy = compressed.receipt["metrics"]["accuracy"]["variant"]
    assert evaluate_variant(compressed.run_folder, "custom", catalog=toys)["metrics"]["accuracy"]["value"] == accuracy
    assert evaluate_bundle(bundle, catalog=toys)["metrics"]["accuracy"]["value"] == accuracy


def test_nothing_but_training_samples_calibrates(toy_run: Path, toys: Catalog, tmp_path: Path, monkeypatch):
    run = shutil.copytree(toy_run, tmp_path / "run")
    given: list[np.ndarray] = []

    def stop(source: Path, target: Path, *, calibration: Any, **further: Any) -> None:
        given.extend(arrays[0] for arrays in calibration)
        raise CompressionError("seen enough")

    monkeypatch.setattr(openvino_int8, "quantize", stop)
    with pytest.raises(CompressionError, match="seen enough"):
        mw.compress(run, recipe=INT8, catalog=toys, warn=lambda line: None)
    points = ToyTask(TOY.config()).datasets()["train"].points.numpy()  # type: ignore[attr-defined]
    rows = np.concatenate(given)
    assert rows.shape == (64, 2)
    assert {row.tobytes() for row in rows} <= {row.tobytes() for row in points}


def test_rounding_is_trained_for_before(toy_run: Path, toys: Catalog, tmp_path: Path):
    run = shutil.copytree(toy_run, tmp_path / "run")
    recipe = [{**INT8[0], "kind": "aware", "train": {"steps": 4}}, {"stage": "quantize"}]
    with pytest.raises(CompressionError, match=r"model.xml is in 8 bits already: leave out this stage quantize"):
        mw.compress(run, recipe=recipe, catalog=toys, warn=lambda line: None)
    assert find(run, "custom").runtime == "openvino"


def test_a_variant_with_weights_is_exported_for_it_a_graph_is_not(compressed: mw.Compressed, toys: Catalog):
    with pytest.raises(
        ExportError, match="is a graph in 8 bits for openvino: leave out --runtime, or compress for onnx"
    ):
        mw.export(compressed.run_folder, variant="custom", runtime="onnxruntime", catalog=toys)


# Bundles --------------------------------------------------------------------------------------------------------------


def test_a_bundle_names_its_runtime_and_all_files(bundle: Path, floats: Path):
    for each, agreed in ((bundle, False), (floats, True)):
        manifest = json.loads((each / "manifest.json").read_text())
        assert manifest["runtime"] == "OpenVINO on the CPU"
        assert manifest["reader_install"] == "modelwright[openvino]"
        assert {"model.xml", "model.bin", "codec.json", "card.md"} <= set(manifest["files"])
        assert "model.onnx" not in {path.name for path in each.iterdir()}
        assert (manifest["agreement"] is not None) == agreed
    assert manifest["agreement"]["gap"] < 1e-4
    assert manifest["agreement"]["opset"] is None


def test_it_says_what_the_model_says(floats: Path, toy_bundle: Path, bundle: Path):
    points = [[0.1, 0.2], [0.5, -0.3], [-0.4, 0.4]]
    expected = mw.load(toy_bundle).columns(points).array("probabilities")
    np.testing.assert_allclose(mw.load(floats).columns(points).array("probabilities"), expected, atol=1e-5)
    np.testing.assert_allclose(mw.load(bundle).columns(points).array("probabilities"), expected, atol=0.1)


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
def test_a_changed_file_is_refused(bundle: Path, tmp_path: Path, name: str):
    shutil.copytree(bundle, tmp_path / "bundle")
    content = bytearray((tmp_path / "bundle" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "bundle" / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"was changed after it was exported: {name} differs"):
        mw.load(tmp_path / "bundle")


def test_no_torch_comes_in_and_nothing_is_reported_to_anybody(bundle: Path, tmp_path: Path):
    code = (
        f"import sys, modelwright; modelwright.load({str(bundle)!r}).predict((0.1, 0.2)); "
        "print(*sorted({'torch', 'pandas', 'pydantic', 'onnx', 'nncf'} & set(sys.modules))); "
        "from modelwright.bundle.openvino_graph import silent_import; silent_import('nncf')"
    )
    outside = {name: value for name, value in os.environ.items() if name not in ("CI", "NNCF_CI")}
    outside |= {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=outside, check=True)
    assert done.stdout.strip() == ""
    # Both would leave there whom they report as, and how often.
    assert not (tmp_path / "intel").exists()


def test_benchmark_names_the_runtime(bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setattr("modelwright.cli_bundle.SECONDS", 0.01)
    monkeypatch.setattr(sys, "argv", ["modelwright", "benchmark", str(bundle), "--threads", "1", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    told = json.loads(capsys.readouterr().out)
    assert told["runtime"].startswith("OpenVINO 20")
    assert told["threads"] == 1


def test_a_bundle_is_a_teacher(bundle: Path, toy_run: Path, toys: Catalog, tmp_path: Path):
    run = shutil.copytree(toy_run, tmp_path / "run")
    recipe = [{"stage": "distill", "teacher": str(bundle), "train": {"steps": 2}}]
    assert mw.compress(run, recipe=recipe, catalog=toys, warn=lambda line: None).names == ["custom-1-distill"]


# Graphs ---------------------------------------------------------------------------------------------------------------


def odd(path: Path) -> Path:
    """A graph that gives an input back, one tensor twice, and a truth."""
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "time", 4]),
        helper.make_tensor_value_info("length", TensorProto.INT64, ["batch"]),
    ]
    kinds = {"a": TensorProto.FLOAT, "b": TensorProto.FLOAT, "lengths": TensorProto.INT64, "mask": TensorProto.BOOL}
    nodes = [
        helper.make_node("Relu", ["x"], ["positive"]),
        helper.make_node("Identity", ["positive"], ["a"]),
        helper.make_node("Identity", ["positive"], ["b"]),
        helper.make_node("Identity", ["length"], ["lengths"]),
        helper.make_node("Greater", ["x", "b"], ["mask"]),
    ]
    outputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
    graph = helper.make_graph(nodes, "odd", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_a_graph_says_the_same_as_in_onnx_runtime_whatever_its_form(tmp_path: Path):
    source = odd(tmp_path / "odd.onnx")
    save(read(source), tmp_path / "odd.xml")
    expected = Graph(source)
    for path in (source, tmp_path / "odd.xml"):
        graph = OpenVINOGraph(path, threads=1)
        assert [spec.name for spec in graph.inputs] == ["x", "length"]
        assert graph.inputs[0].shape == (mw.Size("?"), 4)
        assert [(spec.name, spec.dtype) for spec in graph.outputs] == [(s.name, s.dtype) for s in expected.outputs]
        for batch in (1, 3):
            x = torch.randn(4, batch, 5).permute(1, 2, 0)
            found, wanted = graph(x, np.arange(batch)), expected(x, np.arange(batch))
            for name, value in wanted.items():
                np.testing.assert_array_equal(found[name], value)
                assert found[name].dtype == value.dtype
    before = found["a"].copy()
    graph(-x, np.arange(3))
    np.testing.assert_array_equal(found["a"], before)  # of an earlier call, and still its own


def test_it_computes_in_32_bits_on_every_processor(floats: Path):
    graph = OpenVINOGraph(floats / "model.xml")
    compiled: Any = graph._request.get_compiled_model()  # type: ignore[attr-defined]
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_dtype() == np.float32


def test_what_is_no_graph_is_refused(tmp_path: Path, floats: Path):
    with pytest.raises(BundleError, match=r"there is no graph .*nothing.xml; write one"):
        OpenVINOGraph(tmp_path / "nothing.xml")
    (tmp_path / "bad.xml").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"bad.xml is no graph that OpenVINO takes: .*; export it again") as told:
        OpenVINOGraph(tmp_path / "bad.xml")
    assert "\n" not in str(told.value)
    shutil.copyfile(floats / "model.xml", tmp_path / "model.xml")
    with pytest.raises(BundleError, match=r"model.xml is no graph that OpenVINO takes"):
        OpenVINOGraph(tmp_path / "model.xml")


def test_an_onnx_graph_that_it_does_not_take_is_told(tmp_path: Path):
    source = network(tmp_path / "own.onnx")
    proto = onnx.load(source)
    proto.graph.node[0].op_type, proto.graph.node[0].domain = "Mystery", "nowhere"
    proto.opset_import.append(helper.make_opsetid("nowhere", 1))
    onnx.save(proto, source)
    with pytest.raises(ExportError, match=r"OpenVINO does not take the graph \(.*\): leave it to onnxruntime"):
        read(source)


def test_a_model_is_written_for_it_only_where_it_agrees(toys: Catalog, toy_run: Path, tmp_path: Path, monkeypatch):
    from modelwright.bundle import agreement
    from modelwright.bundle.writing import find as find_source

    source = find_source(toy_run, "original", catalog=toys, warn=lambda line: None)
    monkeypatch.setattr(agreement, "TOLERANCE", -1.0)
    dataset = source.task.datasets()["valid"]
    with pytest.raises(ExportError, match="graph and model disagree at batch 1"):
        write_graph(source.task, source.model, dataset, tmp_path / "model.xml", exporter=OPENVINO)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


# Eight bits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", [False, True])
def test_linear_layers_and_attention_go_into_8_bits(tmp_path: Path, attention: bool):
    source = network(tmp_path / "float.onnx", attention=attention)
    target = tmp_path / "deep" / "model.xml"
    found = quantize(source, target, calibration=SAMPLES, drop=gap(source))
    assert {"to_q", "to_k", "to_v"} <= set(found.layers)
    assert found.drop == found.drop_of_all
    assert 0 < found.drop < 0.1  # type: ignore[operator]
    assert found.as_json()["samples"] == 4 * len(SAMPLES)
    assert openvino_int8._attends(read(source)) == attention
    assert gap(source)(OpenVINOGraph(target)) == pytest.approx(found.drop)


def test_layers_that_hurt_stay_in_float(tmp_path: Path):
    source, target = chain(tmp_path / "float.onnx"), tmp_path / "model.xml"
    asked: list[float] = []

    def drop(predictor: Any) -> float:
        asked.append(gap(source)(predictor))
        return asked[-1]

    found = quantize(source, target, calibration=SAMPLES, drop=drop, max_drop=0.1)
    assert found.drop_of_all is not None
    assert found.drop is not None
    assert found.drop <= 0.1 < found.drop_of_all
    assert [(each.name, each.reason) for each in found.kept] == [("to_second", "NNCF left it in float")]
    assert found.layers == ["to_first", "y"]  # the last is called after its result
    assert asked[0] == pytest.approx(0, abs=1e-5)  # the float graph itself
    assert gap(source)(OpenVINOGraph(target)) == asked[-1] == found.drop


def test_a_drop_that_no_layer_can_keep_to_is_told(tmp_path: Path):
    source = network(tmp_path / "float.onnx")
    far = gap(source)
    with pytest.raises(CompressionError, match="no layer can be in 8 bits with max_drop=0: raise it, or leave out"):
        quantize(source, tmp_path / "model.xml", calibration=SAMPLES, drop=lambda p: float(far(p) > 1e-5), max_drop=0)
    assert not (tmp_path / "model.xml").exists()


def test_a_graph_without_layers_and_one_without_samples_are_told(tmp_path: Path):
    with pytest.raises(CompressionError, match="there are no samples to calibrate on: raise calibrate"):
        quantize(network(tmp_path / "a.onnx"), tmp_path / "model.xml", calibration=[], drop=lambda predictor: 0)
    samples = [(x, np.zeros(4, np.int64)) for (x,) in SAMPLES]
    with pytest.raises(CompressionError, match="no layer can be in 8 bits: leave out the stage quantize"):
        quantize(odd(tmp_path / "b.onnx"), tmp_path / "model.xml", calibration=samples, drop=lambda predictor: 0)


def test_what_nncf_cannot_do_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*arguments: Any, **further: Any) -> None:
        raise KeyError("no such\nnode")

    monkeypatch.setattr("nncf.quantize", fail)
    with pytest.raises(CompressionError) as told:
        quantize(network(tmp_path / "a.onnx"), tmp_path / "model.xml", calibration=SAMPLES, drop=lambda predictor: 0)
    assert str(told.value).startswith("NNCF cannot quantize this model (KeyError: ")
    assert str(told.value).endswith("): quantize it for runtime onnxruntime")
    assert "\n" not in str(told.value)


def test_what_goes_wrong_in_scoring_stays_what_it_is(tmp_path: Path):
    def fail(predictor: Any) -> float:
        raise EvaluationError("other ids")

    with pytest.raises(EvaluationError, match="other ids"):
        quantize(network(tmp_path / "a.onnx"), tmp_path / "m.xml", calibration=SAMPLES, drop=fail, max_drop=0.1)


def test_one_sample_is_enough(tmp_path: Path):
    source = network(tmp_path / "float.onnx")
    one = [tuple(array[:1] for array in SAMPLES[0])]
    found = quantize(source, tmp_path / "model.xml", calibration=one, drop=gap(source), max_drop=1.0)
    assert found.samples == 1
    assert found.drop_of_all == pytest.approx(found.drop)
