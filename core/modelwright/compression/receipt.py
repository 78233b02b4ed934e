"""What a variant costs and what it loses, measured, and in words. Knows evaluation and timing; knows no stage.

A receipt is JSON beside the variant. Every figure in it stands beside the same figure of the run's own model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from modelwright import environment
from modelwright.bundle.runtime import Graph
from modelwright.bundle.timing import interleaved, summary
from modelwright.compression.cost import Cost
from modelwright.config import TaskConfig
from modelwright.evaluation.bootstrap import Interval, paired
from modelwright.evaluation.evaluator import Predictor, Scores, evaluate
from modelwright.task import Datasets, Objective, Split, Task

BATCHES = (1, 32)
"""Batch sizes that are timed."""
SECONDS = 1.5
"""Spent on timing at each batch size."""
FASTER = 0.95
"""A ratio of times above this counts as no faster."""
EAGER, RUNTIME = "torch eager", Graph.runtime


@dataclass(frozen=True)
class Measured:
    """A model as it is measured.

    Attributes:
        eager: the served model in torch, on the CPU; None where only a graph is left.
        graph: what is deployed; None where it cannot be exported.
        also: the graph in further runtimes, which are only timed.
        bytes: of its weights on disk: of the graph, or of model.safetensors where there is none.
        cost: parameters and multiply-accumulates of one sample; None where they cannot be counted (a graph alone).
        scores: on the split that the receipt is about.
    """

    eager: nn.Module | None
    graph: Graph | None
    bytes: int
    cost: Cost | None
    scores: Scores
    also: Sequence[Graph] = ()


def judged_split(datasets: Datasets) -> Split:
    """The split that a receipt is about: the test where there is one."""
    splits: tuple[Split, ...] = ("test", "valid", "train")
    return next(split for split in splits if datasets.has(split))


def score(task: Task, predictor: Predictor, datasets: Datasets, split: Split, config: TaskConfig) -> Scores:
    """Scores on a split, without intervals: the receipt resamples pairs."""
    return evaluate(
        task,
        predictor,
        datasets[split],
        batch_size=config.evaluate.batch_size,
        workers=config.train.workers,
        seed=config.seed,
    )


def receipt(
    task: Task,
    config: TaskConfig,
    *,
    split: Split,
    original: Measured,
    variant: Measured,
    samples: Sequence[np.ndarray],
    notes: Mapping[str, Any],
    export_error: str = "",
) -> dict[str, Any]:
    """Everything measured, as JSON values, and verdicts in words.

    Args:
        samples: the inputs of at least `max(BATCHES)` real samples, in the order of the model's arguments.
        notes: what the stages said.
        export_error: why the variant has no graph.
    """
    settings = config.evaluate
    changes = paired(
        task.metrics,
        original.scores.measured,
        variant.scores.measured,
        resamples=settings.resamples,
        level=settings.level,
        seed=config.seed,
    )
    found: dict[str, Any] = {
        "split": split,
        "samples": variant.scores.samples,
        "level": settings.level,
        "objective": {"metric": task.objective.metric, "goal": task.objective.goal},
        "metrics": {
            name: {
                "original": _plain(original.scores.metrics[name].value),
                "variant": _plain(variant.scores.metrics[name].value),
                "change": change.as_json(),
            }
            for name, change in changes.items()
        },
        "drop": _drop(changes[task.objective.metric], task.objective).as_json(),
        "bytes": _beside(original.bytes, variant.bytes),
        "parameters": _beside(original.cost and original.cost.parameters, variant.cost and variant.cost.parameters),
        "macs": _beside(original.cost and original.cost.macs, variant.cost and variant.cost.macs),
        "latency": latencies(original, variant, samples),
        "threads": torch.get_num_threads(),
        "processor": environment.processor(),
        "notes": dict(notes),
        "export_error": export_error,
    }
    found["verdict"] = verdicts(found)
    return found


def latencies(original: Measured, variant: Measured, samples: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """Times at each batch size, all callables by turns in one loop; ratios are to the original in eager torch.

    The ratio is the median of ratios within a round, so that a neighbour on the machine slows both sides alike.
    """
    rows: list[dict[str, Any]] = []
    for batch in BATCHES:
        arrays = [np.ascontiguousarray(array[:batch]) for array in samples]
        calls: dict[tuple[str, str], Callable[[], object]] = {}
        for who, model in (("original", original), ("variant", variant)):
            if model.eager is not None:
                calls[who, EAGER] = _eager_call(model.eager, arrays)
            for graph in (*([] if model.graph is None else [model.graph]), *model.also):
                calls[who, graph.runtime] = _graph_call(graph, arrays)
        names = {"/".join(key): key for key in calls}
        times = interleaved({"/".join(key): call for key, call in calls.items()}, seconds=SECONDS, least=20)
        base = times[f"original/{EAGER}"]
        for name, taken in times.items():
            who, runtime = names[name]
            figures = summary(taken)
            rows.append(
                {
                    "model": who,
                    "runtime": runtime,
                    "batch": batch,
                    "p50_ms": figures.p50_ms,
                    "p95_ms": figures.p95_ms,
                    "samples_per_second": batch / figures.p50_ms * 1000,
                    "ratio": float(np.median(taken / base)),
                }
            )
    return rows


def _eager_call(model: nn.Module, arrays: Sequence[np.ndarray]) -> Callable[[], object]:
    tensors = [torch.from_numpy(array) for array in arrays]

    def call() -> object:
        with torch.inference_mode():
            return model(*tensors)

    return call


def _graph_call(graph: Graph, arrays: Sequence[np.ndarray]) -> Callable[[], object]:
    return lambda: graph(*arrays)


def best_latency(found: Mapping[str, Any], who: str, batch: int) -> Mapping[str, Any]:
    """The quickest runtime of one of the two models at a batch size."""
    rows = [row for row in found["latency"] if row["model"] == who and row["batch"] == batch]
    return min(rows, key=lambda row: row["p50_ms"])


# In words -------------------------------------------------------------------------------------------------------------


def verdicts(found: Mapping[str, Any]) -> list[str]:
    """What the figures mean, a sentence each: quality, size, speed."""
    said = [_quality(found), _size(found["bytes"])]
    for batch in BATCHES:
        said.append(_speed(found, batch))
    if found["notes"].get("structured") is False:
        said.append("single weights are zero and none is gone: that makes nothing smaller or faster by itself")
    if found["export_error"]:
        said.append(f"it has no graph: {found['export_error']}")
    return said


def _quality(found: Mapping[str, Any]) -> str:
    name, drop = found["objective"]["metric"], found["drop"]
    value, low, high = drop["value"], drop["low"], drop["high"]
    if value is None:
        return f"{name} cannot be compared: it is not a number"
    if low is None or high is None:
        return f"{name} {'falls' if value > 0 else 'does not fall'} ({_signed(-value)}); no interval was asked for"
    between = f"{100 * found['level']:g} % interval {_signed(-high)} to {_signed(-low)}"
    if low <= 0 <= high:
        return f"drop of {name} not distinguishable from none ({_signed(-value)}, {between})"
    if value > 0:
        return f"{name} is worse by {value:.4f} ({between})"
    return f"{name} is better by {-value:.4f} ({between})"


def _size(sizes: Mapping[str, Any]) -> str:
    ratio = sizes["ratio"]
    if ratio > FASTER:
        return f"no smaller: {ratio:.2f} of the bytes"
    return f"{ratio:.3f} of the bytes: {sizes['variant']:,} in place of {sizes['original']:,}"


def _speed(found: Mapping[str, Any], batch: int) -> str:
    mine, theirs = best_latency(found, "variant", batch), best_latency(found, "original", batch)
    ratio = mine["p50_ms"] / theirs["p50_ms"]
    beside = (
        f"at batch {batch}: {mine['p50_ms']:.3g} ms in {mine['runtime']}, the original {theirs['p50_ms']:.3g} ms "
        f"in its best runtime, {theirs['runtime']}"
    )
    return f"no faster here {beside}" if ratio > FASTER else f"{1 / ratio:.1f} times as fast {beside}"


def _drop(change: Interval, objective: Objective) -> Interval:
    """A change as what is lost: positive is worse."""
    if objective.goal == "min":
        return change
    low, high = change.low, change.high
    return Interval(-change.value, None if high is None else -high, None if low is None else -low)


def _beside(original: Any, variant: Any) -> dict[str, Any]:
    ratio = variant / original if original and variant is not None else None
    return {"original": original, "variant": variant, "ratio": ratio}


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _signed(value: float) -> str:
    return f"{value:+.4f}"
