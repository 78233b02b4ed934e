"""Several ranks under torchrun. Knows torch.distributed; knows nothing of models' meaning or of tasks.

With one process every function here is the identity, so that callers need no second path.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group(device: torch.device) -> Generator[None]:
    """Joins the group that torchrun announced, if it did, and leaves it at the end."""
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1 or dist.is_initialized():
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def pick_device(name: str) -> torch.device:
    """`auto` as the rank's own GPU where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


def broadcast(value: T) -> T:
    """Rank 0's value, on every rank."""
    if world() == 1:
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    return cast("T", box[0])


def gather(value: T) -> list[T]:
    """Every rank's value, in the order of ranks, on every rank."""
    if world() == 1:
        return [value]
    box: list[Any] = [None] * world()
    dist.all_gather_object(box, value)
    return cast("list[T]", box)


def barrier() -> None:
    """Waits for all ranks."""
    if world() > 1:
        dist.barrier()


def same_start(module: nn.Module) -> None:
    """Gives every rank the weights and buffers of rank 0."""
    if world() > 1:
        for tensor in module.state_dict().values():
            if isinstance(tensor, Tensor):
                dist.broadcast(tensor, src=0)


class Reducer:
    """Sums gradients over ranks, and whatever else ranks must agree on, with one collective a step.

    Gradients are summed, never averaged: the trainer divides by the weight of the whole step. A parameter that got a
    gradient on any rank gets one on all (zeros where it had none); one that got none anywhere keeps none. What a step
    changed in floating buffers (running statistics) is averaged, so that all ranks hold the same model after every
    step and a buffer that no rank changed (a constant) keeps its bits.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        self._before: list[Tensor] = []

    def begin(self) -> None:
        """Called before the first forward pass of a step, when the buffers are the same on all ranks."""
        if world() > 1:
            self._before = [buffer.clone() for buffer in self._buffers()]

    def _buffers(self) -> list[Tensor]:
        """Looked up each time: a module may put a new tensor in a buffer's place."""
        return [buffer for buffer in self._module.buffers() if buffer.is_floating_point()]

    @torch.no_grad()
    def __call__(self, scalars: Sequence[Tensor]) -> list[Tensor]:
        """Reduces gradients and buffers in place; returns `scalars` summed over ranks."""
        if world() == 1:
            return list(scalars)
        buffers = self._buffers()
        device = self._parameters[0].device
        zero = torch.zeros((), device=device)
        have = torch.tensor([float(p.grad is not None) for p in self._parameters], device=device)
        pieces = [p.grad if p.grad is not None else zero.expand_as(p) for p in self._parameters]
        flat = torch.cat(
            [piece.reshape(-1).float() for piece in pieces]
            + [_change(now, old).reshape(-1).float() for now, old in zip(buffers, self._before, strict=True)]
            + [have, torch.stack([scalar.to(device, torch.float32) for scalar in scalars])]
        )
        dist.all_reduce(flat)
        sizes = [p.numel() for p in self._parameters] + [b.numel() for b in buffers] + [len(have), len(scalars)]
        parts = list(flat.split(sizes))
        summed, seen = parts.pop(), parts.pop().tolist()
        for parameter, present in zip(self._parameters, seen, strict=True):
            part = parts.pop(0)
            if present:
                if parameter.grad is None:
                    parameter.grad = torch.empty_like(parameter)
                # Copied, since torch's fused optimizers need gradients in the parameter's own memory layout.
                parameter.grad.copy_(part.view_as(parameter))
        for buffer, old in zip(buffers, self._before, strict=True):
            change = parts.pop(0).view_as(buffer) / world()
            buffer.copy_(torch.where(change == 0, old, old + change))
        return list(summed.unbind())


def _change(now: Tensor, old: Tensor) -> Tensor:
    """What was added; nothing to what stayed the same, be it infinite (a mask) or NaN, whose differences are NaN."""
    same = (now == old) | (now.isnan() & old.isnan())
    return torch.where(same, 0.0, now - old)
