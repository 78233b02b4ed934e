"""Checks of predictions and metrics: one row each, pure, best for the truth. Knows no optimizer."""

from __future__ import annotations

import copy
import math

import numpy as np

from modelwright.codec import Columns
from modelwright.testing.kit import Failed
from modelwright.testing.subject import Subject, same


def check_one_prediction_per_sample(subject: Subject) -> None:
    """Predictions and truths have one row for each sample of the batch."""
    batch = subject.batch(subject.some(3))
    for what, columns in (
        ("predictions", subject.predictions(subject.model(), batch)),
        ("truths", subject.task.truths(batch)),
    ):
        if columns.rows != len(batch):
            raise Failed(f"there are {columns.rows} {what} for {len(batch)} samples")


def check_metrics_are_pure(subject: Subject) -> None:
    """Metrics are numbers that depend on the measured rows alone: not on their order, nor on an earlier call."""
    measured = _untrained(subject)
    metrics, kept = subject.task.metrics, copy.deepcopy(measured)
    first, again = metrics(measured), metrics(measured)
    if not same(dict(kept), dict(measured)):
        raise Failed("the measured columns are changed in place: work on copies")
    shuffled = metrics(measured.select(np.random.default_rng(0).permutation(measured.rows)))
    for name, value in first.items():
        if not isinstance(value, (int, float)):
            raise Failed(f"'{name}' is a {type(value).__name__}; a number is needed")
        if not same(float(value), float(again.get(name, math.nan))):
            raise Failed(f"'{name}' is {value} at first and {again.get(name)} when asked again")
        if not same(float(value), float(shuffled.get(name, math.nan)), tolerance=1e-6):
            raise Failed(f"'{name}' changes with the order of the samples")


def check_objective_is_measured(subject: Subject) -> None:
    """The objective is one of the metrics."""
    names = sorted(subject.task.metrics(_untrained(subject)))
    if subject.task.objective.metric not in names:
        raise Failed(f"the objective is '{subject.task.objective.metric}', the metrics are {', '.join(names)}")


def check_learning_improves_the_objective(subject: Subject) -> None:
    """A model that learned one batch by heart scores better on it than an untrained one."""
    learned = subject.learned
    before = subject.objective(subject.predictions(subject.model(), learned.batch), learned.batch)
    after = subject.objective(subject.predictions(learned.model, learned.batch), learned.batch)
    if not subject.task.objective.better(after, than=before):
        name = subject.task.objective.metric
        raise Failed(f"{name} is {before:.4g} untrained and {after:.4g} after learning by heart")


def check_the_truth_scores_best(subject: Subject) -> None:
    """`perfect` predictions are scored better than an untrained model's, and no worse than a trained one's."""
    learned = subject.learned
    truths = subject.truths(learned.batch)
    best = subject.objective_of(subject.task.perfect(truths).with_ids(truths.ids), truths)
    untrained = subject.objective(subject.predictions(subject.model(), learned.batch), learned.batch)
    trained = subject.objective(subject.predictions(learned.model, learned.batch), learned.batch)
    better = subject.task.objective.better
    if not better(best, than=untrained) or better(trained, than=best):
        raise Failed(f"`perfect` scores {best:.4g}, an untrained model {untrained:.4g}, a trained one {trained:.4g}")


def _untrained(subject: Subject) -> Columns:
    batch = subject.batch(subject.some())
    return subject.measured(subject.predictions(subject.model(), batch), batch)
