"""Trains a YOLO network with ultralytics' trainer and with this engine on the same batches, and compares the weights.

ultralytics' trainer runs on data written to disk, as its users run it; the batches it makes are recorded. Then the
engine trains the same network from the same weights on these batches, and the averaged weights of both are compared:

    python benchmarks/detection_parity.py --model yolo11n yolo26n --optimizer SGD auto

Run with one thread (OMP_NUM_THREADS=1), on a CPU, in fp32: the order of sums is then the same on both sides.
`--nominal 64` leaves ultralytics' gradient accumulation on. Its steps are then of a changing number of batches and
reach over the end of an epoch; they are replayed by hand, with this plugin's model, loss, groups and schedule.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from modelwright.codec import Columns
from modelwright.config import TaskConfig
from modelwright.data import Datasets, Facts, Input, Key, Keys
from modelwright.task import Batch, Example, Losses, Objective, Progress, Schedule, Task
from modelwright.training.steps import Supervised
from modelwright.training.trainer import Trainer
from modelwright_detection import data, ultra, ultra_train
from modelwright_detection.config import DetectionConfig
from modelwright_detection.model import build
from modelwright_detection.pictures import shrink

LR, MOMENTUM, DECAY, CLIP, EMA, TAU = 0.01, 0.937, 5e-4, 10.0, 0.9999, 2000.0
"""ultralytics' defaults."""


SPLITS = {"train": "train", "valid": "val", "test": "test"}
"""Splits, and what ultralytics calls them."""


@dataclass
class Recorded:
    """What ultralytics' trainer began with, was fed and ended with.

    Attributes:
        batches: of each epoch, as its loss saw them.
        start, raw, average: weights by name.
        settings: learning rate and the like, as its trainer settled them.
    """

    batches: list[list[Batch]] = field(default_factory=list)
    start: dict[str, Tensor] = field(default_factory=dict)
    raw: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


# Their side -----------------------------------------------------------------------------------------------------------


def write_data(folder: Path, config: DetectionConfig, *, most: int | None = None, side: int | None = None) -> Path:
    """Pictures and labels as ultralytics reads them; gives the data.yaml.

    Args:
        most: pictures of each split at most.
        side: longer side that pictures are brought to, so that whoever reads them scales them no more.
    """
    splits = data.load(config, seed=0)
    names = list(splits["train"].classes)
    for split, theirs in SPLITS.items():
        pictures: Any = splits[split]
        for kind in ("images", "labels"):
            (folder / kind / theirs).mkdir(parents=True)
        for index in range(min(len(pictures), most or len(pictures))):
            pixels, objects = pictures.picture(index), pictures.objects(index)
            height, width = pixels.shape[:2]
            small = pixels if side is None else shrink(pixels, side)
            Image.fromarray(small).save(folder / "images" / theirs / f"{index:05d}.png")
            lines = []
            for (x0, y0, x1, y1), label in zip(objects.boxes.tolist(), objects.labels.tolist(), strict=True):
                shares = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
                lines.append(" ".join([str(label), *(f"{share:.6f}" for share in shares)]))
            (folder / "labels" / theirs / f"{index:05d}.txt").write_text("\n".join(lines) + "\n")
    path = folder / "data.yaml"
    listed = {theirs: f"images/{theirs}" for theirs in SPLITS.values()}
    path.write_text(json.dumps({"path": str(folder), **listed, "names": names}))
    return path


def train_theirs(name: str, optimizer: str, path: Path, folder: Path, options: argparse.Namespace) -> Recorded:
    """Runs ultralytics' own trainer and records it."""
    ultra.library()
    from ultralytics.data import utils as data_utils
    from ultralytics.models.yolo.detect import DetectionTrainer
    from ultralytics.utils.ops import xywh2xyxy

    data_utils.check_font = lambda *_, **__: None  # would fetch one
    found = Recorded()

    class Recorder(DetectionTrainer):
        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            if len(found.batches) == self.epoch:
                found.batches.append([])
            found.batches[-1].append(as_batch(batch, xywh2xyxy))
            return super().preprocess_batch(batch)

        def final_eval(self) -> None:
            """It would score weights that were rounded to 16 bits."""

    def start(trainer: Any) -> None:
        found.start = copied(trainer.model)
        group = trainer.optimizer.param_groups[0]
        found.settings = {
            "optimizer": type(trainer.optimizer).__name__,
            "lr": group["initial_lr"],
            "decay": group["weight_decay"],
            "bias_lr": trainer.args.warmup_bias_lr,
            "accumulate": trainer.accumulate,
        }

    trainer = Recorder(
        overrides={
            "model": f"{name}.yaml",
            "data": str(path),
            "project": str(folder),
            "epochs": options.epochs,
            "batch": options.batch,
            "nbs": options.nominal or options.batch,
            "imgsz": options.size,
            "optimizer": optimizer,
            "device": "cpu",
            "workers": 0,
            "amp": False,
            "plots": False,
            "close_mosaic": 1,
            "seed": options.seed,
            "verbose": False,
        }
    )
    trainer.add_callback("on_train_start", start)
    with contextlib.redirect_stdout(sys.stderr):
        trainer.train()
    found.raw, found.average = copied(trainer.model), copied(trainer.ema.ema)
    return found


def as_batch(batch: Mapping[str, Any], to_corners: Any) -> Batch:
    """Their batch as ours; corners are computed as their loss does it, to the last bit."""
    images, size = batch["img"].clone(), batch["img"].shape[-1]
    count = len(images)
    rows = [torch.where(batch["batch_idx"] == index)[0] for index in range(count)]
    longest = max(1, *(len(each) for each in rows))
    boxes, labels = torch.zeros(count, longest, 4), torch.full((count, longest), -1)
    corners = to_corners(batch["bboxes"].clone() * torch.full((4,), float(size)))
    for index, each in enumerate(rows):
        boxes[index, : len(each)] = corners[each]
        labels[index, : len(each)] = batch["cls"][each].long().flatten()
    targets = {"boxes": boxes, "labels": labels, "crowd": torch.zeros(count, longest, dtype=torch.bool)}
    return Batch((images,), targets, np.arange(count))


def copied(module: nn.Module) -> dict[str, Tensor]:
    """Floating weights and buffers; ultralytics does not count batches in its average."""
    return {name: value.clone() for name, value in module.state_dict().items() if value.is_floating_point()}


# Our side -------------------------------------------------------------------------------------------------------------


class Replay(Task):
    """The recorded batches as a task and its data: what is left of a plugin's is model, loss, groups and schedule.

    It is only trained, whole batches at a time: samples alone, truths and metrics are never asked for.
    """

    inputs = (Input("image", (3, 0, 0), "uint8"),)
    objective = Objective("map", "max")

    def __init__(self, config: TaskConfig, name: str, recorded: Recorded, options: argparse.Namespace) -> None:
        super().__init__(config)
        self._recorded = recorded
        self._model = DetectionConfig.model_validate({"model": {"name": name}})
        self.facts = Facts({"classes": options.classes, "size": options.size, "most": 1})

    def datasets(self) -> Datasets:
        return Datasets(self)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return sum(len(batch) for batch in self._recorded.batches[0])

    def __getitem__(self, key: Key) -> Example:
        raise NotImplementedError

    def __getitems__(self, keys: Keys) -> Batch:
        return self._recorded.batches[keys.epoch][int(keys.indices[0])]

    def order(self, size: int, *, epoch: int, **_: Any) -> Sequence[np.ndarray]:
        """One number for each recorded batch."""
        return [np.array([number]) for number in range(len(self._recorded.batches[epoch]))]

    def model(self) -> nn.Module:
        model = build(self._model, self.facts)
        model.network.load_state_dict(self._recorded.start, strict=False)
        return model

    def criterion(self, model: Any) -> nn.Module:
        return model.criterion()

    def loss(self, criterion: Any, outputs: Any, batch: Batch, progress: Progress) -> Losses:
        return criterion(outputs, batch, progress)

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        return ultra_train.groups(model)

    def schedules(self) -> Mapping[str, Schedule]:
        made = ultra_train.schedule(momentum=MOMENTUM, bias_lr=self._recorded.settings["bias_lr"])
        return {"ultralytics": made}

    def truths(self, batch: Batch) -> Columns:
        raise NotImplementedError

    def metrics(self, measured: Columns) -> dict[str, float]:
        raise NotImplementedError

    def perfect(self, truths: Columns) -> Columns:
        raise NotImplementedError


def settings_of(recorded: Recorded, options: argparse.Namespace) -> TaskConfig:
    """Their settings as ours."""
    kind = recorded.settings["optimizer"]
    # Unfused: torch's fused kernels round otherwise, and ultralytics uses them on a GPU only.
    further: dict[str, Any] = {"fused": False}
    further |= {"nesterov": True} if kind == "SGD" else {"betas": [0.9, 0.999]}
    return TaskConfig.model_validate(
        {
            "seed": options.seed,
            "train": {
                "epochs": options.epochs,
                "batch_size": options.batch,
                "optimizer": {
                    "name": kind,
                    "lr": recorded.settings["lr"],
                    "weight_decay": recorded.settings["decay"],
                    "momentum": MOMENTUM if kind == "SGD" else None,
                    "options": further,
                },
                "schedule": {"name": "ultralytics"},
                "clip": CLIP,
                "ema": {"decay": EMA, "tau": TAU},
                "device": "cpu",
                "select": "last",
            },
        }
    )


def train_ours(name: str, recorded: Recorded, folder: Path, options: argparse.Namespace) -> tuple[dict, dict]:
    """Raw and averaged weights after a run of the engine."""
    config = settings_of(recorded, options)
    task = Replay(config, name, recorded, options)
    trainer = Trainer(
        task,
        config,
        Supervised(task),
        train=task,  # type: ignore[arg-type]
        valid=None,
        folder=folder,
        name="parity",
        device=torch.device("cpu"),
        observer=lambda event: None,
        warn=print,
    )
    trainer.fit()
    (last,) = folder.glob("last-*")
    average = {name.removeprefix("network."): tensor for name, tensor in load_file(last / "model.safetensors").items()}
    return copied(trainer.step.model.network), average


def replay(name: str, recorded: Recorded, options: argparse.Namespace) -> tuple[dict, dict]:
    """Raw and averaged weights of a loop by hand, which accumulates gradients as ultralytics does."""
    config = settings_of(recorded, options)
    task = Replay(config, name, recorded, options)
    model = task.model()
    criterion: Any = task.criterion(model)
    optimizer_settings = config.train.optimizer
    made: dict[str, Any] = {"lr": optimizer_settings.lr, "weight_decay": optimizer_settings.weight_decay}
    made |= {} if optimizer_settings.momentum is None else {"momentum": optimizer_settings.momentum}
    kind = getattr(torch.optim, optimizer_settings.name)
    optimizer = kind(ultra_train.groups(model), **made, **optimizer_settings.options)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    follow = task.schedules()["ultralytics"]
    average = {name: value.clone() for name, value in model.network.state_dict().items()}
    steps = len(recorded.batches[0])
    warm = round(min(3.0, options.epochs - 1) * steps)
    most, updates, last = recorded.settings["accumulate"], 0, -1
    model.train()
    for epoch, batches in enumerate(recorded.batches):
        for offset, batch in enumerate(batches):
            number = epoch * steps + offset  # of batches, which is what their schedule counts
            progress = Progress(number, steps * options.epochs, epoch, options.epochs)
            for group in optimizer.param_groups:
                group.update(follow(progress, group))
            criterion(model(*batch.inputs), batch, progress).sum.backward()
            wanted = max(1, round(float(np.interp(number, [0, warm], [1, most])))) if number <= warm else most
            if number - last < wanted:
                continue
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
            updates, last = updates + 1, number
            kept = EMA * (1 - math.exp(-updates / TAU))
            for key, value in model.network.state_dict().items():
                if value.is_floating_point():
                    average[key].lerp_(value, 1 - kept)
    return copied(model.network), average


def largest(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> float:
    """The largest difference of any weight."""
    return max(float((value - found[name]).abs().max()) for name, value in expected.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["yolo11n", "yolo26n"])
    parser.add_argument("--optimizer", nargs="+", default=["SGD", "auto"], help="ultralytics' names")
    parser.add_argument("--data", nargs="+", default=["data.name=scenes"], help="settings of the plugin's data")
    parser.add_argument("--pictures", type=int, default=64, help="of each split at most")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--nominal", type=int, help="ultralytics' nbs: gradients are accumulated up to it")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from modelwright.config import build_config

    config = build_config(DetectionConfig, overrides=[f"data.size={options.size}", *options.data])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ |= {"YOLO_CONFIG_DIR": str(folder), "YOLO_OFFLINE": "true"}
        path = write_data(folder / "data", config, most=options.pictures)
        options.classes = json.loads(path.read_text())["names"]
        for name in options.model:
            for optimizer in options.optimizer:
                where = folder / f"{name}-{optimizer}"
                recorded = train_theirs(name, optimizer, path, where / "theirs", options)
                moved = largest(recorded.start, recorded.average)
                line = {
                    "model": name,
                    "settings": recorded.settings,
                    "batches": [len(each) for each in recorded.batches],
                    "moved": moved,
                }
                raw, average = replay(name, recorded, options)
                line["by_hand"] = {"raw": largest(recorded.raw, raw), "average": largest(recorded.average, average)}
                if recorded.settings["accumulate"] == 1:
                    raw, average = train_ours(name, recorded, where / "ours", options)
                    line["engine"] = {"raw": largest(recorded.raw, raw), "average": largest(recorded.average, average)}
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
