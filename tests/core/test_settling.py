"""What a task may find or offer beyond a model: values settled on validation data, explanations, own teachers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import modelwright as mw
from modelwright.bundle.runtime import Bundle
from modelwright.bundle.scoring import evaluate_bundle, evaluate_variant
from modelwright.bundle.writing import export
from modelwright.compression import receipt
from modelwright.compression.variants import find
from modelwright.errors import BundleError, CompressionError
from modelwright.plugins import Catalog, discover
from modelwright.task import Batch, Datasets, Evaluated
from modelwright.testing.toy import TOY, ToyTask
from tests.core.conftest import Point
from tests.core.toy_codecs import Tempered

OURS = [SimpleNamespace(value="tests.core.toy_codecs")]
POINTS = np.array([[0.1, 0.2], [0.5, -0.3], [-0.4, 0.4]])
STUDENT = {
    "stage": "distill",
    "teacher": "oracle",
    "student": {"model.hidden": 8},
    "train": {"steps": 150, "optimizer.lr": 0.02},
}


class Why(nn.Module):
    """The model's logits beside each coordinate."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, point: Tensor) -> dict[str, Tensor]:
        return {**self.model(point), "shares": point * 2.0}


class Settling(ToyTask):
    """Finds a temperature on validation data, from what an unsettled codec says there."""

    asked: list[str] = []

    @property
    def codec(self) -> Tempered:  # pyright: ignore[reportIncompatibleVariableOverride]
        return Tempered(self.facts.values.get("settled", {}).get("temperature", 0.0))

    def settle(self, evaluated: Evaluated) -> Mapping[str, Any]:
        assert self.codec.temperature == 0.0
        self.asked.append(evaluated.split)
        return {"temperature": 1.0 + float(evaluated.predictions.array("probabilities").max())}

    def explainer(self, model: nn.Module) -> nn.Module:
        return Why(model)

    def teachers(self) -> Mapping[str, Callable[[Datasets], Callable[[Batch], Mapping[str, Tensor]]]]:
        def oracle(datasets: Datasets) -> Callable[[Batch], Mapping[str, Tensor]]:
            assert len(datasets["train"]) > 0
            return lambda batch: {"logits": 9.0 * torch.nn.functional.one_hot(batch.targets["label"], 3).float()}

        return {"oracle": oracle}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return discover([Point("toy", replace(TOY, build=Settling))])


@pytest.fixture(scope="module")
def run(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run with a student's variant; not to be changed."""
    out = tmp_path_factory.mktemp("settled") / "run"
    settings = {"observers": [], "evaluate.resamples": 20, "train.epochs": 8, "train.optimizer.lr": 0.01}
    mw.train("toy", out=out, catalog=catalog, settings=settings, warn=lambda line: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(receipt, "SECONDS", 0.05)
        mw.compress(out, recipe=[STUDENT, {"stage": "quantize"}], catalog=catalog, warn=lambda line: None)
        yield out


def settled_of(folder: Path) -> float:
    return json.loads((folder / "facts.json").read_text())["settled"]["temperature"]


def test_what_is_settled_is_kept_with_the_run_and_used_by_its_scores(run: Path, catalog: Catalog):
    temperature = settled_of(run)
    assert 1.0 < temperature < 2.0
    again = mw.evaluate(run, catalog=catalog)
    assert again["metrics"]["accuracy"] == mw.Run(run, "toy").results["evaluations"][-1]["metrics"]["accuracy"]
    assert set(Settling.asked) == {"valid"}


def test_each_variant_settles_for_itself_and_its_bundle_has_it(run: Path, catalog: Catalog, tmp_path: Path):
    found = [find(run, name).settled["temperature"] for name in ("custom-1-distill", "custom-2-quantize")]
    assert settled_of(run) not in found
    out = export(run, variant="custom-1-distill", out=tmp_path / "bundle", catalog=catalog)
    codec = Bundle.load(out, plugins=OURS).codec
    assert isinstance(codec, Tempered)
    assert codec.temperature == found[0]
    scored = evaluate_bundle(out, catalog=catalog)["metrics"]
    assert scored == evaluate_variant(run, "custom-1-distill", catalog=catalog)["metrics"]
    receipt = find(run, "custom-1-distill").receipt["metrics"]["accuracy"]["variant"]
    assert scored["accuracy"]["value"] == pytest.approx(receipt)


def test_a_finished_run_that_goes_on_settles_from_the_start(run: Path, catalog: Catalog):
    before = settled_of(run)
    mw.resume(run, catalog=catalog, warn=lambda line: None)
    assert settled_of(run) == before


def test_a_bundle_says_why(run: Path, catalog: Catalog, tmp_path: Path):
    bundle = Bundle.load(export(run, out=tmp_path / "bundle", catalog=catalog), plugins=OURS)
    assert bundle.explains
    records = bundle.predict(POINTS, explain=True)
    assert [record["why"] for record in records] == ["y", "x", "y"]
    plain = bundle.predict(POINTS)
    assert "why" not in plain[0]
    np.testing.assert_allclose([each["probabilities"] for each in plain], [e["probabilities"] for e in records])
    assert bundle.predict([]) == []
    single = bundle.columns([[0.5, -0.3]]).array("probabilities")
    np.testing.assert_allclose(single[0], plain[1]["probabilities"], rtol=1e-5)


def test_a_variant_that_is_only_a_graph_has_no_explanation(run: Path, catalog: Catalog, tmp_path: Path):
    out = export(run, variant="custom-2-quantize", out=tmp_path / "bundle", catalog=catalog)
    bundle = Bundle.load(out, plugins=OURS)
    assert not bundle.explains
    with pytest.raises(BundleError, match="cannot say why: its task, or this variant of the model, has no explainer"):
        bundle.predict(POINTS, explain=True)


def test_a_codec_that_does_not_explain_says_so():
    from modelwright.testing.toy_codec import ToyCodec

    with pytest.raises(NotImplementedError, match="ToyCodec does not explain"):
        ToyCodec().explain({}, None)


def test_an_unknown_teacher_is_told_beside_those_that_there_are(run: Path, catalog: Catalog):
    stage = {"stage": "distill", "teacher": "forest", "train": {"steps": 2}}
    with pytest.raises(CompressionError, match="no teacher forest: give original, oracle, a run's folder, a bundle"):
        mw.compress(run, recipe=[stage], catalog=catalog, overwrite=True, warn=lambda line: None)
