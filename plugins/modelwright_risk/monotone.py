"""Linear layers that cannot break what is known beforehand: risk only rises with some inputs. Knows no cells.

Each number in the network is of a kind: 1, it never falls when a constrained feature moves towards risk; -1, it never
rises; 0, it does not depend on constrained features at all. ReLU keeps kinds. A weight between two numbers that depend
on constrained features has the sign that their kinds ask for, whatever its parameter is; weights from the rest are
free, and nothing constrained leads into the rest. The output is of kind 1, so there is nothing to check afterwards.

With units of both kinds a network of ReLUs holds convex and concave parts, without which one with weights of one sign
could not bend both ways: Runje, Shankaranarayana: Constrained Monotonic Neural Networks, ICML 2023,
https://arxiv.org/abs/2205.11775.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def unit_kinds(inputs: Tensor, units: int) -> Tensor:
    """Kinds of a hidden layer's units: half of them free, if any input is; the others rise and fall by turns."""
    if not bool(inputs.any()):
        return torch.zeros(units)
    free = units // 2 if bool((inputs == 0).any()) else 0
    turns = torch.where(torch.arange(units - free) % 2 == 0, 1.0, -1.0)
    return torch.cat([torch.zeros(free), turns])


def rising(weight: Tensor, kinds: Tensor) -> Tensor:
    """Factors of numbers of some kinds, positive where those are constrained: they keep kinds."""
    return torch.where(kinds == 0, weight, weight.abs())


class KindLinear(nn.Module):
    """A linear layer between numbers of some kinds.

    Args:
        inputs: kinds of what comes in.
        outputs: of what goes out.
        bias: whether there is one.
    """

    inputs: Tensor
    outputs: Tensor

    def __init__(self, inputs: Tensor, outputs: Tensor, *, bias: bool = True) -> None:
        super().__init__()
        self.register_buffer("inputs", inputs.clone())
        self.register_buffer("outputs", outputs.clone())
        bound = len(inputs) ** -0.5
        self.weight = nn.Parameter(torch.empty(len(outputs), len(inputs)).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(len(outputs)).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        bound = self.weight.abs() * (self.outputs[:, None] * self.inputs)
        return F.linear(x, torch.where(self.inputs == 0, self.weight, bound), self.bias)


def linear(inputs: Tensor, outputs: Tensor, *, bias: bool = True) -> nn.Module:
    """A layer between numbers of some kinds; a plain one, which can be pruned, where nothing is constrained."""
    if bool((inputs == 0).all()):
        return nn.Linear(len(inputs), len(outputs), bias=bias)
    return KindLinear(inputs, outputs, bias=bias)
