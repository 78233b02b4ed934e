"""Checks that a task's model survives 8 bits. Knows graphs and the evaluator; knows no stage and no trainer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modelwright.bundle.runtime import Graph
from modelwright.compression.quantize import quantize
from modelwright.errors import CompressionError, ExportError
from modelwright.evaluation.evaluator import evaluate
from modelwright.testing.kit import Failed, NotOffered
from modelwright.testing.subject import Subject

CALIBRATE = 32
"""Training samples that ranges are taken from."""
SHARE = 0.5
"""Of what learning gained, what may be lost: generous, as models in the kit are small and their samples few."""


def check_int8_model_scores(subject: Subject) -> None:
    """The graph in static 8 bits scores like any predictor and keeps half of what learning gained.

    Layers that 8 bits hurt may stay in float, as they do in compression; some must be left.
    """
    gained, target = _gained(subject), subject.folder / "int8.onnx"
    try:
        source = subject.graph
    except ExportError as reason:
        raise NotOffered("the model has no graph: see export_agrees") from reason
    samples = [[tensor.numpy() for tensor in subject.batch(subject.some(CALIBRATE)).inputs]]
    try:
        drop = quantize(source, target, calibration=samples, score=lambda path: _score(subject, path)).drop
    except CompressionError as reason:
        raise NotOffered(str(reason)) from reason
    if drop is not None and drop <= SHARE * gained:
        return
    try:
        quantize(
            source,
            target,
            calibration=samples,
            score=lambda path: _score(subject, path),
            max_drop=SHARE * gained,
        )
    except CompressionError as error:
        raise Failed(f"{subject.task.objective.metric} gained {gained:.4g} by learning; in 8 bits {error}") from error


def _gained(subject: Subject) -> float:
    """By how much learning a batch by heart bettered the objective on it."""
    learned, objective = subject.learned, subject.task.objective
    before = subject.objective(subject.predictions(subject.model(), learned.batch), learned.batch)
    after = subject.objective(subject.predictions(learned.model, learned.batch), learned.batch)
    if not objective.better(after, than=before):
        raise NotOffered("learning gains nothing that could be lost: see learning_improves_the_objective")
    return abs(after - before)


def _score(subject: Subject, path: Path) -> float:
    """The objective of a graph on what was learned by heart; more is better."""
    found = evaluate(subject.task, Graph(path, threads=1), subject.splits["train"], batch_size=CALIBRATE)
    rows = np.flatnonzero(np.isin(found.truths.ids, subject.learned.batch.ids))
    value = subject.objective_of(found.predictions.select(rows), found.truths.select(rows))
    return value if subject.task.objective.goal == "max" else -value
