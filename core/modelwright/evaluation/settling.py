"""What a task finds on validation data once weights are final. Knows the evaluator; knows neither runs nor variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from modelwright.config import TaskConfig
from modelwright.evaluation.evaluator import Predictor, asking, evaluate
from modelwright.task import Datasets, Evaluated, Facts, Task

SETTLED = "settled"
"""The key of `Facts.values` under which it lies."""


def with_settled(facts: Facts, settled: Mapping[str, Any]) -> Facts:
    """The facts with these values settled; nothing is, where there are none."""
    values = {name: value for name, value in facts.values.items() if name != SETTLED}
    return replace(facts, values={**values, SETTLED: dict(settled)} if settled else values)


def settle(
    task: Task, predictor: Predictor, datasets: Datasets, config: TaskConfig, *, device: torch.device | None = None
) -> dict[str, Any]:
    """Asks the task, on every rank; puts the answer among its facts and gives it.

    Args:
        predictor: in eval mode, on `device`.

    Raises:
        EvaluationError: see `evaluate`.
    """
    if type(task).settle is Task.settle or not datasets.has("valid"):
        return {}
    task.facts = with_settled(task.facts, {})
    data = datasets["valid"]
    found = evaluate(
        task,
        predictor,
        data,
        batch_size=config.evaluate.batch_size,
        device=device,
        channels_last=config.train.channels_last,
        workers=config.train.workers,
        seed=config.seed,
    )
    ask = asking(predictor, device=device)
    settled = dict(task.settle(Evaluated("valid", data, found.predictions, found.truths, found.measured, ask)))
    task.facts = with_settled(task.facts, settled)
    return settled
