"""The order of a run: every sample once an epoch, from any step on, whoever reads it."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelwright.config import build_config
from modelwright.errors import DataError
from modelwright.task import Batch, Dataset, Example, Key, Keys, Task
from modelwright.testing.toy import Spirals, ToyConfig, ToyTask
from modelwright.training.loading import Place, Plan, fetch, read

CPU = torch.device("cpu")


def toy(kind: type[ToyTask] = ToyTask) -> ToyTask:
    return kind(build_config(ToyConfig))


class Halves(ToyTask):
    """A curriculum: half of the data in even epochs, and an order that knows how many epochs there are."""

    def order(
        self, size: int, *, batch_size: int, epoch: int, epochs: int, rng: np.random.Generator
    ) -> Sequence[np.ndarray]:
        shown = size if epoch % 2 else -(-size // 2)
        shuffled = (rng.permutation(shown) + epochs) % size
        return [shuffled[start : start + batch_size] for start in range(0, shown, batch_size)]


class MoreEpochsFewerBatches(ToyTask):
    """An order of fewer batches the more epochs there are to be."""

    def order(
        self, size: int, *, batch_size: int, epoch: int, epochs: int, rng: np.random.Generator
    ) -> Sequence[np.ndarray]:
        return [np.array([epoch])] * max(1, 7 - epochs)


class Nothing(ToyTask):
    def order(
        self, size: int, *, batch_size: int, epoch: int, epochs: int, rng: np.random.Generator
    ) -> Sequence[np.ndarray]:
        return [np.arange(batch_size)] * (size // batch_size) if epoch < 1 else []


# The plan -----------------------------------------------------------------------------------------------------------


def of_epoch(plan: Plan, epoch: int) -> list[np.ndarray]:
    places = [plan.place(step) for step in range(plan.steps)]
    return [plan.indices(place) for place in places if place.epoch == epoch]


@given(
    size=st.integers(1, 60),
    batch_size=st.integers(1, 70),
    epochs=st.integers(1, 3),
    world=st.integers(1, 4),
    accumulate=st.integers(1, 4),
    data=st.data(),
)
def test_every_sample_once_an_epoch_over_ranks_and_micro_batches(
    size: int, batch_size: int, epochs: int, world: int, accumulate: int, data: Any
) -> None:
    plan = Plan(toy(), size, batch_size=batch_size, seed=3, epochs=epochs)
    assert plan.counts == [-(-size // batch_size)] * epochs
    start = data.draw(st.integers(0, plan.steps - 1))
    ranks = [
        list(plan.micro_batches(start=start, rank=rank, world=world, accumulate=accumulate)) for rank in range(world)
    ]
    assert all(len(keys) == (plan.steps - start) * accumulate for keys in ranks)
    for number, step in enumerate(range(start, plan.steps)):
        place = plan.place(step)
        shares = [keys for rank in ranks for keys in rank[number * accumulate : (number + 1) * accumulate]]
        assert {(keys.seed, keys.epoch, keys.epochs) for keys in shares} == {(3, place.epoch, epochs)}
        assert np.array_equal(np.concatenate([keys.indices for keys in shares]), plan.indices(place))
        sizes = [len(keys.indices) for keys in shares]
        assert max(sizes) - min(sizes) <= 1
    for epoch in range(epochs):
        assert sorted(np.concatenate(of_epoch(plan, epoch)).tolist()) == list(range(size))


@pytest.mark.parametrize("kind", [ToyTask, Halves])
def test_places_lie_one_after_the_other(kind: type[ToyTask]) -> None:
    plan = Plan(toy(kind), 21, batch_size=4, seed=0, epochs=3)
    assert plan.counts == ([6, 6, 6] if kind is ToyTask else [3, 6, 3])
    expected = [
        Place(0, epoch, offset, last=offset == count - 1)
        for epoch, count in enumerate(plan.counts)
        for offset in range(count)
    ]
    found = [plan.place(step) for step in range(plan.steps)]
    assert [(p.epoch, p.offset, p.last) for p in found] == [(p.epoch, p.offset, p.last) for p in expected]
    assert [p.step for p in found] == list(range(plan.steps))


@pytest.mark.parametrize("kind", [ToyTask, Halves])
@pytest.mark.parametrize("steps", [1, 3, 4, 9, 10, 18, 19])
def test_a_number_of_steps_is_met_exactly(kind: type[ToyTask], steps: int) -> None:
    plan = Plan(toy(kind), 21, batch_size=4, seed=0, epochs=10, steps=steps)
    assert plan.steps == sum(plan.counts) == steps
    assert plan.place(steps - 1).last
    assert plan.epochs >= len(plan.counts)
    again = Plan(toy(kind), 21, batch_size=4, seed=0, epochs=plan.epochs)
    for step in range(steps):
        assert np.array_equal(plan.indices(plan.place(step)), again.indices(again.place(step)))


def test_an_order_that_changes_with_the_number_of_epochs_is_counted_as_it_will_be_run() -> None:
    plan = Plan(toy(MoreEpochsFewerBatches), 21, batch_size=4, seed=0, epochs=1, steps=12)
    assert plan.steps == 12
    assert [plan.indices(plan.place(step)).tolist() for step in range(12)]
    assert {keys.epochs for keys in plan.micro_batches(start=0, rank=0, world=1, accumulate=1)} == {plan.epochs}
    assert all(plan.place(step).epoch < plan.epochs for step in range(12))


@pytest.mark.parametrize("wanted", [{"epochs": 3}, {"epochs": 1, "steps": 20}])
def test_an_epoch_without_a_batch_is_an_error(wanted: dict[str, int]) -> None:
    with pytest.raises(DataError, match=r"epoch 1 of the training data has no batch: lower train\.batch_size"):
        Plan(toy(Nothing), 21, batch_size=4, seed=0, **wanted)


def test_epochs_and_seeds_are_shuffled_differently() -> None:
    plan = Plan(toy(), 50, batch_size=50, seed=0, epochs=2)
    other = Plan(toy(), 50, batch_size=50, seed=1, epochs=2)
    orders = [plan.indices(plan.place(0)), plan.indices(plan.place(1)), other.indices(other.place(0))]
    assert len({tuple(order.tolist()) for order in orders}) == 3


def test_an_order_is_not_listed_anew_for_each_step() -> None:
    asked: list[int] = []

    class Counted(ToyTask):
        def order(self, size: int, *, epoch: int, **further: Any) -> Sequence[np.ndarray]:
            asked.append(epoch)
            return super().order(size, epoch=epoch, **further)

    plan = Plan(toy(Counted), 40, batch_size=4, seed=0, epochs=3)
    asked.clear()
    ahead = plan.micro_batches(start=0, rank=0, world=1, accumulate=1)
    for step in range(plan.steps):  # a reader that is 5 steps ahead, as workers are
        for _ in range(6 if step == 0 else 1):
            next(ahead, None)
        plan.indices(plan.place(step))
    assert len(asked) <= 4


# Reading ------------------------------------------------------------------------------------------------------------


class Slow:
    """Samples one by one."""

    def __init__(self, samples: int = 30) -> None:
        self._spirals = Spirals(samples, seed=0, noise=0.1)

    def __len__(self) -> int:
        return len(self._spirals)

    def __getitem__(self, key: Key) -> Example:
        raw, targets = self._spirals[key]
        return Example(raw + key.epoch, targets)  # what a sample is may depend on all of its key


class Listed(Slow):
    """A whole batch of examples with one call."""

    def __getitems__(self, keys: Keys) -> list[Example]:
        return [self[key] for key in keys.each()]


class Whole(Slow):
    """A whole batch of tensors with one call."""

    def __getitems__(self, keys: Keys) -> Batch:
        batch = self._spirals.__getitems__(keys)
        return Batch((batch.inputs[0] + keys.epoch,), batch.targets, batch.ids)


def same(a: Batch | None, b: Batch | None) -> bool:
    if a is None or b is None:
        return a is b
    inputs = all(torch.equal(x, y) for x, y in zip(a.inputs, b.inputs, strict=True))
    return inputs and torch.equal(a.targets["label"], b.targets["label"]) and a.ids.tolist() == b.ids.tolist()


@pytest.mark.parametrize("kind", [Slow, Listed, Whole])
def test_datasets_give_the_same_batch_however_they_are_asked(kind: type[Slow]) -> None:
    keys = Keys(0, 2, 3, np.array([4, 0, 17]))
    found, expected = fetch(toy(), kind(), keys), fetch(toy(), Slow(), keys)
    assert found is not None
    assert found.inputs[0].shape == (3, 2)
    assert found.inputs[0].dtype == torch.float32
    assert same(found, expected)


def test_no_keys_are_no_batch() -> None:
    assert fetch(toy(), Slow(), Keys(0, 0, 1, np.array([], dtype=np.int64))) is None


@pytest.mark.parametrize("kind", [Slow, Whole])
def test_workers_change_neither_batches_nor_order(kind: type[Slow]) -> None:
    # 7 samples in 5 micro-batches of 2 ranks: some key sets are empty.
    plan = Plan(toy(), 7, batch_size=4, seed=0, epochs=2)

    def batches(workers: int) -> list[Batch | None]:
        keys = plan.micro_batches(start=1, rank=1, world=2, accumulate=5)
        return list(read(toy(), kind(7), keys, workers=workers, device=CPU))

    alone, helped = batches(0), batches(2)
    assert len(alone) == len(helped) == 15
    assert any(batch is None for batch in alone)
    assert all(same(a, b) for a, b in zip(alone, helped, strict=True))


class Tells(Slow):
    """Its samples say which process made them, and in which group; Ctrl-C is sent to it meanwhile."""

    def __getitem__(self, key: Key) -> Example:
        os.kill(os.getpid(), signal.SIGINT)
        return Example(np.zeros(2), {"label": os.getpid(), "group": os.getpgid(0)})


def test_a_signal_to_the_process_group_does_not_reach_workers() -> None:
    """As terminals, torchrun and schedulers send it: the main process saves a checkpoint and needs its batches."""
    keys = iter([Keys(0, 0, 1, np.array([0, 1])), Keys(0, 0, 1, np.array([2]))])
    found = [batch for batch in read(toy(), Tells(), keys, workers=1, device=CPU) if batch is not None]
    assert len(found) == 2
    assert os.getpid() not in found[0].targets["label"].tolist()
    assert os.getpgid(0) not in found[0].targets["group"].tolist()


def test_closing_ends_the_workers() -> None:
    keys = iter([Keys(0, 0, 1, np.array([index])) for index in range(40)])
    batches = read(toy(), Tells(), keys, workers=1, device=CPU)
    first = next(batches)
    assert first is not None
    worker = int(first.targets["label"][0])
    batches.close()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_reading_draws_nothing_from_the_global_generator() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    plan = Plan(toy(), 7, batch_size=4, seed=0, epochs=1)
    list(read(toy(), Slow(7), plan.micro_batches(start=0, rank=0, world=1, accumulate=1), workers=1, device=CPU))
    assert torch.equal(torch.rand(3), expected)


def test_an_error_in_a_worker_reaches_the_caller() -> None:
    class Broken(Slow):
        def __getitem__(self, key: Key) -> Example:
            raise DataError(f"sample {key.index} is broken")

    keys = iter([Keys(0, 0, 1, np.array([3]))])
    data: Dataset = Broken()
    task: Task = toy()
    with pytest.raises(DataError, match="sample 3 is broken"):
        list(read(task, data, keys, workers=1, device=CPU))
