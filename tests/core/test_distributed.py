"""What ranks agree on. Ranks are forked here, so that torch is imported once; test_gradients has torchrun."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from modelwright.training import distributed
from modelwright.training.distributed import Reducer

pytestmark = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="ranks are forked")


def _rank(rank: int, world: int, meeting: Path, work: Callable[[int], Any], pipe: Any) -> None:
    torch.set_num_threads(1)  # the thread pool of the parent does not exist in a child
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = dist.FileStore(str(meeting), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=60))
    try:
        pipe.send(work(rank))
    finally:
        dist.destroy_process_group()


def on_ranks(world: int, folder: Path, work: Callable[[int], Any]) -> list[Any]:
    """What `work(rank)` gives on each rank (plain values: a child's tensors end with it)."""
    context = multiprocessing.get_context("fork")
    pipes, processes = [], []
    for rank in range(world):
        here, there = context.Pipe(duplex=False)
        processes.append(
            context.Process(target=_rank, args=(rank, world, folder / "meeting", work, there), daemon=True)
        )
        processes[-1].start()
        there.close()
        pipes.append(here)
    found = [pipe.recv() if pipe.poll(60) else None for pipe in pipes]
    for process in processes:
        process.join(10)
    return found


def test_one_process_is_the_identity() -> None:
    device = torch.device("cpu")
    with distributed.process_group(device):
        assert (distributed.rank(), distributed.world()) == (0, 1)
        value = object()
        assert distributed.broadcast(value) is value
        assert distributed.gather(value) == [value]
        distributed.barrier()
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone()
    distributed.same_start(model)
    reduce = Reducer(model)
    reduce.begin()
    model(torch.ones(1, 2)).sum().backward()
    scalar = torch.tensor(3.0)
    assert reduce([scalar]) == [scalar]
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize(("name", "expected"), [("cpu", "cpu"), ("cuda", "cuda:2"), ("cuda:1", "cuda:1")])
def test_a_device_is_picked_by_name_and_rank(monkeypatch: pytest.MonkeyPatch, name: str, expected: str) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert distributed.pick_device(name) == torch.device(expected)


@pytest.mark.parametrize(("there", "expected"), [(True, "cuda:0"), (False, "cpu")])
def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch, there: bool, expected: str) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert distributed.pick_device("auto") == torch.device(expected)


def test_values_go_to_every_rank_in_order(tmp_path: Path) -> None:
    def work(rank: int) -> Any:
        return distributed.broadcast({"from": rank}), distributed.gather(rank * 10), distributed.world()

    assert on_ranks(3, tmp_path, work) == [({"from": 0}, [0, 10, 20], 3)] * 3


class Net(nn.Module):
    """Convolutions channels-last, batch statistics, constants that no float32 third or seventh can express."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.only_on_rank_1 = nn.Parameter(torch.ones(2))
        self.nowhere = nn.Parameter(torch.ones(2))
        self.register_buffer("constant", torch.linspace(0.1, 1.0, 1000))
        self.register_buffer("exact", torch.tensor(0.1, dtype=torch.float64))
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_gradients_add_up_buffers_are_averaged_constants_stay(tmp_path: Path, optimizer: str) -> None:
    world = 3

    def step(model: Net, rank: int) -> None:
        x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(rank))
        out = model(x.contiguous(memory_format=torch.channels_last)).relu().sum()
        (out + model.only_on_rank_1.sum() if rank == 1 else out).backward()

    def work(rank: int) -> Any:
        torch.manual_seed(rank)  # each rank begins elsewhere
        model = Net().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        distributed.same_start(model)
        start = {name: value.clone() for name, value in model.state_dict().items()}
        reduce = Reducer(model)
        fused = getattr(torch.optim, optimizer)(model.parameters(), lr=0.1, fused=True)
        reduce.begin()
        if rank != 2:  # a rank that has nothing to do in this step
            step(model, rank)
        (summed,) = reduce([torch.tensor(float(rank + 1))])
        grads = {name: None if p.grad is None else p.grad.tolist() for name, p in model.named_parameters()}
        assert model.conv.weight.grad is not None
        assert model.conv.weight.grad.stride() == model.conv.weight.stride()
        fused.step()
        after = {name: value.tolist() for name, value in model.state_dict().items()}
        return start["conv.weight"].tolist(), float(summed), grads, after, [t.tolist() for t in start.values()]

    found = on_ranks(world, tmp_path, work)
    assert None not in found
    for rank in (1, 2):
        assert found[rank][:3] == found[0][:3]
        for name, value in found[rank][3].items():
            if name != "norm.num_batches_tracked":
                assert value == found[0][3][name], name
    start, summed, grads, after, all_start = found[0]
    assert summed == 6.0
    assert grads["nowhere"] is None
    assert grads["only_on_rank_1"] == [1.0, 1.0]

    # The same by hand, in one process: gradients of ranks 0 and 1 added, in the plain memory layout.
    names = list(Net().state_dict())
    model = Net()
    model.load_state_dict({name: torch.tensor(value) for name, value in zip(names, all_start, strict=True)})
    assert model.conv.weight.tolist() == start
    means = []
    for rank in (0, 1):
        model.norm.reset_running_stats()
        step(model, rank)
        means.append(model.norm.running_mean.clone())  # type: ignore[union-attr]
    torch.testing.assert_close(torch.tensor(after["norm.running_mean"]), (means[0] + means[1]) / world)
    torch.testing.assert_close(torch.tensor(grads["conv.weight"]), model.conv.weight.grad, rtol=1e-4, atol=1e-5)
    getattr(torch.optim, optimizer)(model.parameters(), lr=0.1, fused=False).step()
    torch.testing.assert_close(torch.tensor(after["conv.weight"]), model.conv.weight.detach(), rtol=1e-4, atol=1e-5)
    assert torch.equal(torch.tensor(after["constant"]), Net().constant)
    assert after["exact"] == 0.1
