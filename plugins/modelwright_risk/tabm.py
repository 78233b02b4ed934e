"""Tokens -> log-odds of default, by an ensemble that shares most of its weights. Knows no cells and no features.

Gorishniy, Kotelnikov, Babenko: TabM: Advancing Tabular Deep Learning with Parameter-Efficient Ensembling, ICLR 2025,
https://arxiv.org/abs/2410.24210; the shared layers with elementwise adapters are those of Wen, Tran, Ba: BatchEnsemble,
ICLR 2020, https://arxiv.org/abs/2002.06715.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright_risk.monotone import linear, rising, unit_kinds

MEMBERS = 32
"""As in the paper."""


class SharedLinear(nn.Module):
    """A linear layer for all members: what goes in and what comes out is scaled by each member's own adapters.

    Args:
        inputs, outputs: kinds of numbers, see `monotone`.
        members: of the ensemble.
        first: adapters of the input start as random signs, which is what makes members differ; else as ones.
    """

    inputs: Tensor
    outputs: Tensor

    def __init__(self, inputs: Tensor, outputs: Tensor, *, members: int, first: bool) -> None:
        super().__init__()
        self.linear = linear(inputs, outputs, bias=False)
        self.constrained = bool(inputs.any())
        self.register_buffer("inputs", inputs.clone())
        self.register_buffer("outputs", outputs.clone())
        scale = torch.ones(members, len(inputs))
        if first:
            scale = torch.where(torch.rand(scale.shape) < 0.5, -scale, scale)
            # A sign means nothing to a constrained number; sizes then tell the members apart.
            scale = torch.where(inputs == 0, scale, scale * (0.5 + torch.rand(scale.shape)))
        self.scale_in = nn.Parameter(scale)
        self.scale_out = nn.Parameter(torch.ones(members, len(outputs)))
        bound = len(inputs) ** -0.5
        self.bias = nn.Parameter(torch.empty(len(outputs)).uniform_(-bound, bound).repeat(members, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, members or 1, inputs) -> (batch, members, outputs)."""
        scale_in, scale_out = self.scale_in, self.scale_out
        if self.constrained:
            scale_in, scale_out = rising(scale_in, self.inputs), rising(scale_out, self.outputs)
        return torch.addcmul(self.bias, self.linear(x * scale_in), scale_out)


class TabM(nn.Module):
    """An ensemble of perceptrons.

    Args:
        kinds: of the tokens' numbers, see `monotone`; all 0 where nothing is constrained.
        hidden: units of each hidden layer.
        dropout: share of hidden units left out in training.
        members: perceptrons in the ensemble.
    """

    signs: Tensor

    def __init__(self, kinds: Tensor, *, hidden: Sequence[int], dropout: float, members: int = MEMBERS) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for place, units in enumerate(hidden):
            made = unit_kinds(kinds, units)
            layers += [SharedLinear(kinds, made, members=members, first=place == 0), nn.ReLU(), nn.Dropout(dropout)]
            kinds = made
        self.hidden = nn.Sequential(*layers)
        self.constrained = bool(kinds.any())
        self.register_buffer("signs", kinds)
        bound = len(kinds) ** -0.5
        self.weight = nn.Parameter(torch.empty(members, len(kinds)).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members).uniform_(-bound, bound))

    def start(self, logit: float) -> None:
        """Sets the log-odds that are said of everyone before anything is learnt."""
        nn.init.constant_(self.bias, logit)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Tokens (batch, size) as {"logit": (batch), "members": (batch, members)}; `logit` of the mean probability."""
        weight = self.weight
        if self.constrained:
            weight = torch.where(self.signs == 0, weight, self.signs * weight.abs())
        members = (self.hidden(tokens[:, None, :]) * weight).sum(dim=2) + self.bias
        # log(mean p) - log(mean (1 - p)); the number of members cancels out.
        logit = (-F.softplus(-members)).logsumexp(dim=1) - (-F.softplus(members)).logsumexp(dim=1)
        return {"logit": logit, "members": members}
