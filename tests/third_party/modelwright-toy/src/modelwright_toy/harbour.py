"""The water level of a made-up harbour. Knows no settings and no model."""

from __future__ import annotations

import numpy as np
import torch

from modelwright import Batch, Example, Key, Keys
from modelwright_toy.codec import AHEAD, PAST


class Harbour:
    """Hourly levels and pressures, one record for each hour that has two days before and half a day after it."""

    def __init__(self, level: np.ndarray, pressure: np.ndarray) -> None:
        self.level = torch.from_numpy(level.astype(np.float32))
        self.pressure = torch.from_numpy(pressure.astype(np.float32))

    def __len__(self) -> int:
        return len(self.level) - PAST - AHEAD + 1

    def __getitem__(self, key: Key) -> Example:
        """One record."""
        now = key.index + PAST
        raw = {"level": self.level[key.index : now].numpy(), "pressure": self.pressure[now : now + AHEAD].numpy()}
        return Example(raw, {"level": self.level[now : now + AHEAD].numpy()})

    def __getitems__(self, keys: Keys) -> Batch:
        """A whole batch with three indices."""
        start = torch.from_numpy(keys.indices).unsqueeze(1)
        past, ahead = start + torch.arange(PAST), start + PAST + torch.arange(AHEAD)
        return Batch((self.level[past], self.pressure[ahead]), {"level": self.level[ahead]}, keys.indices)


def record(days: int, *, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Levels in metres and pressures in hPa, hour by hour."""
    rng = np.random.default_rng(seed)
    hours = np.arange(24 * days)
    pressure = np.zeros(len(hours))
    for hour, push in enumerate(rng.normal(0, 1.5, len(hours))):  # weather: it remembers about a day
        pressure[hour] = 0.96 * pressure[hour - 1] + push if hour else push
    moon = 1.2 * np.sin(2 * np.pi * hours / 12.42)
    sun = 0.4 * np.sin(2 * np.pi * hours / 12.0)
    surge = -0.01 * pressure  # a centimetre for each hectopascal
    return moon + sun + surge + rng.normal(0, noise, len(hours)), 1013.0 + pressure
