"""The exception tree is the one that its module shows, and hints name the nearest known name."""

from __future__ import annotations

import inspect
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright import errors
from modelwright.errors import ModelwrightError, did_you_mean

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ModelwrightError)]


def shown_tree() -> dict[str, str]:
    """Name -> name of the base, read from the tree in the module's docstring."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    (\W*)(\w+)  ", line):
            depth = len(match[1]) // 4
            above[depth:] = [match[2]]
            found[match[2]] = above[depth - 1] if depth else "Exception"
    return found


def test_the_docstring_shows_the_whole_tree() -> None:
    assert shown_tree() == {kind.__name__: kind.__bases__[0].__name__ for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_of_an_error_is_what_it_was_made_with(kind: type[ModelwrightError]) -> None:
    assert str(kind("who: what; what next")) == "who: what; what next"


def test_a_hint_names_the_nearest_name() -> None:
    assert did_you_mean("adamw", ["Adam", "adamW", "SGD"]) == " (did you mean 'adamW'?)"


def test_nothing_near_gives_no_hint() -> None:
    assert did_you_mean("epochs", ["seed", "observers"]) == ""
    assert did_you_mean("epochs", []) == ""


@given(st.text(min_size=1), st.lists(st.text(min_size=1)))
def test_a_known_name_is_its_own_nearest(name: str, others: list[str]) -> None:
    assert did_you_mean(name, [*others, name]) == f" (did you mean '{name}'?)"
