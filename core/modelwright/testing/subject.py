"""A task made ready for checking: small, seeded, on the CPU. Knows the contract and the engine's parts, no check."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modelwright.bundle.export import write_graph
from modelwright.codec import Columns, merged
from modelwright.config import TaskConfig, nest
from modelwright.hookspecs import TaskEntry
from modelwright.plugins import recipes_of, settings_of
from modelwright.task import Batch, Dataset, Facts, Keys, Losses, Progress, Split, Task
from modelwright.testing.kit import NotOffered
from modelwright.training.loading import fetch
from modelwright.training.optim import build_optimizer
from modelwright.training.randomness import KeyedNumbers, seed_everything
from modelwright.training.steps import Supervised

CPU = torch.device("cpu")
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
FIXED: dict[str, Any] = {
    "train.device": "cpu",
    "train.precision": "fp32",
    "train.compile": False,
    "train.workers": 0,
    "evaluate.resamples": 0,
    "observers": [],
}
"""What every check takes for granted."""
MOST = 12
"""Samples that a check looks at, where it does not need all."""
FIT_STEPS = 80
"""Steps of learning one batch by heart."""


@dataclass(frozen=True)
class Learned:
    """What came of learning a batch by heart: the model, the batch, and the loss before each step."""

    model: nn.Module
    batch: Batch
    losses: list[float]


class Subject:
    """What the checks are given.

    Args:
        entry: the task as its plugin offers it.
        settings: dotted keys, on top of the recipe `kit`.

    Attributes:
        folder: for what runs write; empty, and each check's own.
    """

    folder: Path

    def __init__(self, entry: TaskEntry, settings: Mapping[str, Any]) -> None:
        self.entry = entry
        self._settings = {**FIXED, **settings}

    @cached_property
    def config(self) -> TaskConfig:
        """The recipe `kit` where there is one, else the defaults."""
        recipe = "kit" if "kit" in recipes_of(self.entry) else None
        return settings_of(self.entry, recipe=recipe, config=nest(self._settings))

    @cached_property
    def facts(self) -> Facts:
        """What the task knows of its training data."""
        task = self.new_task()
        return task.find_facts(task.datasets())

    @cached_property
    def task(self) -> Task:
        """The task that most checks share."""
        task = self.new_task()
        task.facts = self.facts
        return task

    def new_task(self) -> Task:
        """A task of its own, which knows nothing of its data yet."""
        return self.entry.build(self.config.model_copy(deep=True))

    @cached_property
    def splits(self) -> dict[Split, Dataset]:
        """The splits that the task has."""
        datasets = self.task.datasets()
        return {split: datasets[split] for split in SPLITS if datasets.has(split)}

    def keys(self, indices: Sequence[int], *, epoch: int = 0) -> Keys:
        """The keys of some samples."""
        return Keys(self.config.seed, epoch, 2, np.asarray(indices, dtype=np.int64))

    def batch(self, indices: Sequence[int], *, split: Split = "train", epoch: int = 0) -> Batch:
        """Some samples as a batch, read anew."""
        found = fetch(self.task, self.splits[split], self.keys(indices, epoch=epoch))
        assert found is not None
        return found

    def augmented(self, batch: Batch) -> Batch:
        """A batch as training sees it."""
        keyed = KeyedNumbers(seed=self.config.seed, epoch=0, ids=batch.ids)
        with torch.no_grad():
            return self.task.augment(batch, keyed, self.progress(0))

    def some(self, most: int = MOST, split: Split = "train") -> list[int]:
        """Indices of a few samples, spread over the split."""
        size = len(self.splits[split])
        return np.unique(np.linspace(0, size - 1, min(most, size)).astype(int)).tolist()

    def step(self, *, seed: int = 0) -> Supervised:
        """The supervised step with fresh weights, the same for the same seed."""
        seed_everything(seed, "model")
        return Supervised(self.task)

    def model(self, *, seed: int = 0) -> nn.Module:
        """The model with fresh weights, the same for the same seed."""
        return self.step(seed=seed).model

    def progress(self, step: int) -> Progress:
        """A moment in a run of 100 steps and two epochs."""
        return Progress(step, 100, step // 50, 2, self.config.seed)

    def outputs(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """What a model gives for a batch in eval mode."""
        model.eval()
        seed_everything(0, "dropout")
        with torch.no_grad():
            return dict(model(*batch.inputs))

    def predictions(self, model: nn.Module, batch: Batch) -> Columns:
        """What the served model says of a batch."""
        found = self.outputs(self.task.served(model), batch)
        return self.task.codec.decode({name: value.numpy() for name, value in found.items()}, batch.context)

    def truths(self, batch: Batch) -> Columns:
        """What is true of a batch, one row per raw thing."""
        truths = self.task.truths(batch).with_ids(batch.ids)
        return truths.select(np.unique(batch.ids, return_index=True)[1])

    def merged(self, predictions: Columns, batch: Batch) -> Columns:
        """Predictions of a batch, rows of one raw thing (tiles, windows) merged as in an evaluation."""
        return merged(self.task.codec, predictions.with_ids(batch.ids))

    def measured(self, predictions: Columns, batch: Batch) -> Columns:
        """Predictions and truths of a batch as the metrics take them."""
        return self.task.measure(self.merged(predictions, batch), self.truths(batch))

    def objective(self, predictions: Columns, batch: Batch) -> float:
        """How good predictions of a batch are."""
        return self.objective_of(self.merged(predictions, batch), self.truths(batch))

    def objective_of(self, predictions: Columns, truths: Columns) -> float:
        """How good predictions are that stand beside their truths.

        Raises:
            NotOffered: the task does not measure its objective, which is another check's business.
        """
        metrics = self.task.metrics(self.task.measure(predictions, truths))
        if self.task.objective.metric not in metrics:
            raise NotOffered("the objective is not measured: see objective_is_measured")
        return metrics[self.task.objective.metric]

    def losses(self, step: Supervised, batch: Batch, *, at: int = 0) -> Losses:
        """The loss of a batch, with the model in whatever mode it is."""
        seed_everything(0, "dropout")
        return step(batch, self.progress(at))

    @cached_property
    def learned(self) -> Learned:
        """A model that learned one small batch by heart; the costly part of several checks, done once."""
        step, batch = self.step(), self.batch(self.some(8))
        losses = list(self.fitted(step, batch, steps=FIT_STEPS))
        return Learned(step.model, batch, losses)

    @cached_property
    def graph(self) -> Path:
        """The ONNX graph of what was learned; writing one takes seconds, so it is done once.

        Raises:
            ExportError: there is none, or it disagrees with the model.
        """
        self._kept = TemporaryDirectory(prefix="modelwright-")
        target = Path(self._kept.name) / "model.onnx"
        write_graph(self.task, self.learned.model, self.splits["train"], target, seed=self.config.seed)
        return target

    def fitted(self, step: Supervised, batch: Batch, *, steps: int) -> Iterator[float]:
        """Trains on one batch again and again with the task's own optimizer, at its peak rate; gives each mean loss."""
        optimizer = build_optimizer(self.config.train.optimizer, step.groups())
        step.train()
        for number in range(steps):
            optimizer.zero_grad(set_to_none=True)
            losses = self.losses(step, batch, at=number * 100 // steps)
            mean = losses.sum / losses.weight if losses.weight else losses.sum
            mean.backward()
            nn.utils.clip_grad_norm_(step.parameters(), 5.0)
            optimizer.step()
            yield float(mean.detach())


def tensors_in(thing: Any, seen: set[int] | None = None) -> Iterator[Tensor]:
    """Every tensor in a thing, looked for in containers and in the attributes of objects."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, Mapping):
        for value in thing.values():
            yield from tensors_in(value, seen)
    elif isinstance(thing, (list, tuple, set)):
        for value in thing:
            yield from tensors_in(value, seen)
    elif hasattr(thing, "__dict__") and not isinstance(thing, (type, Callable)):
        yield from tensors_in(vars(thing), seen)


def same(a: Any, b: Any, *, tolerance: float = 0.0) -> bool:
    """Whether two things of arrays, tensors, lists and plain values are equal, numbers within `tolerance`."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        a, b = (_array(x) if isinstance(x, Tensor) else x for x in (a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key], tolerance=tolerance) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(same(x, y, tolerance=tolerance) for x, y in zip(a, b, strict=True))
    if isinstance(a, (np.ndarray, np.generic, float)) and isinstance(b, (np.ndarray, np.generic, float)):
        left, right = np.asarray(a), np.asarray(b)
        if left.shape != right.shape:
            return False
        if left.dtype.kind in "fc" or right.dtype.kind in "fc":
            return bool(np.allclose(left, right, rtol=tolerance, atol=tolerance, equal_nan=True))
        return bool(np.array_equal(left, right))
    try:
        if bool(a == b):
            return True
    except (ValueError, TypeError, RuntimeError):
        pass  # an object that holds arrays cannot say
    else:
        if type(a).__eq__ is not object.__eq__:
            return False
    return type(a) is type(b) and hasattr(a, "__dict__") and same(vars(a), vars(b), tolerance=tolerance)


def _array(tensor: Tensor) -> np.ndarray:
    return (tensor.double() if tensor.is_floating_point() else tensor).detach().numpy()
