"""How a model came to its shapes: a list of edits, replayed on a fresh one. Knows layers and JSON; no task, no pickle.

A plan is stored beside the weights. Replayed on `task.model()` it gives the shapes that the weights fit into; replayed
on the original weights it gives the edited ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

import torch
from torch import Tensor, nn

from modelwright.errors import CheckpointError

FORMAT = 1
"""Version of the JSON form."""
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORM = nn.modules.batchnorm._BatchNorm  # pyright: ignore[reportPrivateUsage] - the base of all kinds
NORMS = (BATCH_NORM, nn.modules.instancenorm._InstanceNorm)  # pyright: ignore[reportPrivateUsage] - as above


@runtime_checkable
class ResizesChannels(Protocol):
    """A module whose forward holds numbers of channels, and which can do with fewer.

    It takes a tensor with channels on axis 1 and gives one. Channels of the output that stem from the input go and
    stay with it, as they are found to by running the module; the others, which it adds (zeros), may go by themselves.
    """

    def resize_channels(self, kept_in: Sequence[int], kept_out: Sequence[int]) -> None:
        """From now on only these channels come in and only these are wanted; both ascend, in today's numbers."""
        ...


@dataclass(frozen=True)
class Kept:
    """What stays of an axis.

    Attributes:
        of: its size before.
        indices: that stay, ascending.
    """

    of: int
    indices: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {"of": self.of, "kept": list(self.indices)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Kept:
        """Back from there."""
        indices = tuple(int(index) for index in values["kept"])
        ascending = all(a < b for a, b in pairwise(indices))
        if not indices or not ascending or indices[0] < 0 or indices[-1] >= values["of"]:
            raise ValueError(f"{list(indices)} are no indices of {values['of']}")
        return cls(int(values["of"]), indices)

    def check(self, size: int, what: str) -> None:
        """Looks whether an axis is the one that was meant.

        Raises:
            CheckpointError: it has another size.
        """
        if size != self.of:
            raise CheckpointError(
                f"the plan is of another model: {what} has {size} channels and the plan expects {self.of}; "
                "load it with the settings it was made with"
            )


@dataclass(frozen=True)
class Resize:
    """Takes slices out of a layer's tensors.

    Attributes:
        module: its name.
        tensors: name of a parameter or buffer -> axis -> what stays.
    """

    module: str
    tensors: Mapping[str, Mapping[int, Kept]]

    def apply(self, model: nn.Module) -> None:
        """Edits in place.

        Raises:
            CheckpointError: the model has no such layer, or of another size.
        """
        module = _submodule(model, self.module)
        news: dict[Tensor, Tensor] = {}
        for name, axes in self.tensors.items():
            old = getattr(module, name, None)
            if not isinstance(old, Tensor):
                raise _foreign(f"{self.module}.{name}")
            news[old] = _cut(old, axes, f"{self.module}.{name}")
        for holder in _holders(model, news):  # more than the one module, where weights are tied
            before = {name: parameter.shape for name, parameter in holder.named_parameters(recurse=False)}
            _put(holder, news)
            _tell_sizes(holder, before)

    def as_json(self) -> dict[str, Any]:
        """As it is stored."""
        tensors = {
            name: {str(axis): kept.as_json() for axis, kept in axes.items()} for name, axes in self.tensors.items()
        }
        return {"resize": self.module, "tensors": tensors}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Resize:
        """Back from there."""
        tensors = {
            str(name): {int(axis): Kept.from_json(kept) for axis, kept in axes.items()}
            for name, axes in values["tensors"].items()
        }
        return cls(str(values["resize"]), tensors)


@dataclass(frozen=True)
class Adapt:
    """Tells a module of the kind `ResizesChannels` which channels stay.

    Attributes:
        module: its name.
        kept_in: channels of its input that stay.
        kept_out: of its output.
    """

    module: str
    kept_in: Kept
    kept_out: Kept

    def apply(self, model: nn.Module) -> None:
        """Edits in place.

        Raises:
            CheckpointError: the model has no such module.
        """
        module = _submodule(model, self.module)
        if not isinstance(module, ResizesChannels):
            raise _foreign(f"{self.module}.resize_channels")
        module.resize_channels(self.kept_in.indices, self.kept_out.indices)

    def as_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {"adapt": self.module, "kept_in": self.kept_in.as_json(), "kept_out": self.kept_out.as_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Adapt:
        """Back from there."""
        return cls(str(values["adapt"]), Kept.from_json(values["kept_in"]), Kept.from_json(values["kept_out"]))


@dataclass(frozen=True)
class Fold:
    """Puts a batch norm into the layer before it and an identity in its place; names stay.

    In eval mode the model says the same as before; in training the statistics stand still from now on.

    Attributes:
        norm: its name.
        into: name of the convolution or linear layer whose outputs it takes, and nothing else does.
    """

    norm: str
    into: str

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Edits in place.

        Raises:
            CheckpointError: the model has no such layers, or they do not fit.
        """
        norm, layer = _submodule(model, self.norm), _submodule(model, self.into)
        if not isinstance(norm, BATCH_NORM) or norm.running_mean is None or norm.running_var is None:
            raise _foreign(f"batch norm {self.norm} with statistics")
        if not isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)) or _outputs(layer) != norm.num_features:
            raise _foreign(f"layer {self.into} with {norm.num_features} outputs")
        scale = (norm.running_var + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight
        shift = 0.0 if norm.bias is None else norm.bias
        bias = 0.0 if layer.bias is None else layer.bias
        bias = (bias - norm.running_mean) * scale + shift
        weight = layer.weight
        if isinstance(layer, TRANSPOSED):  # in x out / groups: outputs of a group stand on axis 1
            grouped = weight.unflatten(0, (layer.groups, -1)) * scale.view(
                layer.groups, 1, -1, *[1] * (weight.ndim - 2)
            )
            new = grouped.flatten(0, 1)
        else:
            new = weight * scale.view(-1, *[1] * (weight.ndim - 1))
        layer.weight = nn.Parameter(new, requires_grad=weight.requires_grad)
        layer.bias = nn.Parameter(bias.to(weight.dtype).clone(), requires_grad=weight.requires_grad)
        for parent in model.modules():
            for name, child in parent.named_children():
                if child is norm:
                    setattr(parent, name, nn.Identity())

    def as_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {"fold": self.norm, "into": self.into}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Fold:
        """Back from there."""
        return cls(str(values["fold"]), str(values["into"]))


Edit: TypeAlias = Resize | Adapt | Fold
KINDS: dict[str, type[Resize] | type[Adapt] | type[Fold]] = {"resize": Resize, "adapt": Adapt, "fold": Fold}


@dataclass(frozen=True)
class Plan:
    """Edits in the order in which they were made.

    >>> plan = Plan([Fold("norm1", into="conv1")])
    >>> Plan.from_json((plan + Plan()).as_json()) == plan
    True
    """

    edits: Sequence[Edit] = field(default_factory=list[Edit])

    def __add__(self, later: Plan) -> Plan:
        """These edits, then the later ones."""
        return Plan([*self.edits, *later.edits])

    def as_json(self) -> dict[str, Any]:
        """As it is stored in plan.json."""
        return {"format": FORMAT, "edits": [edit.as_json() for edit in self.edits]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Plan:
        """Back from there.

        Raises:
            CheckpointError: it is no plan, or one of a later version.
        """
        found = values.get("format") if isinstance(values, Mapping) else None
        if found != FORMAT:
            raise CheckpointError(
                f"this plan has format {found!r} and {FORMAT} can be read: install a later modelwright"
            )
        try:
            return cls([_edit(each) for each in values["edits"]])
        except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
            raise CheckpointError(f"this plan is damaged ({type(error).__name__}: {error}); compress again") from error


def replay(model: nn.Module, plan: Plan) -> nn.Module:
    """Applies a plan in place; gives the model back.

    Raises:
        CheckpointError: the plan was made for another model.
    """
    for edit in plan.edits:
        edit.apply(model)
    return model


def _edit(values: Mapping[str, Any]) -> Edit:
    return KINDS[next(kind for kind in KINDS if kind in values)].from_json(values)


def _foreign(what: str) -> CheckpointError:
    return CheckpointError(
        f"the plan is of another model: there is no {what}; load it with the settings it was made with"
    )


def _submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise _foreign(f"module {name}") from error


def _cut(old: Tensor, axes: Mapping[int, Kept], what: str) -> Tensor:
    new = old.detach()
    for axis, kept in axes.items():
        if axis >= new.ndim:
            raise _foreign(f"axis {axis} of {what}")
        kept.check(new.shape[axis], what)
        new = new.index_select(axis, torch.tensor(kept.indices, device=new.device))
    return nn.Parameter(new.contiguous(), requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new


def _held(module: nn.Module) -> dict[str, Tensor]:
    """A module's own parameters and buffers by name."""
    return {
        **dict(module.named_parameters(recurse=False, remove_duplicate=False)),
        **dict(module.named_buffers(recurse=False, remove_duplicate=False)),
    }


def _holders(model: nn.Module, tensors: Mapping[Tensor, Tensor]) -> list[nn.Module]:
    return [module for module in model.modules() if any(tensor in tensors for tensor in _held(module).values())]


def _put(module: nn.Module, news: Mapping[Tensor, Tensor]) -> None:
    """Puts tensors in the place of others."""
    for name, tensor in _held(module).items():
        if tensor in news:
            setattr(module, name, news[tensor])


def _outputs(layer: nn.Module) -> int:
    return cast("int", layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


# What layers say of their own size ------------------------------------------------------------------------------------


def whole_groups(weight: Sequence[int], groups: int) -> bool:
    """Whether channels of a grouped convolution go by whole groups, as they do in a depthwise one.

    Else the same channels go from each group. What leaves more to choose from is taken.

    Args:
        weight: its shape, outputs x inputs of a group x kernel.
    """
    return groups > 1 and groups >= weight[1]


def _tell_sizes(module: nn.Module, before: Mapping[str, Sequence[int]]) -> None:
    """Sets the numbers that a layer keeps beside its tensors."""
    if isinstance(module, CONVOLUTIONS):
        weight = module.weight.shape
        if whole_groups(before["weight"], module.groups):
            module.groups = weight[0] // (before["weight"][0] // module.groups)
        module.out_channels, module.in_channels = weight[0], weight[1] * module.groups
    elif isinstance(module, TRANSPOSED):
        module.in_channels, module.out_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, NORMS):
        held = [module.weight, module.bias, module.running_mean]
        module.num_features = next((len(tensor) for tensor in held if tensor is not None), module.num_features)
    elif isinstance(module, nn.GroupNorm):
        each = module.num_channels // module.num_groups
        module.num_channels = len(module.weight)
        module.num_groups = module.num_channels // each
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = module.weight.shape
