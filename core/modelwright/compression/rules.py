"""What each of torch's operations does with channels. Knows operations, no layer and no model.

A rule is told of a call that was made and says whose channels the result holds; on the way it unites, binds and
freezes. Operations go by their names, which torch uses alike for functions, methods and operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from torch import Tensor

from modelwright.compression.labels import NONE, Channels, Labels
from modelwright.compression.operations import ASK, CARRY, POINTWISE
from modelwright.compression.plan import whole_groups

if TYPE_CHECKING:
    from modelwright.compression.follow import Follower


@dataclass(frozen=True)
class Call:
    """A call of one of torch's functions, after it was made."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any

    @property
    def first(self) -> Tensor:
        """The tensor that it is about."""
        return cast("Tensor", self.args[0] if self.args else self.kwargs["input"])

    @property
    def name(self) -> str:
        """Without underscores: `add` for `__add__` and `add_`; of a property, what it is called."""
        name = self.func.__name__
        if name == "__get__":
            name = getattr(getattr(self.func, "__self__", None), "__name__", "")
        return name.strip("_")

    @property
    def in_place(self) -> bool:
        """Whether it changes a tensor that is there already."""
        name = self.func.__name__
        return "out" in self.kwargs or (name.endswith("_") and not name.endswith("__"))

    def option(self, place: int, name: str, default: Any = None) -> Any:
        """An argument by its place or name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)

    @property
    def others(self) -> list[Tensor]:
        """All tensors among the arguments but the first."""
        return list(tensors_in((self.args[1:], {k: v for k, v in self.kwargs.items() if k != "input"})))


Found: TypeAlias = "Channels | Sequence[Channels | None] | None"
"""The channels of the result; of each, where there are several results."""
Rule: TypeAlias = "Callable[[Follower, Call], Found]"


def tensors_in(tree: Any) -> Iterable[Tensor]:
    """The tensors in nested containers."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        yield from tensors_in(list(cast("dict[Any, Any]", tree).values()))
    elif isinstance(tree, (list, tuple, set)):
        for each in cast("Iterable[Any]", tree):
            yield from tensors_in(each)


def rule_of(call: Call) -> Rule:
    """The rule for a call."""
    rule = RULES.get(call.name, unknown)
    # Where the shape of a tensor changes under way, what is known of it no longer fits.
    return unknown if call.in_place and rule is not pointwise and rule is not carry else rule


def unknown(follow: Follower, call: Call) -> Found:
    """What goes in must stay; nothing is known of what comes out."""
    follow.freeze((call.args, call.kwargs))
    return None


def ask(follow: Follower, call: Call) -> Found:
    """Says nothing of the values, or makes a tensor that has none of them."""
    return None


def carry(follow: Follower, call: Call) -> Found:
    """The first argument's channels go on; other arguments are asked for their type only."""
    return follow.channels(call.first) if isinstance(call.result, Tensor) else None


def pointwise(follow: Follower, call: Call) -> Found:
    """What meets goes together."""
    if not isinstance(call.result, Tensor) or "out" in call.kwargs:
        return unknown(follow, call)
    known: list[tuple[int, Tensor]] = []  # axis counted from the back, labels
    others: list[Tensor] = []
    for tensor in tensors_in((call.args, call.kwargs)):
        wide = follow.owns(tensor) and sum(size > 1 for size in tensor.shape) > 1
        channels = None if wide else follow.channels(tensor)
        if channels is None:
            others.append(tensor)
        elif len(channels.labels) == 1 and call.result.shape[channels.axis - tensor.ndim] != 1:
            follow.labels.freeze(channels.labels)  # one channel, repeated along the other's axis: it cannot go
        else:
            known.append((channels.axis - tensor.ndim, channels.labels))
    if len({axis for axis, _ in known}) != 1:
        return unknown(follow, call)
    axis, labels = known[0]
    for _, more in known[1:]:
        follow.labels.unite(labels, more)
    for tensor in others:
        if tensor.ndim < -axis or tensor.shape[axis] == 1:
            continue  # the same for every channel
        follow.bind(tensor, tensor.ndim + axis, labels)
    return Channels(call.result.ndim + axis, labels)


# Shapes ---------------------------------------------------------------------------------------------------------------


def move(follow: Follower, call: Call) -> Found:
    """Does with the channels' positions what was done with the values."""
    source = call.first
    channels = follow.channels(source)
    if channels is None:
        return None
    shape = [1] * source.ndim
    shape[channels.axis] = -1
    positions = torch.arange(len(channels.labels)).view(shape).expand(source.shape).contiguous()
    try:
        moved = call.func(positions, *call.args[1:], **call.kwargs)
    except (RuntimeError, TypeError, IndexError, ValueError):
        return unknown(follow, call)
    before, after = list(tensors_in(call.result)), list(tensors_in(moved))
    if any(a.dtype != torch.int64 or a.shape != b.shape for a, b in zip(after, before, strict=True)):
        return unknown(follow, call)
    found = [_lie(follow, channels.labels, each) for each in after]
    return found[0] if isinstance(call.result, Tensor) else found


def _lie(follow: Follower, labels: Tensor, positions: Tensor) -> Channels | None:
    """Along which axis channels lie whose positions were moved; those that share a place there are united."""
    if positions.numel() == 0 or positions.ndim == 0:
        follow.labels.freeze(labels)
        return None
    seen = positions.unique()
    count, start = len(seen), int(seen[0])
    if count < len(labels):
        # Of equal parts (chunk, gates), the same channels can go from each, if the model asks for its own size and has
        # no number of its own; whether it does is found out by a trial.
        if int(seen[-1]) - start + 1 == count and len(labels) % count == 0 and start % count == 0:
            for part in labels.split(count)[1:]:
                follow.labels.unite(labels[:count], part)
        else:
            follow.labels.freeze(labels)
    varying = [a for a in range(positions.ndim) if bool((positions != positions.narrow(a, 0, 1)).any())]
    # Of several axes (groups x channels of a group, pixels) the one that leaves most to choose from; along the others
    # all must go together.
    axis = varying[0] if len(varying) == 1 else min(1, positions.ndim - 1)
    if len(varying) > 1:
        axis = max(varying, key=lambda each: len(_together(positions, each, len(labels)).unique()))
    together = _together(positions, axis, len(labels))
    follow.labels.unite(labels, labels[together])
    return Channels(axis, labels[positions.movedim(axis, 0).flatten(1)[:, 0] if positions.ndim > 1 else positions])


def _together(positions: Tensor, axis: int, count: int) -> Tensor:
    """For each of `count` channels, one that stands for all it shares a place along an axis with."""
    rows = positions.movedim(axis, 0).reshape(positions.shape[axis], -1)
    first = rows[:, :1]
    pairs = (first * count + rows)[rows != first].unique()
    labels = Labels()
    names = labels.fresh(count)
    labels.unite(names[pairs // count], names[pairs % count])
    return labels.roots(names)


def cat(follow: Follower, call: Call) -> Found:
    """Side by side along the channels' axis, else united."""
    return _join(follow, call, int(call.option(1, "dim", 0)) % call.result.ndim)


def stack(follow: Follower, call: Call) -> Found:
    """United; there is one axis more."""
    dim = int(call.option(1, "dim", 0)) % call.result.ndim
    joined = _join(follow, call, None)
    return joined and Channels(joined.axis + (dim <= joined.axis), joined.labels)


def _join(follow: Follower, call: Call, dim: int | None) -> Channels | None:
    tensors = cast("Sequence[Tensor]", call.option(0, "tensors"))
    each = [follow.channels(tensor) for tensor in tensors]
    axes = {channels.axis for channels in each if channels is not None}
    if len(axes) != 1:
        follow.freeze(tensors)
        return None
    (axis,) = axes
    rows = [torch.full((t.shape[axis],), NONE) if c is None else c.labels for t, c in zip(tensors, each, strict=True)]
    if axis == dim:
        return Channels(axis, torch.cat(rows))
    for row in rows[1:]:
        follow.labels.unite(rows[0], row)
    return Channels(axis, max(rows, key=lambda row: int(row[0])))


def pad(follow: Follower, call: Call) -> Found:
    """Over space the channels stay; along their axis come some that belong to no layer."""
    source, widths = call.first, [*cast("Sequence[int]", call.option(1, "pad", ())), *[0] * (2 * call.first.ndim)]
    channels = follow.channels(source)
    if channels is None:
        return None
    place = 2 * (source.ndim - 1 - channels.axis)
    before, after = widths[place], widths[place + 1]
    if (before or after) and (call.option(2, "mode", "constant") != "constant" or min(before, after) < 0):
        return unknown(follow, call)
    ends = torch.full((before,), NONE), torch.full((after,), NONE)
    return Channels(channels.axis, torch.cat([ends[0], channels.labels, ends[1]]))


# Over other axes than the channels' -----------------------------------------------------------------------------------


def reduce(follow: Follower, call: Call) -> Found:
    """Over other axes. Over the channels: a mean over fewer of them is another one."""
    source, dims = call.first, call.option(1, "dim")
    channels = follow.channels(source)
    if channels is None:
        return None
    if isinstance(dims, bool) or not isinstance(dims, (int, tuple, list)) or not isinstance(call.result, Tensor):
        return unknown(follow, call)
    gone = {int(dim) % source.ndim for dim in ([dims] if isinstance(dims, int) else dims)}
    if not gone or channels.axis in gone:
        return unknown(follow, call)
    keeps = call.result.ndim == source.ndim
    return Channels(channels.axis - (0 if keeps else sum(dim < channels.axis for dim in gone)), channels.labels)


def spatial(follow: Follower, call: Call) -> Found:
    """Pools and enlarges over the last one, two or three axes."""
    source, digit = call.first, call.name[-2]
    axes = int(digit) if digit.isdigit() else source.ndim - 2
    channels = follow.channels(source)
    if channels is not None and channels.axis >= source.ndim - axes:
        return unknown(follow, call)
    return channels


def softmax(follow: Follower, call: Call) -> Found:
    """Over another axis."""
    source, dim = call.first, call.option(1, "dim")
    channels = follow.channels(source)
    if channels is not None and (dim is None or int(dim) % source.ndim == channels.axis):
        return unknown(follow, call)
    return channels


def glu(follow: Follower, call: Call) -> Found:
    """Each channel with its gate."""
    source = call.first
    channels = follow.channels(source)
    if channels is None or channels.axis != int(call.option(1, "dim", -1)) % source.ndim:
        return channels
    half, gate = channels.labels.chunk(2)
    follow.labels.unite(half, gate)
    return Channels(channels.axis, half)


# Layers ---------------------------------------------------------------------------------------------------------------


def linear(follow: Follower, call: Call) -> Found:
    """Reads the last axis."""
    weight = call.option(1, "weight")
    follow.bind(weight, 1, follow.along(call.first, -1), reads=True)
    return _made(follow, call, 0, call.result.ndim - 1)


def convolution(follow: Follower, call: Call) -> Found:
    """Of any number of axes and groups."""
    source, weight, groups = call.first, call.option(1, "weight"), int(call.option(6, "groups", 1))
    axis = source.ndim - (weight.ndim - 1)
    inputs = follow.along(source, axis)
    if groups == 1:
        follow.bind(weight, 1, inputs, reads=True)
        return _made(follow, call, 0, axis)
    whole = whole_groups(weight.shape, groups)
    # Whose place in a group is the same goes together, or all that are of one group, be they inputs or outputs.
    outputs = follow.bind(weight, 0, follow.labels.fresh(len(weight)), makes=not whole)
    inputs, outputs = inputs.view(groups, -1), outputs.view(groups, -1)
    if whole:
        united = torch.cat([inputs, outputs], dim=1)
        for column in united.T[1:]:
            follow.labels.unite(united[:, 0], column)
    else:
        for group in range(1, groups):
            follow.labels.unite(inputs[0], inputs[group])
            follow.labels.unite(outputs[0], outputs[group])
        follow.bind(weight, 1, inputs[0], reads=True)
    return _with_bias(follow, call, Channels(axis, outputs.flatten()))


def transposed(follow: Follower, call: Call) -> Found:
    """The weight's axes are the other way round."""
    source, weight = call.first, call.option(1, "weight")
    if int(call.option(6, "groups", 1)) > 1:
        return unknown(follow, call)
    axis = source.ndim - (weight.ndim - 1)
    follow.bind(weight, 0, follow.along(source, axis), reads=True)
    return _made(follow, call, 1, axis)


def _made(follow: Follower, call: Call, axis: int, at: int) -> Channels:
    """New channels, along an axis of the weight, at an axis of the result."""
    return _with_bias(follow, call, Channels(at, follow.make(call.option(1, "weight"), axis)))


def _with_bias(follow: Follower, call: Call, made: Channels) -> Channels:
    if (bias := call.option(2, "bias")) is not None:
        follow.bind(bias, 0, made.labels)
    return made


def norm(follow: Follower, call: Call) -> Found:
    """Each channel by itself: batch norm in eval mode, instance norm."""
    for tensor in call.others:
        follow.bind(tensor, 0, follow.along(call.first, 1))
    return follow.channels(call.first)


def group_norm(follow: Follower, call: Call) -> Found:
    """Statistics are of a group: it goes as a whole, or stays."""
    members = follow.along(call.first, 1).view(int(call.option(1, "num_groups")), -1)
    for column in members.T[1:]:
        follow.labels.unite(members[:, 0], column)
    return norm(follow, call)


def layer_norm(follow: Follower, call: Call) -> Found:
    """Over other axes. Mean and deviation over fewer channels are others."""
    channels = follow.channels(call.first)
    if channels is not None and channels.axis >= call.first.ndim - len(call.option(1, "normalized_shape")):
        return unknown(follow, call)
    return channels


def prelu(follow: Follower, call: Call) -> Found:
    """One slope, or one for each channel."""
    weight = cast("Tensor", call.option(1, "weight"))
    if weight.numel() > 1:
        follow.bind(weight, 0, follow.along(call.first, 1))
    return follow.channels(call.first)


def embedding(follow: Follower, call: Call) -> Found:
    """The numbers of an entry are its channels."""
    return Channels(call.result.ndim - 1, follow.make(call.option(1, "weight"), 1))


def _rules() -> dict[str, Rule]:
    named: dict[Rule, str] = {
        pointwise: POINTWISE,
        carry: CARRY,
        move: """
            reshape view flatten unflatten ravel permute transpose movedim moveaxis swapaxes swapdims t T mT getitem
            narrow select chunk split split_with_sizes tensor_split unbind expand expand_as view_as reshape_as
            broadcast_to repeat tile flip squeeze unsqueeze pixel_shuffle pixel_unshuffle channel_shuffle""",
        reduce: "mean sum amax amin var std logsumexp any all",
        spatial: "interpolate upsample upsample_nearest upsample_bilinear",
        ask: ASK,
        cat: "cat concat concatenate",
        stack: "stack",
        pad: "pad",
        softmax: "softmax log_softmax",
        glu: "glu",
        linear: "linear",
        norm: "batch_norm instance_norm",
        group_norm: "group_norm",
        layer_norm: "layer_norm rms_norm",
        prelu: "prelu",
        embedding: "embedding",
        convolution: "conv1d conv2d conv3d",
        transposed: "conv_transpose1d conv_transpose2d conv_transpose3d",
    }
    rules = {name: rule for rule, names in named.items() for name in names.split()}
    pools = ("max_pool", "avg_pool", "adaptive_max_pool", "adaptive_avg_pool")
    return rules | {f"{kind}{axes}d": spatial for kind in pools for axes in (1, 2, 3)}


RULES = _rules()
