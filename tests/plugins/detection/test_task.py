"""The task as the engine sees it: batches, truths, what is settled, what is served; training and resume to the bit."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.plugins.detection import data_made
from tests.plugins.detection.models_made import need_ultralytics

import modelwright as mw
from modelwright.errors import ConfigError, Interrupted
from modelwright.events import Event, StepDone
from modelwright.task import Evaluated, Example, Progress
from modelwright.testing.watch import watched
from modelwright_detection.config import DetectionConfig
from modelwright_detection.distilling import distill_loss
from modelwright_detection.task import DetectionTask

SMALL: dict[str, Any] = {
    "data.scenes": 30,
    "data.size": 64,
    "data.valid": 0.2,
    "model.name": "ssdlite320",
    "augment.close_mosaic": 1,
    "train.epochs": 2,
    "train.batch_size": 8,
    "train.threads": 1,
    "train.ema.decay": 0.9,
    "evaluate.resamples": 5,
    "observers": [],
}


def task_of(**settings: Any) -> DetectionTask:
    task = DetectionTask(DetectionConfig.model_validate(settings))
    task.facts = dataclasses.replace(task.facts, values={"classes": ["cat", "dog"], "size": 64, "most": 3})
    return task


def example(height: int, width: int, *boxes: tuple[float, float, float, float]) -> Example:
    targets = {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "labels": np.ones(len(boxes), np.int64),
        "crowd": np.zeros(len(boxes), bool),
    }
    return Example(np.zeros((height, width, 3), np.uint8), targets)


def test_a_batch_has_boxes_of_the_letterbox_and_truths_are_in_the_pictures_own_pixels():
    task = task_of()
    examples = [example(32, 128, (0, 0, 128, 32), (10, 8, 20, 16)), example(64, 64)]
    batch = task.collate(examples, np.array([7, 9]))
    assert batch.inputs[0].shape == (2, 3, 64, 64)
    assert batch.targets["boxes"][0, 0].tolist() == [0, 24, 64, 40]
    assert batch.targets["labels"].tolist() == [[1, 1], [-1, -1]]
    assert batch.targets["size"].tolist() == [[32, 128], [64, 64]]
    truths = task.truths(batch)
    assert truths.ids.tolist() == [7, 9]
    np.testing.assert_allclose(truths["boxes"][0], [[0, 0, 128, 32], [10, 8, 20, 16]], atol=1e-4)
    assert [len(each) for each in truths["labels"]] == [2, 0]


def test_tiles_repeat_the_targets_of_their_picture():
    task = task_of(evaluate={"tile": 64, "overlap": 0.0})
    batch = task.collate([example(128, 128, (0, 0, 9, 9)), example(64, 64)], np.array([3, 4]))
    assert batch.ids.tolist() == [3, 3, 3, 3, 3, 4]
    assert (batch.targets["size"][:5] == 128).all()


def test_only_detectors_that_say_an_object_once_go_without_suppression():
    wanted = {"yolo11n": True, "yolo26n": False, "rt-detr": False, "d-fine": False, "ssdlite320": True}
    assert {name: task_of(model={"name": name}).codec.nms for name in wanted} == wanted
    assert task_of(model={"name": "yolo26n", "end_to_end": False}).codec.nms


def test_an_unknown_detector_is_refused_when_the_task_is_built():
    with pytest.raises(ConfigError, match="there is no detector 'yolo26x'"):
        task_of(model={"name": "yolo26x"})


def test_a_yolo_bundle_says_what_its_licence_asks_for():
    assert "AGPL-3.0" in task_of(model={"name": "yolo11n"}).licence
    assert task_of(model={"name": "d-fine"}).licence == ""


def test_the_confidence_of_the_settings_stands_before_the_settled_one():
    task = task_of()
    assert task.codec.confidence == 0.25
    task.facts = dataclasses.replace(task.facts, values={**task.facts.values, "settled": {"confidence": 0.6}})
    assert task.codec.confidence == 0.6
    given = task_of(evaluate={"confidence": 0.1})
    assert given.codec.confidence == 0.1
    assert given.settle(nothing_missed(given)) == {"confidence": 0.1}


def nothing_missed(task: DetectionTask) -> Evaluated:
    batch = task.collate([example(64, 64, (0, 0, 9, 9))], np.array([0]))
    truths = task.truths(batch)
    perfect = task.perfect(truths)
    return Evaluated("valid", [], perfect, truths, task.measure(perfect, truths), lambda *arrays: {})  # pyright: ignore[reportArgumentType]


def test_biases_leap_at_the_start_with_plain_gradients_only():
    first = Progress(0, 100, 0, 10)
    rates = [
        task_of(train={"optimizer": {"name": name}}).schedules()["ultralytics"](
            first, {"initial_lr": 0.01, "role": "bias"}
        )["lr"]
        for name in ("SGD", "AdamW")
    ]
    assert rates == [0.1, 0.0]


def test_what_is_settled_is_the_confidence_with_the_best_f1():
    task = task_of()
    assert 0 < task.settle(nothing_missed(task))["confidence"] <= 1


def test_distilling_costs_nothing_where_both_agree_and_is_not_offered_for_sets():
    torch.manual_seed(0)
    outputs = {"maps": torch.randn(2, 64, 5, requires_grad=True), "logits": torch.randn(2, 3, 5, requires_grad=True)}
    same = {name: value.detach() for name, value in outputs.items()}
    agreed = distill_loss(outputs, same, temperature=2.0)
    assert agreed is not None
    assert float(agreed.sum.detach()) == pytest.approx(0, abs=1e-5)
    taught = {name: value + torch.randn_like(value) for name, value in same.items()}
    other = distill_loss(outputs, taught, temperature=2.0)
    assert other is not None
    assert float(other.sum.detach()) > 0.1
    other.sum.backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in outputs.values())
    assert distill_loss({"boxes": torch.zeros(1)}, {"boxes": torch.zeros(1)}, temperature=1.0) is None


def test_distances_without_a_distribution_are_compared_as_they_are():
    said = {"maps": torch.zeros(1, 4, 6), "logits": torch.full((1, 2, 6), 3.0)}
    taught = {"maps": torch.ones(1, 4, 6), "logits": torch.full((1, 2, 6), 3.0)}
    found = distill_loss(said, taught, temperature=1.0)
    assert found is not None
    assert float(found.parts["distances"]) > 0
    assert float(found.parts["classes"]) == pytest.approx(0, abs=1e-5)


# Runs ---------------------------------------------------------------------------------------------------------------


def weights(run: mw.Run) -> dict[str, torch.Tensor]:
    (last,) = sorted((run.folder / "checkpoints").iterdir())[-1:]
    return load_file(last / "model.safetensors")


MOSAIC: dict[str, Any] = {
    **SMALL,
    "model.name": "yolo11n",
    "augment.close_mosaic": 2,
    "train.epochs": 4,
    "train.log_every": 1,
    "train.workers": 2,
}
"""Mosaic in two epochs and none in two, an average of the weights, pictures from other processes; 3 steps an epoch."""


class StopAt:
    """Sends this process SIGTERM once a step was logged."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone) and event.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.once
def test_a_run_goes_on_exactly_in_an_epoch_with_mosaic_and_over_its_closing(tmp_path: Path):
    need_ultralytics()
    whole = mw.train("object-detection", settings=MOSAIC, out=tmp_path / "whole", warn=print)
    cut = tmp_path / "cut"
    with pytest.raises(Interrupted):  # in the first epoch
        mw.train("object-detection", settings=MOSAIC, out=cut, observer=StopAt(2), warn=print)
    for stop in (5, 8):  # just before mosaic ends, after it ended
        with pytest.raises(Interrupted):
            mw.resume(cut, observer=StopAt(stop), warn=print)
    again = mw.resume(cut, warn=print)
    first, second = weights(whole), weights(again)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert whole.metrics == again.metrics


@pytest.mark.once
@pytest.mark.parametrize("name", ["yolo26n", "d-fine"])
def test_a_run_on_own_pictures_opens_no_connection_and_writes_into_its_folder_alone(tmp_path: Path, name: str):
    if name.startswith("yolo"):
        need_ultralytics()
    pictures = data_made.write(tmp_path / "pictures", data_made.files_of("yolo", data_made.made()))
    before = sorted(str(path) for path in pictures.rglob("*"))
    own = {
        "data.name": "yolo",
        "data.path": str(pictures),
        "model.name": name,
        "train.epochs": 1,
        "augment.mosaic": 1.0,
    }
    with watched(tmp_path / "run") as seen:
        mw.train("object-detection", settings={**SMALL, **own}, out=tmp_path / "run", warn=print)
    assert seen == []
    assert sorted(str(path) for path in pictures.rglob("*")) == before  # no .cache beside the labels


@pytest.mark.once
def test_workers_change_nothing_and_the_report_has_its_figures(tmp_path: Path):
    runs = [
        mw.train(
            "object-detection", settings={**SMALL, "train.workers": workers}, out=tmp_path / str(workers), warn=print
        )
        for workers in (0, 2)
    ]
    first, second = (weights(run) for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    names = {path.stem for path in (runs[0].folder / "figures").iterdir()}
    assert any("hardest" in name or "samples" in name for name in names)


@pytest.mark.parametrize("installed", [True, False])
def test_auto_is_a_network_that_is_installed(monkeypatch: pytest.MonkeyPatch, installed: bool):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: (installed or None) if name == "ultralytics" else found(name)
    )
    settings = DetectionConfig.model_validate({"model": {"name": "auto"}})
    assert settings.model.name == ("yolo11n" if installed else "ssdlite320")
