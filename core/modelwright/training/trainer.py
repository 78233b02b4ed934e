"""The training loop. Knows steps, optimizers and checkpoints; knows neither tasks by name nor command lines.

`Trainer.fit` reads like the loop one would write by hand; what surrounds it makes the same weights come out after a
kill and a resume, on one rank or several, in one micro-batch or four.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from modelwright import events
from modelwright.config import TaskConfig
from modelwright.errors import Interrupted
from modelwright.evaluation.evaluator import evaluate
from modelwright.task import Batch, Dataset, Progress, Task
from modelwright.training import checkpoint as checkpoints
from modelwright.training import distributed
from modelwright.training.checkpoint import Checkpoint
from modelwright.training.loading import Place, Plan, fetch, read
from modelwright.training.signals import StopSignal
from modelwright.training.steps import Step
from modelwright.training.tally import Tally
from modelwright.training.update import Updater

STEP, BEST, LAST = "step", "best", "last"
"""Kinds of checkpoints: everything to go on with; the best weights; the final weights."""
WARM_STEPS, TIMED_STEPS = 3, 12
"""Steps that turn a time budget into a number of steps."""


@dataclass
class State:
    """What changes during training besides weights and optimizer; stored as JSON in each checkpoint.

    Attributes:
        step: optimizer steps done.
        steps: optimizer steps in the run, where a time budget was turned into them.
        best: the objective's best value on the validation split.
        reference: the value that early stopping compares with; small steps up add up until they count.
        stale: evaluations since it was reached.
        loss, weight: sums over the present epoch.
        seconds, cpu_seconds: spent in training, evaluations included, over all sittings; this rank's.
    """

    step: int = 0
    steps: int | None = None
    best: float | None = None
    reference: float | None = None
    stale: int = 0
    loss: float = 0.0
    weight: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class Trainer:
    """Trains a step's model on a dataset.

    Args:
        config: the run's settings.
        step: what is done with a batch; its `model` is what is evaluated and kept.
        train: the samples to learn from.
        valid: the samples to choose the best weights on; None: nothing is chosen.
        folder: where checkpoints go.
        name: the task's name, for observers.
        observer: told of each event, on rank 0 only.
        warn: told of what a user should know.

    Raises:
        ConfigError: settings that do not fit each other, the model or the device.
    """

    def __init__(
        self,
        task: Task,
        config: TaskConfig,
        step: Step,
        *,
        train: Dataset,
        valid: Dataset | None,
        folder: Path,
        name: str,
        device: torch.device,
        observer: Callable[[events.Event], None],
        warn: Callable[[str], None],
    ) -> None:
        self._task, self._config, self._dataset, self._valid = task, config, train, valid
        self._folder, self._name, self._device, self._warn = folder, name, device, warn
        self._observer = observer if distributed.rank() == 0 else _nobody
        self._update = Updater(task, config, step, device=device)
        self.step = self._update.step
        self.state = State()

    # The loop ---------------------------------------------------------------------------------------------------------

    def fit(self) -> str:
        """Trains to the end of the plan, going on from the newest checkpoint where there is one.

        Returns:
            Why it ended: "completed" or "early stop".

        Raises:
            Interrupted: the user stopped it; a checkpoint is saved.
            TrainingError: the loss is not finite, or memory ran out.
        """
        settings = self._config.train
        # Rank 0 alone looks: others might look after it has written its first.
        resumed = distributed.broadcast(checkpoints.exists(self._folder, STEP))
        if resumed:
            self._restore()
        elif settings.minutes is not None and settings.steps is None:
            self.state.steps = distributed.broadcast(self._steps_within(settings.minutes))
        self._plan = self._planned(self.state.steps or settings.steps)
        self._started = time.perf_counter() - self.state.seconds
        self._cpu_started = time.process_time() - self.state.cpu_seconds
        self._announce()
        if not resumed:  # and never over what another rank may still be reading
            self._save()
        self.step.train()
        with closing(self._batches()) as batches, StopSignal(self._warn) as stop:
            while self.state.step < self._plan.steps and not self._stale():
                place = self._plan.place(self.state.step)
                stopping = self._step(place, [next(batches) for _ in range(settings.accumulate)], stop=stop.asked)
                self.state.step += 1
                saved = self._after(place)
                # Ranks agree within a step, so one that was asked during it stops them all after the next.
                if stopping or (stop.asked and distributed.world() == 1):
                    if not saved:
                        self._save()
                    raise Interrupted(
                        f"stopped at step {self.state.step} of {self._plan.steps}, a checkpoint is saved; "
                        f"go on with: modelwright resume {self._folder.parent}"
                    )
        reason = "early stop" if self._stale() else "completed"
        with self._update.averaged():
            self._save_weights(LAST)
        self._observer(events.RunFinished(self.state.step, reason=reason, seconds=self._seconds()))
        return reason

    def _step(self, place: Place, batches: Sequence[Batch | None], *, stop: bool) -> bool:
        samples = len(self._plan.indices(place))
        return self._update(self._progress(place), batches, samples=samples, stop=stop)

    def _after(self, place: Place) -> bool:
        """Logs, evaluates and saves what is due after a step. Returns whether a checkpoint was saved."""
        settings = self._config.train
        final = self.state.step == self._plan.steps
        if self.state.step % settings.log_every == 0 or place.last or final:
            self._log(place)
        began = time.perf_counter()
        if place.last or final:
            self._end_epoch(place)
        due = (place.last and (place.epoch + 1) % settings.evaluate_every == 0) or final
        if due and self._valid is not None:
            self._evaluate(place)
        save = due if settings.checkpoint_every is None else self.state.step % settings.checkpoint_every == 0 or final
        if save:
            self._save()
        self._update.tally.pause(time.perf_counter() - began)
        return save

    # What is due after a step -----------------------------------------------------------------------------------------

    def _log(self, place: Place) -> None:
        tally, self._update.tally = self._update.tally, Tally()
        self.state.loss += float(tally.loss)
        self.state.weight += float(tally.weight)
        self._observer(
            events.StepDone(
                self.state.step,
                epoch=self._epochs_done(place),
                loss=tally.mean,
                parts=tally.parts(),
                lr=self._update.lr,
                samples_per_second=tally.speed(),
            )
        )

    def _end_epoch(self, place: Place) -> None:
        mean = self.state.loss / max(self.state.weight, 1e-12)
        self._observer(events.EpochDone(self.state.step, epoch=place.epoch + 1, loss=mean, seconds=self._seconds()))
        self.state.loss = self.state.weight = 0.0

    def _evaluate(self, place: Place) -> None:
        """Scores the validation split and keeps the weights if they are the best so far."""
        assert self._valid is not None
        began = time.perf_counter()
        self._update.look(self.state.step)
        objective, stop = self._task.objective, self._config.train.early_stop
        with self._update.averaged():
            self.step.eval()
            metrics = distributed.broadcast(self._scores(self._valid))
            value = metrics[objective.metric]
            handicapped = value - stop.min_delta if objective.goal == "max" else value + stop.min_delta
            enough = objective.better(handicapped, than=self.state.reference)
            best = objective.better(value, than=self.state.best)
            if best:
                self.state.best = value
                self._save_weights(BEST)
            self.step.train()
        if enough:
            self.state.reference, self.state.stale = value, 0
        else:
            self.state.stale += 1
        self._observer(
            events.EvaluationDone(
                self.state.step,
                epoch=self._epochs_done(place),
                split="valid",
                metrics=metrics,
                best=best,
                seconds=time.perf_counter() - began,
            )
        )

    def _scores(self, dataset: Dataset) -> dict[str, float]:
        scores = evaluate(
            self._task,
            self._task.served(self.step.model),
            dataset,
            batch_size=self._config.evaluate.batch_size,
            device=self._device,
            channels_last=self._config.train.channels_last,
            workers=self._config.train.workers,
            seed=self._config.seed,
        )
        return {name: interval.value for name, interval in scores.metrics.items()}

    def _stale(self) -> bool:
        patience = self._config.train.early_stop.patience
        return patience > 0 and self.state.stale >= patience

    # Checkpoints ------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        self._update.look(self.state.step)
        if distributed.rank() == 0:
            self.state.seconds, self.state.cpu_seconds = self._seconds(), time.process_time() - self._cpu_started
            found = self._update.checkpoint()
            found.state["training"] = asdict(self.state)
            # What the tally holds between two log lines belongs to the epoch's sums.
            found.state["training"]["loss"] += float(self._update.tally.loss)
            found.state["training"]["weight"] += float(self._update.tally.weight)
            path = checkpoints.save(self._folder, STEP, self.state.step, found)
            self._observer(events.CheckpointSaved(self.state.step, path=path))
        distributed.barrier()

    def _restore(self) -> None:
        found = checkpoints.newest(self._folder, STEP, warn=self._warn)
        self._update.restore(found)
        self.state = State(**found.state["training"])

    def _save_weights(self, kind: str) -> None:
        """Keeps the model alone, as it is evaluated and exported."""
        if distributed.rank() == 0:
            tensors, extra = checkpoints.module_state(self.step.model)
            state = {"extra": extra, "step": self.state.step, "objective": self.state.best}
            checkpoints.save(self._folder, kind, self.state.step, Checkpoint({"model": tensors}, state), keep=1)
        distributed.barrier()

    # Time and order ---------------------------------------------------------------------------------------------------

    def _planned(self, steps: int | None) -> Plan:
        settings = self._config.train
        return Plan(
            self._task,
            len(self._dataset),
            batch_size=settings.batch_size,
            seed=self._config.seed,
            epochs=settings.epochs,
            steps=steps,
        )

    def _batches(self) -> Generator[Batch | None]:
        settings = self._config.train
        keys = self._plan.micro_batches(
            start=self.state.step,
            rank=distributed.rank(),
            world=distributed.world(),
            accumulate=settings.accumulate,
        )
        return read(self._task, self._dataset, keys, workers=settings.workers, device=self._device)

    def _steps_within(self, minutes: float) -> int:
        """How many steps fit into a time, from timing a few steps and an evaluation; leaves no trace in the weights."""
        self._plan = plan = self._planned(None)
        update, before = self._update, self._update.checkpoint().copy()
        # Spread over an epoch, since an order may put short samples first.
        chosen = np.linspace(0, plan.counts[0] - 1, WARM_STEPS + TIMED_STEPS).astype(int)
        self.step.train()
        began = 0.0
        for number, step in enumerate(np.random.default_rng(0).permutation(chosen).tolist()):
            if number == WARM_STEPS:
                began = time.perf_counter()
            accumulate = self._config.train.accumulate
            keys = plan.micro_batches(
                start=step, rank=distributed.rank(), world=distributed.world(), accumulate=accumulate
            )
            batches = [fetch(self._task, self._dataset, next(keys)) for _ in range(accumulate)]
            self._step(plan.place(step), batches, stop=False)
            update.guard.look()
        seconds = (time.perf_counter() - began) / TIMED_STEPS * plan.counts[0]
        if self._valid is not None:
            began = time.perf_counter()
            self.step.eval()
            self._scores(self._valid)
            seconds += (time.perf_counter() - began) / self._config.train.evaluate_every
        update.restore(before)
        update.tally = Tally()
        return max(1, int(minutes * 60 / seconds * plan.counts[0]))

    def _announce(self) -> None:
        self._observer(
            events.RunStarted(
                self.state.step,
                task=self._name,
                steps=self._plan.steps,
                epochs=self._plan.epochs,
                steps_per_epoch=self._plan.counts[0],
                objective=self._task.objective.metric,
                goal=self._task.objective.goal,
                validated=self._valid is not None,
            )
        )

    def _progress(self, place: Place) -> Progress:
        return Progress(place.step, self._plan.steps, place.epoch, self._plan.epochs, self._config.seed)

    def _epochs_done(self, place: Place) -> float:
        return place.epoch + (place.offset + 1) / self._plan.counts[place.epoch]

    @property
    def epochs_done(self) -> float:
        """Passes over the data so far."""
        return self._epochs_done(self._plan.place(self.state.step - 1)) if self.state.step else 0.0

    def _seconds(self) -> float:
        return time.perf_counter() - self._started


def _nobody(event: events.Event) -> None:
    """Ranks above 0 report nothing."""
