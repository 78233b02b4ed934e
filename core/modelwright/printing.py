"""What the commands print: tables, progress, numbers. Imports rich and torch only when used; knows no command."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from modelwright.run import Run


def watch(start: Any) -> Run | None:
    """Runs something long with its progress shown, then prints the table of results and the paths.

    Returns:
        The run; None on ranks that print nothing.
    """
    if not first_rank():
        start(warn=lambda message: None)
        return None
    screen = console(stderr=True)
    from modelwright.observers import ConsoleProgress

    with ConsoleProgress(screen) as progress:
        done: Run = start(observer=progress, warn=progress.say)
    task = done.task
    print_metrics([{"task": task, **each} for each in done.results["evaluations"]])
    print(f"report: {done.report}")
    print(done.folder)
    return done


def print_metrics(evaluations: list[dict[str, Any]]) -> None:
    """One row per metric and split; details (names with a slash) are left to the report."""
    rows = table("metric", "split", "samples", "value", "interval")
    for each in evaluations:
        for name, metric in each["metrics"].items():
            if "/" not in name:
                rows.add_row(name, each["split"], f"{each['samples']:,}", number(metric["value"]), interval(metric))
    console().print(rows)


def number(value: float | None) -> str:
    """A score in four digits, or a dash."""
    return "-" if value is None else f"{value:.4f}"


def interval(metric: dict[str, float | None]) -> str:
    """The bounds of a score, or nothing."""
    if metric["low"] is None or metric["high"] is None:
        return ""
    return f"{metric['low']:.4f} to {metric['high']:.4f}"


def table(*columns: str) -> Any:
    """An empty table in the house's style."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def console(*, stderr: bool = False) -> Console:
    """Where to print; what is no terminal gets plain lines."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    # Not a terminal: plain lines that are not cut, whatever the width.
    return Console(file=stream, markup=False, highlight=False, width=None if stream.isatty() else 240)


def first_rank() -> bool:
    """Whether this process is the one that prints."""
    return os.environ.get("RANK", "0") == "0"
