"""Each hook says what it is for, and its example runs."""

from __future__ import annotations

import doctest
import inspect

import pytest

from modelwright import hookspecs
from modelwright.hookspecs import PROJECT, CompressorEntry, ExporterEntry, ObserverEntry, TaskEntry
from modelwright.testing.toy import TOY

HOOKS = [value for name, value in vars(hookspecs).items() if name.startswith("modelwright_")]


def test_there_are_hooks_and_each_is_marked() -> None:
    assert {hook.__name__ for hook in HOOKS} >= {"modelwright_tasks", "modelwright_observers"}
    assert all(hasattr(hook, f"{PROJECT}_spec") for hook in HOOKS)


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
def test_a_hook_has_an_example_that_runs(hook: object) -> None:
    assert inspect.getdoc(hook)
    (example,) = doctest.DocTestFinder().find(hook, globs=dict(vars(hookspecs)))
    assert len(example.examples) >= 2
    assert doctest.DocTestRunner().run(example).failed == 0


@pytest.mark.parametrize("record", [TaskEntry, ObserverEntry, CompressorEntry, ExporterEntry])
def test_a_record_documents_each_of_its_fields(record: type) -> None:
    documented = inspect.getdoc(record) or ""
    assert [name for name in record.__annotations__ if f"    {name}: " not in documented] == []


def test_a_record_does_not_change() -> None:
    with pytest.raises(AttributeError):
        TOY.name = "other"  # type: ignore[misc]
