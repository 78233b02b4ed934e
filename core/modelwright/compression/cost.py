"""Counts what a model costs: parameters and multiply-accumulates. Knows torch's counter, no task."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        parameters: numbers that were learned; shared ones count once.
        macs: multiply-accumulates for one sample, of convolutions, matrix products and attention.
    """

    parameters: int
    macs: int


def cost(model: nn.Module, inputs: Sequence[Tensor]) -> Cost:
    """Counts parameters and MACs of one sample.

    Args:
        inputs: the model's arguments, batch first; the first sample is used.
    """
    one = [tensor[:1] for tensor in inputs]
    # mkldnn has a recurrent layer in one piece, which the counter does not know.
    with as_served(model), torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        model(*one)
    return Cost(sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2)


@contextmanager
def as_served(model: nn.Module) -> Generator[None]:
    """The model in eval mode and without gradients; afterwards each module is in the mode it was in."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in before:
            module.training = training
