"""A trainer of the toy task that tells what it did. Knows nothing of run folders and reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelwright.config import build_config, nest
from modelwright.events import Event
from modelwright.testing.toy import ToyConfig, ToyTask
from modelwright.training.checkpoint import load
from modelwright.training.randomness import seed_everything
from modelwright.training.steps import Step, Supervised
from modelwright.training.trainer import Trainer

BASE = {"data.samples": 40, "train.batch_size": 10, "train.epochs": 3, "train.optimizer.lr": 0.01, "model.hidden": 8}
"""4 steps an epoch, 12 in all."""


class Made:
    """A trainer with what it told."""

    def __init__(self, trainer: Trainer, folder: Path, told: list[Event]) -> None:
        self.trainer, self.folder, self.told = trainer, folder, told
        self.reason = ""

    def fit(self) -> Made:
        self.reason = self.trainer.fit()
        return self

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]

    def steps(self, kind: type[Event]) -> list[int]:
        return [event.step for event in self.of(kind)]

    def weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.trainer.step.model.state_dict().items()}

    def kept(self, kind: str) -> dict[str, Tensor]:
        (path,) = self.folder.glob(f"{kind}-*")
        return load(path).tensors["model"]

    def names(self, kind: str) -> list[str]:
        return sorted(path.name for path in self.folder.glob(f"{kind}-*"))


class Maker:
    """Makes trainers of the toy task, each with a folder of its own under `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(
        self,
        settings: Mapping[str, Any] | None = None,
        *,
        task: type[ToyTask] = ToyTask,
        step: Callable[[ToyTask], Step] = Supervised,
        name: str = "run",
        valid: bool = True,
        observer: Callable[[Event], None] | None = None,
    ) -> Made:
        config = build_config(ToyConfig, layers=[nest({**BASE, **(settings or {})})])
        problem = task(config)
        datasets = problem.datasets()
        problem.facts = problem.find_facts(datasets)
        seed_everything(config.seed, "model")
        told: list[Event] = []

        def both(event: Event) -> None:
            told.append(event)
            if observer is not None:
                observer(event)

        folder = self._folder / name / "checkpoints"
        trainer = Trainer(
            problem,
            config,
            step(problem),
            train=datasets["train"],
            valid=datasets["valid"] if valid else None,
            folder=folder,
            name="toy",
            device=torch.device("cpu"),
            observer=both,
            warn=lambda message: None,
        )
        return Made(trainer, folder, told)


def assert_same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
