"""The rules of the house, read from the sources: who imports whom, what is cheap to import, how long a module is."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core" / "modelwright"
PLUGINS = sorted(path.parent for path in (ROOT / "plugins").glob("*/__init__.py"))
NAMES = {plugin.name for plugin in PLUGINS}
MODULES = sorted(path for package in [CORE, *PLUGINS] for path in package.rglob("*.py"))
LONGEST = 400


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def packages_imported(path: Path) -> set[str]:
    """The top packages that a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
    return found


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each string that is no docstring."""
    module = tree(path)
    lone = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in lone:
            yield node.lineno, node.value


def task_names() -> set[str]:
    """The names that the plugins of this house give their tasks."""
    found: set[str] = set()
    for plugin in PLUGINS:
        for node in ast.walk(tree(plugin / "__init__.py")):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "TaskEntry"
            if called and isinstance(node.args[0], ast.Constant):
                found.add(str(node.args[0].value))
    return found


def test_there_is_something_to_read():
    assert len(MODULES) > 20
    assert "image-classification" in task_names()


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_the_core_imports_no_plugin_and_plugins_never_import_each_other(path):
    own = {plugin.name for plugin in PLUGINS if plugin in path.parents}
    assert packages_imported(path) & (NAMES - own) == set()


def test_the_core_names_no_task_and_no_plugin():
    named = [
        f"{short(path)}:{line}: {text!r}"
        for path in sorted(CORE.rglob("*.py"))
        for line, text in strings(path)
        for name in task_names() | NAMES
        if name in text
    ]
    assert named == []


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_a_module_opens_with_what_it_knows_and_stays_short(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "a module opens with a docstring: what it knows and what it does not"
    assert len(text.splitlines()) <= LONGEST


SERVES = ["runtime", "predicting", "timing", "codecs", "card"]
CHEAP = ["modelwright", "modelwright.cli", "modelwright.codec", "modelwright.config", "modelwright.doctor"]
CHEAP += [f"modelwright.bundle.{name}" for name in SERVES]


@pytest.mark.parametrize("module", [*CHEAP, *sorted(NAMES), *sorted(f"{name}.codec" for name in NAMES)])
def test_no_torch_comes_in_with(module):
    if module.endswith(".codec") and None in map(importlib.util.find_spec, ("PIL", "soundfile")):
        pytest.skip("a codec may need what its plugin's extra installs")
    code = f"import sys, {module}; print(*sorted({{'torch', 'torchvision', 'torchaudio'}} & set(sys.modules)))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    assert child.stdout.strip() == ""
