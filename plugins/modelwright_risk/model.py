"""Networks by name: raw cells in, log-odds of default out. Knows settings and facts, no data and no training."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn

from modelwright.data import Facts
from modelwright.errors import ConfigError, did_you_mean
from modelwright_risk.config import RiskModel
from modelwright_risk.encode import Encoder
from modelwright_risk.mlp import Mlp
from modelwright_risk.schema import Feature, Schema, names_of
from modelwright_risk.tabm import TabM
from modelwright_risk.transformer import Transformer

FEW = 2000
"""Training rows below which more is left out."""
HIDDEN = {"mlp": (64, 64), "large": (256, 256, 256), "tabm": (64, 64)}
"""Units of the hidden layers."""
WIDTH = 4
"""Numbers in the token of a numeric feature."""
WIDEST = 8
"""In that of a categorical one, at most."""
NEARLY_NONE = 0.01
"""What is left of a scorecard's random weights."""
SIGNS: dict[str, Literal[-1, 1]] = {"up": 1, "down": -1}


class Head(Protocol):
    """Makes log-odds of tokens."""

    def start(self, logit: float) -> None:
        """Sets the log-odds that are said of everyone before anything is learnt."""
        ...

    def __call__(self, tokens: Tensor) -> dict[str, Tensor]:
        """Tokens (batch, size) as {"logit": (batch)}, with `members` (batch, members) where there are several."""
        ...


class Network(nn.Module):
    """Cells -> tokens -> log-odds.

    Args:
        encoder: makes tokens of cells.
        head: a `Head`.
    """

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def start(self, logit: float) -> None:
        """Sets the log-odds that are said of everyone before anything is learnt."""
        cast("Head", self.head).start(logit)

    def forward(self, first: Tensor, second: Tensor | None = None) -> dict[str, Tensor]:
        """`numbers` (batch, n) and `codes` (batch, c), or the one that there is, as {"logit": (batch), ...}."""
        return self.head(self.encoder(first, second))


class Scorecard(nn.Module):
    """Logistic regression on bins, flags and categories: log-odds are a sum of one number for each feature.

    Args:
        encoder: with tokens of width 1, of steps between bins.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.bias = nn.Parameter(torch.zeros(1))
        # There are no units to tell apart. Not quite 0, where the sign of a constrained weight could not be learnt.
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.mul_(NEARLY_NONE)

    def start(self, logit: float) -> None:
        """Sets the log-odds that are said of everyone before anything is learnt."""
        nn.init.constant_(self.bias, logit)

    def forward(self, first: Tensor, second: Tensor | None = None) -> dict[str, Tensor]:
        """`numbers` (batch, n) and `codes` (batch, c), or the one that there is, as {"logit": (batch)}."""
        return {"logit": self.contributions(first, second).sum(dim=1) + self.bias}

    def contributions(self, first: Tensor, second: Tensor | None = None) -> Tensor:
        """What each feature adds to the log-odds of the average training row, (batch, features)."""
        return self.encoder(first, second) - self.encoder.average()


def build_network(config: RiskModel, facts: Facts) -> Network | Scorecard:
    """The network that the settings name, with fresh weights; it starts by saying the base rate of everyone.

    Args:
        facts: of the training rows: `schema`, `rows`, `base_rate`, `missing`, `categories`; arrays `quantiles` and
            `shares`.

    Raises:
        ConfigError: no feature at all, a constraint on what is no numeric feature, or one that the network cannot keep.
    """
    schema = _constrained(Schema.from_json(facts.values["schema"]), config.monotone)
    if not schema.features:
        raise ConfigError("no column is left for the model: look at data.ignored, data.identifiers and data.protected")
    levels = max((len(each.levels) for each in schema.categorical), default=0)
    category_width = min(WIDEST, math.ceil(levels**0.5) + 1)
    dropout = config.dropout if config.dropout is not None else 0.3 if facts.values["rows"] < FEW else 0.1
    if config.name == "scorecard":
        if config.dropout:
            raise ConfigError("model.dropout: a scorecard has no hidden units to leave out; leave it empty")
        network = Scorecard(Encoder(schema, facts, width=1, category_width=1, steps=True))
    elif config.name == "ft-transformer":
        if kept := [each.name for each in schema.numeric if each.monotone]:
            raise ConfigError(
                f"model.monotone: ft-transformer cannot keep constraints ({', '.join(kept)}): "
                "take model.name=mlp, large, tabm or scorecard"
            )
        encoder = Encoder(schema, facts, width=Transformer.WIDTH, category_width=Transformer.WIDTH)
        network = Network(encoder, Transformer(len(schema.features), dropout=dropout))
    else:
        encoder = Encoder(schema, facts, width=WIDTH, category_width=category_width)
        kind = TabM if config.name == "tabm" else Mlp
        network = Network(encoder, kind(encoder.kinds(), hidden=HIDDEN[config.name], dropout=dropout))
    initialize_bias(network, float(facts.values["base_rate"]))
    return network


def initialize_bias(network: Network | Scorecard, base_rate: float) -> None:
    """Lets a fresh network say the share of bad rows in training of everyone."""
    rate = min(max(base_rate, 1e-6), 1 - 1e-6)
    network.start(math.log(rate / (1 - rate)))


def _constrained(schema: Schema, wanted: dict[str, Literal["up", "down"]]) -> Schema:
    """The features with what is known beforehand.

    Raises:
        ConfigError: a name that is no numeric feature.
    """
    numeric = names_of(schema.numeric)
    for name in wanted:
        if name in names_of(schema.categorical):
            raise ConfigError(f"model.monotone: '{name}' holds categories, which have no order; see data.numeric")
        if name not in numeric:
            near = did_you_mean(name, numeric)
            raise ConfigError(f"model.monotone: there is no feature '{name}'{near}; known: {', '.join(numeric)}")

    def known(feature: Feature) -> Feature:
        if feature.name not in wanted:
            return feature
        return dataclasses.replace(feature, monotone=SIGNS[wanted[feature.name]])

    return Schema(tuple(known(each) for each in schema.features))
