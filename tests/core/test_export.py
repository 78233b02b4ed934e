"""Graphs that agree with their models, and bundles that are written whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import modelwright as mw
from modelwright import folder
from modelwright.bundle import agreement, export, writing
from modelwright.bundle.agreement import Samples, compare
from modelwright.bundle.card import write_card
from modelwright.bundle.export import write_graph
from modelwright.bundle.runtime import Graph
from modelwright.bundle.scoring import evaluate_bundle, evaluate_variant
from modelwright.bundle.writing import find
from modelwright.config import build_config
from modelwright.data import Input, Key, Size
from modelwright.errors import BundleError, CheckpointError, CompressionError, DataError, ExportError, RunError
from modelwright.plugins import Catalog
from modelwright.task import Batch, Datasets, Example, Keys
from modelwright.testing.toy import ToyConfig, ToyTask

REAL_EXPORT = torch.onnx.export


class Sounds:
    """Noise of several lengths, with a number beside it."""

    def __init__(self, *lengths: int) -> None:
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, key: Key) -> Example:
        raise NotImplementedError

    def __getitems__(self, keys: Keys) -> Batch:
        longest = max(self.lengths[index] for index in keys.indices)
        rng = np.random.default_rng(int(keys.indices[0]))
        sounds = rng.normal(size=(len(keys.indices), longest)).astype(np.float32)
        return Batch((torch.from_numpy(sounds), torch.from_numpy(keys.indices)), {}, keys.indices)


class Listener(nn.Module):
    """Means of four; at batch and length of any size, with dropout inside."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))

    def forward(self, sound: Tensor, mark: Tensor) -> dict[str, Tensor]:
        batch, length = sound.shape
        means = self.layers(sound.reshape(batch, length // 4, 4))
        return {"frames": means, "said": means.mean(dim=1).argmax(dim=1), "marked": mark * 2}


class Counter(Listener):
    """Unrolled over the length, which torch.export takes for a constant then."""

    def forward(self, sound: Tensor, mark: Tensor) -> dict[str, Tensor]:
        total = sum(sound[:, place] for place in range(sound.shape[1]))
        return {"frames": total[:, None], "marked": mark * 2}  # type: ignore[index]


class Deaf(Listener):
    def forward(self, sound: Tensor, mark: Tensor) -> dict[str, Tensor]:
        return {"marked": mark * 2}


class Wrapper(nn.Module):
    """As tasks serve more than the model itself."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        return {name: value for name, value in self.inner(*inputs).items() if name != "marked" or len(inputs) == 2}


class HearingTask(ToyTask):
    inputs = (Input("sound", (Size("time", 8, 4),), "float32"), Input("mark", (), "int64"))


def hearing(kind: type[ToyTask] = HearingTask) -> ToyTask:
    return kind(build_config(ToyConfig))


@pytest.fixture
def toy(toy_run: Path, toys: Catalog) -> writing.Source:
    return find(toy_run, "original", catalog=toys, warn=lambda message: None)


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The newer exporter fails, as it does for what it does not know; the older one takes no time."""
    asked: list[bool] = []

    def refuse(*arguments: Any, dynamo: bool, **further: Any) -> Any:
        asked.append(dynamo)
        if dynamo:
            raise RuntimeError("not\nknown")
        return REAL_EXPORT(*arguments, dynamo=False, **further)

    monkeypatch.setattr(torch.onnx, "export", refuse)
    return asked


# The graph ------------------------------------------------------------------------------------------------------------


def test_a_graph_takes_batches_and_sizes_that_it_never_saw(tmp_path, capfd):
    model = Listener()
    found = write_graph(hearing(), model, Sounds(16, 16, 16, 24), tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert capfd.readouterr() == ("", "")
    assert not any(module.training for module in model.modules())
    assert (found.exporter, found.tolerance) == ("dynamo", 1e-3)
    cases = {(case.batch, case.sizes["time"]) for case in found.cases}
    assert cases == {(1, 16), (3, 16), (1, 24)}  # the last a real sample
    assert json.loads(json.dumps(found.as_json()))["gap"] == found.gap <= 1e-5
    graph = Graph(tmp_path / "model.onnx")
    assert graph.inputs == (Input("sound", (Size("time"),), "float32"), Input("mark", (), "int64"))
    sound, mark = torch.randn(5, 40), torch.arange(5)
    for name, value in model(sound, mark).items():
        np.testing.assert_allclose(graph(sound, mark)[name], value.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("lengths", "other"), [((16, 16, 40), 16), ((16,), 8), ((28, 28, 28, 28), 12), ((8, 8, 8), 12), ((16, 8, 12), 8)]
)
def test_where_no_real_sample_has_another_size_one_is_cut_or_repeated(lengths, other):
    samples = Samples(hearing(), Sounds(*lengths), seed=0)
    sizes = [samples.sizes(arrays) | {"batch": len(arrays[0])} for arrays in samples.cases()]
    assert [each["batch"] for each in sizes] == [1, 3, 1]
    assert sizes[-1]["time"] == other


def test_a_graph_made_for_one_size_is_refused(tmp_path):
    # Exporters differ: one writes the size down, another keeps it open and computes for the one it saw.
    said = r"'time' of input 'sound' came out fixed at 8|graph and model disagree at batch 1, time 12"
    with pytest.raises(ExportError, match=said):
        write_graph(hearing(), Counter(), Sounds(8, 8, 8), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_comes_out_fixed_is_refused(tmp_path, monkeypatch):
    def fixed(served: nn.Module, example: Any, path: Path | None = None, **further: Any) -> Any:
        if further.pop("dynamo"):
            raise RuntimeError("not known")
        return REAL_EXPORT(served, example, path, dynamo=False, **{**further, "dynamic_axes": {}})

    monkeypatch.setattr(torch.onnx, "export", fixed)
    with pytest.raises(ExportError, match=r"'batch' of input 'sound' came out fixed at 3: nothing in the model may"):
        write_graph(hearing(), Listener(), Sounds(8, 8, 8), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_has_the_name_of_an_input_is_refused(tmp_path):
    class Echo(Listener):
        def forward(self, sound: Tensor, mark: Tensor) -> dict[str, Tensor]:
            return {"sound": sound, "mark": mark}

    with pytest.raises(ExportError, match="mark, sound: an output has the name of an input; give it another"):
        write_graph(hearing(), Echo(), Sounds(16, 16, 16), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_an_input_that_the_model_does_not_use_is_refused(tmp_path, older):
    with pytest.raises(ExportError, match="the model must use every input"):
        write_graph(hearing(), Deaf(), Sounds(8, 8, 8), tmp_path / "model.onnx")


def test_the_older_exporter_helps_out_and_that_is_said(tmp_path, older):
    class Served(HearingTask):
        def served(self, model: nn.Module) -> nn.Module:
            return Wrapper(model)

    said: list[str] = []
    found = write_graph(hearing(Served), Listener(), Sounds(16, 16, 16), tmp_path / "model.onnx", warn=said.append)
    assert (found.exporter, older) == ("torchscript", [True, False])
    assert said == ["exported with torch's older exporter, since the newer one failed: RuntimeError: not known"]
    assert Graph(tmp_path / "model.onnx").inputs[0].shape == (Size("time"),)


def test_a_model_may_say_itself_why_it_has_no_graph(tmp_path):
    class Talker(Listener):
        def forward(self, sound: Tensor, mark: Tensor) -> dict[str, Tensor]:
            if torch.compiler.is_exporting():
                raise ExportError("it writes one word after the other: use the run itself")
            return super().forward(sound, mark)

    with pytest.raises(ExportError, match=r"\Ait writes one word after the other: use the run itself\Z"):
        write_graph(hearing(), Talker(), Sounds(16, 16, 16), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_model_that_neither_exporter_takes_is_told(tmp_path, monkeypatch):
    def refuse(*arguments: Any, dynamo: bool, **further: Any) -> None:
        raise RuntimeError("newer" if dynamo else "older")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(
        ExportError, match="has no ONNX graph: RuntimeError: newer; the older exporter: RuntimeError: old"
    ):
        write_graph(hearing(), Listener(), Sounds(8, 8, 8), tmp_path / "model.onnx")


def test_a_graph_that_disagrees_is_not_written_and_the_old_one_stays(tmp_path, older, monkeypatch):
    monkeypatch.setattr(agreement, "TOLERANCE", -1.0)
    (tmp_path / "model.onnx").write_text("old")
    with pytest.raises(ExportError, match=r"disagree at batch 1, time 16: 'frames' by .* \(allowed: -1\); nothing was"):
        write_graph(hearing(), Listener(), Sounds(16, 16, 16), tmp_path / "model.onnx")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("model.onnx", "old")]


def test_weights_of_more_than_a_message_holds_lie_beside_the_graph(tmp_path, monkeypatch, toy):
    monkeypatch.setattr(export, "LIMIT", 100)
    write_graph(toy.task, toy.model, toy.task.datasets()["valid"], tmp_path / "model.onnx")  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert Graph(tmp_path / "model.onnx")(np.zeros((2, 2), np.float32))["logits"].shape == (2, 3)


def test_another_model_disagrees_with_a_graph(toy, toy_bundle):
    samples = Samples(toy.task, toy.task.datasets()["valid"], seed=0)
    assert compare(toy_bundle / "model.onnx", toy.task, toy.model, samples.cases()).gap < 1e-5  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="graph and model disagree at batch 1: 'logits' by"):
        compare(toy_bundle / "model.onnx", toy.task, toy.task.model().eval(), samples.cases())


def test_a_model_that_fails_at_a_size_it_promised_is_told(toy, toy_bundle):
    def fail(point: Tensor) -> dict[str, Tensor]:
        raise ValueError("too\nsmall")

    samples = Samples(toy.task, toy.task.datasets()["valid"], seed=0)
    with pytest.raises(
        ExportError, match=r"the model fails at batch 1, which `inputs` allows \(ValueError: too small\)"
    ):
        compare(toy_bundle / "model.onnx", toy.task, fail, samples.cases())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other", "gap"),
    [
        ([1.0, -4.0], [1.0, -3.0], 0.25),
        ([np.nan, 1.0], [np.nan, 1.0], 0.0),
        ([np.inf, 1.0], [-np.inf, 1.0], np.inf),
        ([np.nan, 1.0], [0.0, 1.0], np.inf),
        ([1.0], [np.nan], np.nan),
        ([1, 2], [1, 3], np.inf),
        ([1, 2], [1.0, 2.0], np.inf),
        ([1.0], [1.0, 1.0], np.inf),
        ([0.0], [0.0], 0.0),
    ],
)
def test_the_gap_is_a_share_of_the_largest_value(one, other, gap):
    assert agreement._gap(np.array(one), np.array(other)) == pytest.approx(gap, nan_ok=True)


# Bundles --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, toy_bundle: Path) -> None:
    """A graph that lies there already, where writing it is not what is looked at."""

    def copy(task: Any, model: Any, dataset: Any, target: Path, **further: Any) -> None:
        shutil.copyfile(toy_bundle / "model.onnx", target)

    monkeypatch.setattr(writing, "write_graph", copy)


def test_a_bundle_holds_what_it_takes_to_use_and_to_judge_it(toy_bundle, toy_run):
    manifest = json.loads((toy_bundle / "manifest.json").read_text())
    names = {path.name for path in toy_bundle.iterdir()}
    assert names == {"model.onnx", "codec.json", "card.md", "manifest.json", "facts.safetensors"}
    assert set(manifest["files"]) == names - {"manifest.json"}
    assert (manifest["task"], manifest["variant"], manifest["outputs"]) == ("toy", "original", ["logits"])
    assert manifest["facts"] == {"classes": ["a", "b", "c"]}
    assert manifest["settings"]["train"]["epochs"] == 8
    assert manifest["evaluations"] == folder.read_results(toy_run)["evaluations"]
    (point,) = manifest["inputs"]
    assert -1.5 < point["low"] < 0 < point["high"] < 1.5
    card = (toy_bundle / "card.md").read_text()
    for said in ("say which spiral", "| accuracy | test |", "## Data", "## Limits", "differ by at most"):
        assert said in card


def test_the_card_tells_what_compression_did_and_who_may_use_it(toy_bundle):
    manifest = json.loads((toy_bundle / "manifest.json").read_text())
    row = {
        "model": "variant",
        "runtime": "ONNX Runtime",
        "batch": 1,
        "p50_ms": 1.25,
        "p95_ms": 2,
        "samples_per_second": 8,
    }
    receipt = {
        "split": "test",
        "samples": 100,
        "metrics": {"accuracy": {"original": 0.9, "variant": 0.8}, "recall/a": {"original": 1.0, "variant": None}},
        "verdict": ["no faster here"],
        "latency": [row],
        "processor": "a | b",
        "threads": 2,
    }
    card = write_card({**manifest, "agreement": None}, summary="sort", receipt=receipt, licence="AGPL-3.0")
    for said in (
        "- no faster here",
        "| accuracy | test | 100 | 0.8000 | 0.9000 |",
        "| 1.25 |",
        "## Licence\n\nAGPL-3.0",
    ):
        assert said in card
    assert "recall/a" not in card


def test_what_exists_is_only_replaced_when_asked_and_when_it_is_a_bundle(toy_run, toys, tmp_path, quick):
    out = tmp_path / "deep" / "bundle"
    assert writing.export(toy_run, out=out, catalog=toys) == out
    with pytest.raises(BundleError, match="exists already; choose another --out, or add --overwrite"):
        writing.export(toy_run, out=out, catalog=toys)
    (out / "card.md").write_text("changed")
    writing.export(toy_run, out=out, overwrite=True, catalog=toys)
    assert mw.load(out).card.startswith("# toy")
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]
    (out / "manifest.json").unlink()
    with pytest.raises(BundleError, match="is no bundle and is not overwritten"):
        writing.export(toy_run, out=out, overwrite=True, catalog=toys)


def test_a_failure_leaves_what_was_there(toy_run, toys, toy_bundle, tmp_path, monkeypatch):
    def fail(*arguments: Any, **further: Any) -> None:
        raise ExportError("no graph")

    monkeypatch.setattr(writing, "write_graph", fail)
    out = shutil.copytree(toy_bundle, tmp_path / "bundle")
    with pytest.raises(ExportError, match="no graph"):
        writing.export(toy_run, out=out, overwrite=True, catalog=toys)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    mw.load(out)


def test_a_folder_that_cannot_be_made_is_told(toy_run, toys, tmp_path, quick):
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match=r"file/bundle could not be written: .*; choose another --out"):
        writing.export(toy_run, out=tmp_path / "file" / "bundle", catalog=toys)


def test_runs_that_hold_nothing_to_export_are_told(toy_run, toys, tmp_path):
    with pytest.raises(RunError, match="there is no run folder"):
        writing.export(tmp_path / "nowhere", catalog=toys)
    with pytest.raises(CompressionError, match="has no variant 'tiny'"):
        writing.export(toy_run, variant="tiny", out=tmp_path / "bundle", catalog=toys)
    untrained = shutil.copytree(toy_run, tmp_path / "run", ignore=shutil.ignore_patterns("facts.json", "checkpoints"))
    with pytest.raises(CheckpointError, match="was never trained; go on with: modelwright resume"):
        writing.export(untrained, catalog=toys)


# Scores ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_bundle_scores_as_its_run_does(toy_run, toy_bundle, toys, split):
    stored = {each["split"]: each for each in folder.read_results(toy_run)["evaluations"]}[split]
    expected = {"task": "toy", **{key: stored[key] for key in ("split", "samples", "metrics")}}
    assert evaluate_bundle(toy_bundle, split=split, catalog=toys) == expected
    assert evaluate_variant(toy_run, "original", split=split, catalog=toys) == expected


def test_a_bundle_whose_data_are_gone_is_told(toy_bundle, toys, monkeypatch):
    monkeypatch.setattr(ToyTask, "datasets", lambda self: Datasets(None))
    with pytest.raises(DataError, match="bundle is scored on the data of its settings: the data have no test split"):
        evaluate_bundle(toy_bundle, catalog=toys)


def test_nothing_but_the_model_is_in_the_file(toy_bundle):
    proto = onnx.load(toy_bundle / "model.onnx")
    assert not proto.metadata_props
    assert not proto.graph.value_info
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
    assert [dim.dim_param for dim in proto.graph.input[0].type.tensor_type.shape.dim] == ["batch", ""]
