"""The contract kit for pytest: one test per check. Knows pytest; the checks know nothing of it.

A plugin's conformance tests in one line, and one fixture::

    import pytest
    from modelwright.testing.suite import *

    @pytest.fixture
    def task():
        return "my-task"          # or a TaskEntry

A fixture `expected_failures` may give {check: reason}, a fixture `settings` what is set on top of the recipe `kit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from modelwright.errors import ConfigError, did_you_mean
from modelwright.hookspecs import TaskEntry
from modelwright.plugins import discover
from modelwright.testing.kit import Check, Failed, all_checks, refuse_unknown, run_check, subject_of
from modelwright.testing.subject import Subject

__all__ = ["checked_subject", "expected_failures", "settings", "subjects", "test_contract"]


class Subjects:
    """Tasks made ready for checks; the last one is kept, since making its data may take long."""

    def __init__(self) -> None:
        self._last: tuple[tuple[str | TaskEntry, dict[str, Any]], Subject] | None = None

    def __call__(self, task: str | TaskEntry, settings: Mapping[str, Any]) -> Subject:
        """The task with these settings.

        Raises:
            PluginError: the task is not installed.
            ConfigError: settings that the task does not take.
        """
        wanted = (task, dict(settings))
        if self._last is None or self._last[0] != wanted:
            self._last = None
            entry = discover().task(task) if isinstance(task, str) else task
            self._last = (wanted, subject_of(entry, settings))
        return self._last[1]


@pytest.fixture
def expected_failures() -> Mapping[str, str]:
    """No check is expected to fail, unless the author says so."""
    return {}


@pytest.fixture
def settings() -> Mapping[str, Any]:
    """Nothing is set on top of the recipe `kit`, unless the author says so."""
    return {}


@pytest.fixture(scope="module")
def subjects() -> Subjects:
    """Keeps the author's task over all checks, whatever the scope of the author's fixtures."""
    return Subjects()


@pytest.fixture
def checked_subject(task: str | TaskEntry, settings: Mapping[str, Any], subjects: Subjects) -> Subject:
    """The author's task, made ready."""
    return subjects(task, settings)


@pytest.mark.parametrize("check", list(all_checks().values()), ids=list(all_checks()))
def test_contract(check: Check, checked_subject: Subject, expected_failures: Mapping[str, str]) -> None:
    """One promise of the contract."""
    __tracebackhide__ = True
    refuse_unknown(expected_failures, all_checks())
    _run(check, checked_subject, expected_failures.get(check.name))


class TaskCheck:
    """A check to be called with a task, as `parametrize_with_checks` hands it to a test."""

    def __init__(self, check: Check, subjects: Subjects, settings: Mapping[str, Any], expected: str | None) -> None:
        self.name, self.promise = check.name, check.promise
        self._check, self._subjects, self._settings, self._expected = check, subjects, settings, expected

    def __call__(self, task: str | TaskEntry) -> None:
        """Runs the check; skips where it is not offered, is an expected failure where the author said so.

        Raises:
            Failed: it does not hold, or holds against expectation.
            PluginError: the task is not installed.
            ConfigError: settings that the task does not take.
        """
        __tracebackhide__ = True
        _run(self._check, self._subjects(task, self._settings), self._expected)


def parametrize_with_checks(
    tasks: Sequence[str | TaskEntry],
    *,
    expected_failures: Mapping[str, Mapping[str, str]] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorates a test with one case per task and check, named as in ``my-task-loss_is_finite``.

    ::

        @parametrize_with_checks(["my-task", "my-other-task"])
        def test_contract(task, check):
            check(task)

    Args:
        tasks: names of installed tasks, or their entries.
        expected_failures: task -> check -> reason; such a check must fail.
        settings: on top of each task's recipe `kit`.

    Raises:
        ConfigError: an expected failure of something that is no check, or of none of these tasks.
    """
    checks, expected, ready = all_checks(), expected_failures or {}, Subjects()
    names = [task if isinstance(task, str) else task.name for task in tasks]
    for name, reasons in expected.items():
        if name not in names:
            raise ConfigError(f"expected_failures names the task '{name}'{did_you_mean(name, names)}, tasks does not")
        refuse_unknown(reasons, checks)
    cases = [
        pytest.param(
            task,
            TaskCheck(check, ready, settings or {}, expected.get(name, {}).get(check.name)),
            id=f"{name}-{check.name}",
        )
        for name, task in zip(names, tasks, strict=True)
        for check in checks.values()
    ]
    return pytest.mark.parametrize(("task", "check"), cases)


def _run(check: Check, subject: Subject, expected: str | None) -> None:
    """A check's outcome as pytest's."""
    __tracebackhide__ = True
    result = run_check(check, subject, expected)
    if result.outcome == "not offered":
        pytest.skip(result.message)
    if result.outcome == "expected failure":
        pytest.xfail(result.message)
    if not result.good:
        raise Failed(f"{check.promise} {result.message}") from result.error
