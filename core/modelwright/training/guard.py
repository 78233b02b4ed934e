"""Watches for losses that are not finite and memory that ran out. Knows no model and no task."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from modelwright.errors import TrainingError


class Guard:
    """Raises when a loss is NaN or infinite, naming the step and its samples.

    Args:
        every: losses looked at together; 1 on a CPU, more on a GPU, where looking means waiting for it.
    """

    def __init__(self, *, every: int) -> None:
        self._every = every
        self._kept: list[tuple[int, Tensor, Sequence[np.ndarray]]] = []

    def __call__(self, step: int, loss: Tensor, ids: Sequence[np.ndarray]) -> None:
        """Takes the loss of a step.

        Raises:
            TrainingError: this loss, or one kept since the last look, is not finite.
        """
        self._kept.append((step, loss, ids))
        if len(self._kept) >= self._every:
            self.look()

    def look(self) -> None:
        """Looks at what was kept; called before anything is saved.

        Raises:
            TrainingError: a loss is not finite.
        """
        kept, self._kept = self._kept, []
        if not kept:
            return
        # Stacked, since each reading of its own would wait for a GPU.
        values = [float(kept[0][1])] if len(kept) == 1 else torch.stack([loss for _, loss, _ in kept]).tolist()
        for value, (step, _, ids) in zip(values, kept, strict=True):
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss became {value} at step {step} (samples {list_ids(ids)}): lower train.optimizer.lr, "
                    "set train.clip=1.0, or look at these samples"
                )


def check_finite(step: int, tensors: Iterable[Tensor]) -> None:
    """Looks at weights before they are kept: a finite loss can have a gradient that is not.

    Args:
        step: optimizer steps done.

    Raises:
        TrainingError: a value is NaN or infinite.
    """
    finite = [tensor.isfinite().all() for tensor in tensors]
    if finite and not bool(torch.stack(finite).all()):
        raise TrainingError(
            f"weights became NaN or infinite within the {step} steps done: lower train.optimizer.lr, set "
            "train.clip=1.0, or look for a loss without a gradient (a root or logarithm at 0)"
        )


def list_ids(ids: Sequence[np.ndarray], *, most: int = 8) -> str:
    """The first few sample ids, and how many more there are.

    >>> list_ids([np.array([3, 1])], most=1)
    '3, ... (2 in all)'
    """
    every = [int(i) for part in ids for i in part]
    shown = ", ".join(map(str, every[:most]))
    return shown if len(every) <= most else f"{shown}, ... ({len(every)} in all)"


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory, on a GPU or on the CPU (where it raises a plain RuntimeError)."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
