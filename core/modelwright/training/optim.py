"""Optimizers by torch's names and learning-rate schedules as pure functions of the step. Knows no task."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.config import EmaConfig, OptimizerConfig, ScheduleConfig
from modelwright.errors import ConfigError, did_you_mean
from modelwright.task import Progress, Schedule

UNFIT = {"LBFGS": "it evaluates the loss several times a step", "SparseAdam": "it needs sparse gradients"}
"""Optimizers of torch that a step with one backward pass and dense gradients cannot use, and why."""


def optimizers() -> dict[str, type[torch.optim.Optimizer]]:
    """The classes of torch.optim by name, without those that cannot be used here."""
    found = {
        name: kind
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    }
    return {name: kind for name, kind in found.items() if name != "Optimizer" and name not in UNFIT}


def build_optimizer(config: OptimizerConfig, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer of a run. Fused where torch offers that: one pass over the weights in place of many.

    Raises:
        ConfigError: an unknown name, or an option that this optimizer does not take.
    """
    known = optimizers()
    if config.name in UNFIT:
        raise ConfigError(
            f"train.optimizer.name: {config.name} cannot be used, {UNFIT[config.name]}; choose AdamW or SGD"
        )
    if config.name not in known:
        near = did_you_mean(config.name, known)
        raise ConfigError(f"train.optimizer.name: torch.optim has no '{config.name}'{near}")
    kind = known[config.name]
    accepted = inspect.signature(kind.__init__).parameters
    options: dict[str, Any] = {"lr": config.lr, **config.options}
    if config.weight_decay or "weight_decay" in accepted:  # Rprop has none
        options.setdefault("weight_decay", config.weight_decay)
    if config.momentum is not None:
        options["momentum"] = config.momentum
    for name in options:
        if name not in accepted:
            raise ConfigError(f"train.optimizer: {config.name} takes no '{name}'{did_you_mean(name, accepted)}")
    tensors: list[Tensor] = [p for group in groups for p in group["params"]]
    if not tensors:
        raise ConfigError("the model has nothing to train: every parameter is frozen; set model.freeze=false")
    excluded = options.get("foreach") or options.get("differentiable")
    if "fused" in accepted and not excluded and all(p.device.type in ("cpu", "cuda") for p in tensors):
        options.setdefault("fused", True)
    try:
        return kind(list(groups), **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"train.optimizer: {config.name} refuses its options: {error}") from error


def build_schedule(config: ScheduleConfig, further: Mapping[str, Schedule]) -> Schedule:
    """The schedule of that name: one of ours, or one that the task registers (`Task.schedules`).

    Raises:
        ConfigError: an unknown name.
    """
    if config.name in further:
        return further[config.name]
    if config.name not in _SHAPES:
        names = [*_SHAPES, *further]
        near = did_you_mean(config.name, names)
        raise ConfigError(f"train.schedule.name: unknown '{config.name}'{near}; known: {', '.join(names)}")
    shape = _SHAPES[config.name]

    def schedule(progress: Progress, group: Mapping[str, Any]) -> Mapping[str, float]:
        warm = config.warmup * progress.steps if config.warmup < 1 else config.warmup
        if progress.step < warm:
            factor = (progress.step + 1) / (warm + 1)
        else:
            factor = shape(config, (progress.step - warm) / max(progress.steps - warm, 1))
        return {"lr": group["initial_lr"] * factor}

    return schedule


def _cosine(config: ScheduleConfig, done: float) -> float:
    return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _linear(config: ScheduleConfig, done: float) -> float:
    return config.final + (1 - config.final) * (1 - min(done, 1.0))


def _onecycle(config: ScheduleConfig, done: float) -> float:
    """Up in the first 30 %, down to `final` in the rest, both along a cosine (Smith and Topin 2018)."""
    top = 0.3
    if done < top:
        return 1 / 25 + (1 - 1 / 25) * 0.5 * (1 - math.cos(math.pi * done / top))
    return _cosine(config, (done - top) / (1 - top))


def _step(config: ScheduleConfig, done: float) -> float:
    return config.gamma ** sum(done >= milestone for milestone in config.milestones)


_SHAPES: dict[str, Callable[[ScheduleConfig, float], float]] = {
    "constant": lambda config, done: 1.0,
    "cosine": _cosine,
    "linear": _linear,
    "onecycle": _onecycle,
    "step": _step,
}


class Ema:
    """An exponential moving average of a model's finite floating weights and buffers; others are copied."""

    def __init__(self, model: nn.Module, config: EmaConfig) -> None:
        self._config = config
        self._model = model
        self.tensors: dict[str, Tensor] = {name: value.detach().clone() for name, value in _state(model).items()}
        # Masks hold infinities, which have no average with themselves.
        self._averaged = {
            name
            for name, value in self.tensors.items()
            if value.is_floating_point() and bool(torch.isfinite(value).all())
        }

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Moves the average towards the model's present state. `updates`: optimizer steps done, this one included."""
        decay, tau = self._config.decay, self._config.tau
        if tau > 0:
            decay *= 1 - math.exp(-updates / tau)
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for name, value in _state(self._model).items():
            if name in self._averaged:
                averages.append(self.tensors[name])
                values.append(value)
            else:
                self.tensors[name].copy_(value)
        # One call for all tensors, as torch's own optimizers make it.
        torch._foreach_lerp_(averages, values, 1 - decay)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts a saved average back."""
        for name, value in tensors.items():
            self.tensors[name].copy_(value)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the average and the model's own state; a second call puts both back, bit for bit."""
        for name, value in _state(self._model).items():
            kept = value.clone()
            value.copy_(self.tensors[name])
            self.tensors[name].copy_(kept)


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers by their first name: tied weights must be averaged and exchanged once."""
    first: dict[int, str] = {}
    found: dict[str, Tensor] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor) and first.setdefault(id(value), name) == name:
            found[name] = value
    return found
