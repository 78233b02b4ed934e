"""Which samples each step sees, and reading them. Knows order and workers; knows no model.

The order of the whole run is a pure function of the seed, so a run can begin at any step.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from modelwright.errors import DataError
from modelwright.task import Batch, Dataset, Example, Keys, Task
from modelwright.training.randomness import generator


@dataclass(frozen=True)
class Place:
    """Where in the run a step lies. `last`: it ends its epoch."""

    step: int
    epoch: int
    offset: int
    last: bool


class Plan:
    """The batches of a whole run.

    Args:
        epochs: passes over the data, or
        steps: optimizer steps, in as many passes as that takes.

    Attributes:
        steps: optimizer steps in the run.
        epochs: passes over the data, as the task is told; at least those that are begun.
        counts: steps of each epoch (of the last one: those that are run).

    Raises:
        DataError: the task's order has an epoch without any batch.
    """

    def __init__(
        self, task: Task, size: int, *, batch_size: int, seed: int, epochs: int, steps: int | None = None
    ) -> None:
        self._task, self._size, self._batch_size, self._seed = task, size, batch_size, seed
        # Two epochs: near the end of one, workers read ahead into the next.
        self._listed = functools.lru_cache(maxsize=2)(self._list)
        self.epochs = epochs
        if steps is None:
            self.counts = [len(self._order(epoch)) for epoch in range(epochs)]
        else:
            self.epochs = -(-steps // len(self._order(0)))
            self.counts = self._counts_within(steps)
            while len(self.counts) > self.epochs:  # an order may change with the number of epochs it is told
                self.epochs = len(self.counts)
                self.counts = self._counts_within(steps)
        self.steps = sum(self.counts)
        self._starts = np.concatenate([[0], np.cumsum(self.counts)])

    def place(self, step: int) -> Place:
        """Where a step lies."""
        epoch = int(np.searchsorted(self._starts, step, side="right")) - 1
        offset = step - int(self._starts[epoch])
        return Place(step, epoch, offset, last=offset == self.counts[epoch] - 1)

    def indices(self, place: Place) -> np.ndarray:
        """The samples of a step, over all ranks and micro-batches."""
        return self._order(place.epoch)[place.offset]

    def micro_batches(self, *, start: int, rank: int, world: int, accumulate: int) -> Iterator[Keys]:
        """What this rank reads, from step `start` on: `accumulate` key sets a step, possibly empty ones."""
        for step in range(start, self.steps):
            place = self.place(step)
            parts = world * accumulate
            shares = [self.indices(place)] if parts == 1 else np.array_split(self.indices(place), parts)
            for share in shares[rank * accumulate : (rank + 1) * accumulate]:
                yield Keys(self._seed, place.epoch, self.epochs, share)

    def _counts_within(self, steps: int) -> list[int]:
        """The batches of as many epochs as `steps` take; of the last one those that are left."""
        counts: list[int] = []
        left = steps
        while left > 0:
            counts.append(min(len(self._order(len(counts))), left))
            left -= counts[-1]
        return counts

    def _order(self, epoch: int) -> Sequence[np.ndarray]:
        return self._listed(epoch, self.epochs)

    def _list(self, epoch: int, epochs: int) -> Sequence[np.ndarray]:
        rng = generator(self._seed, epoch, "order")
        order = self._task.order(self._size, batch_size=self._batch_size, epoch=epoch, epochs=epochs, rng=rng)
        if len(order) == 0:
            raise DataError(f"epoch {epoch} of the training data has no batch: lower train.batch_size or add samples")
        return order


def fetch(task: Task, dataset: Dataset, keys: Keys) -> Batch | None:
    """One batch; None for no keys (a rank that has nothing to do in this step)."""
    if len(keys.indices) == 0:
        return None
    whole = getattr(dataset, "__getitems__", None)
    found = whole(keys) if whole is not None else [dataset[key] for key in keys.each()]
    if isinstance(found, Batch):
        return found
    return task.collate(cast("list[Example]", found), keys.indices)


class _Reader(TorchDataset[Batch | None]):
    """A dataset of batches for torch's workers: asked for Keys, gives a Batch."""

    def __init__(self, task: Task, dataset: Dataset) -> None:
        self._task, self._dataset = task, dataset

    def __getitem__(self, index: Keys) -> Batch | None:
        return fetch(self._task, self._dataset, index)


def _stand_apart(worker: int) -> None:
    """A stop signal sent to the whole process group must not end the workers: the present step needs its batch.

    They get a group of their own and drop the handlers they inherited; the main process can still terminate them.
    """
    if hasattr(os, "setsid"):
        os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _as_it_is(batch: Batch | None) -> Batch | None:
    return batch


def read(
    task: Task, dataset: Dataset, keys: Iterator[Keys], *, workers: int, device: torch.device
) -> Generator[Batch | None]:
    """The batches of `keys`, in order, read in this process or ahead of time by `workers` others.

    Close it (contextlib.closing) where it may not be read to its end: that ends the workers.
    """
    if workers == 0:
        for each in keys:
            yield fetch(task, dataset, each)
        return
    loader = DataLoader(
        _Reader(task, dataset),
        batch_size=None,
        sampler=cast("torch.utils.data.Sampler[Keys]", keys),
        num_workers=workers,
        collate_fn=_as_it_is,  # pyright: ignore[reportArgumentType] - one batch here, no list of samples
        prefetch_factor=4,
        worker_init_fn=_stand_apart,
        # A forked child of a process with CUDA or busy thread pools can hang; this start method cannot.
        multiprocessing_context="forkserver" if device.type == "cuda" else None,
        generator=torch.Generator(),  # or it would draw its base seed from the global one
    )
    batches = cast("Iterator[Batch | None]", iter(loader))
    try:
        yield from batches
    finally:
        del batches  # torch's iterator ends its workers when it goes
