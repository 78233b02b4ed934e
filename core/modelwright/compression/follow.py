"""Follows channels through one run of a model. Knows which tensors are the model's own; the rules stand in `rules.py`.

Operations are seen as the model calls them (a `TorchFunctionMode`): beside each activation stands whose channels lie
along which of its axes. Operations that move values about are carried out on the channels' positions as well;
pointwise ones unite the channels that meet; layers bind an axis of a parameter to the channels that it reads or makes.
Whatever is not known freezes the channels that go into it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from modelwright.compression import rules
from modelwright.compression.labels import NONE, Channels, Labels
from modelwright.compression.rules import Call, tensors_in


@dataclass
class Site:
    """An axis of a parameter or buffer, and whose channels lie along it.

    Attributes:
        tensor: the parameter or buffer.
        axis: of it.
        labels: as long as that axis.
        makes: the channels come to be here: the outputs of a layer with weights for each.
        reads: they are summed up here: the inputs of such a layer.
    """

    tensor: Tensor
    axis: int
    labels: Tensor
    makes: bool = False
    reads: bool = False


class Follower(TorchFunctionMode):
    """Follows the channels of one model while it runs.

    Args:
        model: whose parameters and buffers may be bound to channels.

    Attributes:
        labels: which channels hang together.
        sites: the axes that were bound, by tensor (its id) and axis.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.labels = Labels()
        self.sites: dict[tuple[int, int], Site] = {}
        self._own = {id(tensor) for tensor in [*model.parameters(), *model.buffers()]}
        self._fixed: set[int] = set()
        self._known = WeakTensorKeyDictionary()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        call = Call(func, tuple(args), kwargs or {}, result)
        found = rules.rule_of(call)(self, call)
        if found is None or isinstance(found, Channels):
            for tensor in tensors_in(result):
                self.put(tensor, found)
        else:
            for tensor, channels in zip(cast("tuple[Tensor, ...]", result), found, strict=True):
                self.put(tensor, channels)
        return result

    def owns(self, tensor: Tensor) -> bool:
        """Whether it is a parameter or buffer of the model."""
        return id(tensor) in self._own

    def channels(self, tensor: Tensor) -> Channels | None:
        """Whose channels a tensor holds; a parameter of several axes says nothing by itself and must stay as it is."""
        if not self.owns(tensor):
            return cast("Channels | None", self._known.get(tensor))
        long = [axis for axis, size in enumerate(tensor.shape) if size > 1]
        if len(long) != 1:
            self.fix(tensor)
            return None
        (axis,) = long
        if (id(tensor), axis) not in self.sites:
            self.bind(tensor, axis, self.labels.fresh(tensor.shape[axis]))
        return Channels(axis, self.sites[id(tensor), axis].labels)

    def put(self, tensor: Tensor, channels: Channels | None) -> None:
        """Notes whose channels a tensor holds."""
        if self.owns(tensor):
            return
        if channels is None:
            self._known.pop(tensor, None)
        else:
            self._known[tensor] = channels

    def along(self, tensor: Tensor, axis: int) -> Tensor:
        """The channels along an axis of an activation; where they lie along another one, they must stay."""
        channels = self.channels(tensor)
        if channels is not None and channels.axis == axis % tensor.ndim:
            return channels.labels
        self.freeze(tensor)
        return torch.full((tensor.shape[axis],), NONE)

    def bind(self, tensor: Tensor, axis: int, labels: Tensor, *, makes: bool = False, reads: bool = False) -> Tensor:
        """Says whose channels lie along an axis of a parameter; a second time, unites them with the first's."""
        if not self.owns(tensor):  # computed from parameters: its size follows theirs, if it follows at all
            self.labels.freeze(labels)
            return labels
        site = self.sites.setdefault((id(tensor), axis), Site(tensor, axis, labels))
        self.labels.unite(site.labels, labels)
        site.makes, site.reads = site.makes or makes, site.reads or reads
        if id(tensor) in self._fixed:
            self.labels.freeze(labels)
        return site.labels

    def make(self, tensor: Tensor, axis: int) -> Tensor:
        """The channels that a layer makes."""
        return self.bind(tensor, axis, self.labels.fresh(tensor.shape[axis]), makes=True)

    def freeze(self, tree: Any) -> None:
        """All channels of the tensors in `tree` must stay."""
        for tensor in tensors_in(tree):
            if self.owns(tensor):
                self.fix(tensor)
            elif (channels := self.channels(tensor)) is not None:
                self.labels.freeze(channels.labels)

    def fix(self, tensor: Tensor) -> None:
        """All that is bound to a parameter must stay, now and later."""
        self._fixed.add(id(tensor))
        for site in self.sites.values():
            if site.tensor is tensor:
                self.labels.freeze(site.labels)
