"""Stopping anywhere and going on gives the same weights, bit for bit."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import modelwright as mw
from modelwright.errors import CheckpointError, Interrupted, RunError
from modelwright.events import CheckpointSaved, Event, StepDone
from modelwright.plugins import Catalog

EVERYTHING: dict[str, Any] = {
    "data.samples": 301,
    "model.dropout": 0.2,
    "train.batch_size": 32,
    "train.epochs": 4,
    "train.ema.decay": 0.9,
    "train.ema.tau": 5,
    "train.clip": 1.0,
    "train.schedule.warmup": 5,
    "train.optimizer.name": "AdamW",
    "train.early_stop.patience": 3,
    "train.log_every": 7,
    "train.evaluate_every": 1,
}
"""Augmentation (always on in the toy task), dropout, EMA, warm-up, clipping and early stopping; 10 steps an epoch."""


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    (last,) = (folder / "checkpoints").glob("last-*")
    newest = max((folder / "checkpoints").glob("step-*"))
    found = {f"last.{k}": v for k, v in load_file(last / "model.safetensors").items()}
    for stem in ("model", "ema", "optimizer"):
        if (newest / f"{stem}.safetensors").exists():
            found |= {f"{stem}.{k}": v for k, v in load_file(newest / f"{stem}.safetensors").items()}
    return found


def assert_same(a: Path, b: Path) -> None:
    first, second = final_weights(a), final_weights(b)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.fixture(scope="module")
def whole(toys: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with everything that nobody stopped; not to be changed."""
    out = tmp_path_factory.mktemp("uninterrupted") / "whole"
    settings = {"observers": [], "evaluate.resamples": 0, "train.optimizer.lr": 0.01, **EVERYTHING}
    return mw.train("toy", out=out, catalog=toys, settings=settings, warn=lambda message: None).folder


class StopAt:
    """Sends this process SIGTERM once a step was logged."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone) and event.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("step", "workers"), [(1, 0), (9, 0), (10, 0), (17, 0), (38, 0), (13, 2)])
def test_a_stopped_run_goes_on_to_the_same_weights(
    train_toy: Callable[..., mw.Run], toys: Catalog, whole: Path, tmp_path: Path, step: int, workers: int
) -> None:
    settings = {**EVERYTHING, "train.log_every": 1, "train.workers": workers}
    with pytest.raises(Interrupted, match=r"a checkpoint is saved; go on with: modelwright resume .*cut"):
        train_toy("cut", settings, observer=StopAt(step))
    mw.resume(tmp_path / "cut", catalog=toys, warn=lambda message: None)
    assert_same(whole, tmp_path / "cut")
    assert mw.Run(tmp_path / "cut", "toy").metrics == mw.Run(whole, "toy").metrics


def test_a_run_copied_after_any_checkpoint_goes_on_to_the_same_weights(
    train_toy: Callable[..., mw.Run], toys: Catalog, tmp_path: Path
) -> None:
    """As after kill -9: nothing is left but what was on disk at that moment."""
    kept: list[Path] = []

    def copy(event: Event) -> None:
        if isinstance(event, CheckpointSaved) and event.step in (0, 3, 21, 24):
            kept.append(tmp_path / f"killed-{event.step}")
            shutil.copytree(tmp_path / "whole", kept[-1])

    train_toy("whole", {**EVERYTHING, "train.checkpoint_every": 3}, observer=copy)
    assert len(kept) == 4
    for folder in kept:
        mw.resume(folder, catalog=toys, warn=lambda message: None)
        assert_same(tmp_path / "whole", folder)
        steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        evaluated = [line["step"] for line in steps if line["event"] == "evaluation"]
        assert evaluated == [10, 20, 30, 40]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the process is forked")
def test_kill_9_in_another_process(train_toy: Callable[..., mw.Run], toys: Catalog, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    settings = {"train.epochs": 60, "train.checkpoint_every": 5, "train.threads": 1}  # a fork has no thread pool

    killed = multiprocessing.get_context("fork").Process(target=train_toy, args=("killed", settings), daemon=True)
    killed.start()
    checkpoints = tmp_path / "killed" / "checkpoints"
    deadline = time.monotonic() + 60
    while not list(checkpoints.glob("step-000000[1-9]*")) and time.monotonic() < deadline and killed.is_alive():
        time.sleep(0.002)
    killed.kill()
    killed.join()
    try:
        train_toy("whole", settings)
        mw.resume(tmp_path / "killed", catalog=toys, warn=lambda message: None)
    finally:
        torch.set_num_threads(threads)
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_a_damaged_checkpoint_is_passed_over_and_said(
    train_toy: Callable[..., mw.Run], toys: Catalog, whole: Path, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        train_toy("cut", {**EVERYTHING, "train.log_every": 1}, observer=StopAt(23))
    newest = max((tmp_path / "cut" / "checkpoints").glob("step-*"))
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    said: list[str] = []
    mw.resume(tmp_path / "cut", catalog=toys, warn=said.append)
    assert any("model.safetensors does not match its digest" in line and "step-00000020" in line for line in said)
    assert_same(whole, tmp_path / "cut")


def test_no_good_checkpoint_is_an_error(train_toy: Callable[..., mw.Run], toys: Catalog, tmp_path: Path) -> None:
    train_toy("run", {"train.epochs": 1})
    for state in (tmp_path / "run" / "checkpoints").glob("step-*/state.json"):
        state.unlink()
    with pytest.raises(CheckpointError, match="no good checkpoint is left"):
        mw.resume(tmp_path / "run", catalog=toys)


def test_a_checkpoint_of_another_model_is_an_error(
    train_toy: Callable[..., mw.Run], toys: Catalog, tmp_path: Path
) -> None:
    train_toy("run", {"train.epochs": 1})
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("hidden: 32", "hidden: 16"))
    with pytest.raises(CheckpointError, match="belongs to another model"):
        mw.resume(tmp_path / "run", catalog=toys)


def test_resuming_what_is_no_run_is_an_error(toys: Catalog, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run folder"):
        mw.resume(tmp_path / "nowhere", catalog=toys)
    with pytest.raises(RunError, match="is no run folder"):
        mw.resume(tmp_path, catalog=toys)


def test_resuming_a_finished_run_changes_nothing(toys: Catalog, whole: Path, tmp_path: Path) -> None:
    run = mw.Run(shutil.copytree(whole, tmp_path / "run"), "toy")
    before, metrics = final_weights(run.folder), run.metrics
    again = mw.resume(run, catalog=toys, warn=lambda message: None)
    assert again.metrics == metrics
    assert all(torch.equal(value, before[name]) for name, value in final_weights(run.folder).items())
