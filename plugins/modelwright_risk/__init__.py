"""Risk scoring for modelwright. Cheap to import: torch and pyarrow come in when a task is built."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from modelwright.hookspecs import TaskEntry, hookimpl
from modelwright_risk.config import RiskConfig

if TYPE_CHECKING:
    from modelwright_risk.task import RiskTask


def build(config: RiskConfig) -> RiskTask:
    """The task; imports torch."""
    from modelwright_risk.task import RiskTask

    return RiskTask(config)


@hookimpl
def modelwright_tasks() -> Iterator[TaskEntry]:
    """Risk scoring."""
    yield TaskEntry(
        "risk-scoring",
        "say from a table's row how likely a loan is to default",
        config=RiskConfig,
        build=build,
        extra="risk",
        requires=("pyarrow", "sklearn"),
        recipes=Path(__file__).parent / "recipes",
    )
