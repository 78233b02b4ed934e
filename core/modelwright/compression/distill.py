"""Distillation as a training step, and where teachers come from. Knows no trainer, no files of runs and no task.

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, https://arxiv.org/abs/1503.02531.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn

from modelwright.errors import CompressionError
from modelwright.task import Batch, Losses, Progress, Task
from modelwright.training.steps import Step, Supervised

Teacher: TypeAlias = "Callable[[Batch], Mapping[str, Tensor]]"
"""A batch, augmented as the student sees it -> the teacher's outputs by name."""


class Distillation(Step):
    """A student that learns from the truth and from a teacher at once.

    Args:
        student: what is trained.
        teacher: any callable; it takes no part in the step's state.
        temperature: softens both sides.
        mix: share of the teacher's loss.
    """

    def __init__(self, task: Task, student: nn.Module, teacher: Teacher, *, temperature: float, mix: float) -> None:
        super().__init__()
        self._task = task
        self._supervised = Supervised(task, student)
        self.model = student
        self._teacher, self._temperature, self._mix = teacher, temperature, mix

    def groups(self) -> list[dict[str, Any]]:
        """As in supervised training."""
        return self._supervised.groups()

    def forward(self, batch: Batch, progress: Progress) -> Losses:
        """Both losses mixed, on the scale of the task's own.

        Raises:
            CompressionError: the task offers no distillation.
        """
        outputs = self.model(*batch.inputs, **batch.hints)
        with torch.no_grad():
            said = self._teacher(batch)
        taught = self._task.distill_loss(outputs, said, batch, progress, temperature=self._temperature)
        if taught is None:
            raise CompressionError("the task offers no distillation: leave the stage out, or define distill_loss")
        if self._mix == 1:
            return taught
        own = self._task.loss(self._supervised.criterion, outputs, batch, progress)
        # Sums that are divided by other weights are brought to the task's own first.
        scale: Any = 1.0 if own.weight is None or taught.weight is None else own.weight / taught.weight
        total = (1 - self._mix) * own.sum + self._mix * taught.sum * scale
        return Losses(total, own.weight, {"task": own.sum.detach(), "teacher": (taught.sum * scale).detach()})


def network_teacher(model: nn.Module, *, device: torch.device) -> Teacher:
    """A network as teacher, in eval mode."""
    frozen = model.to(device).eval()

    def teach(batch: Batch) -> Mapping[str, Tensor]:
        frozen.eval()
        return cast("Mapping[str, Tensor]", frozen(*batch.inputs))

    return teach


def stored_teacher(path: Path, *, samples: int, device: torch.device) -> Teacher:
    """Outputs that were computed before, by training sample: an array ``ids`` and one array per output, in a .npz.

    Whatever gave them (a tree ensemble, a model of another framework) is not needed any more.

    Raises:
        CompressionError: the file is damaged, or lacks a sample.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            tables = {name: stored[name] for name in stored.files}
        ids = tables.pop("ids").astype(np.int64)
    except (OSError, ValueError, KeyError) as error:
        raise CompressionError(
            f"{path} is no file of stored outputs: {error}; np.savez(path, ids=..., logits=...) writes one"
        ) from error
    row_of = np.full(samples, -1)
    known = (ids >= 0) & (ids < samples)
    row_of[ids[known]] = np.flatnonzero(known)
    if missing := int((row_of < 0).sum()):
        raise CompressionError(
            f"{path} has no outputs for {missing} of {samples} training samples: store one row per sample id"
        )
    tensors = {name: torch.from_numpy(table).to(device) for name, table in tables.items()}

    def teach(batch: Batch) -> Mapping[str, Tensor]:
        rows = torch.from_numpy(row_of[batch.ids]).to(device)
        return {name: table.index_select(0, rows).float() for name, table in tensors.items()}

    return teach


def check_teacher(student: nn.Module, teacher: Teacher, batch: Batch, *, what: str) -> None:
    """Looks at one batch before hours of training.

    Raises:
        CompressionError: the teacher gives other outputs than the student, or of other shapes.
    """
    with torch.no_grad():
        student.eval()
        own: Mapping[str, Tensor] = student(*batch.inputs)
        said = teacher(batch)
    shared = sorted(set(own) & set(said))
    if not shared:
        raise CompressionError(
            f"the teacher {what} gives {sorted(said)}, the student {sorted(own)}: take one of this task"
        )
    for name in shared:
        mine, theirs = tuple(own[name].shape[1:]), tuple(said[name].shape[1:])
        if mine != theirs:
            raise CompressionError(
                f"the teacher {what} gives {name} of shape {theirs} per sample, the student {mine}: "
                "take one that was trained on the same classes"
            )
