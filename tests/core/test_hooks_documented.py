"""Every hook is documented: by its docstring, an example that runs, a page for authors, and a test that uses it."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from modelwright import hookspecs
from modelwright.hookspecs import PROJECT

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / name for name in ("writing-a-plugin.md", "how-do-i.md")]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
HOOKS: dict[str, Any] = {name: value for name, value in vars(hookspecs).items() if hasattr(value, f"{PROJECT}_spec")}


def implementations(name: str, files: list[Path]) -> list[Path]:
    """The files that implement a hook: its function, marked by `hookimpl`."""
    pattern = re.compile(rf"@hookimpl\b[^\n]*\n\s*def {name}\(")
    return [file for file in files if pattern.search(file.read_text(encoding="utf-8"))]


def test_every_public_name_of_a_hook_is_a_marked_hook() -> None:
    assert {name for name in vars(hookspecs) if name.startswith(f"{PROJECT}_")} == set(HOOKS)
    assert {"modelwright_tasks", "modelwright_observers"} <= set(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_its_docstring_says_what_it_is_for(name: str) -> None:
    first, *_ = (inspect.getdoc(HOOKS[name]) or "").splitlines() or [""]
    assert len(first) > 20
    assert first.endswith(".")


@pytest.mark.parametrize("name", HOOKS)
def test_its_example_implements_it_and_runs(name: str) -> None:
    (example,) = doctest.DocTestFinder().find(HOOKS[name], globs=dict(vars(hookspecs)))
    assert any(f"def {name}(" in each.source for each in example.examples)
    assert any(f"{name}()" in each.source and each.want for each in example.examples)
    assert doctest.DocTestRunner().run(example).failed == 0


@pytest.mark.parametrize("name", HOOKS)
def test_a_page_for_authors_shows_an_implementation(name: str) -> None:
    assert implementations(name, PAGES), f"show {name} in docs/writing-a-plugin.md or docs/how-do-i.md"


@pytest.mark.parametrize("name", HOOKS)
def test_an_outsider_and_a_test_implement_it(name: str) -> None:
    outside = [file for file in implementations(name, TESTS) if "modelwright-toy" in file.parts]
    inside = [file for file in implementations(name, TESTS) if file.name.startswith(("test_", "conftest"))]
    assert outside, f"{name} is not used by tests/third_party/modelwright-toy"
    assert inside, f"no test implements {name}"
