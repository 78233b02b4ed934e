"""Compression from a run to variants with receipts: stages, what goes on after a stop, what is refused."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import modelwright as mw
from modelwright.codec import Columns
from modelwright.compression import pipeline, receipt
from modelwright.compression.api import read_chosen
from modelwright.compression.variants import find, finished
from modelwright.errors import CompressionError, ConfigError, Interrupted, RunError
from modelwright.events import CheckpointSaved, Event
from modelwright.plugins import Catalog

pytestmark = pytest.mark.once

SMALL = [
    {"stage": "prune", "keep": 0.5, "train": None},
    {"stage": "distill", "train": {"steps": 12}},
    {"stage": "quantize", "calibrate": 64},
]


@pytest.fixture(scope="module", autouse=True)
def hurry() -> Iterator[None]:
    """What times say is not looked at here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(receipt, "SECONDS", 0.05)
        yield


@pytest.fixture(scope="module")
def trained(toys: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy that learned something, and its graph, which takes seconds to write."""
    settings = {"observers": [], "evaluate.resamples": 50, "train.epochs": 25, "train.optimizer.lr": 0.01}
    settings["train.threads"] = 1  # a forked process has no thread pool
    out = tmp_path_factory.mktemp("trained") / "run"
    run = mw.train("toy", out=out, catalog=toys, settings=settings, warn=lambda line: None)
    _ = pipeline.open_run(run.folder, toys, observer=lambda event: None, warn=lambda line: None).original
    return run.folder


@pytest.fixture(scope="module")
def compressed(trained: Path, toys: Catalog) -> mw.Compressed:
    """The run after all three stages; not to be changed."""
    return mw.compress(trained, recipe=SMALL, catalog=toys, warn=lambda line: None)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """The run without further variants, to be changed."""
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("custom-*", "chosen.json"))
    return tmp_path / "run"


@pytest.fixture
def squeeze(toys: Catalog) -> Callable[..., mw.Compressed]:
    def compress(run: Path, recipe: Any, **further: Any) -> mw.Compressed:
        return mw.compress(run, recipe=recipe, catalog=toys, **{"warn": lambda line: None, **further})

    return compress


# What comes out


def test_each_stage_leaves_a_variant_with_a_receipt(compressed: mw.Compressed):
    assert compressed.names == ["custom-1-prune", "custom-2-distill", "custom-3-quantize"]
    assert compressed.chosen == "custom-3-quantize"
    for name, found in zip(compressed.names, compressed.receipts, strict=True):
        variant = find(compressed.run_folder, name)
        assert variant.graph is not None
        assert found["bytes"]["variant"] == variant.graph.stat().st_size
        assert found["split"] == "test"
        assert {(row["model"], row["batch"]) for row in found["latency"]} >= {("original", 1), ("variant", 32)}
        assert all(row["p50_ms"] <= row["p95_ms"] for row in found["latency"])
        assert len(found["verdict"]) >= 4
    pruned, distilled, quantized = compressed.receipts
    assert pruned["parameters"]["ratio"] < 0.6
    assert distilled["parameters"] == pruned["parameters"] == quantized["parameters"]
    assert quantized["notes"]["layers"]
    assert [stage["stage"] for stage in quantized["stages"]] == ["prune", "distill", "quantize"]
    assert quantized["notes"]["teacher"] == "original"


def test_the_drop_is_the_difference_of_both_metrics_within_its_interval(compressed: mw.Compressed):
    for found in compressed.receipts:
        accuracy, drop = found["metrics"]["accuracy"], found["drop"]
        assert drop["value"] == pytest.approx(accuracy["original"] - accuracy["variant"])
        assert drop["low"] <= drop["value"] <= drop["high"]
        assert drop["value"] == pytest.approx(-accuracy["change"]["value"])
    assert compressed.receipts[1]["drop"]["value"] < compressed.receipts[0]["drop"]["value"]  # training mended it


def test_a_variant_reloads_with_its_plan_and_trains_on(compressed: mw.Compressed, toys: Catalog):
    work = pipeline.open_run(compressed.run_folder, toys, observer=lambda event: None, warn=lambda line: None)
    variant = find(compressed.run_folder, "custom-2-distill")
    loaded = pipeline.variants.load_model(work.task({}), variant)
    assert loaded is not None
    model, plan = loaded
    stored = load_file(variant.folder / "model.safetensors")
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())
    assert plan.edits


def test_the_report_shows_variants_and_verdicts(compressed: mw.Compressed):
    page = compressed.report.read_text(encoding="utf-8")
    assert "custom-3-quantize" in page
    assert compressed.receipt["verdict"][0] in page.replace("&#39;", "'")
    assert page.count("against") >= 2
    assert read_chosen(compressed.run_folder)["variant"] == "custom-3-quantize"


def test_what_is_made_is_not_made_again(compressed: mw.Compressed, squeeze: Callable[..., mw.Compressed]):
    before = {path: path.stat().st_mtime_ns for path in compressed.run_folder.glob("variants/*/*.onnx")}
    again = squeeze(compressed.run_folder, SMALL)
    assert again.names == compressed.names
    assert {path: path.stat().st_mtime_ns for path in compressed.run_folder.glob("variants/*/*.onnx")} == before


# Stages


def test_a_student_of_another_architecture(run: Path, squeeze: Callable[..., mw.Compressed]):
    recipe = [{"stage": "distill", "student": {"model.hidden": 8}, "train": {"steps": 150, "optimizer.lr": 0.02}}]
    found = squeeze(run, recipe)
    assert found.receipt["parameters"]["ratio"] < 0.3
    assert find(run, "custom").settings == {"model": {"hidden": 8}}
    assert load_file(run / "variants" / "custom-1-distill" / "model.safetensors")["layers.0.weight"].shape == (8, 2)


def test_stored_outputs_teach_as_their_network_does(run: Path, squeeze: Callable[..., mw.Compressed], toys: Catalog):
    work = pipeline.open_run(run, toys, observer=lambda event: None, warn=lambda line: None)
    train = work.datasets["train"]
    points = train.points  # type: ignore[attr-defined]
    with torch.no_grad():
        logits = work.model(points)["logits"].numpy()
    order = np.random.default_rng(0).permutation(len(train))
    np.savez(run / "teacher.npz", ids=order, logits=logits[order])
    still = {"stage": "distill", "mix": 1.0, "train": {"steps": 150}}
    student = {"model.hidden": 8}
    taught = squeeze(run, [{**still, "student": student, "teacher": str(run / "teacher.npz")}])
    assert taught.receipt["notes"]["teacher"].endswith("teacher.npz")
    np.savez(run / "short.npz", ids=order[:-1], logits=logits[order[:-1]])
    with pytest.raises(CompressionError, match="has no outputs for 1 of 301 training samples"):
        squeeze(run, [{**still, "teacher": str(run / "short.npz")}], overwrite=True)
    np.savez(run / "wide.npz", ids=order, logits=np.zeros((len(train), 7), np.float32))
    with pytest.raises(CompressionError, match="trained on the same classes"):
        squeeze(run, [{**still, "teacher": str(run / "wide.npz")}], overwrite=True)
    np.savez(run / "other.npz", ids=order, boxes=logits)
    with pytest.raises(CompressionError, match="take one of this task"):
        squeeze(run, [{**still, "teacher": str(run / "other.npz")}], overwrite=True)
    (run / "broken.npz").write_text("no archive")
    with pytest.raises(CompressionError, match="is no file of stored outputs"):
        squeeze(run, [{**still, "teacher": str(run / "broken.npz")}], overwrite=True)


def test_another_run_is_a_teacher(run: Path, trained: Path, squeeze: Callable[..., mw.Compressed]):
    found = squeeze(run, [{"stage": "distill", "teacher": str(trained), "train": {"steps": 2}}])
    assert found.receipt["notes"]["teacher"] == str(trained)
    with pytest.raises(CompressionError, match="there is no teacher nowhere: give original, a run's folder"):
        squeeze(run, [{"stage": "distill", "teacher": "nowhere"}], overwrite=True)


def test_single_weights_taken_out_stay_out_and_the_receipt_says_what_that_is_worth(
    run: Path, squeeze: Callable[..., mw.Compressed]
):
    recipe = [{"stage": "prune", "structured": False, "keep": 0.5, "train": {"steps": 6}}]
    found = squeeze(run, recipe)
    stored = load_file(run / "variants" / "custom-1-prune" / "model.safetensors")
    zeros = sum(int((value == 0).sum()) for name, value in stored.items() if value.ndim == 2)
    assert zeros >= 0.45 * sum(value.numel() for value in stored.values() if value.ndim == 2)
    assert any("nothing smaller or faster by itself" in said for said in found.receipt["verdict"])


def test_pruning_goes_in_rounds_with_training_between(run: Path, squeeze: Callable[..., mw.Compressed]):
    recipe = [{"stage": "prune", "keep": 0.25, "rounds": 2, "importance": "taylor", "train": {"steps": 4}}]
    found = squeeze(run, recipe)
    resizes = json.loads((run / "variants" / "custom-1-prune" / "plan.json").read_text())
    assert found.receipt["parameters"]["ratio"] < 0.35
    assert len(resizes["edits"]) >= 2


@pytest.mark.parametrize("goal", ["max", "min"])
def test_a_drop_that_may_be_chance_is_none_and_a_real_one_is_seen(goal: str):
    def hits(wrong: int) -> Columns:
        found = np.arange(100) >= wrong
        return Columns({"hit": found if goal == "max" else ~found})

    task = SimpleNamespace(
        metrics=lambda rows: {"score": float(rows.array("hit").mean())}, objective=mw.Objective("score", goal)
    )
    stage: Any = SimpleNamespace(task=task, config=SimpleNamespace(seed=0))
    certain = pipeline.Stage.certain_drop
    assert certain(stage, hits(5), hits(6)) == pytest.approx(0.0, abs=0.005)
    assert 0.1 < certain(stage, hits(5), hits(25)) < 0.2
    assert certain(stage, hits(25), hits(5)) < -0.2


# After a stop


class Stop:
    """Ends its own process after some checkpoints: by Ctrl-C, or by what leaves no time to clean up."""

    def __init__(self, after: int, kind: signal.Signals = signal.SIGINT) -> None:
        self.left, self.kind = after, kind

    def __call__(self, event: Event) -> None:
        if isinstance(event, CheckpointSaved):
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(self.kind)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the process is forked")
@pytest.mark.parametrize("kind", ["prune", "distill", "aware"])
def test_a_stage_that_was_killed_and_stopped_goes_on_to_the_same_weights(
    run: Path, tmp_path: Path, squeeze: Callable[..., mw.Compressed], kind: str
):
    settings = {"steps": 6, "checkpoint_every": 1, "log_every": 1}
    recipe = {
        "prune": [{"stage": "prune", "train": settings}],
        "distill": [{"stage": "distill", "train": settings}],
        "aware": [{"stage": "quantize", "kind": "aware", "train": settings, "max_drop": None}],
    }[kind]
    other = tmp_path / "other"
    shutil.copytree(run, other)
    whole = squeeze(run, recipe)

    fatal = {"observer": Stop(after=3, kind=signal.SIGKILL)}
    killed = multiprocessing.get_context("fork").Process(target=squeeze, args=(other, recipe), kwargs=fatal)
    killed.start()
    killed.join(120)
    assert killed.exitcode == -signal.SIGKILL
    with pytest.raises(Interrupted, match="go on with the same command: modelwright compress"):
        squeeze(other, recipe, observer=Stop(after=2))
    assert [each.name for each in finished(other)] == ["original"]
    again = squeeze(other, recipe)
    for file in ("model.safetensors", "model.onnx"):
        for name in whole.names:
            first, second = (where / "variants" / name / file for where in (run, other))
            assert first.exists() == second.exists()
            assert not first.exists() or first.read_bytes() == second.read_bytes()
    assert again.receipt["drop"]["value"] == whole.receipt["drop"]["value"]


# What is refused


def test_a_variant_made_otherwise_is_not_overwritten_unasked(
    compressed: mw.Compressed, tmp_path: Path, squeeze: Callable[..., mw.Compressed]
):
    shutil.copytree(compressed.run_folder, tmp_path / "run")
    other = [{**SMALL[2], "kind": "weights", "max_drop": None}]
    squeeze(tmp_path / "run", other)
    changed = [{**other[0], "kind": "dynamic"}]
    with pytest.raises(CompressionError, match=r"was made with other settings .* add --overwrite"):
        squeeze(tmp_path / "run", changed)
    assert find(tmp_path / "run", "custom-1-quantize").stages[0]["kind"] == "weights"
    squeeze(tmp_path / "run", changed, overwrite=True)
    assert find(tmp_path / "run", "custom-1-quantize").stages[0]["kind"] == "dynamic"


def test_nothing_trains_after_a_graph(run: Path, squeeze: Callable[..., mw.Compressed]):
    recipe = [{"stage": "quantize", "kind": "weights", "max_drop": None}, {"stage": "prune"}]
    with pytest.raises(CompressionError, match=r"prune needs a torch model .* quantize last"):
        squeeze(run, recipe)
    assert [each.name for each in finished(run)] == ["custom-1-quantize", "original"]  # what was made stays
    assert "custom-1-quantize" in (run / "report.html").read_text(encoding="utf-8")


def test_a_model_that_forgot_everything_is_said_and_kept(
    run: Path, squeeze: Callable[..., mw.Compressed], toys: Catalog
):
    work = pipeline.open_run(run, toys, observer=lambda event: None, warn=lambda line: None)
    labels = work.datasets["train"].labels.numpy()  # type: ignore[attr-defined]
    wrong = 8 * np.eye(3, dtype=np.float32)[(labels + 1) % 3]
    np.savez(run / "liar.npz", ids=np.arange(len(labels)), logits=wrong)
    recipe = [
        {"stage": "distill", "teacher": str(run / "liar.npz"), "mix": 1.0, "train": {"steps": 100, "select": "last"}}
    ]
    with pytest.raises(CompressionError, match=r"lost what was learned: accuracy 0\.\d+, an untrained model has"):
        squeeze(run, recipe)
    assert find(run, "custom-1-distill").receipt["drop"]["value"] > 0.2


def test_wrong_settings_of_a_stage_are_found_when_it_begins(run: Path, squeeze: Callable[..., mw.Compressed]):
    with pytest.raises(ConfigError, match=r"unknown setting train\.epoch "):
        squeeze(run, [{"stage": "distill", "train": {"epoch": 3}}])
    with pytest.raises(ConfigError, match=r"unknown setting model.hiden \(did you mean 'hidden'\?\)"):
        squeeze(run, [{"stage": "distill", "student": {"model.hiden": 3}}], overwrite=True)


def test_a_recipes_name_stands_for_its_last_variant(compressed: mw.Compressed):
    assert find(compressed.run_folder, "custom").name == "custom-3-quantize"


def test_a_folder_that_is_no_run_and_a_variant_that_is_not_there(tmp_path: Path, compressed: mw.Compressed):
    with pytest.raises(RunError, match="there is no run folder"):
        mw.compress(tmp_path / "absent")
    with pytest.raises(CompressionError, match=r"has no variant 'custom-4' \(did you mean 'custom-\d"):
        find(compressed.run_folder, "custom-4")
