"""Adds up losses between two log lines and over an epoch, on the device. Knows no model."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from modelwright.task import Losses


class Tally:
    """Mean loss and speed since the last reading.

    Sums stay on the device, so that adding never waits for a GPU.
    """

    def __init__(self) -> None:
        self.loss: Tensor | float = 0.0
        self.weight: Tensor | float = 0.0
        self.samples = 0
        self._parts: dict[str, Tensor | float] = {}
        self._own_weight: Tensor | float = 0.0
        self._since = time.perf_counter()

    def part(self, losses: Losses, weight: Tensor | float) -> None:
        """Adds the named parts of one micro-batch of this rank."""
        if losses.parts:
            self._own_weight = self._own_weight + weight
            for name, value in losses.parts.items():
                self._parts[name] = self._parts.get(name, 0.0) + value.detach()

    def add(self, loss: Tensor, weight: Tensor | float, samples: int) -> None:
        """Adds one optimizer step over all ranks."""
        self.loss = self.loss + loss
        self.weight = self.weight + weight
        self.samples += samples

    @property
    def mean(self) -> float:
        """The mean loss."""
        return float(self.loss) / max(float(self.weight), 1e-12)

    def parts(self) -> dict[str, float]:
        """The mean of each named part."""
        weight = max(float(self._own_weight), 1e-12)
        return {name: float(value) / weight for name, value in self._parts.items()}

    def pause(self, seconds: float) -> None:
        """Takes time that was spent on something else (evaluation, saving) out of the speed."""
        self._since += seconds

    def speed(self) -> float:
        """Samples per second."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return self.samples / max(time.perf_counter() - self._since, 1e-9)
