"""Prints results of checks, each as it comes: some take a minute. Knows results; knows no check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from modelwright.testing.kit import CheckResult

_ROW = "{:<35} {:<15} {:>7}   {}"
"""check, outcome, seconds, message; the last may be long."""


def print_result(result: CheckResult) -> None:
    """One row."""
    print(_ROW.format(result.check, result.outcome, f"{result.seconds:.1f} s", result.message).rstrip(), flush=True)


def print_counts(task: str, results: Sequence[CheckResult]) -> None:
    """The last line: how many came to what."""
    counts = Counter(result.outcome for result in results)
    print(f"{task}: {', '.join(f'{count} {outcome}' for outcome, count in counts.items())}")
