"""Toy tasks that each break one promise of the contract: the toy with one mistake. `toys.py` has their entries."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from modelwright.codec import Columns
from modelwright.task import Batch, Datasets, Example, Input, Key, Keyed, Keys, Losses, Objective, Progress
from modelwright.testing.toy import Spirals, ToyNetwork, ToyTask
from modelwright.testing.toy_codec import ToyCodec
from tests.core.toy_codecs import Forgetful, TwiceCodec, UpsideDown

# Data -----------------------------------------------------------------------------------------------------------------


class Writes(ToyTask):
    def datasets(self) -> Datasets:
        Path("cache.txt").write_text("kept for the next time")
        return super().datasets()


class Connects(ToyTask):
    def datasets(self) -> Datasets:
        with socket.socket() as line, contextlib.suppress(OSError):
            line.connect(("127.0.0.1", 9))
        return super().datasets()


class TrainsOnly(ToyTask):
    def datasets(self) -> Datasets:
        return Datasets(super().datasets().train)


class ValidatesOnTrain(ToyTask):
    def datasets(self) -> Datasets:
        datasets = super().datasets()
        return replace(datasets, valid=datasets.train)


class OfOtherPoints(ToyTask):
    """Training data of another class, which takes the place of the toy's."""

    points: type[Spirals]

    def datasets(self) -> Datasets:
        datasets, data = super().datasets(), self.config.data
        return replace(datasets, train=lambda: self.points(data.samples, seed=self.config.seed, noise=data.noise))


class Draws(OfOtherPoints):
    class points(Spirals):
        def __getitem__(self, key: Key) -> Example:
            raw, targets = super().__getitem__(key)
            return Example(raw + np.random.default_rng().normal(0, 0.1, 2).astype(np.float32), targets)


class Unpicklable(OfOtherPoints):
    class points(Spirals):
        def __init__(self, *arguments: Any, **further: Any) -> None:
            super().__init__(*arguments, **further)
            self.name_of = lambda label: "abc"[label]


class LooksAtWorkers(OfOtherPoints):
    class points(Spirals):
        def __getitems__(self, keys: Keys) -> Batch:
            batch = super().__getitems__(keys)
            shift = 0 if get_worker_info() is None else 1
            return replace(batch, inputs=(batch.inputs[0] + shift,))


class OtherShape(ToyTask):
    inputs = (Input("point", (3,), "float32"),)


class OtherType(ToyTask):
    inputs = (Input("point", (2,), "float64"),)


class FallsOverNothing(ToyTask):
    def empty(self) -> Example:
        return Example(np.full(2, np.nan, np.float32), {"label": 0})


class HidesTensors(OfOtherPoints):
    class points(Spirals):
        def __getitems__(self, keys: Keys) -> Batch:
            batch = super().__getitems__(keys)
            return replace(batch, targets={**batch.targets, "extra": SimpleNamespace(weight=torch.ones(len(batch)))})


# Model ----------------------------------------------------------------------------------------------------------------


class OfOtherNetwork(ToyTask):
    """A model of another class, which takes the place of the toy's."""

    network: type[ToyNetwork]

    def model(self) -> nn.Module:
        settings, arrays = self.config.model, self.facts.arrays
        return self.network(settings.hidden, settings.dropout, arrays["mean"], arrays["std"])


class Centred(nn.Module):
    """Logits less their mean over the batch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, point: Tensor) -> dict[str, Tensor]:
        logits = self.model(point)["logits"]
        return {"logits": logits - logits.mean(dim=0)}


class ComparesInBatch(ToyTask):
    def served(self, model: nn.Module) -> nn.Module:
        return Centred(model)


class SaysMoreInTraining(OfOtherNetwork):
    class network(ToyNetwork):
        def forward(self, point: Tensor) -> dict[str, Tensor]:
            outputs = super().forward(point)
            return {**outputs, "point": point} if self.training else outputs


class KeepsANumber(OfOtherNetwork):
    class network(ToyNetwork):
        seen = 0

        def forward(self, point: Tensor) -> dict[str, Tensor]:
            if self.training:
                self.seen += 1
                return super().forward(point)
            return {"logits": super().forward(point)["logits"] * (1 + self.seen)}


class KeepsATensor(OfOtherNetwork):
    class network(ToyNetwork):
        seen = torch.zeros(())

        def forward(self, point: Tensor) -> dict[str, Tensor]:
            if self.training:
                self.seen = self.seen + 1
            return super().forward(point)


class KeepsAConstant(OfOtherNetwork):
    class network(ToyNetwork):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.signs = [torch.ones(3), torch.ones(3)]

        def forward(self, point: Tensor) -> dict[str, Tensor]:
            return {"logits": super().forward(point)["logits"] * self.signs[0]}


class UnusedParameter(OfOtherNetwork):
    class network(ToyNetwork):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.forgotten = nn.Parameter(torch.zeros(3))


class CountsItself(OfOtherNetwork):
    class network(ToyNetwork):
        seen = 0

        def forward(self, point: Tensor) -> dict[str, Tensor]:
            if not self.training:
                return super().forward(point)
            self.seen += 1
            return {"logits": super().forward(point)["logits"] * (1 + 0.01 * self.seen)}


class CountsItsUnits(OfOtherNetwork):
    class network(ToyNetwork):
        def __init__(self, hidden: int, *arguments: Any) -> None:
            super().__init__(hidden, *arguments)
            self.hidden = hidden

        def forward(self, point: Tensor) -> dict[str, Tensor]:
            if not self.training:
                return super().forward(point)
            first, *others = self.layers
            units = first((point - self.mean) / self.std) + torch.zeros(self.hidden)
            return {"logits": nn.Sequential(*others)(units)}


class Drowned(nn.Linear):
    """Has a further input that is huge and weighs nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.pad(x, (0, 1), value=1e6), F.pad(self.weight, (0, 1)), self.bias)


class DrownsItsUnits(OfOtherNetwork):
    class network(ToyNetwork):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            for module in self.layers:
                if isinstance(module, nn.Linear):
                    module.__class__ = Drowned


# Loss -----------------------------------------------------------------------------------------------------------------


class OfOtherLoss(ToyTask):
    """A loss that is made of the toy's."""

    def loss(
        self, criterion: nn.Module | None, outputs: Mapping[str, Tensor], batch: Batch, progress: Progress
    ) -> Losses:
        return self.changed(super().loss(criterion, outputs, batch, progress), len(batch))

    def changed(self, losses: Losses, samples: int) -> Losses:
        raise NotImplementedError


class WeighsNothing(OfOtherLoss):
    def changed(self, losses: Losses, samples: int) -> Losses:
        return replace(losses, weight=0.0)


class DividesTwice(OfOtherLoss):
    def changed(self, losses: Losses, samples: int) -> Losses:
        return replace(losses, sum=losses.sum / samples)


class NeverBelowFive(OfOtherLoss):
    def changed(self, losses: Losses, samples: int) -> Losses:
        return replace(losses, sum=losses.sum + 5.0 * samples)


class AugmentsInPlace(ToyTask):
    def augment(self, batch: Batch, keyed: Keyed, progress: Progress) -> Batch:
        batch.inputs[0].mul_(-1)
        return batch


class DrawsPerRank(ToyTask):
    def augment(self, batch: Batch, keyed: Keyed, progress: Progress) -> Batch:
        return replace(batch, inputs=(batch.inputs[0] + 0.3 * torch.randn_like(batch.inputs[0]),))


# Predictions and metrics ----------------------------------------------------------------------------------------------


class TruthsOfPadding(ToyTask):
    """A row too many where a batch was padded to an even size."""

    def truths(self, batch: Batch) -> Columns:
        labels = super().truths(batch).array("label")
        return Columns({"label": np.pad(labels, (0, len(labels) % 2))})


class LooksAtOrder(ToyTask):
    def metrics(self, measured: Columns) -> dict[str, float]:
        return {**super().metrics(measured), "first": float(measured.ids[0])}


class CountsCalls(ToyTask):
    calls = 0

    def metrics(self, measured: Columns) -> dict[str, float]:
        self.calls += 1
        return {**super().metrics(measured), "calls": float(self.calls)}


class SortsInPlace(ToyTask):
    def metrics(self, measured: Columns) -> dict[str, float]:
        found = super().metrics(measured)
        measured.array("probabilities").sort(axis=0)
        return found


class GivesArrays(ToyTask):
    def metrics(self, measured: Columns) -> dict[str, Any]:
        return {**super().metrics(measured), "mean": measured.array("probabilities").mean(axis=0)}


class OtherObjective(ToyTask):
    objective = Objective("precision", "max")


class TakesTheWorst(ToyTask):
    codec = UpsideDown()


class NotPerfect(ToyTask):
    def perfect(self, truths: Columns) -> Columns:
        return Columns({"probabilities": np.roll(super().perfect(truths).array("probabilities"), 1, axis=1)})


# Export ---------------------------------------------------------------------------------------------------------------


class HasAForgetfulCodec(ToyTask):
    codec = Forgetful(scale=2.0)


@dataclass(frozen=True)
class BesideTorch(ToyCodec):
    """Its module imports torch."""


class HasItsCodecBesideTorch(ToyTask):
    codec = BesideTorch()


class LoopsOverSamples(OfOtherNetwork):
    class network(ToyNetwork):
        def forward(self, point: Tensor) -> dict[str, Tensor]:
            return super().forward(torch.stack([point[row] for row in range(len(point))]))


# Good in their own way ------------------------------------------------------------------------------------------------


class KnowsNothingness(ToyTask):
    """Has samples with nothing in them."""

    def empty(self) -> Example:
        return Example(np.zeros(2, np.float32), {"label": 0})


class NormalisesOverBatch(OfOtherLoss):
    """As losses of some libraries."""

    def changed(self, losses: Losses, samples: int) -> Losses:
        return Losses(losses.sum / samples, None)


class BatchNormed(OfOtherNetwork):
    """Has batch statistics."""

    class network(ToyNetwork):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.layers.insert(1, nn.BatchNorm1d(self.layers[0].out_features))


class Windowed(OfOtherPoints):
    """Several samples of one raw thing."""

    codec = TwiceCodec()

    class points(Spirals):
        __getitems__ = None  # type: ignore[assignment] - read one by one


# Worse ----------------------------------------------------------------------------------------------------------------


class Raises(ToyTask):
    """Raises what is asked for in its settings."""

    def truths(self, batch: Batch) -> Columns:
        raise {"KeyError": KeyError("label"), "SystemExit": SystemExit(3), "empty": RuntimeError()}[
            self.config.data.name
        ]


class Hangs(ToyTask):
    """Never ends, and catches what it can."""

    def truths(self, batch: Batch) -> Columns:
        while True:
            with contextlib.suppress(Exception):
                time.sleep(60)


class DiesOnASecondRank(ToyTask):
    """Fails only where there are two."""

    def model(self) -> nn.Module:
        if os.environ.get("RANK") == "1":
            raise RuntimeError("no room\nfor two")
        return super().model()


class Talks(ToyTask):
    """Prints where a result may be expected."""

    def model(self) -> nn.Module:
        print("hello from the model")
        return super().model()
