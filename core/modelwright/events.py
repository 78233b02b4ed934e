"""What happens during a run, as frozen records. Observers receive them and return nothing. Knows no torch.

Stopping, checkpoints and schedules are parts of the trainer, not observers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias


@dataclass(frozen=True)
class Event:
    """Base of all events. `step`: optimizer steps done."""

    step: int


@dataclass(frozen=True)
class RunStarted(Event):
    """Training begins, or goes on after a resume (then `step` is above 0).

    Attributes:
        validated: there is a validation split, so that evaluations will follow.
    """

    task: str
    steps: int
    epochs: int
    steps_per_epoch: int
    objective: str
    goal: str
    validated: bool = True


@dataclass(frozen=True)
class StepDone(Event):
    """Every `train.log_every` steps.

    Attributes:
        epoch: as a fraction: 1.5 is the middle of the second.
        loss: mean per unit of weight since the last such event.
        parts: the same for each named part.
        lr: learning rate of the first parameter group.
        samples_per_second: since the last such event, over all ranks.
    """

    epoch: float
    loss: float
    parts: Mapping[str, float]
    lr: float
    samples_per_second: float


@dataclass(frozen=True)
class EpochDone(Event):
    """An epoch is over. `epoch`: how many are over by now; `loss`: its mean."""

    epoch: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class EvaluationDone(Event):
    """The validation split was scored. `best`: it is the best so far."""

    epoch: float
    split: str
    metrics: Mapping[str, float]
    best: bool
    seconds: float


@dataclass(frozen=True)
class CheckpointSaved(Event):
    """A checkpoint is on disk."""

    path: Path


@dataclass(frozen=True)
class RunFinished(Event):
    """Training is over. `reason`: "completed" or "early stop"."""

    reason: str
    seconds: float


Observer: TypeAlias = Callable[[Event], None]


class Observers:
    """Passes each event on. An observer that raises is reported once and left out from then on."""

    def __init__(self, observers: Mapping[str, Observer], *, warn: Callable[[str], None]) -> None:
        self._observers = dict(observers)
        self._warn = warn

    def __call__(self, event: Event) -> None:
        for name, observer in list(self._observers.items()):
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001 - a tracker must not take the run down
                del self._observers[name]
                self._warn(f"observer {name} failed and is left out from now on: {type(error).__name__}: {error}")
