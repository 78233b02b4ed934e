"""Training loops written by hand, to hold the engine against. Knows PyTorch and this plugin's networks; no engine.

Each loop goes on where it stopped: ``loop(steps)`` does that many further optimizer steps.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from modelwright.training.randomness import KeyedNumbers, generator
from modelwright_image.augment import flip_and_crop

CROP = 2
LR, MOMENTUM, DECAY = 0.05, 0.9, 5e-4


@dataclass(frozen=True)
class Pixels:
    """Pictures in memory. `images`: uint8, N x H x W x C; `labels`: int64, N."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Knobs:
    """Ways to write the same loop.

    Attributes:
        fused: one pass over the weights; None: whatever torch.optim.SGD does when it is not asked.
        channels_last: memory layout of pictures and convolutions.
        set_to_none: what zero_grad does.
        hashed: augmentation draws the engine's reproducible numbers; otherwise those of one numpy generator.
    """

    fused: bool | None = None
    channels_last: bool = True
    set_to_none: bool = True
    hashed: bool = True


class HandLoop:
    """What a good engineer would write: pictures resident, augmented by the batch, nothing but the steps.

    With the knobs `fused` and `hashed` it sees the engine's batches and does the engine's arithmetic.
    """

    def __init__(
        self, model: nn.Module, pixels: Pixels, *, batch_size: int, steps: int, seed: int, knobs: Knobs | None = None
    ) -> None:
        self.knobs = knobs or Knobs()
        self.layout = torch.channels_last if self.knobs.channels_last else torch.contiguous_format
        self.model = cast("nn.Module", cast("Any", copy.deepcopy(model)).to(memory_format=self.layout))
        self.pixels, self.batch_size, self.steps, self.seed = pixels, batch_size, steps, seed
        self.optimizer = sgd(self.model, fused=self.knobs.fused, nesterov=True)
        self.rng = np.random.default_rng(seed)
        self.batches = self._batches()
        self.step = 0
        self.losses = 0.0

    def __call__(self, steps: int) -> None:
        knobs, optimizer, model = self.knobs, self.optimizer, self.model
        model.train()
        for _ in range(steps):
            epoch, rows = next(self.batches)
            chosen = torch.from_numpy(rows)
            images = self.pixels.images.index_select(0, chosen).permute(0, 3, 1, 2)
            labels = self.pixels.labels.index_select(0, chosen)
            keyed = KeyedNumbers(seed=self.seed, epoch=epoch, ids=rows) if knobs.hashed else self._draw
            images = flip_and_crop(images, keyed, flip=True, crop=CROP)
            if not knobs.channels_last:
                images = images.contiguous()
            rate = LR * onecycle(self.step / self.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=knobs.set_to_none)
            loss = F.cross_entropy(model(images)["logits"], labels)
            loss.backward()
            optimizer.step()
            self.losses += loss.item()
            self.step += 1

    def _batches(self) -> Iterator[tuple[int, np.ndarray]]:
        epoch = 0
        while True:
            order = generator(self.seed, epoch, "order").permutation(len(self.pixels))
            for start in range(0, len(order), self.batch_size):
                yield epoch, order[start : start + self.batch_size]
            epoch += 1

    def _draw(self, name: str, columns: int = 1) -> np.ndarray:
        return self.rng.random((self.batch_size, columns))


class TutorialLoop:
    """The tutorial's loop with flip and crop: PIL pictures one by one through transforms and a DataLoader.

    Args:
        workers: of the DataLoader.
    """

    def __init__(self, model: nn.Module, pixels: Pixels, *, batch_size: int, workers: int) -> None:
        # The tutorial normalises among the transforms, so here the network stands alone.
        self.network = copy.deepcopy(cast("nn.Module", model.network))
        self.workers = workers
        self.loader = DataLoader(_PilPictures(pixels), batch_size=batch_size, shuffle=True, num_workers=workers)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.001, momentum=0.9)
        self.criterion = nn.CrossEntropyLoss()
        self.batches = self._forever()
        self.losses = 0.0

    def __call__(self, steps: int) -> None:
        self.network.train()
        for _ in range(steps):
            inputs, labels = next(self.batches)
            self.optimizer.zero_grad()
            outputs = self.network(inputs)
            loss = self.criterion(outputs, labels)
            loss.backward()
            self.optimizer.step()
            self.losses += loss.item()

    def drain(self) -> None:
        """Throws away what workers read ahead while others ran, which would be time not paid for."""
        for _ in range(2 * self.workers):
            next(self.batches)

    def settle(self) -> None:
        """Waits until workers have read ahead, so that they take no time from the next loop."""
        if self.workers:
            time.sleep(0.3)

    def _forever(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.loader


class _PilPictures(TorchDataset[tuple[Tensor, int]]):
    """As torchvision's CIFAR10: an array in memory, each sample a PIL picture that goes through transforms."""

    def __init__(self, pixels: Pixels) -> None:
        self.data = pixels.images.numpy()
        self.targets = pixels.labels.tolist()
        half = (0.5,) * self.data.shape[-1]
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.RandomCrop(self.data.shape[1], padding=CROP, padding_mode="reflect"),
                transforms.ToTensor(),
                transforms.Normalize(half, half),
            ]
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return cast("Tensor", self.transform(Image.fromarray(self.data[index]))), self.targets[index]


class LimitLoop:
    """The network alone on one fixed batch of floats: what no loop around it can beat."""

    def __init__(self, model: nn.Module, pixels: Pixels, *, batch_size: int, channels_last: bool) -> None:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.network = cast("nn.Module", copy.deepcopy(cast("Any", model.network)).to(memory_format=layout))
        images = pixels.images[:batch_size].permute(0, 3, 1, 2).float() / 127.5 - 1
        self.images = images.contiguous(memory_format=layout)
        self.labels = pixels.labels[:batch_size]
        # A rate near zero: the batch would be learned by heart, and numbers below the normal range are slow.
        self.optimizer = sgd(self.network, fused=True, nesterov=True)
        for group in self.optimizer.param_groups:
            group["lr"] = 1e-6

    def __call__(self, steps: int) -> None:
        self.network.train()
        for _ in range(steps):
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.network(self.images), self.labels)
            loss.backward()
            self.optimizer.step()


def sgd(model: nn.Module, *, fused: bool | None, nesterov: bool) -> torch.optim.SGD:
    """SGD with momentum; weight decay on weights, none on norms and biases."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=LR, momentum=MOMENTUM, weight_decay=DECAY, nesterov=nesterov, fused=fused)


def onecycle(done: float) -> float:
    """Share of the peak rate when `done` of all steps are: up for 30 %, then down to nothing, along cosines."""
    if done < 0.3:
        return 1 / 25 + (1 - 1 / 25) * 0.5 * (1 - math.cos(math.pi * done / 0.3))
    return 0.5 * (1 + math.cos(math.pi * (done - 0.3) / 0.7))
