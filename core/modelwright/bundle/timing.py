"""Times calls side by side, and makes inputs to time a graph with. Knows numpy only; knows neither torch nor tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelwright.data import Input, Size

WARM = 3
"""Calls of each that are not counted: memory is laid out, caches fill."""
MOST = 10_000
"""Rounds after which enough was seen."""


@dataclass(frozen=True)
class Latency:
    """How long calls took. `batch`: samples of one call; `runs`: calls counted."""

    batch: int
    p50_ms: float
    p95_ms: float
    runs: int

    @property
    def samples_per_second(self) -> float:
        """Throughput, calls one after another."""
        return 1000 * self.batch / self.p50_ms


def interleaved(calls: Mapping[str, Callable[[], object]], *, seconds: float, least: int) -> dict[str, np.ndarray]:
    """The seconds that each call took, round by round: in every round each is called once, in turn.

    What disturbs the machine for a while then disturbs all alike, and times of one round can be compared.

    Args:
        seconds: spent on all of them together, warm-up aside.
        least: rounds, however long they take.

    >>> taken = interleaved({"a": lambda: None, "b": lambda: None}, seconds=0.0, least=5)
    >>> {name: len(each) for name, each in taken.items()}
    {'a': 5, 'b': 5}
    """
    for call in calls.values():
        for _ in range(WARM):
            call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    began, rounds = time.perf_counter(), 0
    while rounds < least or (time.perf_counter() - began < seconds and rounds < MOST):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - start)
        rounds += 1
    return {name: np.array(each) for name, each in taken.items()}


def summary(taken: np.ndarray, *, batch: int = 1) -> Latency:
    """Median and 95th percentile of some calls, in milliseconds.

    Args:
        taken: seconds, one for each call.
        batch: samples of one call.

    >>> summary(np.array([0.001, 0.002, 0.003])).p50_ms
    2.0
    """
    p50, p95 = np.quantile(taken, [0.5, 0.95]) * 1000
    return Latency(batch, round(float(p50), 6), round(float(p95), 6), len(taken))


def ratios(taken: Mapping[str, np.ndarray], *, reference: str) -> dict[str, float]:
    """How long each took as a share of the reference: the median over rounds, so that noise cancels.

    >>> ratios({"a": np.array([2.0, 4.0, 8.0]), "b": np.array([1.0, 2.0, 4.0])}, reference="a")
    {'a': 1.0, 'b': 0.5}
    """
    return {name: float(np.median(each / taken[reference])) for name, each in taken.items()}


# Inputs ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Observed:
    """An input as real samples have it.

    Attributes:
        input: its name, shape and type.
        low, high: the smallest and the largest value seen.
        sizes: what its changing dimensions were, mostly.
    """

    input: Input
    low: float
    high: float
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        shape = [
            {"name": size.name, "minimum": size.minimum, "multiple": size.multiple} if isinstance(size, Size) else size
            for size in self.input.shape
        ]
        return {
            "name": self.input.name,
            "shape": shape,
            "dtype": self.input.dtype,
            "low": self.low,
            "high": self.high,
            "sizes": dict(self.sizes),
        }

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Observed:
        """The opposite."""
        shape = tuple(Size(**size) if isinstance(size, Mapping) else int(size) for size in values["shape"])
        return Observed(
            Input(values["name"], shape, values["dtype"]), values["low"], values["high"], dict(values["sizes"])
        )


def observe(inputs: Sequence[Input], batches: Sequence[Sequence[np.ndarray]]) -> tuple[Observed, ...]:
    """What some batches of real samples show of each input.

    Args:
        batches: each an array for each input, batch first.
    """
    seen: list[Observed] = []
    for place, spec in enumerate(inputs):
        arrays = [batch[place] for batch in batches]
        finite = [array[np.isfinite(array)] for array in arrays]
        filled = [each for each in finite if each.size]
        low = min((float(each.min()) for each in filled), default=0.0)
        high = max((float(each.max()) for each in filled), default=0.0)
        sizes = {
            size.name: int(np.median([array.shape[axis] for array in arrays])) // size.multiple * size.multiple
            for axis, size in enumerate(spec.shape, start=1)
            if isinstance(size, Size)
        }
        seen.append(Observed(spec, low, high, sizes))
    return tuple(seen)


def example(inputs: Sequence[Observed], *, batch: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Arrays such as the model is given: random values between those seen, in the usual sizes.

    >>> seen = Observed(Input("image", (1, Size("side")), "uint8"), 0, 255, {"side": 4})
    >>> (image,) = example([seen], batch=2, rng=np.random.default_rng(0))
    >>> image.shape, image.dtype
    ((2, 1, 4), dtype('uint8'))
    """
    return tuple(_values(each, batch, rng) for each in inputs)


def _values(seen: Observed, batch: int, rng: np.random.Generator) -> np.ndarray:
    shape = [batch, *(seen.sizes[size.name] if isinstance(size, Size) else size for size in seen.input.shape)]
    dtype = np.dtype(seen.input.dtype)
    if dtype.kind == "f":
        return rng.uniform(seen.low, seen.high, shape).astype(dtype)
    return rng.integers(int(seen.low), int(seen.high), shape, endpoint=True).astype(dtype)
