"""The contract kit: runs named checks on a task and says what holds. Knows checks and outcomes, no task.

The checks themselves stand in the modules `checks_*`; each is a function of a `Subject` that returns nothing, raises
`Failed` with the reason, or `NotOffered` where the task declares that it does not offer what is checked.
"""

from __future__ import annotations

import importlib
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from modelwright.errors import ConfigError, Interrupted, ModelwrightError, did_you_mean
from modelwright.hookspecs import TaskEntry
from modelwright.plugins import discover

if TYPE_CHECKING:
    from modelwright.testing.subject import Subject

HOMES = (
    "checks_entry",
    "checks_data",
    "checks_model",
    "checks_metrics",
    "checks_export",
    "checks_pruning",
    "checks_quantization",
    "checks_run",
)
"""Modules of checks, in the order in which they run."""
LIMIT = 240.0
"""Seconds after which a check counts as hanging."""

Outcome: TypeAlias = Literal["passed", "failed", "not offered", "expected failure", "unexpected pass"]


class Failed(AssertionError):
    """What was checked does not hold; the text says why, for the plugin's author."""


class NotOffered(Exception):
    """The task declares that it does not offer what is checked."""


@dataclass(frozen=True)
class Check:
    """One thing that the contract promises.

    Attributes:
        name: the function's name without `check_`.
        promise: its docstring's first line.
        run: raises `Failed` or `NotOffered`.
    """

    name: str
    promise: str
    run: Callable[[Subject], None]


@dataclass(frozen=True)
class CheckResult:
    """What came of a check.

    Attributes:
        check: its name.
        outcome: in a word or two.
        message: the reason, where it did not just pass; one line.
        seconds: how long it took.
        error: what was raised, where something was; with its traceback.
    """

    check: str
    outcome: Outcome
    message: str
    seconds: float
    error: BaseException | None = field(default=None, repr=False, compare=False)

    @property
    def good(self) -> bool:
        """It passed, is not offered, or failed as expected."""
        return self.outcome in ("passed", "not offered", "expected failure")


def all_checks() -> dict[str, Check]:
    """Every check by name, in the order in which they run. Imports torch."""
    found: dict[str, Check] = {}
    for home in HOMES:
        module = importlib.import_module(f"modelwright.testing.{home}")
        for name, function in vars(module).items():
            if name.startswith("check_") and getattr(function, "__module__", "") == module.__name__:
                promise = (function.__doc__ or "").strip().splitlines()[0]
                found[name.removeprefix("check_")] = Check(name.removeprefix("check_"), promise, function)
    return found


def refuse_unknown(names: Iterable[str], known: Iterable[str]) -> None:
    """Looks at names of checks that a user gave.

    Raises:
        ConfigError: one of them is no check.
    """
    known = list(known)
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no check '{name}'{did_you_mean(name, known)}; known: {', '.join(known)}")


def check_task(
    task: str | TaskEntry,
    *,
    expected_failures: Mapping[str, str] | None = None,
    only: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    limit: float = LIMIT,
    report: Callable[[CheckResult], None] = lambda result: None,
) -> list[CheckResult]:
    """Checks a task against the contract, on its embedded data, seeded, on the CPU.

    One check starts further processes: in a script, call this below ``if __name__ == "__main__":``.

    Args:
        task: a task's name, or its entry.
        expected_failures: check -> reason; such a check must fail, and then counts as good.
        only: names of the checks to run; all when left out.
        settings: on top of the task's recipe `kit`, where it has one: ``{"train.batch_size": 8}``.
        limit: seconds after which a check counts as failed.
        report: told of each result as it comes.

    Raises:
        ConfigError: an unknown check, or settings that the task does not take.
        PluginError: the task is not installed.
    """
    entry = discover().task(task) if isinstance(task, str) else task
    checks, expected = all_checks(), dict(expected_failures or {})
    refuse_unknown([*expected, *(only or [])], checks)
    subject = subject_of(entry, settings or {})
    results: list[CheckResult] = []
    for name in only or checks:
        results.append(run_check(checks[name], subject, expected.get(name), limit=limit))
        report(results[-1])
    return results


def subject_of(entry: TaskEntry, settings: Mapping[str, Any]) -> Subject:
    """A task made ready for checks. Imports torch.

    Raises:
        ConfigError: settings that the task does not take.
    """
    from modelwright.testing.subject import Subject

    subject = Subject(entry, settings)
    if settings:
        _ = subject.config  # the caller's mistake, not the task's
    return subject


def run_check(check: Check, subject: Subject, expected: str | None, *, limit: float = LIMIT) -> CheckResult:
    """Runs one check in a folder of its own; whatever it raises is its result."""
    began = time.perf_counter()
    outcome: Outcome = "passed"
    message = ""
    raised: BaseException | None = None
    try:
        with TemporaryDirectory(prefix="modelwright-check-") as folder, _within(limit):
            subject.folder = Path(folder)
            check.run(subject)
    except NotOffered as reason:
        outcome, message = "not offered", _line(reason)
    except Interrupted as error:  # Ctrl-C while the real trainer ran
        raise KeyboardInterrupt from error
    except BaseException as error:  # a plugin may raise anything, SystemExit too; that is what is being found out
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome, message, raised = "failed", _line(error), error
    if expected is not None and outcome == "failed":
        outcome, message = "expected failure", f"{expected} ({message})"
    elif expected is not None and outcome == "passed":
        outcome, message = "unexpected pass", f"it was expected to fail ({expected}) and holds: take it off the list"
    return CheckResult(check.name, outcome, message, time.perf_counter() - began, raised)


class _TooLong(BaseException):
    """A check runs too long. No Exception, so that no plugin catches it by accident."""


def _line(error: BaseException) -> str:
    """What is said of an error, as one line; errors that were made to be read need no name."""
    text = " ".join(str(error).split())
    if isinstance(error, (Failed, NotOffered, ModelwrightError, _TooLong)):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def _within(seconds: float) -> Generator[None]:
    """Ends what runs longer. Where no alarm can be set (another thread, Windows) nothing is limited."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise _TooLong(f"it did not end within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    left, every = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left, every)  # an alarm of somebody else's, as pytest-timeout's
