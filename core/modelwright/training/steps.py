"""Training steps. A step is a module: (batch, progress) -> Losses; the trainer does not grow with methods.

Its parameters join the optimizer, its buffers and extra state the checkpoint.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import nn

from modelwright.task import Batch, Losses, Progress, Task


class Step(nn.Module, ABC):
    """Base of steps. `model` is what is being trained and, in the end, evaluated."""

    model: nn.Module

    @abstractmethod
    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's parameter groups."""

    @abstractmethod
    def forward(self, batch: Batch, progress: Progress) -> Losses:
        """The loss of a batch, before it is divided."""


class Supervised(Step):
    """The plain case: the core calls the model, the task compares its outputs with the targets.

    Args:
        model: what is trained; the task's own with fresh weights when left out.
    """

    def __init__(self, task: Task, model: nn.Module | None = None) -> None:
        super().__init__()
        self._task = task
        self.model = task.model() if model is None else model
        self.criterion = task.criterion(self.model)

    def groups(self) -> list[dict[str, Any]]:
        """The task's groups, and one for parameters of the loss."""
        groups = self._task.groups(self.model)
        own = [] if self.criterion is None else [p for p in self.criterion.parameters() if p.requires_grad]
        taken = {id(p) for group in groups for p in group["params"]}
        if further := [p for p in own if id(p) not in taken]:
            groups = [*groups, {"params": further, "weight_decay": 0.0}]
        return groups

    def forward(self, batch: Batch, progress: Progress) -> Losses:
        """Outputs of the model, scored by `Task.loss`."""
        outputs = self.model(*batch.inputs, **batch.hints)
        return self._task.loss(self.criterion, outputs, batch, progress)
