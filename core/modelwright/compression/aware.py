"""Trains with simulated rounding, so that the weights learn to live with it. Knows layers and steps; knows no graph.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference": in
the forward pass weights and activations are rounded, in the backward pass the gradient goes straight through
(Bengio, Leonard, Courville 2013). Batch norms are folded before, as they are in the quantized graph.

The rounding is done by hooks, so that the model's names and weights stay its own. `QuantizationAware.finish` takes them
off; what is left goes through the same static quantizer as any other model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from modelwright.compression.plan import BATCH_NORM, CONVOLUTIONS, TRANSPOSED, Fold, Plan
from modelwright.errors import CompressionError
from modelwright.task import Task
from modelwright.training.steps import Supervised

KEPT = "_modelwright_weight"
"""Where a layer keeps its own weight while it runs."""
LAYERS = (*CONVOLUTIONS, nn.Linear)
STATIC_BITS = 7
"""What the static quantizer leaves of a weight's 8 bits, lest sums overflow (see `quantize.py`)."""
ACTIVATION_LEVELS = 255
SHRINK = 0.05
"""Share by which the range of activations moves towards that of a batch which is narrower."""


class QuantizationAware(Supervised):
    """Supervised training of a model whose convolutions and linear layers round their weights and inputs.

    Args:
        model: trained already; its batch norms are folded in place.
        inputs: a few samples as the model takes them.
        bits: of the weights; fewer than 7 are for study.

    Attributes:
        folded: what was done to the model, for its plan.

    Raises:
        CompressionError: the model has no layer to round.
    """

    low: Tensor
    high: Tensor

    def __init__(self, task: Task, model: nn.Module, inputs: Sequence[Tensor], *, bits: int = STATIC_BITS) -> None:
        if not 2 <= bits <= 8:
            raise CompressionError(f"weights cannot be rounded to {bits} bits: take 2 to 8")
        self.folded = foldable(model, inputs)
        for edit in self.folded.edits:
            edit.apply(model)
        super().__init__(task, model)
        self._bits = bits
        layers = [module for module in model.modules() if isinstance(module, LAYERS) and "weight" in _own(module)]
        if not layers:
            raise CompressionError("the model has no convolution or linear layer whose rounding could be trained")
        # Ranges of the layers' inputs, which hold zero; the checkpoint holds them as well.
        self.register_buffer("low", torch.zeros(len(layers)))
        self.register_buffer("high", torch.zeros(len(layers)))
        self._hooks = [
            hook
            for number, layer in enumerate(layers)
            for hook in (
                layer.register_forward_pre_hook(partial(self._round, number)),
                layer.register_forward_hook(_put_back, always_call=True),
            )
        ]
        self._layers = layers
        self.to(inputs[0].device)
        _run(model.eval(), inputs)  # the first ranges

    def finish(self) -> None:
        """Takes the rounding off; the model is as any other again.

        Weights of fewer bits than the static quantizer's are left rounded, since it would not do that.
        """
        for hook in self._hooks:
            hook.remove()
        if self._bits < STATIC_BITS:
            with torch.no_grad():
                for layer in self._layers:
                    layer.weight.copy_(round_weights(layer.weight, bits=self._bits))

    def _round(self, number: int, layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Before a layer runs: rounds its input, and puts rounded weights where it looks for its own."""
        weight = _own(layer)["weight"]
        layer.__dict__[KEPT] = weight
        _own(layer)["weight"] = round_weights(weight, bits=self._bits)
        if not args:  # called with its input by name, which a hook cannot change
            return args
        if self.training:
            self._widen(number, args[0].detach())
        return (round_activations(args[0], self.low[number], self.high[number]), *args[1:])

    @torch.no_grad()
    def _widen(self, number: int, x: Tensor) -> None:
        """A range grows with a batch at once and shrinks slowly."""
        if not x.numel():
            return
        low, high = torch.aminmax(x.float())
        low, high = low.clamp(max=0), high.clamp(min=0)
        self.low[number] = torch.minimum(low, torch.lerp(self.low[number], low, SHRINK))
        self.high[number] = torch.maximum(high, torch.lerp(self.high[number], high, SHRINK))


def _put_back(layer: nn.Module, args: Any, output: Any) -> None:
    """After a layer ran, or failed to: its own weights again."""
    if KEPT in layer.__dict__:
        _own(layer)["weight"] = layer.__dict__.pop(KEPT)


def _own(layer: nn.Module) -> dict[str, Tensor]:
    """A layer's own parameters, where another tensor can stand in for one."""
    return cast("dict[str, Tensor]", vars(layer)["_parameters"])


# Rounding -------------------------------------------------------------------------------------------------------------


def round_weights(weight: Tensor, *, bits: int) -> Tensor:
    """Weights as `bits` wide numbers would hold them: symmetric, one scale for each output channel.

    >>> round_weights(torch.tensor([[3.0, -1.2], [0.3, 0.1]]), bits=3)
    tensor([[ 3.0000, -1.0000],
            [ 0.3000,  0.1000]])
    """
    levels = 2 ** (bits - 1) - 1
    largest = weight.detach().flatten(1).abs().amax(dim=1)
    scale = (largest / levels).clamp_min(torch.finfo(weight.dtype).tiny).view(-1, *[1] * (weight.ndim - 1))
    rounded = (weight.detach() / scale).round().clamp(-levels, levels) * scale
    return weight + (rounded - weight).detach()


def round_activations(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Values as unsigned 8-bit numbers would hold them; beyond the range they are cut off and get no gradient.

    Args:
        low, high: of the range; zero lies in it and is held exactly.
    """
    scale = ((high - low) / ACTIVATION_LEVELS).clamp_min(torch.finfo(torch.float32).tiny)
    zero = (-low / scale).round()
    inside = x.clamp((-zero * scale).to(x.dtype), ((ACTIVATION_LEVELS - zero) * scale).to(x.dtype))
    rounded = ((inside.detach() / scale).round() * scale).to(x.dtype)
    return inside + (rounded - inside).detach()


# Folding --------------------------------------------------------------------------------------------------------------


class _Uses(TorchFunctionMode):
    """Counts how often tensors are used in making others."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[int, tuple[Tensor, int]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, Tensor):
                    # The tensor is held, since its id would be given to another after its end.
                    self._seen[id(leaf)] = (leaf, self.of(leaf) + 1)
        return result

    def of(self, tensor: Tensor) -> int:
        """How often a tensor was used."""
        return self._seen.get(id(tensor), (tensor, 0))[1]


def foldable(model: nn.Module, inputs: Sequence[Tensor]) -> Plan:
    """The batch norms that can become part of the layer before them; found by running the model once.

    That is so where the norm takes what the layer gives, nothing else does, and both run once.
    """
    made: dict[int, tuple[str, Tensor]] = {}
    runs: dict[str, int] = {}
    pairs: dict[str, tuple[str, Tensor]] = {}

    def layer_ran(name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        runs[name] = runs.get(name, 0) + 1
        made[id(output)] = (name, output)

    def norm_runs(name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        runs[name] = runs.get(name, 0) + 1
        if args and id(args[0]) in made:
            pairs[name] = made[id(args[0])]

    hooks: list[Any] = []
    for name, module in model.named_modules():
        if isinstance(module, (*LAYERS, *TRANSPOSED)):
            hooks.append(module.register_forward_hook(partial(layer_ran, name)))
        elif isinstance(module, BATCH_NORM) and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(partial(norm_runs, name)))
    try:
        with _Uses() as uses:
            results = {id(leaf) for leaf in tree_leaves(_run(model.eval(), inputs))}
    finally:
        for hook in hooks:
            hook.remove()
    return Plan(
        [
            Fold(norm, into=layer)
            for norm, (layer, output) in pairs.items()
            if runs[norm] == runs[layer] == 1 and uses.of(output) == 1 and id(output) not in results
        ]
    )


@torch.no_grad()
def _run(model: nn.Module, inputs: Sequence[Tensor]) -> Any:
    return model(*inputs)
