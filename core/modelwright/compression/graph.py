"""Which channels of which layers hang together, found by running the model once. Knows torch modules, no task.

Why our own: torch-pruning's last release is a year old, it follows autograd's graph, in which it takes a chunk or split
for something else, and it needs to be told of what it does not know. Here operations are followed as the model calls
them (`follow.py`), what is not known stays as it is, and a trial shows that the rest is right: a model without some
channels says the same as one in which nobody reads them. The idea of groups is that of

Fang, Ma, Song, Mi, Wang: DepGraph: Towards Any Structural Pruning, CVPR 2023, https://arxiv.org/abs/2301.12900.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from modelwright.compression.cost import as_served
from modelwright.compression.follow import Follower
from modelwright.compression.labels import NONE, Channels
from modelwright.compression.plan import Adapt, Edit, Kept, Plan, Resize, ResizesChannels, replay
from modelwright.compression.rules import tensors_in

SAMPLES = 2
"""What the model is run on."""
TOLERANCE = 1e-4
"""How far apart, beside the largest output, two models may be that say the same up to rounding."""


@dataclass(frozen=True)
class Place:
    """An axis of a parameter or buffer, and which group each of its slices belongs to.

    Attributes:
        module, tensor: names.
        axis: of the tensor.
        groups: int64, as long as that axis; -1: it belongs to none and stays.
        makes: the channels are the outputs of this layer.
        reads: they are its inputs.
    """

    module: str
    tensor: str
    axis: int
    groups: Tensor
    makes: bool
    reads: bool


@dataclass(frozen=True)
class Adapter:
    """A module that resizes itself, and which group each channel of its input and output belongs to."""

    module: str
    groups_in: Tensor
    groups_out: Tensor


@dataclass(frozen=True)
class Layer:
    """Groups of channels that are alike: they have the same places.

    Attributes:
        groups: in the order of their channels.
        width: channels that go with one of them, in a layer that makes them.
    """

    groups: tuple[int, ...]
    width: int


@dataclass(frozen=True)
class Graph:
    """A model's channels as groups that can only go together; a group is a number.

    Attributes:
        places: where each group's slices are.
        adapters: modules to be told.
        layers: the groups that may go.
    """

    places: tuple[Place, ...]
    adapters: tuple[Adapter, ...]
    layers: tuple[Layer, ...]

    def plan(self, removed: Collection[int]) -> Plan:
        """The edits that take some groups out."""
        gone = torch.tensor(sorted(removed))
        tensors: dict[str, dict[str, dict[int, Kept]]] = defaultdict(lambda: defaultdict(dict))
        for place in self.places:
            kept = _kept(place.groups, gone)
            if len(kept.indices) < kept.of:
                tensors[place.module][place.tensor][place.axis] = kept
        edits: list[Edit] = [
            Resize(module, {name: dict(axes) for name, axes in each.items()}) for module, each in tensors.items()
        ]
        for adapter in self.adapters:
            kept_in, kept_out = _kept(adapter.groups_in, gone), _kept(adapter.groups_out, gone)
            if len(kept_in.indices) < kept_in.of or len(kept_out.indices) < kept_out.of:
                edits.append(Adapt(adapter.module, kept_in, kept_out))
        return Plan(edits)


def _kept(groups: Tensor, gone: Tensor) -> Kept:
    indices = (~torch.isin(groups, gone)).nonzero().flatten().tolist()
    return Kept(len(groups), tuple(indices))


def trace(model: nn.Module, inputs: Sequence[Tensor], *, prunable: Iterable[nn.Module]) -> Graph:
    """Finds the groups of channels that may go.

    Args:
        model: run in eval mode; it is left as it was.
        inputs: its arguments, batch first; two samples are used.
        prunable: the layers whose channels may go. Those that reach the model's outputs never do.
    """
    follower, adapters, outputs = _follow(model, [tensor[:SAMPLES] for tensor in inputs])
    follower.freeze(list(tensors_in(outputs)))
    labels = follower.labels
    names: dict[int, tuple[str, str]] = {}
    for path, module in model.named_modules():
        held = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for name, tensor in held:
            names.setdefault(id(tensor), (path, name))
    places = [
        Place(*names[id(site.tensor)], site.axis, labels.roots(site.labels), site.makes, site.reads)
        for site in follower.sites.values()
    ]
    allowed = {id(tensor) for module in prunable for tensor in module.parameters(recurse=False)}
    forbidden = [s.labels for s in follower.sites.values() if s.makes and id(s.tensor) not in allowed]
    for each in forbidden:
        labels.freeze(each)
    found = tuple(Adapter(name, labels.roots(each[0]), labels.roots(each[1])) for name, each in adapters.items())
    layers = _layers(places, found, lambda group: labels.frozen(torch.tensor([group]))[0])
    graph = Graph(tuple(places), found, ())
    return Graph(tuple(places), found, tuple(_proven(graph, layers, model, inputs)))


def _follow(model: nn.Module, inputs: Sequence[Tensor]) -> tuple[Follower, dict[str, tuple[Tensor, Tensor]], Any]:
    """One run under a follower; modules that resize themselves are asked for what goes in and out."""
    follower = Follower(model)
    adapters: dict[str, tuple[Tensor, Tensor]] = {}
    handles: list[Any] = []

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            came, went = follower.channels(args[0]), follower.channels(output)
            if came is None or went is None or came.axis != 1 or went.axis != 1 or bool((came.labels < 0).any()):
                return
            # What it adds itself it can leave out.
            own = torch.where(went.labels == NONE, follower.labels.fresh(len(went.labels)), went.labels)
            before_in, before_out = adapters.setdefault(name, (came.labels, own))
            follower.labels.unite(before_in, came.labels)
            follower.labels.unite(before_out, own)
            follower.put(output, Channels(1, before_out))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, ResizesChannels):
            handles.append(cast("nn.Module", module).register_forward_hook(look(name)))
    try:
        with as_served(model), torch.random.fork_rng(devices=[]), follower:
            outputs = model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return follower, adapters, outputs


def _layers(places: Sequence[Place], adapters: Sequence[Adapter], frozen: Callable[[int], bool]) -> list[Layer]:
    """Groups by where they are. One that nobody makes, or that is alone, cannot go."""
    where: dict[int, list[int]] = defaultdict(list)
    width: dict[int, int] = {}
    for number, groups in enumerate(
        [p.groups for p in places] + [g for a in adapters for g in (a.groups_in, a.groups_out)]
    ):
        values, counts = groups.unique(return_counts=True)
        for group, count in zip(values.tolist(), counts.tolist(), strict=True):
            where[group].append(number)
            if number < len(places) and places[number].makes:
                width[group] = max(width.get(group, 0), count)
    alike: dict[tuple[tuple[int, ...], int], list[int]] = defaultdict(list)
    for group in sorted(where):
        if group != NONE and group in width and not frozen(group):
            alike[tuple(where[group]), width[group]].append(group)
    return [Layer(tuple(groups), width) for (_, width), groups in alike.items() if len(groups) > 1]


# Trial ----------------------------------------------------------------------------------------------------------------


def _proven(graph: Graph, layers: Sequence[Layer], model: nn.Module, inputs: Sequence[Tensor]) -> list[Layer]:
    """The layers that a model can indeed lose channels of.

    What operations do not show is found out here: numbers of channels that the model's code holds (`view(-1, 400)`,
    `x[:, :8]`) or computes with, and operations that torch does not tell of.
    """
    few = [tensor[:SAMPLES] for tensor in inputs]
    # Several parts in turn: a network that lost the wrong channels may say nothing at all, with and without a mistake.
    parts = (slice(0, 1), slice(0, -1, 2), slice(1, None, 2))

    def holds(some: Sequence[Layer]) -> bool:
        return all(
            _says_the_same(graph, {group for layer in some for group in layer.groups[part]}, model, few)
            for part in parts
        )

    proven: list[Layer] = []

    def sift(some: Sequence[Layer]) -> None:
        if holds([*proven, *some]):
            proven.extend(some)
        elif len(some) > 1:
            sift(some[: len(some) // 2])
            sift(some[len(some) // 2 :])

    sift(layers)
    return proven


def _says_the_same(graph: Graph, removed: set[int], model: nn.Module, inputs: Sequence[Tensor]) -> bool:
    """Whether a model without some channels gives what the whole one gives where no layer reads them."""
    gone = torch.tensor(sorted(removed))
    deaf = copy.deepcopy(model)
    with torch.no_grad():
        for place in graph.places:
            if place.reads:
                tensor = cast("Tensor", getattr(deaf.get_submodule(place.module), place.tensor))
                slices = torch.isin(place.groups, gone).nonzero().flatten().to(tensor.device)
                tensor.index_fill_(place.axis, slices, 0.0)
    smaller = replay(copy.deepcopy(model), graph.plan(removed))
    try:
        expected, found = (_outputs(each, inputs) for each in (deaf, smaller))
    except Exception:  # noqa: BLE001 - a model's own code may raise anything when its channels are not what it expects
        return False
    return len(expected) == len(found) and all(_close(a, b) for a, b in zip(expected, found, strict=True))


def _outputs(model: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    exact = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)
    with as_served(model), exact, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return list(tensors_in(model(*inputs)))


def _close(expected: Tensor, found: Tensor) -> bool:
    if expected.shape != found.shape:
        return False
    if not expected.is_floating_point():
        return bool((expected == found).all())
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    return torch.allclose(expected, found, rtol=0.0, atol=TOLERANCE * largest, equal_nan=True)
