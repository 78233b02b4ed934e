"""Counts what a model costs: parameters and multiply-accumulates. Knows torch's counter, no task."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
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
    # Recurrent layers and attention come in one piece, which the counter does not know, unless told otherwise.
    in_parts = torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH)
    with warnings.catch_warnings():
        # Setting these flags touches one of another vendor's GPUs, which torch then remarks upon.
        warnings.filterwarnings("ignore", message="TF32 acceleration")
        with as_served(model), in_parts[0], in_parts[1], FlopCounterMode(display=False) as counter:
            model(*one)
    return Cost(parameters(model), counter.get_total_flops() // 2)


def parameters(model: nn.Module) -> int:
    """Numbers that were learned; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


@contextmanager
def as_served(model: nn.Module) -> Generator[None]:
    """The model in eval mode and without gradients; afterwards each module is in the mode it was in.

    Transformer layers go the long way, operation by operation: what happens in their fast path cannot be seen.
    """
    before = [(module, module.training) for module in model.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, training in before:
            module.training = training
