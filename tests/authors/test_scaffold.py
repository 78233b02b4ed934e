"""New plugins: what is written passes the contract and learns, and nothing that exists is touched."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import modelwright
from modelwright import cli
from modelwright.errors import ConfigError, RunError
from modelwright.plugins import Catalog, discover
from modelwright.scaffold import scaffold
from modelwright.scaffold.scaffold import KINDS, TEMPLATES, new_plugin

ROOT = Path(__file__).parents[2]
NOTHING = Catalog()
LONG = "forty-letters-are-as-many-as-a-name-has-"[:39] + "x"
MOST_LINES = 131
"""Of code in a package: without docstrings, comments, blank lines and imports."""

TRY = """
import importlib, json, sys
import modelwright as mw
from modelwright.plugins import discover
from modelwright.testing.kit import all_checks, check_task

name, out = sys.argv[1:]
importlib.invalidate_caches()
quick = [check for check in all_checks() if check != "ranks_agree"]  # starts two more processes
results = check_task(name, only=quick)
few = {"train.steps": 30, "data.samples": 90, "evaluate.resamples": 0, "observers": []}
run = mw.train(name, recipe="quick", settings=few, out=out, warn=lambda line: None)
print(json.dumps({
    "outcomes": {result.check: [result.outcome, result.message] for result in results},
    "offered": str(discover().providers[name]),
    "metrics": {metric: score.value for metric, score in run.metrics.items()},
    "losses": [event["loss"] for event in map(json.loads, open(f"{out}/metrics.jsonl")) if event["event"] == "step"],
}))
"""


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def install(project: Path) -> None:
    """As `pip install -e .` leaves it, with the metadata that the project's own pyproject.toml declares."""
    declared = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    about = project / f"{declared['name'].replace('-', '_')}-{declared['version']}.dist-info"
    about.mkdir()
    points = "".join(f"{key} = {value}\n" for key, value in declared["entry-points"]["modelwright"].items())
    (about / "entry_points.txt").write_text(f"[modelwright]\n{points}", encoding="utf-8")
    said = f"Metadata-Version: 2.1\nName: {declared['name']}\nVersion: {declared['version']}\n"
    (about / "METADATA").write_text(said, encoding="utf-8")


def child(*arguments: str, project: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(project), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def code_lines(package: Path) -> int:
    """Lines of code: no docstrings, comments, blank lines and imports."""
    count = 0
    for path in package.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        left_out: set[int] = set()
        for node in ast.walk(ast.parse(text)):
            lone = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if lone or isinstance(node, (ast.Import, ast.ImportFrom)):
                left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
        count += sum(1 for number, line in lines if line and not line.startswith("#") and number not in left_out)
    return count


# What is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_is_found_passes_the_contract_learns_and_passes_its_own_tests(kind, tmp_path):
    project = new_plugin("fresh-task", kind=kind, out=tmp_path).folder
    install(project)
    done = child("-c", TRY, "fresh-task", str(tmp_path / "run"), project=project)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["offered"] == "fresh-task 0.1.0"
    offered = {check: (outcome, why) for check, (outcome, why) in told["outcomes"].items() if outcome != "not offered"}
    assert {check: why for check, (outcome, why) in offered.items() if outcome != "passed"} == {}
    left_out = set(told["outcomes"]) - set(offered)
    assert left_out == (set() if kind == "detection" else {"nothing_to_find_is_a_sample"})
    assert told["losses"][-1] < told["losses"][0]
    assert told["metrics"]
    own = child("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_task.py", project=project)
    assert own.returncode == 0, own.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_is_short_and_the_house_has_its_shape(kind, tmp_path):
    project = new_plugin("fresh-task", kind=kind, out=tmp_path, catalog=NOTHING).folder
    assert code_lines(project / "fresh_task") <= MOST_LINES
    modules = ("__init__", "codec", "config", "data", "model", "task")
    assert files_in(project) == {
        *(f"fresh_task/{module}.py" for module in modules),
        *(f"fresh_task/recipes/{recipe}.yaml" for recipe in ("kit", "quick")),
        *(f"tests/test_{what}.py" for what in ("contract", "task")),
        *(".github/workflows/tests.yml", ".gitignore", "README.md", "pyproject.toml", "tox.ini"),
    }


@pytest.mark.parametrize("name", ["x", LONG])
@pytest.mark.parametrize("kind", KINDS)
def test_the_code_passes_ruff_with_our_settings_and_with_its_own_whatever_its_name(kind, name, tmp_path):
    ruff = shutil.which("ruff", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if ruff is None:
        pytest.skip("ruff is not installed here")
    project = new_plugin(name, kind=kind, out=tmp_path, catalog=NOTHING).folder
    ours = ["--config", str(ROOT / "pyproject.toml"), "--config", f"src = ['{project.as_posix()}']"]
    tests = ["--config", "lint.per-file-ignores = {'**/tests/**' = ['D']}"]
    for command in (["check", *ours, *tests], ["format", "--check", *ours], ["check"], ["format", "--check"]):
        done = subprocess.run(
            [ruff, *command, "--no-cache", "."], cwd=project, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_settings_and_workflow_can_be_read_and_nothing_of_the_templates_is_left(kind, tmp_path):
    project = new_plugin("fresh-task", kind=kind, out=tmp_path, catalog=NOTHING).folder
    declared = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    assert declared["project"]["name"] == "fresh-task"
    assert declared["project"]["entry-points"]["modelwright"] == {"fresh-task": "fresh_task"}
    assert declared["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["fresh_task"]
    (requirement,) = map(Requirement, declared["project"]["dependencies"])
    assert requirement.name == "modelwright"
    assert requirement.specifier.contains(modelwright.__version__)
    assert not requirement.specifier.contains("99.0")
    house = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert declared["project"]["requires-python"] == house["requires-python"]
    workflow = yaml.safe_load((project / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    assert "${{ matrix.env }}" in workflow["jobs"]["tests"]["steps"][-1]["run"]
    for path in project.rglob("*.*"):
        if path.is_file() and path.suffix != ".yml":
            text = path.read_text(encoding="utf-8")
            assert "{{" not in text, path
            assert "{%" not in text, path
            assert text.endswith("\n"), path
            assert not text.endswith("\n\n"), path


@pytest.mark.parametrize(("version", "wanted"), [("0.3.1", ">=0.3,<0.4"), ("1.3.0rc1", ">=1.3,<2")])
def test_the_requirement_ends_before_the_version_that_may_break(version, wanted, monkeypatch, tmp_path):
    monkeypatch.setattr(scaffold, "__version__", version)
    project = new_plugin("fresh-task", out=tmp_path, catalog=NOTHING).folder
    declared = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    assert declared["project"]["dependencies"] == [f"modelwright{wanted}"]


def test_every_kind_has_templates_and_no_template_would_be_taken_for_code():
    assert {path.name for path in TEMPLATES.iterdir()} == {"common", *KINDS}
    assert {path.suffix for path in TEMPLATES.rglob("*") if path.is_file()} == {".jinja"}


# The command ------------------------------------------------------------------------------------------------------


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["modelwright", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


def test_the_command_ends_with_what_to_do_next(monkeypatch, tmp_path, capsys):
    assert run_command(monkeypatch, "new-plugin", "fresh-task", "--kind", "tabular", "--out", str(tmp_path)) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith(f"{tmp_path / 'fresh-task'}: a tabular task")
    assert lines[-6:-1] == [
        f"cd {tmp_path / 'fresh-task'}",
        "pip install -e .",
        "modelwright tasks",
        "modelwright check fresh-task",
        "modelwright train fresh-task --recipe quick",
    ]
    assert lines[-1].startswith("pip install tox && ")
    assert lines[-1].endswith("tox")


def test_without_out_the_project_lies_in_the_current_folder(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_command(monkeypatch, "new-plugin", "fresh-task") == 0
    assert "cd fresh-task\n" in capsys.readouterr().out
    assert (tmp_path / "fresh-task" / "pyproject.toml").is_file()


def test_the_help_names_every_kind(monkeypatch, capsys):
    assert run_command(monkeypatch, "new-plugin", "--help") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(kind in said for kind in KINDS)


class Installed:
    """A distribution with a given direct_url.json."""

    def __init__(self, origin: dict[str, Any] | None) -> None:
        self._origin = origin

    def read_text(self, name: str) -> str | None:
        return None if self._origin is None else json.dumps(self._origin)


@pytest.mark.parametrize(
    ("origin", "last"),
    [
        (None, "pip install tox && tox"),
        ({"url": "file:///some%20place", "dir_info": {}}, 'pip install tox && MODELWRIGHT="/some place" tox'),
        (
            {"url": "https://host/it.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            'pip install tox && MODELWRIGHT="git+https://host/it.git@abc" tox',
        ),
        ({"url": "https://host/it.whl"}, 'pip install tox && MODELWRIGHT="https://host/it.whl" tox'),
    ],
)
def test_tox_is_told_where_modelwright_came_from(origin, last, monkeypatch, tmp_path):
    real = scaffold.distribution
    told = Installed(origin)
    monkeypatch.setattr(scaffold, "distribution", lambda name: told if name == "modelwright" else real(name))
    project = new_plugin("fresh-task", out=tmp_path / "a place", catalog=NOTHING)
    assert project.next_steps[-1] == last
    assert project.next_steps[0] == f'cd "{tmp_path / "a place" / "fresh-task"}"'


def test_a_modelwright_that_was_never_installed_has_no_source(monkeypatch, tmp_path):
    def lost(name: str) -> Any:
        raise scaffold.PackageNotFoundError(name)

    monkeypatch.setattr(scaffold, "distribution", lost)
    assert new_plugin("fresh-task", out=tmp_path, catalog=NOTHING).source == ""


# Bad input --------------------------------------------------------------------------------------------------------

BAD_NAMES = [
    ("My_Task", "write lowercase words joined by hyphens"),
    ("2-fast", "write lowercase words joined by hyphens"),
    ("a--b", "write lowercase words joined by hyphens"),
    ("../away", "write lowercase words joined by hyphens"),
    ("", "write lowercase words joined by hyphens"),
    (LONG + "x", "at most 40"),
    ("lambda", "a word of Python's own"),
    ("tests", "a part of every plugin"),
    ("model", "a part of every plugin"),
    ("json", "Python's standard library"),
    ("numpy", "the installed module numpy"),
    ("modelwright", "the installed module modelwright"),
]


@pytest.mark.parametrize(("name", "why"), BAD_NAMES)
def test_a_name_that_cannot_be_used_is_refused(name, why, tmp_path):
    with pytest.raises(ConfigError, match=why):
        new_plugin(name, out=tmp_path, catalog=NOTHING)
    assert list(tmp_path.iterdir()) == []


def test_a_task_that_is_installed_keeps_its_name(toys, tmp_path):
    with pytest.raises(ConfigError, match="task 'toy' is already offered by toy; choose another name"):
        new_plugin("toy", out=tmp_path, catalog=toys)


def test_a_task_name_that_two_distributions_fight_for_is_taken_too(toys, tmp_path):
    fought = Catalog(conflicts={"toy": (toys.providers["toy"], toys.providers["toy"])})
    with pytest.raises(ConfigError, match="task 'toy' is already offered"):
        new_plugin("toy", out=tmp_path, catalog=fought)


def test_what_is_installed_is_looked_up(monkeypatch, toys, tmp_path):
    monkeypatch.setattr(scaffold, "discover", lambda: toys)
    with pytest.raises(ConfigError, match="already offered"):
        new_plugin("toy", out=tmp_path)
    assert "toy" not in discover([]).tasks


def test_a_distribution_whose_module_has_another_name_would_be_replaced(tmp_path):
    with pytest.raises(ConfigError, match=r"would replace (?i:pyyaml) \d"):
        new_plugin("pyyaml", out=tmp_path, catalog=NOTHING)  # its module is called yaml


def test_an_unknown_kind_names_the_nearest(monkeypatch, tmp_path, capsys):
    assert run_command(monkeypatch, "new-plugin", "fresh-task", "--kind", "tabula", "--out", str(tmp_path)) == 1
    told = capsys.readouterr()
    assert told.err.startswith("modelwright: there is no kind 'tabula' (did you mean 'tabular'?); kinds: ")
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["folder", "file", "dangling link"])
def test_what_is_there_already_is_never_overwritten(what, tmp_path):
    target = tmp_path / "fresh-task"
    if what == "folder":
        target.mkdir()
    elif what == "file":
        target.write_text("mine", encoding="utf-8")
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunError, match="exists already and is not overwritten"):
        new_plugin("fresh-task", out=tmp_path, catalog=NOTHING)
    assert [path.name for path in tmp_path.iterdir()] == ["fresh-task"]


def test_a_parent_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match=r"cannot be written: .*; choose another --out"):
        new_plugin("fresh-task", out=tmp_path / "file", catalog=NOTHING)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("trouble", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("parents", ["there", "new/ones"])
def test_trouble_half_way_leaves_nothing_behind(trouble, parents, monkeypatch, tmp_path):
    (tmp_path / "there").mkdir()
    write, written = Path.write_text, list[Path]()

    def stop_at_the_fifth(path: Path, *arguments: Any, **further: Any) -> int:
        written.append(path)
        if len(written) == 5:
            raise trouble
        return write(path, *arguments, **further)

    monkeypatch.setattr(Path, "write_text", stop_at_the_fifth)
    with pytest.raises(RunError if isinstance(trouble, OSError) else KeyboardInterrupt):
        new_plugin("fresh-task", out=tmp_path / parents, catalog=NOTHING)
    assert len(written) == 5
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
