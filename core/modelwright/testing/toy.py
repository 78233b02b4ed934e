"""A toy task: say which of three spirals a point in the plane lies on. Small enough to read in one sitting.

It is the engine's test object and the shortest example of the contract. Knows nothing of the trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from modelwright.codec import Columns
from modelwright.config import DataConfig, ModelConfig, TaskConfig
from modelwright.hookspecs import TaskEntry
from modelwright.task import Batch, Datasets, Example, Facts, Input, Key, Keyed, Keys, Losses, Objective, Progress, Task
from modelwright.testing.toy_codec import ToyCodec


class ToyData(DataConfig):
    """Three spirals."""

    samples: Annotated[int, Field(ge=1)] = 301
    """Points of the training split; a third of that for each of the others."""
    noise: Annotated[float, Field(ge=0)] = 0.05
    """Deviation of the points from their spiral, and of the augmentation."""


class ToyModel(ModelConfig):
    """A small network."""

    hidden: Annotated[int, Field(ge=1)] = 32
    """Units of the hidden layers."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the last layer."""


class ToyConfig(TaskConfig):
    """All settings of the toy task."""

    data: ToyData = ToyData()
    model: ToyModel = ToyModel()


class Spirals:
    """Points on three spirals; a pure function of (seed, number, noise)."""

    def __init__(self, samples: int, *, seed: int, noise: float) -> None:
        rng = np.random.default_rng(seed)
        self.labels = torch.from_numpy(rng.integers(0, 3, samples))
        radius = rng.uniform(0.1, 1.0, samples)
        angle = 3.0 * radius + self.labels.numpy() * 2 * np.pi / 3
        points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        self.points = torch.from_numpy((points + rng.normal(0, noise, points.shape)).astype(np.float32))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: Key) -> Example:
        """One point, as the contract asks for it."""
        return Example(self.points[key.index].numpy(), {"label": int(self.labels[key.index])})

    def __getitems__(self, keys: Keys) -> Batch:
        """A whole batch with one index."""
        index = torch.from_numpy(keys.indices)
        return Batch((self.points[index],), {"label": self.labels[index]}, keys.indices)


class ToyNetwork(nn.Module):
    """Two hidden layers; raw points in, standardised inside."""

    mean: Tensor
    std: Tensor

    def __init__(self, hidden: int, dropout: float, mean: np.ndarray, std: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("std", torch.from_numpy(std))
        self.layers = nn.Sequential(
            nn.Linear(2, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 3),
        )

    def forward(self, point: Tensor) -> dict[str, Tensor]:
        """Points (batch, 2) to logits (batch, 3)."""
        return {"logits": self.layers((point - self.mean) / self.std)}


class ToyTask(Task):
    """The contract, filled in."""

    config: ToyConfig
    inputs = (Input("point", (2,), "float32"),)
    objective = Objective("accuracy", "max")
    codec = ToyCodec()

    def datasets(self) -> Datasets:
        """Three splits of other seeds."""
        data = self.config.data

        def split(number: int, samples: int) -> Callable[[], Spirals]:
            return lambda: Spirals(samples, seed=1000 * self.config.seed + number, noise=data.noise)

        third = max(data.samples // 3, 1)
        return Datasets(split(0, data.samples), split(1, third), split(2, third))

    def find_facts(self, datasets: Datasets) -> Facts:
        """Mean and deviation of the training points."""
        train = datasets["train"]
        assert isinstance(train, Spirals)
        points = train.points.numpy()
        return Facts({"classes": ["a", "b", "c"]}, {"mean": points.mean(axis=0), "std": points.std(axis=0) + 1e-6})

    def augment(self, batch: Batch, keyed: Keyed, progress: Progress) -> Batch:
        """Moves each point a little."""
        shift = torch.from_numpy(keyed("shift", 2).astype(np.float32) - 0.5).to(batch.inputs[0].device)
        return replace(batch, inputs=(batch.inputs[0] + shift * self.config.data.noise,))

    def model(self) -> nn.Module:
        """A small multilayer perceptron."""
        settings = self.config.model
        return ToyNetwork(settings.hidden, settings.dropout, self.facts.arrays["mean"], self.facts.arrays["std"])

    def loss(
        self, criterion: nn.Module | None, outputs: Mapping[str, Tensor], batch: Batch, progress: Progress
    ) -> Losses:
        """Cross-entropy, summed."""
        return Losses(F.cross_entropy(outputs["logits"], batch.targets["label"], reduction="sum"), len(batch))

    def distill_loss(
        self,
        outputs: Mapping[str, Tensor],
        teacher: Mapping[str, Tensor],
        batch: Batch,
        progress: Progress,
        *,
        temperature: float,
    ) -> Losses:
        """The divergence from the teacher's softened probabilities, summed."""
        said, taught = (F.log_softmax(each["logits"] / temperature, dim=1) for each in (outputs, teacher))
        return Losses(F.kl_div(said, taught, reduction="sum", log_target=True) * temperature**2, len(batch))

    def truths(self, batch: Batch) -> Columns:
        """The spiral's number."""
        return Columns({"label": batch.targets["label"].cpu().numpy()})

    def metrics(self, measured: Columns) -> dict[str, float]:
        """Accuracy."""
        hits = measured.array("probabilities").argmax(axis=1) == measured.array("label")
        return {"accuracy": float(hits.mean())}

    def perfect(self, truths: Columns) -> Columns:
        """All probability on the truth."""
        return Columns({"probabilities": np.eye(3, dtype=np.float32)[truths.array("label")]}, truths.ids)


TOY = TaskEntry("toy", "say which spiral a point lies on", config=ToyConfig, build=ToyTask)
