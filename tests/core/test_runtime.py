"""A bundle where it is served: what it says, what it refuses, and that torch stays away."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import modelwright as mw
from modelwright.bundle.codecs import describe, restore
from modelwright.bundle.runtime import Bundle, Graph, sha256
from modelwright.codec import Sample
from modelwright.data import Input
from modelwright.errors import BundleError, DataError, ExportError
from modelwright.testing.toy_codec import ToyCodec
from tests.core.toy_codecs import Forgetful, TwiceCodec

POINTS = [[0.1, 0.2], [0.5, -0.3], [-0.4, 0.4], [0.9, 0.0], [0.0, -0.9]]
OURS = [SimpleNamespace(value="tests.core.toy_codecs")]


@pytest.fixture
def bundle(toy_bundle: Path, tmp_path: Path) -> Path:
    """A copy, to be changed."""
    shutil.copytree(toy_bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


def with_codec(bundle: Path, codec: Any, **settings: Any) -> Path:
    """A bundle that names another codec, with the digest that belongs to it."""
    (bundle / "codec.json").write_text(json.dumps({"codec": codec, "settings": settings}))
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["codec.json"] = sha256(bundle / "codec.json")
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return bundle


# The graph ------------------------------------------------------------------------------------------------------------


def test_a_graph_says_what_it_takes_and_takes_arrays_of_any_kind(toy_bundle):
    graph = Graph(toy_bundle / "model.onnx", threads=1)
    assert graph.inputs == (Input("point", (2,), "float32"),)
    assert graph.outputs == (Input("logits", (3,), "float32"),)
    assert graph.threads == 1
    points = np.array(POINTS, np.float32)
    expected = graph(points)["logits"]
    assert expected.shape == (5, 3)
    for same in (torch.from_numpy(points), points.T.copy().T, list(points)):
        np.testing.assert_array_equal(graph(same)["logits"], expected)


def test_a_graph_takes_as_many_arrays_as_it_has_inputs(toy_bundle):
    with pytest.raises(BundleError, match=r"takes 1 arrays \(point\), not 2"):
        Graph(toy_bundle / "model.onnx")(np.zeros((1, 2)), np.zeros((1, 2)))


def test_what_is_no_graph_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"there is no graph .*nothing.onnx"):
        Graph(tmp_path / "nothing.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"bad.onnx is no graph that ONNX Runtime takes: .*; export it again") as told:
        Graph(tmp_path / "bad.onnx")
    assert "\n" not in str(told.value)


# Predictions ----------------------------------------------------------------------------------------------------------


def test_one_thing_gives_one_record_and_a_list_a_list(toy_bundle):
    bundle = mw.load(toy_bundle)
    one, many = bundle.predict((0.1, 0.2)), bundle.predict(POINTS)
    assert isinstance(bundle, mw.Bundle)
    assert one == many[0]
    assert len(many) == len(POINTS)
    assert sum(one["probabilities"]) == pytest.approx(1)
    assert bundle.predict([]) == []
    assert bundle.card.startswith("# toy\n")


@pytest.mark.parametrize("codec", [ToyCodec(), TwiceCodec()])
@pytest.mark.parametrize("batch", [1, 2, 3, 32])
def test_how_things_are_batched_changes_nothing(toy_bundle, codec, batch):
    opened = Bundle.load(toy_bundle)
    found = Bundle(toy_bundle, codec, opened.graph, opened.manifest).columns(POINTS, batch=batch)
    assert found.ids.tolist() == [0, 1, 2, 3, 4]
    expected = opened.columns(POINTS).array("probabilities")
    np.testing.assert_allclose(found.array("probabilities"), expected, rtol=1e-5)


def test_a_thing_that_the_codec_passes_over_is_told(toy_bundle):
    @dataclass(frozen=True)
    class Picky(ToyCodec):
        def prepare(self, raws: Sequence[Any]) -> list[Sample]:
            return [sample for sample in super().prepare(raws) if sample.row != 1]

    opened = Bundle.load(toy_bundle)
    with pytest.raises(DataError, match="the codec made no sample of 1 of 5 things"):
        Bundle(toy_bundle, Picky(), opened.graph, opened.manifest).predict(POINTS)


def test_a_thing_that_cannot_be_used_is_told(toy_bundle):
    with pytest.raises(DataError, match="'x' is no point"):
        mw.load(toy_bundle).predict("x")


def test_no_torch_and_no_pandas_come_in(toy_bundle):
    code = (
        f"import sys, modelwright; modelwright.load({str(toy_bundle)!r}).predict((0.1, 0.2)); "
        "print(*sorted({'torch', 'pandas', 'pydantic', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.onnx", "codec.json", "card.md", "facts.safetensors"])
def test_a_bundle_that_was_changed_is_refused_with_the_file_that_differs(bundle, name):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"was changed after it was exported: {name} differs"):
        mw.load(bundle)
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"is incomplete: {name} is missing"):
        mw.load(bundle)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"is no bundle: it has no manifest.json; write one: modelwright export RUN"):
        mw.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "cannot be read"), ("[]", "is damaged: it holds no settings"), ("{}", "lists no digests of model.onnx")],
)
def test_a_manifest_that_says_nothing_is_refused(bundle, content, said):
    (bundle / "manifest.json").write_text(content)
    with pytest.raises(BundleError, match=said):
        mw.load(bundle)


def test_a_manifest_that_points_outside_is_refused(bundle):
    (bundle.parent / "other").write_text("secret")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["../other"] = sha256(bundle.parent / "other")
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"is incomplete: \.\./other is missing"):
        mw.load(bundle)


def test_a_strangers_codec_is_not_even_imported(bundle, tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BundleError, match="belongs to 'stranger', which is no installed plugin; install it: pip inst"):
        Bundle.load(with_codec(bundle, "stranger:Codec"), plugins=[])
    assert "stranger" not in sys.modules


def test_the_codec_of_a_plugin_is_taken(bundle):
    found = Bundle.load(with_codec(bundle, "tests.core.toy_codecs:Forgetful", scale=0.0), plugins=OURS)
    assert found.codec == Forgetful(0.0)
    assert found.predict((0.1, 0.2))["probabilities"] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(
    ("codec", "said"),
    [
        ("modelwright.codec:Columns", "modelwright.codec:Columns is no codec"),
        ("modelwright.cli:main", "modelwright.cli:main is no codec"),
        ("modelwright.codec:Nothing", "there is no codec modelwright.codec:Nothing: the bundle is of another version"),
        ("modelwright.nowhere:Codec", r"could not be loaded: No module named 'modelwright.nowhere'; install it: pip"),
        (7, "codec.json names no codec"),
    ],
)
def test_what_is_named_must_be_a_codec(bundle, codec, said):
    with pytest.raises(BundleError, match=said):
        mw.load(with_codec(bundle, codec))


def test_settings_that_the_codec_does_not_take_are_told(bundle):
    with pytest.raises(BundleError, match="does not take its settings"):
        mw.load(with_codec(bundle, "modelwright.testing.toy_codec:ToyCodec", nonsense=1))


def test_a_bundle_cannot_make_people_run_what_it_likes(bundle):
    manifest = json.loads((with_codec(bundle, "stranger:Codec") / "manifest.json").read_text())
    manifest["install"] = 'x"; rm -rf ~; "'
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"which is no installed plugin$"):
        mw.load(bundle)


# Codecs as JSON -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Nested(ToyCodec):
    names: tuple[str, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    ranks: dict[str, tuple[int, ...]] | None = None
    loose: list[int] | None = None
    word: str = ""


def test_lists_come_back_as_what_the_codec_holds():
    codec = Nested(("a", "b"), ((1, 2), (3, 4)), {"a": (1,)}, [1, 2], "w")
    again = restore(json.loads(json.dumps(describe(codec))), plugins=[SimpleNamespace(value=__name__)])
    assert again == codec


def test_a_codec_that_cannot_travel_is_told():
    @dataclass(frozen=True)
    class Local(ToyCodec):
        pass

    with pytest.raises(ExportError, match="is defined inside a function"):
        describe(Local())
    with pytest.raises(ExportError, match="Nested are no JSON values"):
        describe(Nested(loose=[np.int64(1)]))  # type: ignore[list-item]
