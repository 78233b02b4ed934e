"""Why a network answers as it does: what each feature adds to the log-odds. Knows networks, not what is done with it.

Integrated gradients: Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks, ICML 2017,
https://arxiv.org/abs/1703.01365, along the straight path from the average training row to the row in question, among
tokens (see `encode`). Gradients are part of the graph, so that a bundle explains without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from modelwright_risk.mlp import Mlp
from modelwright_risk.model import Network, Scorecard
from modelwright_risk.tabm import TabM
from modelwright_risk.transformer import Transformer

STEPS: dict[type[nn.Module], int] = {Mlp: 512, TabM: 64, Transformer: 512}
"""Points on the path (Gauss-Legendre). A perceptron has a kink for each unit, an ensemble's mean is smooth.

Measured on trained networks (HMEQ, 1,000 rows): attributions of a 64 x 2 perceptron add up to within 0.11 with 64
points, 0.037 with 128 and 0.021 with 256; on Taiwan, to within 0.024, 0.012 and 0.006. Those of a transformer (Taiwan,
600 rows) to within 0.043 with 128 points, 0.028 with 256 and 0.009 with 512.
"""


class Explainer(nn.Module):
    """A network with attributions.

    Args:
        network: with the weights that it keeps.
        steps: points on the path; as many as `STEPS` says when left out.
    """

    baseline: Tensor
    places: Tensor
    weights: Tensor

    def __init__(self, network: Network, *, steps: int | None = None) -> None:
        super().__init__()
        steps = steps or STEPS[type(network.head)]
        self.network = network
        with torch.no_grad():
            baseline = network.encoder.average()
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        self.register_buffer("baseline", baseline)
        self.register_buffer("places", torch.from_numpy((1 + nodes) / 2).to(baseline))
        self.register_buffer("weights", torch.from_numpy(weights / 2).to(baseline))
        self.gradient = gradient_of(network.head, size=len(baseline))

    def forward(self, first: Tensor, second: Tensor | None = None) -> dict[str, Tensor]:
        """Inputs of the network as {"logit": (batch), "attributions": (batch, features in the schema's order)}.

        Attributions are in log-odds; they add up to `logit` less that of the average training row, up to the error of
        the sum over points.
        """
        tokens = self.network.encoder(first, second)
        way = tokens - self.baseline
        path = self.baseline + self.places[:, None] * way[:, None, :]
        slopes = cast("Tensor", self.gradient(path.flatten(0, 1))).unflatten(0, (-1, len(self.places)))
        attributions = way * (slopes * self.weights[:, None]).sum(dim=1)
        logit = self.network.head(tokens)["logit"]
        return {"logit": logit, "attributions": self.network.encoder.per_feature(attributions)}


class Parts(nn.Module):
    """A scorecard with what each feature adds: exact, as it is a sum.

    Args:
        scorecard: what is explained.
    """

    def __init__(self, scorecard: Scorecard) -> None:
        super().__init__()
        self.scorecard = scorecard

    def forward(self, first: Tensor, second: Tensor | None = None) -> dict[str, Tensor]:
        """Like `Explainer`."""
        parts = self.scorecard.contributions(first, second)
        return {"logit": parts.sum(dim=1) + self.scorecard.bias, "attributions": parts}


def explainer(network: nn.Module) -> Explainer | Parts | None:
    """What explains a network, with the same inputs and outputs `logit` and `attributions`; None: nothing does."""
    if isinstance(network, Scorecard):
        return Parts(network)
    return Explainer(network) if isinstance(network, Network) else None


def gradient_of(head: nn.Module, *, size: int) -> nn.Module:
    """The derivative of the log-odds by tokens, (batch, size) -> (batch, size), as a graph of plain operations.

    Exporters cannot follow autograd; they can follow its operations, which are recorded here for batches of any size.

    Args:
        head: in eval mode, with the weights that it keeps.
    """

    def total(tokens: Tensor) -> Tensor:
        return cast("Tensor", head(tokens)["logit"].sum())

    # Sizes that are equal in the example would be taken for one and the same.
    example = torch.zeros(size + 1, size, device=next(head.parameters()).device)
    # Inputs that are not made up are the weights: the graph refers to the head's own.
    recorder = make_fx(torch.func.grad(total), tracing_mode="symbolic", _allow_non_fake_inputs=True)
    return cast("Callable[[Tensor], nn.Module]", recorder)(example)
