"""Checks of data and batches: what is read, from where, and in which shape. Knows no model."""

from __future__ import annotations

import hashlib
import pickle
from typing import Any

import numpy as np
import torch

from modelwright.task import Batch, Key, Size, Split
from modelwright.testing.kit import Failed, NotOffered
from modelwright.testing.subject import CPU, SPLITS, Subject, same, tensors_in
from modelwright.testing.watch import watched
from modelwright.training.loading import fetch, read

MOST_COMPARED = 2000
"""Samples of a split that are compared with those of the others."""


def check_no_network_no_stray_files(subject: Subject) -> None:
    """Making data and model opens no connection, and nothing outside temporary folders is written."""
    # The first of the checks that need data: what is fetched or written once only must not have been by now.
    with watched(subject.folder) as seen:
        task = subject.new_task()
        datasets = task.datasets()
        task.facts = task.find_facts(datasets)
        for split in SPLITS:
            if datasets.has(split):
                fetch(task, datasets[split], subject.keys([0]))
        task.model()
    if seen:
        raise Failed("; ".join(dict.fromkeys(seen)))


def check_splits_are_not_empty(subject: Subject) -> None:
    """There is a training split and something to evaluate on, none of them empty."""
    if "train" not in subject.splits:
        raise Failed("there is no train split")
    if len(subject.splits) < 2:
        raise Failed("there is neither a valid nor a test split: nothing could be evaluated")


def check_splits_are_disjoint(subject: Subject) -> None:
    """No sample lies in two splits, by content."""
    seen: dict[bytes, tuple[Split, int]] = {}
    for split in subject.splits:
        mine: dict[bytes, tuple[Split, int]] = {}
        for index in subject.some(MOST_COMPARED, split):
            batch = subject.batch([index], split=split)
            digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in batch.inputs)).digest()
            if digest in seen:
                raise Failed(f"sample {index} of {split} is sample {seen[digest][1]} of {seen[digest][0]}")
            mine[digest] = (split, index)
        seen |= mine


def check_samples_depend_on_their_key_only(subject: Subject) -> None:
    """The same (seed, epoch, id) gives the same sample, whatever was asked for before."""
    data = subject.splits["train"]
    indices = subject.some()
    keys = [Key(subject.config.seed, 1, 2, index) for index in indices]
    first = [data[key] for key in keys]
    again = {key: data[key] for key in reversed(keys)}
    for key, example in zip(keys, first, strict=True):
        if not same([example.raw, dict(example.targets)], [again[key].raw, dict(again[key].targets)]):
            raise Failed(f"sample {key.index}, asked for twice with one key, is two different samples")
    before, after = subject.batch(indices, epoch=1), subject.batch(indices, epoch=1)
    if not same(_plain(before), _plain(after)):
        raise Failed("a batch, asked for twice with the same keys, is two different batches")
    turned = subject.batch(indices[::-1], epoch=1)
    for index in indices:
        rows, there = (torch.from_numpy(np.flatnonzero(each.ids == index)) for each in (before, turned))
        if not same([tensor[rows] for tensor in before.inputs], [tensor[there] for tensor in turned.inputs]):
            raise Failed(f"sample {index} differs with its place in the batch")


def check_workers_change_nothing(subject: Subject) -> None:
    """The data can be sent to another process, and read there they are the same."""
    task, data = subject.task, subject.splits["train"]
    try:
        pickle.dumps((task, data))
    except Exception as error:  # pickle passes on whatever an object raises
        raise Failed(f"task and data cannot be pickled for workers: {error}") from error
    indices = subject.some()
    keys = [subject.keys(indices[:2]), subject.keys(indices[2:] or indices[:1])]
    here = list(read(task, data, iter(keys), workers=0, device=CPU))
    there = list(read(task, data, iter(keys), workers=1, device=CPU))
    if not all(same(_plain(a), _plain(b)) for a, b in zip(here, there, strict=True)):
        raise Failed("a batch that a worker read differs from the one read in this process")


def check_batches_are_as_declared(subject: Subject) -> None:
    """Batches of one, two and three samples have the declared inputs: number, shape, type, and their own ids."""
    for count in (1, 2, 3):
        indices = subject.some(count)
        batch = subject.batch(indices)
        if not np.array_equal(np.unique(batch.ids), indices):
            raise Failed(f"a batch of samples {indices} carries the ids {batch.ids.tolist()}")
        if len(batch.inputs) != len(subject.task.inputs):
            raise Failed(f"{len(subject.task.inputs)} inputs are declared, a batch has {len(batch.inputs)}")
        for spec, tensor in zip(subject.task.inputs, batch.inputs, strict=True):
            _as_declared(spec.name, spec.shape, spec.dtype, tensor, len(batch))


def check_nothing_to_find_is_a_sample(subject: Subject) -> None:
    """A sample with nothing in it (no box, no word) goes through batch, loss and scoring."""
    empty = subject.task.empty()
    if empty is None:
        raise NotOffered("the task has no samples with nothing in them")
    batch = subject.task.collate([empty, empty], np.array([0, 1]))
    step = subject.step()
    if not bool(subject.losses(step, batch).sum.isfinite()):
        raise Failed("the loss of samples with nothing in them is not finite")
    subject.task.metrics(subject.measured(subject.predictions(step.model, batch), batch))


def check_moving_keeps_the_structure(subject: Subject) -> None:
    """Moving a batch to a device moves every tensor in it and keeps names and shapes."""
    batch = subject.batch(subject.some(2))
    moved = batch.to(torch.device("meta"))
    left = [tensor for part in (moved.inputs, moved.targets, moved.hints) for tensor in tensors_in(part)]
    if any(tensor.device.type != "meta" for tensor in left):
        raise Failed("a tensor stays behind when the batch moves: put tensors into dicts, lists and tuples only")
    if _shapes(batch) != _shapes(moved):
        raise Failed("a batch has other names or shapes after it was moved")


def _plain(batch: Batch | None) -> Any:
    return None if batch is None else [list(batch.inputs), batch.targets, batch.hints, batch.ids]


def _shapes(batch: Batch) -> Any:
    def shapes(tree: Any) -> Any:
        if isinstance(tree, torch.Tensor):
            return tuple(tree.shape), tree.dtype
        if isinstance(tree, dict):
            return {name: shapes(value) for name, value in tree.items()}
        return [shapes(value) for value in tree] if isinstance(tree, (list, tuple)) else tree

    return shapes([list(batch.inputs), batch.targets, batch.hints])


def _as_declared(name: str, shape: tuple[int | Size, ...], dtype: str, tensor: torch.Tensor, count: int) -> None:
    found = tuple(tensor.shape)
    if found[0] != count or len(found) != len(shape) + 1:
        raise Failed(f"input '{name}' has shape {found}; declared are {count} samples of {len(shape)} axes")
    for axis, (size, wanted) in enumerate(zip(found[1:], shape, strict=True)):
        if isinstance(wanted, Size):
            if size < wanted.minimum or size % wanted.multiple:
                declared = f"a multiple of {wanted.multiple} from {wanted.minimum} on"
                raise Failed(f"axis {axis} of '{name}' is {size}; declared is {declared}")
        elif size != wanted:
            raise Failed(f"axis {axis} of '{name}' is {size}; declared is {wanted}")
    if str(tensor.dtype).removeprefix("torch.") != dtype:
        raise Failed(f"input '{name}' is {tensor.dtype}; declared is {dtype}")
