"""Randomness as a pure function of (seed, epoch, sample id, name). Knows no sampler, no worker, no model.

Nothing here depends on what ran before, so a run can go on from any step without saving random states.
"""

from __future__ import annotations

import random
import zlib

import numpy as np
import torch

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 0xFFFFFFFFFFFFFFFF
_STEP, _M1, _M2 = np.uint64(_GOLDEN), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)


def mix(value: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): 64 bits in, 64 well-mixed bits out."""
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def fold(*parts: int | str) -> int:
    """One 64-bit number from several numbers and names, in order.

    >>> fold(1, "crop") != fold("crop", 1)
    True
    """
    state = 0
    for part in parts:
        state = mix(state ^ (zlib.crc32(part.encode()) if isinstance(part, str) else part & _MASK))
    return state


def uniform(seed: int, epoch: int, ids: np.ndarray, name: str, columns: int = 1) -> np.ndarray:
    """Uniform random numbers, one row per sample id.

    Args:
        ids: int64, shape (n,).
        columns: numbers per sample.

    Returns:
        float64 in [0, 1), shape (n, columns). The row of an id is the same whatever the other ids are.
    """
    # One stream per sample (its id, mixed), then one counter per column: the same construction as SplitMix64.
    rows = _mix_array(ids.astype(np.uint64) ^ np.uint64(fold(seed, epoch, name)))
    steps = np.arange(1, columns + 1, dtype=np.uint64) * _STEP
    bits = _mix_array(rows[:, None] + steps)
    return (bits >> _S11).astype(np.float64) * 2.0**-53


def _mix_array(value: np.ndarray) -> np.ndarray:
    """`mix` for an array of uint64; arrays wrap around silently."""
    value = value + _STEP
    value ^= value >> _S30
    value *= _M1
    value ^= value >> _S27
    value *= _M2
    value ^= value >> _S31
    return value


class KeyedNumbers:
    """`modelwright.task.Keyed` for the samples of one batch."""

    def __init__(self, *, seed: int, epoch: int, ids: np.ndarray) -> None:
        self._seed, self._epoch, self._ids = seed, epoch, ids

    def __call__(self, name: str, columns: int = 1) -> np.ndarray:
        """Uniform float64 in [0, 1), shape (samples, columns)."""
        return uniform(self._seed, self._epoch, self._ids, name, columns)


def generator(*parts: int | str) -> np.random.Generator:
    """A numpy generator that depends on `parts` only."""
    return np.random.Generator(np.random.Philox(key=fold(*parts)))


def seed_everything(*parts: int | str) -> None:
    """Seeds the global generators (python, numpy, torch) from `parts`: for dropout and a library's own draws."""
    number = fold(*parts)
    random.seed(number)
    np.random.seed(number & 0xFFFFFFFF)  # noqa: NPY002 - libraries draw from the legacy generator
    torch.default_generator.manual_seed(number & 0x7FFFFFFFFFFFFFFF)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number & 0x7FFFFFFFFFFFFFFF)
