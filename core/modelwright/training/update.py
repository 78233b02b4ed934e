"""One optimizer step over all micro-batches and ranks. Knows step, optimizer, averages; knows no run and no files."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modelwright.config import TaskConfig
from modelwright.errors import CheckpointError, ConfigError, TrainingError
from modelwright.evaluation.evaluator import lay_out
from modelwright.task import Batch, Losses, Progress, Task
from modelwright.training import checkpoint as checkpoints
from modelwright.training import distributed
from modelwright.training.checkpoint import Checkpoint
from modelwright.training.guard import Guard, check_finite, list_ids, out_of_memory
from modelwright.training.optim import Ema, build_optimizer, build_schedule
from modelwright.training.randomness import KeyedNumbers, seed_everything
from modelwright.training.steps import Step
from modelwright.training.tally import Tally


class Updater:
    """Changes the weights of a step's model, one batch at a time.

    Args:
        step: what is done with a batch; moved to `device`.

    Attributes:
        step: the step, on its device.
        tally: losses since it was last replaced.
        guard: watches for losses that are not finite.

    Raises:
        ConfigError: settings that do not fit each other, the model or the device.
    """

    def __init__(self, task: Task, config: TaskConfig, step: Step, *, device: torch.device) -> None:
        settings = config.train
        if settings.precision == "fp16" and device.type != "cuda":
            raise ConfigError("train.precision=fp16 needs a GPU; on a CPU use bf16 or fp32")
        if settings.sync_batch_norm and device.type != "cuda":
            raise ConfigError("train.sync_batch_norm works on a GPU only; leave it off on a CPU")
        self._task, self._config, self._device = task, config, device
        if settings.sync_batch_norm and distributed.world() > 1:
            step.model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(step.model)
        layout = torch.channels_last if settings.channels_last else torch.preserve_format
        self.step = step.to(device=device, memory_format=layout)  # pyright: ignore[reportCallIssue] - missing in stubs
        distributed.same_start(self.step)
        self._optimizer = build_optimizer(settings.optimizer, self.step.groups())
        for group in self._optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        grouped = {id(p) for group in self._optimizer.param_groups for p in group["params"]}
        # In the model's order, whatever the groups: the norm for clipping is then summed as a loop by hand sums it.
        self._parameters: list[Tensor] = [p for p in self.step.parameters() if id(p) in grouped]
        self._schedule = build_schedule(settings.schedule, task.schedules())
        self._ema = Ema(self.step.model, settings.ema) if settings.ema.decay else None
        self._scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
        self._reduce = distributed.Reducer(self.step)
        self._single = distributed.world() == 1 and settings.accumulate == 1
        self.guard = Guard(every=1 if device.type == "cpu" else settings.log_every)
        self.tally = Tally()
        if settings.compile:
            self.step.model.compile()

    @property
    def lr(self) -> float:
        """The present learning rate of the first parameter group."""
        return float(self._optimizer.param_groups[0]["lr"])

    def __call__(self, progress: Progress, batches: Sequence[Batch | None], *, samples: int, stop: bool) -> bool:
        """One optimizer step.

        Args:
            batches: this rank's micro-batches; None where it has nothing to do.
            samples: of the whole step, over all ranks.
            stop: this rank was asked to stop.

        Returns:
            Whether any rank was asked to stop.

        Raises:
            TrainingError: the loss is not finite, or memory ran out.
        """
        for group in self._optimizer.param_groups:
            group.update(self._schedule(progress, group))
        for parameter in self._parameters:  # zero_grad does the same behind wrappers that cost a small step 1 %
            parameter.grad = None
        ids = [batch.ids for batch in batches if batch is not None]
        try:
            loss, weight, stop = self._gradients(progress, batches, stop=stop)
            if self._config.train.clip is not None:
                self._scaler.unscale_(self._optimizer)
                torch.nn.utils.clip_grad_norm_(self._parameters, self._config.train.clip)
            self._scaler.step(self._optimizer)
            self._scaler.update()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            raise TrainingError(
                f"out of memory at step {progress.step} (samples {list_ids(ids)}): lower train.batch_size, "
                "raise train.accumulate, or set train.precision=bf16"
            ) from error
        if self._ema is not None:
            self._ema.update(progress.step + 1)
        self.tally.add(loss, weight, samples)
        self.guard(progress.step, loss, ids)
        return stop

    def _gradients(
        self, progress: Progress, batches: Sequence[Batch | None], *, stop: bool
    ) -> tuple[Tensor, Tensor | float, bool]:
        """Gradients of the whole step's mean loss, over all micro-batches and ranks.

        Returns:
            The summed loss, its weight, and whether any rank was asked to stop.
        """
        loss = torch.zeros((), device=self._device)
        weight: Tensor | float = 0.0
        undivided = False
        self._reduce.begin()
        for micro, batch in enumerate(batches):
            if batch is None:
                continue
            losses = self._forward(progress, micro, batch)
            undivided = losses.weight is None
            share = 1.0 if losses.weight is None else losses.weight
            # With one micro-batch on one rank the whole weight is known before the backward pass.
            scaled = losses.sum if undivided or not self._single else losses.sum / _divisor(share)
            self._scaler.scale(scaled).backward()
            loss, weight = loss + losses.sum.detach(), weight + share
            self.tally.part(losses, share)
        if self._single:
            return loss, weight, stop
        numbers = [loss, torch.as_tensor(weight), torch.tensor(float(undivided)), torch.tensor(float(stop))]
        loss, weight, any_undivided, any_stop = self._reduce(numbers)
        if not any_undivided:
            gradients = [p.grad for p in self._parameters if p.grad is not None]
            torch._foreach_div_(gradients, float(_divisor(weight)))  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        return loss, weight, bool(any_stop)

    def _forward(self, progress: Progress, micro: int, batch: Batch) -> Losses:
        settings = self._config.train
        seed_everything(self._config.seed, progress.step, micro, distributed.rank())
        with torch.no_grad():
            keyed = KeyedNumbers(seed=self._config.seed, epoch=progress.epoch, ids=batch.ids)
            batch = self._task.augment(batch.to(self._device), keyed, progress)
        if settings.channels_last:
            batch.inputs = tuple(lay_out(tensor, channels_last=True) for tensor in batch.inputs)
        if settings.precision == "fp32":
            return self.step(batch, progress)
        kind = torch.float16 if settings.precision == "fp16" else torch.bfloat16
        with torch.autocast(self._device.type, kind):
            return self.step(batch, progress)

    # State ------------------------------------------------------------------------------------------------------------

    def look(self, step: int) -> None:
        """Looks at losses and weights before anything is kept.

        Raises:
            TrainingError: a value is not finite.
        """
        self.guard.look()
        check_finite(step, self._parameters)

    def averaged(self) -> Averaged:
        """A context in which the model has the weights that are evaluated and kept (`train.ema.use`)."""
        return Averaged(self._ema if self._config.train.ema.use else None)

    def checkpoint(self) -> Checkpoint:
        """Everything that the next update depends on."""
        model, extra = checkpoints.module_state(self.step)
        optimizer, plain = checkpoints.optimizer_state(self._optimizer)
        tensors = {"model": model, "optimizer": optimizer}
        if self._ema is not None:
            tensors["ema"] = self._ema.tensors
        return Checkpoint(tensors, {"extra": extra, "optimizer": plain, "scaler": self._scaler.state_dict()})

    def restore(self, found: Checkpoint) -> None:
        """Puts back what `checkpoint` gave.

        Raises:
            CheckpointError: it is of another model or optimizer.
        """
        checkpoints.load_module(self.step, found.tensors["model"], found.state["extra"], what="the checkpoint")
        checkpoints.load_optimizer(self._optimizer, found.tensors["optimizer"], found.state["optimizer"])
        if self._ema is not None:
            if "ema" not in found.tensors:
                raise CheckpointError("the checkpoint holds no average of weights: use the run's own train.ema.decay=0")
            self._ema.load(found.tensors["ema"])
        if found.state["scaler"]:
            self._scaler.load_state_dict(found.state["scaler"])


def _divisor(weight: Tensor | float) -> Tensor | float:
    """What a loss of this weight is divided by; a step that weighs nothing (its classes have weight 0) divides by 1."""
    return torch.where(weight == 0, 1.0, weight) if isinstance(weight, Tensor) else weight or 1.0


class Averaged:
    """Exchanges raw and averaged weights on entering and again on leaving."""

    def __init__(self, ema: Ema | None) -> None:
        self._ema = ema

    def __enter__(self) -> None:
        if self._ema is not None:
            self._ema.swap()

    def __exit__(self, *unused: object) -> None:
        if self._ema is not None:
            self._ema.swap()
