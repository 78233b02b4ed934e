"""How ultralytics trains: its parameter groups and its schedule, as pure functions. Knows no trainer and no library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]

from modelwright.task import Progress, Schedule

ROLE, BIAS = "role", "bias"
"""What a parameter group says of itself beside torch's own keys."""


def groups(model: nn.Module) -> list[dict[str, Any]]:
    """Weights with decay, weights of norms without, and biases without, which warm up in their own way."""
    decayed: list[nn.Parameter] = []
    norms: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            if "bias" in name:
                biases.append(parameter)
            elif isinstance(module, (_NormBase, nn.LayerNorm, nn.GroupNorm)):
                norms.append(parameter)
            else:
                decayed.append(parameter)
    made: list[dict[str, Any]] = [
        {"params": decayed},
        {"params": norms, "weight_decay": 0.0},
        {"params": biases, "weight_decay": 0.0, ROLE: BIAS},
    ]
    return [group for group in made if group["params"]]


def bias_lr(optimizer: str) -> float:
    """What the rate of biases begins with: ultralytics lets plain gradients leap, and adaptive ones not."""
    return 0.1 if optimizer == "SGD" else 0.0


def schedule(
    *,
    momentum: float | None,
    warmup: float = 3.0,
    bias_lr: float = 0.1,
    warm_momentum: float = 0.8,
    final: float = 0.01,
) -> Schedule:
    """Down along a line, epoch by epoch; before that, warm-up of learning rates and momentum, step by step.

    Args:
        momentum: after the warm-up; None: the optimizer's stays as it is.
        warmup: epochs; the last epoch of a run is never one of them.
        bias_lr: what the rate of biases begins with; those of weights begin with 0.
        warm_momentum: what momentum begins with.
        final: the rate after the last epoch, as a share of the peak.
    """

    def follow(progress: Progress, group: Mapping[str, Any]) -> Mapping[str, float]:
        steps = progress.steps // max(progress.epochs, 1)
        warm = round(min(warmup, max(progress.epochs - 1, 0)) * steps)
        share = max(1 - progress.epoch / progress.epochs, 0) * (1.0 - final) + final
        rate = group["initial_lr"] * share
        values: dict[str, float] = {"lr": rate}
        warming = warm > 0 and progress.step <= warm
        if warming:
            begin = bias_lr if group.get(ROLE) == BIAS else 0.0
            values["lr"] = float(np.interp(progress.step, [0, warm], [begin, rate]))
        if momentum is not None and "momentum" in group:
            moment = np.interp(progress.step, [0, warm], [warm_momentum, momentum]) if warming else momentum
            values["momentum"] = float(moment)
        return values

    return follow
