"""Tide forecasting as the engine asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure as Canvas
from torch import Tensor, nn

from modelwright import Batch, Columns, Datasets, Facts, Input, Losses, Objective, Task
from modelwright.task import Evaluated, Figure, Progress
from modelwright_toy.codec import AHEAD, PAST, TideCodec
from modelwright_toy.harbour import Harbour, record
from modelwright_toy.settings import TideConfig


class Forecaster(nn.Module):
    """What the level does from its last value on; raw metres and hectopascals in, metres out."""

    mean: Tensor
    std: Tensor

    def __init__(self, hidden: int, mean: np.ndarray, std: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("std", torch.from_numpy(std))
        self.layers = nn.Sequential(
            nn.Linear(PAST + AHEAD, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, AHEAD),
        )

    def forward(self, level: Tensor, pressure: Tensor) -> dict[str, Tensor]:
        """(batch, 48) and (batch, 12) to `forecast` (batch, 12)."""
        scaled = [(level - self.mean[0]) / self.std[0], (pressure - self.mean[1]) / self.std[1]]
        return {"forecast": self.mean[0] + self.std[0] * self.layers(torch.cat(scaled, dim=1))}


class TideTask(Task):
    """Forecasts the water level of the next twelve hours."""

    config: TideConfig
    inputs = (Input("level", (PAST,), "float32"), Input("pressure", (AHEAD,), "float32"))
    objective = Objective("error", "min")
    codec = TideCodec()

    def datasets(self) -> Datasets:
        """Three spans of time, one after the other: what is forecast was never seen."""
        settings = self.config.data
        level, pressure = record(settings.days, noise=settings.noise, seed=self.config.seed)
        first, second = int(0.7 * len(level)), int(0.85 * len(level))
        spans = (slice(0, first), slice(first, second), slice(second, None))
        train, valid, test = (Harbour(level[span], pressure[span]) for span in spans)
        return Datasets(train, valid, test)

    def find_facts(self, datasets: Datasets) -> Facts:
        """Mean and deviation of level and pressure."""
        train = datasets["train"]
        assert isinstance(train, Harbour)
        both = np.stack([train.level.numpy(), train.pressure.numpy()])
        return Facts(arrays={"mean": both.mean(axis=1), "std": both.std(axis=1)})

    def model(self) -> nn.Module:
        """A small network."""
        return Forecaster(self.config.model.hidden, self.facts.arrays["mean"], self.facts.arrays["std"])

    def loss(
        self, criterion: nn.Module | None, outputs: Mapping[str, Tensor], batch: Batch, progress: Progress
    ) -> Losses:
        """Huber's loss, a mean over records and hours: the weight counts both. A gauge that jumps must not rule."""
        loss = F.huber_loss(outputs["forecast"], batch.targets["level"], delta=0.1, reduction="sum")
        return Losses(loss, len(batch) * AHEAD, {"huber": loss})

    def truths(self, batch: Batch) -> Columns:
        """What the level was, and what it had been last."""
        (level, _), later = batch.inputs, batch.targets["level"]
        return Columns({"truth": later.cpu().numpy(), "last": level[:, -1].cpu().numpy()})

    def measure(self, predictions: Columns, truths: Columns) -> Columns:
        """How far off each forecast is on average, and how far off it is to say that nothing changes."""
        truth = truths.array("truth").astype(np.float64)  # or sums would depend on their order
        ours = np.abs(predictions.array("forecast") - truth).mean(axis=1)
        still = np.abs(truths.array("last")[:, None] - truth).mean(axis=1)
        return Columns({"error": ours, "error_of_no_change": still}, truths.ids)

    def metrics(self, measured: Columns) -> dict[str, float]:
        """Mean error in metres, and the share of the error of "no change" that is taken away."""
        error, still = measured.array("error").mean(), measured.array("error_of_no_change").mean()
        return {"error": float(error), "skill": float(1 - error / still)}

    def perfect(self, truths: Columns) -> Columns:
        """The level as it was."""
        return Columns({"forecast": truths["truth"]}, truths.ids)

    def figures(self, evaluated: Evaluated) -> Iterator[Figure]:
        """One forecast beside what came."""
        canvas = Canvas(figsize=(6, 3))
        axes = canvas.subplots()
        axes.plot(evaluated.truths.array("truth")[0], label="came")
        axes.plot(evaluated.predictions.array("forecast")[0], label="forecast")
        axes.set(xlabel="hours ahead", ylabel="metres")
        axes.legend()
        yield Figure("forecast", "A forecast", "The first record of the split; the lines should lie together.", canvas)
