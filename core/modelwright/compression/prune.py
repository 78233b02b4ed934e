"""Takes channels, or single weights, out of a model. Knows the graph of channels, no task and no training.

Channels go with all that hangs on them, by the size of their weights over every layer they touch (Fang et al. 2023,
https://arxiv.org/abs/2301.12900), or by how much the loss would change without them, to first order (Molchanov et al.
2019, https://arxiv.org/abs/1906.10771).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from modelwright.compression.cost import cost, parameters
from modelwright.compression.graph import Graph, Layer, trace
from modelwright.compression.plan import Plan, replay
from modelwright.errors import CompressionError

Of: TypeAlias = Literal["channels", "macs", "parameters"]
Scope: TypeAlias = Literal["global", "layer"]
Importance: TypeAlias = Literal["magnitude", "taylor"]

LEAST = 0.5
"""Of the share that is asked for, what every layer keeps, however little its channels matter beside others': the first
layer of a small network, left with one channel of six, lets nothing through that training could mend."""
STEPS = 512
"""How finely a share is looked for where every layer gives the same one."""


def prune(
    model: nn.Module,
    inputs: Sequence[Tensor],
    *,
    keep: float,
    of: Of = "channels",
    scope: Scope = "global",
    importance: Importance = "magnitude",
    prunable: Iterable[nn.Module],
    multiple: int = 1,
) -> Plan:
    """Takes channels out, in place.

    Args:
        model: in any mode; parameters that change are new ones, so an optimizer has to be made anew.
        inputs: its arguments, batch first; a real sample or two.
        keep: share that stays, 0 to 1; what is left is as near below as whole channels allow.
        of: what `keep` is a share of; channels count those that may go.
        scope: compare channels over the whole network, each beside the mean of its layer, or take the same share from
            every layer.
        importance: magnitude, or taylor, which reads the gradients that the caller left in `.grad`.
        prunable: layers whose channels may go.
        multiple: layers keep a multiple of this many channels, or all.

    Returns:
        The edits, for `replay` on a fresh model.

    Raises:
        CompressionError: nothing can be taken out, or not so much; no gradients for taylor.
    """
    graph = trace(model, inputs, prunable=prunable)
    if not graph.layers:
        raise CompressionError(
            "no channels can be pruned: every layer reaches the outputs, is not prunable or does what cannot be "
            "followed; leave the stage out, or prune single weights with structured=false"
        )
    least = LEAST * keep if scope == "global" else 0.0
    candidates = _candidates(graph, _importance(model, graph, importance), scope=scope, least=least, multiple=multiple)
    if of == "channels" and scope == "layer":
        chosen = candidates.gone(int(candidates.steps * (1 - keep)))
    else:
        chosen = _search(candidates, keep, of, _share(model, inputs, graph, of))
    plan = graph.plan(chosen)
    replay(model, plan)
    return plan


# Importance -----------------------------------------------------------------------------------------------------------


def _importance(model: nn.Module, graph: Graph, importance: Importance) -> dict[int, float]:
    """Group -> how much it matters beside the others of its layer, 1 on average."""
    total = torch.zeros(1 + max(int(place.groups.max()) for place in graph.places), dtype=torch.float64)
    graded = False
    for place in graph.places:
        tensor = cast("Tensor", getattr(model.get_submodule(place.module), place.tensor))
        if not isinstance(tensor, nn.Parameter):
            continue
        if importance == "magnitude":
            each = tensor.detach().double().square()
        elif tensor.grad is not None:
            each, graded = (tensor.detach() * tensor.grad).double().abs(), True
        else:
            continue
        slices = each.movedim(place.axis, 0).flatten(1).sum(1) if each.ndim > 1 else each
        inside = place.groups >= 0
        total.index_add_(0, place.groups[inside], slices.cpu()[inside])
    if importance == "taylor" and not graded:
        raise CompressionError(
            "importance=taylor needs gradients and there are none: run the loss backward first, or take magnitude"
        )
    found: dict[int, float] = {}
    for layer in graph.layers:
        values = total[list(layer.groups)]
        values = values.sqrt() if importance == "magnitude" else values
        found |= dict(zip(layer.groups, (values / values.mean().clamp_min(1e-30)).tolist(), strict=True))
    return found


# Choice ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Candidates:
    """What goes, for a number of steps between nothing and as much as can be."""

    steps: int
    gone: Callable[[int], set[int]]


def _candidates(graph: Graph, scores: Mapping[int, float], *, scope: Scope, least: float, multiple: int) -> _Candidates:
    weakest = [sorted(layer.groups, key=lambda group: scores[group]) for layer in graph.layers]
    stays = [max(1, math.ceil(least * len(layer.groups))) for layer in graph.layers]
    most = [_whole(layer, len(layer.groups) - kept, multiple) for layer, kept in zip(graph.layers, stays, strict=True)]
    if scope == "layer":

        def same_share(step: int) -> set[int]:
            wanted = [
                min(math.ceil(len(groups) * step / STEPS - 1e-9), m) for groups, m in zip(weakest, most, strict=True)
            ]
            return _first(graph.layers, weakest, wanted, multiple)

        return _Candidates(STEPS, same_share)
    order = sorted(
        (
            (scores[group], number)
            for number, (groups, m) in enumerate(zip(weakest, most, strict=True))
            for group in groups[:m]
        ),
    )

    def over_all(step: int) -> set[int]:
        wanted = [0] * len(weakest)
        for _, number in order[:step]:
            wanted[number] += 1
        return _first(graph.layers, weakest, wanted, multiple)

    return _Candidates(len(order), over_all)


def _first(layers: Sequence[Layer], weakest: Sequence[list[int]], wanted: Sequence[int], multiple: int) -> set[int]:
    return {
        group
        for layer, groups, count in zip(layers, weakest, wanted, strict=True)
        for group in groups[: _whole(layer, count, multiple)]
    }


def _whole(layer: Layer, gone: int, multiple: int) -> int:
    """How many groups may go at most if so many are wanted, so that a multiple of channels stays."""
    step = multiple // math.gcd(multiple, layer.width)
    stays = math.ceil((len(layer.groups) - gone) / step) * step
    return max(len(layer.groups) - stays, 0)


def _share(model: nn.Module, inputs: Sequence[Tensor], graph: Graph, of: Of) -> Callable[[set[int]], float]:
    """What share is left without some groups, measured."""
    if of == "channels":
        total = sum(len(layer.groups) * layer.width for layer in graph.layers)
        width = {group: layer.width for layer in graph.layers for group in layer.groups}
        return lambda gone: 1 - sum(width[group] for group in gone) / total
    count = parameters if of == "parameters" else lambda each: cost(each, inputs).macs
    before = count(model)
    return lambda gone: count(replay(copy.deepcopy(model), graph.plan(gone))) / before


def _search(candidates: _Candidates, keep: float, of: Of, share: Callable[[set[int]], float]) -> set[int]:
    """As few as bring the share to `keep`."""
    low, high = 0, candidates.steps
    least = share(candidates.gone(high))
    if least > keep:
        raise CompressionError(
            f"{least:.1%} of the {of} stay when all that may go are gone, and {keep:.1%} were asked for: "
            "raise keep, or lower multiple"
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if share(candidates.gone(middle)) <= keep else (middle, high)
    return candidates.gone(high)


# Single weights -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def sparsify(model: nn.Module, *, keep: float) -> dict[str, Tensor]:
    """Sets the smallest weights of the whole model to zero, in place; shapes stay (Han et al. 2015).

    Args:
        keep: share of the weights that stays; biases and norms are not touched and do not count.

    Returns:
        Name of a parameter -> where its weights stay, for holding the others at zero in training.

    Raises:
        CompressionError: the model has no weights.
    """
    weights = {name: parameter for name, parameter in model.named_parameters() if parameter.ndim > 1}
    if not weights:
        raise CompressionError("the model has no weights to set to zero: leave the stage out")
    sizes = torch.cat([parameter.abs().flatten() for parameter in weights.values()])
    stays = torch.zeros(len(sizes), dtype=torch.bool, device=sizes.device)
    stays[sizes.topk(max(1, int(keep * len(sizes)))).indices] = True
    masks: dict[str, Tensor] = {}
    for (name, parameter), mask in zip(
        weights.items(), stays.split([p.numel() for p in weights.values()]), strict=True
    ):
        masks[name] = mask.view_as(parameter)
        parameter.mul_(masks[name])
    return masks
