"""Scores a bundle, or a variant of a run, on its task's data. Knows the evaluator; puts nothing into run folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import load_file

from modelwright.bundle.runtime import FACTS, graph_of, read_manifest
from modelwright.bundle.writing import find
from modelwright.config import build_config
from modelwright.errors import DataError
from modelwright.evaluation.evaluator import Predictor, evaluate
from modelwright.folder import read_task
from modelwright.plugins import Catalog, discover
from modelwright.run import to_stderr
from modelwright.task import Facts, Split, Task
from modelwright.training import distributed


def evaluate_bundle(folder: Path, *, split: Split = "test", catalog: Catalog | None = None) -> dict[str, Any]:
    """Scores a bundle's graph on the data that its run was made with.

    Returns:
        ``{"task", "split", "samples", "metrics": {name: {"value", "low", "high"}}}``

    Raises:
        BundleError: it is none, or was changed.
        PluginError: its task is not installed.
        DataError: its data are gone, or have no such split.
    """
    catalog = catalog or discover()
    manifest = read_manifest(folder)
    entry = catalog.task(manifest["task"])
    task: Task = entry.build(build_config(entry.config, layers=[manifest["settings"]]))
    arrays = load_file(folder / FACTS) if FACTS in manifest["files"] else {}
    task.facts = Facts(manifest["facts"], arrays)
    graph = graph_of(folder, manifest, threads=task.config.train.threads)
    try:
        return {"task": manifest["task"], **_score(task, graph, split)}
    except DataError as error:
        raise DataError(f"{folder} is scored on the data of its settings: {error}") from error


def evaluate_variant(
    run: Path,
    variant: str,
    *,
    split: Split = "test",
    catalog: Catalog | None = None,
    warn: Callable[[str], None] = to_stderr,
) -> dict[str, Any]:
    """Scores a variant of a run, as `evaluate_bundle` does: its graph where it has one, else its torch model.

    Raises:
        RunError: it is no run folder.
        CompressionError: there is no such variant.
        DataError: there is no such split.
    """
    catalog = catalog or discover()
    source = find(run, variant, catalog=catalog, warn=warn)
    return {"task": read_task(run), **_score(source.task, source.predictor, split)}


def _score(task: Task, predictor: Predictor, split: Split) -> dict[str, Any]:
    settings, device = task.config.evaluate, torch.device("cpu")
    with distributed.process_group(device):
        found = evaluate(
            task,
            predictor,
            task.datasets()[split],
            batch_size=settings.batch_size,
            device=device,
            workers=task.config.train.workers,
            resamples=settings.resamples,
            level=settings.level,
            seed=task.config.seed,
        )
    metrics = {name: interval.as_json() for name, interval in found.metrics.items()}
    return {"split": split, "samples": found.samples, "metrics": metrics}
