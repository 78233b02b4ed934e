"""Graphs for several runtimes, without any but ONNX Runtime installed: whose they are, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import modelwright as mw
from modelwright.bundle import openvino_graph
from modelwright.bundle.agreement import Samples, compare
from modelwright.bundle.runtime import Bundle, Graph, sha256
from modelwright.bundle.writing import find
from modelwright.compression import receipt
from modelwright.compression.variants import Variant, record
from modelwright.errors import BundleError, CheckpointError, CompressionError, ConfigError, ExportError, PluginError
from modelwright.hookspecs import ExporterEntry, hookimpl
from modelwright.plugins import Catalog, discover
from modelwright.testing.toy import TOY
from tests.core.conftest import Point

OURS = [SimpleNamespace(value=__name__)]


class Doubled(Graph):
    """Weights lie beside the graph, as with most runtimes."""

    runtime = "the doubling runtime"

    @property
    def files(self) -> list[Path]:
        return [self.path, self.path.with_suffix(".bin")]


class Renamed(Graph):
    """Calls its output otherwise."""

    def __call__(self, *arrays: Any) -> dict[str, np.ndarray]:
        (value,) = super().__call__(*arrays).values()
        return {"other": value}


class Wrong(Graph):
    """Is a thousandth off."""

    def run(self, arrays: Sequence[np.ndarray]) -> Sequence[Any]:
        return [value * 1.01 for value in super().run(arrays)]


def write(export: Any, target: Path) -> str:
    how = export.write_onnx(target)
    target.with_suffix(".bin").write_bytes(b"12345")
    return f"{how}, twice"


def entry(kind: type[Graph], **further: Any) -> ExporterEntry:
    return ExporterEntry("double", "writes two files", write=write, open=kind, graph="double.onnx", **further)


def catalog(*entries: ExporterEntry) -> Catalog:
    @hookimpl
    def modelwright_exporters() -> Iterator[ExporterEntry]:
        yield from entries

    plugin = ModuleType("double")
    plugin.modelwright_exporters = modelwright_exporters  # type: ignore[attr-defined]
    return discover([Point("toy", TOY), SimpleNamespace(name="double", load=lambda: plugin)])


def test_a_bundle_holds_all_files_of_a_runtime_and_is_opened_by_it(toy_run: Path, toy_bundle: Path, tmp_path: Path):
    bundle = mw.export(toy_run, runtime="double", out=tmp_path / "bundle", catalog=catalog(entry(Doubled)))
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert {"double.onnx", "double.bin"} <= set(manifest["files"])
    assert (manifest["graph"], manifest["runtime"]) == ("double.onnx", "the doubling runtime on the CPU")
    assert (manifest["agreement"]["exporter"], manifest["agreement"]["gap"] < 1e-3) == ("dynamo, twice", True)
    assert "the doubling runtime on the CPU runs the graph" in (bundle / "card.md").read_text()
    opened = Bundle.load(bundle, plugins=OURS)
    assert isinstance(opened.graph, Doubled)
    assert opened.graph.bytes == (bundle / "double.onnx").stat().st_size + 5
    assert opened.predict((0.1, 0.2)) == mw.load(toy_bundle).predict((0.1, 0.2))
    (bundle / "double.bin").write_bytes(b"54321")
    with pytest.raises(BundleError, match=r"was changed after it was exported: double.bin differs"):
        Bundle.load(bundle, plugins=OURS)


def test_a_bundle_of_no_installed_plugin_runs_no_code(toy_run: Path, tmp_path: Path):
    offered = catalog(entry(Doubled, extra="beads"))
    bundle = mw.export(toy_run, runtime="double", out=tmp_path / "bundle", catalog=offered)
    with pytest.raises(BundleError, match=r'no installed plugin; install it: pip install "double\[beads\]"'):
        mw.load(bundle)


def test_a_reader_that_is_no_graph_is_refused(toy_bundle: Path, tmp_path: Path):
    bundle = shutil.copytree(toy_bundle, tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    for reader, said in (
        ("modelwright.bundle.runtime:Bundle", "is no reader: the bundle is damaged, or not to be trusted"),
        ("modelwright.bundle.runtime:Nothing", "there is no reader modelwright.bundle.runtime:Nothing"),
        ("modelwright.nothing:Graph", "the reader modelwright.nothing:Graph could not be loaded"),
    ):
        (bundle / "manifest.json").write_text(json.dumps({**manifest, "reader": reader}))
        with pytest.raises(BundleError, match=said):
            mw.load(bundle)


def test_a_graph_outside_the_bundle_is_refused(toy_bundle: Path, tmp_path: Path):
    bundle = shutil.copytree(toy_bundle, tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    other = shutil.copyfile(bundle / "model.onnx", tmp_path / "model.onnx")
    manifest |= {"graph": "../model.onnx", "files": {**manifest["files"], "../model.onnx": sha256(other)}}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"is incomplete: ../model.onnx is missing"):
        mw.load(bundle)


def test_a_bundle_from_before_there_were_runtimes_is_read(toy_bundle: Path, tmp_path: Path):
    bundle = shutil.copytree(toy_bundle, tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    old = {name: value for name, value in manifest.items() if name not in ("graph", "reader", "reader_install")}
    (bundle / "manifest.json").write_text(json.dumps(old))
    assert type(mw.load(bundle).graph) is Graph


@pytest.mark.parametrize(
    ("kind", "said"),
    [(Wrong, "graph and model disagree at batch 1: 'logits' by 0.01"), (Renamed, "the graph gives oth")],
)
def test_what_a_runtime_says_otherwise_is_not_written(toy_run: Path, tmp_path: Path, kind: type[Graph], said: str):
    with pytest.raises(ExportError, match=said):
        mw.export(toy_run, runtime="double", out=tmp_path / "bundle", catalog=catalog(entry(kind)))
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_its_runtime_refuses_is_told(toy_run: Path, toys: Catalog, tmp_path: Path):
    source = find(toy_run, "original", catalog=toys, warn=lambda line: None)
    samples = Samples(source.task, source.task.datasets()["valid"], seed=0)
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"its runtime refuses the graph: .* is no graph that ONNX Runtime takes"):
        compare(tmp_path / "bad.onnx", source.task, source.task.model(), samples.cases())


def test_a_runtime_that_nobody_offers_is_told(toy_run: Path, toys: Catalog, tmp_path: Path):
    with pytest.raises(PluginError, match=r"no runtime 'onnx' is installed; installed: onnxruntime, openvino"):
        mw.export(toy_run, runtime="onnx", out=tmp_path / "bundle", catalog=toys)


# Variants -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(toy_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(toy_run, tmp_path / "run")


def graph_only(run: Path, bundle: Path, **further: Any) -> Variant:
    """A variant of which only a graph is left, as quantizing leaves it."""
    where = run / "variants" / "made-1-quantize"
    where.mkdir(parents=True)
    shutil.copyfile(bundle / "model.onnx", where / "model.onnx")
    variant = Variant(where.name, "original", [], {}, {}, "key", where, **further)
    record(variant)
    return variant


def test_a_graph_in_8_bits_stays_with_its_runtime(run: Path, toy_bundle: Path):
    graph_only(run, toy_bundle)
    offered = catalog(entry(Doubled))
    with pytest.raises(ExportError, match="is a graph in 8 bits for onnxruntime: leave out --runtime, or compress for"):
        mw.export(run, variant="made", runtime="double", catalog=offered)
    assert mw.export(run, variant="made", catalog=offered).name == "bundle-made"


def test_a_variant_whose_graph_is_gone_is_told(run: Path, toy_bundle: Path, toys: Catalog):
    graph_only(run, toy_bundle, graph_name="model.xml")
    with pytest.raises(CheckpointError, match="has neither weights nor a graph: compress again"):
        find(run, "made", catalog=toys, warn=lambda line: None)


def test_what_is_in_8_bits_is_not_quantized_again(run: Path, toys: Catalog):
    from modelwright.compression.stages import QuantizeConfig
    from modelwright.compression.work import quantize

    stage: Any = SimpleNamespace(graph=run / "model.xml")
    with pytest.raises(CompressionError, match=r"model.xml is in 8 bits already: leave out this stage quantize"):
        quantize(stage, QuantizeConfig())


def test_targets_are_about_onnx_runtime(run: Path, toys: Catalog, monkeypatch: pytest.MonkeyPatch):
    from modelwright.compression import recipe

    monkeypatch.setattr(recipe, "missing_modules", lambda names: [])
    stages = [{"stage": "quantize", "runtime": "openvino"}]
    with pytest.raises(ConfigError, match="targets are searched for in ONNX Runtime, recipe 'custom' is for openvino"):
        mw.compress(run, recipe=stages, max_drop=0.1, catalog=toys, warn=lambda line: None)


def test_graphs_are_also_timed_in_other_runtimes_that_take_them(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(receipt, "SECONDS", 0.05)

    def refuse(path: Path, **further: Any) -> Graph:
        raise BundleError("too odd")

    class Stuck(Graph):
        def run(self, arrays: Sequence[np.ndarray]) -> Sequence[Any]:
            raise RuntimeError("not this size")

    offered = catalog(
        entry(Doubled, opens_onnx=True),
        ExporterEntry("stuck", "opens and fails", write=write, open=Stuck, opens_onnx=True),
        ExporterEntry("picky", "refuses", write=write, open=refuse, opens_onnx=True),
        ExporterEntry("absent", "is not there", write=write, open=refuse, opens_onnx=True, requires=("not_here",)),
        ExporterEntry("other", "takes its own", write=write, open=refuse),
    )
    told: list[str] = []
    stages = [{"stage": "quantize", "kind": "weights", "max_drop": None}]
    found = mw.compress(run, recipe=stages, catalog=offered, warn=told.append)
    timed = {(row["model"], row["runtime"]) for row in found.receipt["latency"]}
    assert timed >= {(who, what) for who in ("original", "variant") for what in ("ONNX Runtime", Doubled.runtime)}
    for each in ("custom-1-quantize", "original"):
        assert f"{each} is not timed in picky: BundleError: too odd" in told
        assert f"{each} is not timed in stuck: RuntimeError: not this size" in told
    assert any(f"ms in {Doubled.runtime}" in said or "ms in " in said for said in found.receipt["verdict"])


# OpenVINO where it is not installed -----------------------------------------------------------------------------------


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Any:
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr(openvino_graph, "silent_import", refuse)


def test_without_openvino_its_bundles_say_what_to_install(toy_bundle: Path, tmp_path: Path, absent: None):
    bundle = shutil.copytree(toy_bundle, tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["reader"] = "modelwright.bundle.openvino_graph:OpenVINOGraph"
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError) as caught:
        mw.load(bundle)
    assert str(caught.value) == (
        f'{bundle / "model.onnx"} runs in OpenVINO, which is not installed: pip install "modelwright[openvino]"'
    )


def test_without_openvino_an_export_says_what_to_install(
    toy_run: Path, toys: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("modelwright.plugins.missing_modules", list)
    with pytest.raises(PluginError) as caught:
        mw.export(toy_run, runtime="openvino", out=tmp_path / "bundle", catalog=toys)
    assert str(caught.value) == ("runtime 'openvino' needs the module openvino: pip install \"modelwright[openvino]\"")
