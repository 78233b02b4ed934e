"""Low-rank adapters by peft (Hu et al. 2021, https://arxiv.org/abs/2106.09685). Knows modules; no speech."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from modelwright.weights import Loaded, load_matching

ATTENTION = ("q_proj", "v_proj")
"""Layers that get adapters, as in the paper."""
BASE = ".base_layer."


def adapt(network: nn.Module, rank: int, *, layers: Sequence[str] = ATTENTION) -> None:
    """Puts adapters beside the layers of these names, in place; they alone are trained."""
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(layers))
    inject_adapter_in_model(config, network)


def merge(network: nn.Module) -> None:
    """Adds what adapters have learnt to the weights they adapt and takes them out, in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = [(name, module) for name, module in network.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, module in found:
        cast("Any", module).merge()
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, cast("Any", module).get_base_layer())


def load_below(network: nn.Module, weights: Mapping[str, Tensor], *, source: str, least: float) -> Loaded:
    """Weights of the published network into one that may have adapters, which stay as they are.

    Raises:
        ConfigError: too little fits.
    """
    return load_matching(_Below(network), weights, source=source, least=least)


class _Below(nn.Module):
    """A network without its adapters, by the names its weights have in a published file."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = [network]  # in a list: no submodule

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Tensors by their published names; they share memory with the network's."""
        state = self._network[0].state_dict()
        return {name.replace(BASE, "."): value for name, value in state.items() if ".lora_" not in name}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Copies every tensor over."""
        own = self.state_dict()
        for name, value in state_dict.items():
            if own[name] is not value:
                own[name].copy_(value)
