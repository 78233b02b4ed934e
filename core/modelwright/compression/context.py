"""What a stage of compression is given and gives back. Knows the trainer; knows neither what a stage does nor a task.

A stage is a function ``(stage, settings) -> stage.made(...)``. Whatever it changes is its own: the model that it is
given is a copy, and what others made stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modelwright.codec import Columns
from modelwright.compression.plan import Plan
from modelwright.compression.variants import RUNTIME, changed
from modelwright.config import TaskConfig, nest
from modelwright.errors import CompressionError
from modelwright.evaluation.bootstrap import paired
from modelwright.evaluation.evaluator import Predictor, evaluate
from modelwright.events import Event
from modelwright.plugins import Catalog
from modelwright.task import Batch, Datasets, Keys, Split, Task
from modelwright.training import checkpoint as checkpoints
from modelwright.training.loading import fetch
from modelwright.training.randomness import generator, seed_everything
from modelwright.training.steps import Step
from modelwright.training.trainer import BEST, LAST, Trainer

RESAMPLES, ONE_DEVIATION = 200, 0.683
"""Behind the standard error of a difference."""


@dataclass(frozen=True)
class Made:
    """What a stage made.

    Attributes:
        model: in torch; None where only a graph is left.
        plan: edits that lead from the task's fresh model to `model`.
        graph: written by the stage itself (a quantized one); None: the core exports `model`. For another runtime than
            ONNX Runtime it is called as its exporter says and lies in the stage's folder, with all that belongs to it.
        runtime: that `graph` is for: an exporter's name.
        settings: of another architecture, on top of the run's own.
        notes: what is worth telling, JSON values; part of the receipt.
    """

    model: nn.Module | None
    plan: Plan
    graph: Path | None = None
    runtime: str = RUNTIME
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    notes: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class Stage:
    """What a stage is given.

    Attributes:
        task: for the present architecture.
        config: its settings.
        settings: those of them that differ from the run's own.
        model: the present model in eval mode, on `device`, the stage's own to change; None where only a graph is left.
        plan: edits that lead from the task's fresh model to `model`.
        graph: of the present variant, where it has one.
        original: the run's own model in eval mode; not to be changed.
        datasets: the run's.
        folder: for what the stage writes; training goes on from what lies there.
        rebuild: settings on top of the present ones -> a task of another architecture.
        catalog: what is installed.
        observer, warn: told of events, and of what a user should know.
    """

    task: Task
    config: TaskConfig
    settings: Mapping[str, Any]
    model: nn.Module | None
    plan: Plan
    graph: Path | None
    original: nn.Module
    datasets: Datasets
    folder: Path
    device: torch.device
    rebuild: Callable[[Mapping[str, Any]], Task]
    catalog: Catalog
    observer: Callable[[Event], None]
    warn: Callable[[str], None]

    def torch_model(self, what: str) -> nn.Module:
        """The present model, for a stage that cannot do without.

        Raises:
            CompressionError: an earlier stage left only a graph.
        """
        if self.model is None:
            raise CompressionError(f"{what} needs a torch model and an earlier stage left only a graph: quantize last")
        return self.model

    def made(self, model: nn.Module | None = None, **further: Any) -> Made:
        """The result of the stage; what is left out stays as it was, but a graph of its own replaces the model."""
        kept = None if "graph" in further else model or self.model
        values: dict[str, Any] = {"model": kept, "plan": self.plan, "settings": self.settings}
        return Made(**{**values, **further})

    # Training ---------------------------------------------------------------------------------------------------------

    def train(
        self, step: Step, settings: Mapping[str, Any], *, name: str = "training", task: Task | None = None
    ) -> str:
        """Trains a step to its end, from where it was interrupted, and puts the kept weights into its model.

        Args:
            settings: of `train`, on top of the run's own: ``{"epochs": 5, "optimizer.lr": 0.01}``.
            name: of the folder for checkpoints; one for each training of a stage.
            task: where it is not the present one.

        Returns:
            Why it ended.

        Raises:
            ConfigError: unknown settings.
            Interrupted: the user stopped it; a checkpoint is saved.
            TrainingError: the loss is not finite, or memory ran out.
        """
        task = task or self.task
        config = changed(task.config, {"train": nest(_budget(settings))})
        folder = self.folder / name
        seed_everything(config.seed, "stage")
        trainer = Trainer(
            task,
            config,
            step,
            train=self.datasets["train"],
            valid=self.datasets["valid"] if self.datasets.has("valid") else None,
            folder=folder,
            name=self.folder.name,
            device=self.device,
            observer=self.observer,
            warn=self.warn,
        )
        reason = trainer.fit()
        kind = BEST if config.train.select == "best" and checkpoints.exists(folder, BEST) else LAST
        found = checkpoints.newest(folder, kind, warn=self.warn)
        checkpoints.load_module(step.model, found.tensors["model"], found.state["extra"], what=f"the {kind} checkpoint")
        step.model.eval()
        return reason

    # Samples and scores -----------------------------------------------------------------------------------------------

    def samples(self, count: int, *, batch_size: int = 32) -> Iterator[Batch]:
        """Training samples, unaugmented, drawn by the run's seed; as many as there are, at most `count`."""
        data = self.datasets["train"]
        drawn = generator(self.config.seed, "calibration").permutation(len(data))[:count]
        for start in range(0, len(drawn), batch_size):
            rows = np.sort(drawn[start : start + batch_size])
            batch = fetch(self.task, data, Keys(self.config.seed, 0, 1, rows))
            assert batch is not None
            yield batch

    def inputs(self, count: int = 2) -> Sequence[Tensor]:
        """A few samples as the model takes them."""
        return [tensor.to(self.device) for tensor in next(self.samples(count, batch_size=count)).inputs]

    @property
    def judged_on(self) -> Split:
        """The split that choices are made on: validation where there is one, else training; never the test."""
        return "valid" if self.datasets.has("valid") else "train"

    def measured(self, predictor: Predictor) -> Columns:
        """What the metrics need of a predictor, on samples that choices may be made on."""
        data, size = self.datasets[self.judged_on], self.config.evaluate.batch_size
        return evaluate(self.task, predictor, data, batch_size=size, seed=self.config.seed).measured

    def certain_drop(self, before: Columns, after: Columns) -> float:
        """How much worse the objective is afterwards, less one standard error of the difference.

        On a few hundred samples half a point comes and goes by chance; what cannot be told from that counts as none.
        """
        seed = self.config.seed
        changes = paired(self.task.metrics, before, after, resamples=RESAMPLES, level=ONE_DEVIATION, seed=seed)
        change, higher = changes[self.task.objective.metric], self.task.objective.goal == "max"
        sure = change.high if higher else change.low
        drop = change.value if sure is None or not math.isfinite(sure) else sure
        return -drop if higher else drop


def _budget(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A budget replaces the run's own, in whatever unit that was."""
    if {"epochs", "steps", "minutes"} & set(settings):
        return {"steps": None, "minutes": None, **settings}
    return dict(settings)
