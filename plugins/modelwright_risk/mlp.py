"""Tokens -> log-odds of default, by a multilayer perceptron. Knows no cells and no features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from modelwright_risk.monotone import linear, unit_kinds


class Mlp(nn.Module):
    """Hidden layers with ReLU and dropout.

    Args:
        kinds: of the tokens' numbers, see `monotone`; all 0 where nothing is constrained.
        hidden: units of each hidden layer.
        dropout: share of hidden units left out in training.
    """

    def __init__(self, kinds: Tensor, *, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for units in hidden:
            made = unit_kinds(kinds, units)
            layers += [linear(kinds, made), nn.ReLU(), nn.Dropout(dropout)]
            kinds = made
        self.hidden = nn.Sequential(*layers)
        self.output = linear(kinds, torch.ones(1))

    def start(self, logit: float) -> None:
        """Sets the log-odds that are said of everyone before anything is learnt."""
        nn.init.constant_(cast("Tensor", self.output.bias), logit)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Tokens (batch, size) as {"logit": (batch)}."""
        return {"logit": self.output(self.hidden(tokens)).squeeze(1)}
