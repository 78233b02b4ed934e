"""Tokens -> log-odds of default, by attention among features. Knows no cells.

Gorishniy, Rubachev, Khrulkov, Babenko: Revisiting Deep Learning Models for Tabular Data, NeurIPS 2021,
https://arxiv.org/abs/2106.11959: a token for each feature and one more that gathers, pre-norm, a gated feed-forward
part. A small one of our own, whose tokens come of piecewise-linear codes.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Attention, then a gated layer, each added to what came in.

    Args:
        width: numbers in a token.
        heads: of the attention.
        dropout: share of attention weights and hidden units left out in training.
        first: tokens come as they are; the paper leaves out the first norm.
    """

    def __init__(self, width: int, *, heads: int, dropout: float, first: bool) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm = nn.Identity() if first else nn.LayerNorm(width)
        self.mixed = nn.Linear(width, 3 * width)
        self.joined = nn.Linear(width, width)
        self.norm_hidden = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, 4 * width)
        self.output = nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, width) -> the same."""
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in _each(self.mixed, self.norm(tokens)).chunk(3, dim=2)
        )
        weights = (query @ key.transpose(2, 3) * query.shape[3] ** -0.5).softmax(dim=3)
        weights = F.dropout(weights, self.dropout, training=self.training)
        tokens = tokens + _each(self.joined, (weights @ value).transpose(1, 2).flatten(2))
        hidden, gate = _each(self.hidden, self.norm_hidden(tokens)).chunk(2, dim=2)
        gated = F.dropout(hidden * F.relu(gate), self.dropout, training=self.training)
        return tokens + _each(self.output, gated)


def _each(layer: nn.Linear, tokens: Tensor) -> Tensor:
    """A layer of each token; as rows of a matrix, or else `explain` could not record it for batches of any size."""
    return layer(tokens.flatten(0, 1)).unflatten(0, (-1, tokens.shape[1]))


class Transformer(nn.Module):
    """Blocks of attention over the tokens of all features.

    Args:
        features: how many there are.
        dropout: see `Block`.
    """

    WIDTH: ClassVar[int] = 32
    BLOCKS: ClassVar[int] = 2
    HEADS: ClassVar[int] = 4

    def __init__(self, features: int, *, dropout: float) -> None:
        super().__init__()
        bound = self.WIDTH**-0.5
        # The first row is the token that gathers.
        self.bias = nn.Parameter(torch.empty(1 + features, self.WIDTH).uniform_(-bound, bound))
        self.blocks = nn.Sequential(
            *(Block(self.WIDTH, heads=self.HEADS, dropout=dropout, first=place == 0) for place in range(self.BLOCKS))
        )
        self.norm = nn.LayerNorm(self.WIDTH)
        self.output = nn.Linear(self.WIDTH, 1)

    def start(self, logit: float) -> None:
        """Sets the log-odds that are said of everyone before anything is learnt."""
        nn.init.constant_(self.output.bias, logit)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Tokens (batch, features x width) as {"logit": (batch)}."""
        x = F.pad(tokens.unflatten(1, (-1, self.WIDTH)), (0, 0, 1, 0)) + self.bias
        gathered = F.relu(self.norm(self.blocks(x)[:, 0]))
        return {"logit": self.output(gathered).squeeze(1)}
