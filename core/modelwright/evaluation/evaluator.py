"""Scores a callable on a task: any callable -> predictions -> metrics. Knows nothing of training.

A model in eager PyTorch, a pruned one, a quantized one and an ONNX session are all callables, so all are scored alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from modelwright.codec import Columns, merged
from modelwright.errors import EvaluationError
from modelwright.evaluation.bootstrap import Interval, bootstrap
from modelwright.task import Batch, Dataset, Keys, Task
from modelwright.training import distributed
from modelwright.training.guard import list_ids, out_of_memory
from modelwright.training.loading import read

Predictor: TypeAlias = "Callable[..., Mapping[str, Tensor | np.ndarray]]"
"""Takes the task's inputs, gives its named outputs."""


@dataclass(frozen=True)
class Scores:
    """What an evaluation found. The three tables hold each sample once, in the order of ids."""

    predictions: Columns
    truths: Columns
    measured: Columns
    metrics: dict[str, Interval]

    @property
    def samples(self) -> int:
        """How many samples were scored."""
        return self.truths.rows


def evaluate(
    task: Task,
    predictor: Predictor,
    dataset: Dataset,
    *,
    batch_size: int,
    device: torch.device | None = None,
    channels_last: bool = False,
    workers: int = 0,
    resamples: int = 0,
    level: float = 0.95,
    seed: int = 0,
) -> Scores:
    """Scores `predictor` on every sample of `dataset`, as it is, each counted once on any number of ranks.

    Args:
        predictor: put into eval mode by the caller, on `device`.
        resamples: bootstrap resamples behind each interval; 0: values without intervals.

    Raises:
        EvaluationError: predictions that do not fit the samples, samples that got none, an objective that the task
            does not measure, or memory ran out.
    """
    device = device or torch.device("cpu")
    dataset = cast("Dataset", getattr(dataset, "plain", dataset))
    own = np.arange(distributed.rank(), len(dataset), distributed.world(), dtype=np.int64)
    keys = (Keys(seed, 0, 1, own[start : start + batch_size]) for start in range(0, len(own), batch_size))
    predictions: list[Columns] = []
    truths: list[Columns] = []
    # Not inference_mode: what a model computes once and keeps (anchors, positions) must still be of use in training.
    with torch.no_grad(), closing(read(task, dataset, keys, workers=workers, device=device)) as batches:
        for batch in batches:
            assert batch is not None  # keys are never empty here
            moved = batch.to(device)
            inputs = [lay_out(tensor, channels_last=channels_last) for tensor in moved.inputs]
            outputs = {name: _array(value) for name, value in _predicted(predictor, inputs, batch).items()}
            predictions.append(_fitting(task.codec.decode(outputs, batch.context), batch, "predictions"))
            truths.append(_fitting(task.truths(batch), batch, "truths"))
    joined = merged(task.codec, _everyone(predictions))
    true = _first_rows(_everyone(truths))
    if true.rows != len(dataset):
        raise EvaluationError(
            f"{true.rows} of {len(dataset)} samples were scored: the codec must make at least one sample of each raw "
            "thing, and the dataset give each its own id"
        )
    measured = task.measure(joined, true)
    values = task.metrics(measured)
    if task.objective.metric not in values:
        raise EvaluationError(
            f"the task measures {', '.join(sorted(values))}, but its objective is '{task.objective.metric}'"
        )
    metrics = bootstrap(task.metrics, measured, values=values, resamples=resamples, level=level, seed=seed)
    return Scores(joined, true, measured, metrics)


def asking(predictor: Predictor, *, device: torch.device | None = None) -> Callable[..., dict[str, np.ndarray]]:
    """A predictor as a function from arrays to arrays, without gradients."""

    def ask(*arrays: np.ndarray) -> dict[str, np.ndarray]:
        with torch.no_grad():
            inputs = [torch.from_numpy(np.ascontiguousarray(array)).to(device or "cpu") for array in arrays]
            return {name: _array(value) for name, value in predictor(*inputs).items()}

    return ask


def lay_out(tensor: Tensor, *, channels_last: bool) -> Tensor:
    """Pictures (4 axes) channels-last in memory, where that is wanted; everything else as it is."""
    return tensor.contiguous(memory_format=torch.channels_last) if channels_last and tensor.ndim == 4 else tensor


def _predicted(predictor: Predictor, inputs: Sequence[Tensor], batch: Batch) -> Mapping[str, Tensor | np.ndarray]:
    try:
        return predictor(*inputs)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise EvaluationError(
            f"out of memory while scoring samples {list_ids([batch.ids])}: lower evaluate.batch_size"
        ) from error


def _array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return np.asarray(value)


def _fitting(columns: Columns, batch: Batch, what: str) -> Columns:
    if columns.rows != len(batch):
        raise EvaluationError(f"{what} have {columns.rows} rows for {len(batch)} samples: one row per sample is needed")
    return columns.with_ids(batch.ids)


def _everyone(parts: Sequence[Columns]) -> Columns:
    """The rows of all batches of all ranks, in the order of ids."""
    own = [Columns.join(parts)] if parts else []
    return Columns.join([table for tables in distributed.gather(own) for table in tables]).sorted()


def _first_rows(table: Columns) -> Columns:
    _, starts = np.unique(table.ids, return_index=True)
    return table if len(starts) == table.rows else table.select(starts)
