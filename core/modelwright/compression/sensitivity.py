"""Finds the layers that 8 bits hurt, by measuring. Knows arrays and names; knows neither graphs nor how one is written.

Each layer is put into 8 bits alone, all others in float, and the change of the outputs is measured on a few samples.
Alone, since the rounding errors of layers add up nearly independently: with all others rounded too, theirs would drown
the one that is looked for. The score of the task then decides how many of the worst stay in float.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np


def signal_to_noise(reference: Mapping[str, np.ndarray], changed: Mapping[str, np.ndarray]) -> float:
    """How far changed outputs are from the reference, in decibels: the worst output's; more is better.

    Outputs that are no floats (classes, indices) are looked at only where there are no others.

    >>> signal_to_noise({"y": np.array([3.0, 4.0])}, {"y": np.array([3.0, 4.5])})
    20.0
    """
    floats = [name for name, value in reference.items() if value.dtype.kind == "f"]
    return min(_decibels(reference[name], changed[name]) for name in floats or list(reference))


def _decibels(reference: np.ndarray, changed: np.ndarray) -> float:
    if reference.shape != changed.shape:  # the number of things found changed
        return -np.inf
    wanted = reference.astype(np.float64)
    finite = np.isfinite(wanted)
    # What is masked out (-inf) says nothing of the rest, but must stay so.
    if not np.array_equal(reference[~finite], changed[~finite], equal_nan=reference.dtype.kind == "f"):
        return -np.inf
    noise = float(np.square(changed[finite].astype(np.float64) - wanted[finite]).sum())
    signal = float(np.square(wanted[finite]).sum())
    if noise == 0:
        return np.inf
    return float(10 * np.log10(signal / noise)) if signal and np.isfinite(noise) else -np.inf


def joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Outputs of several batches, flat: samples may differ in size."""
    return {name: np.concatenate([np.asarray(part[name]).reshape(-1) for part in parts]) for name in parts[0]}


def fewest(ranked: Sequence[str], enough: Callable[[Sequence[str]], bool]) -> list[str] | None:
    """The shortest beginning of a ranking that is enough; found by doubling, then halving.

    Args:
        ranked: the worst first.
        enough: costly; what is true of a beginning is taken to be true of a longer one. Never asked for none or all.

    Returns:
        A beginning that was found to be enough; None where all but the last are not.

    >>> fewest("abcdefgh", lambda some: len(some) >= 3)
    ['a', 'b', 'c']
    """
    most = len(ranked) - 1
    low, high = 0, 1  # `low` is not enough
    while high < most and not enough(ranked[:high]):
        low, high = high, 2 * high
    if high >= most:
        high = most
        if high <= low or not enough(ranked[:high]):
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if enough(ranked[:middle]):
            high = middle
        else:
            low = middle
    return list(ranked[:high])
