"""The command line as a user and a script meet it: what is printed where, exit codes, files.

The toy task is offered by a distribution in a folder of the import path, seen as any installed one is.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import modelwright as mw
from modelwright.cli import main
from modelwright.config import read_yaml
from modelwright.doctor import Finding
from modelwright.plugins import Catalog
from modelwright.testing.toy import ToyConfig
from tests.core.installed import install
from tests.core.test_resume import assert_same

TOY_PLUGIN = '''
import os
import signal
from dataclasses import replace
from pathlib import Path

from modelwright.events import StepDone
from modelwright.hookspecs import ObserverEntry, hookimpl
from modelwright.testing.toy import TOY


def press(event, *, times):
    """Ctrl-C at step 7."""
    if isinstance(event, StepDone) and event.step == 7:
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)


@hookimpl
def modelwright_tasks():
    yield replace(TOY, recipes=Path(__file__).parent / "recipes")
    yield replace(TOY, name="toy-needy", requires=("surely_not_here",), extra="needy")


@hookimpl
def modelwright_observers():
    yield ObserverEntry("ctrl-c", "once", build=lambda folder: lambda event: press(event, times=1))
    yield ObserverEntry("ctrl-c-twice", "twice", build=lambda folder: lambda event: press(event, times=2))
'''
CHEAP_PLUGIN = """
from modelwright.config import TaskConfig
from modelwright.hookspecs import TaskEntry, hookimpl


@hookimpl
def modelwright_tasks():
    yield TaskEntry("cheap", "imports nothing", config=TaskConfig, build=lambda config: None)
"""
TINY = ("observers=[]", "evaluate.resamples=10", "train.epochs=1", "data.samples=60")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the distribution of the toy task."""
    site = tmp_path_factory.mktemp("installed") / "site"
    install(site, "toybox", TOY_PLUGIN)
    (site / "recipes").mkdir()
    (site / "recipes" / "quick.yaml").write_text("\n".join(f"{each.replace('=', ': ')}" for each in TINY))
    return site


@dataclass
class Told:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line on stderr."""
        (line,) = self.err.splitlines()
        return line

    @property
    def object(self) -> Any:
        """The one JSON object on stdout."""
        (line,) = self.out.splitlines()
        return json.loads(line)


class Command:
    """`modelwright ARGUMENTS` in this process, in an empty folder, with the toy task installed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str | Path) -> Told:
        self._monkeypatch.setattr(sys, "argv", ["modelwright", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        said = self._capsys.readouterr()
        return Told(int(left.value.code or 0), said.out, said.err)

    def fails(self, *arguments: str | Path) -> str:
        """The one line that a user's error leaves."""
        told = self(*arguments)
        assert (told.code, told.out) == (1, "")
        assert told.error.startswith("modelwright: ")
        return told.error.removeprefix("modelwright: ")

    def refuses(self, *arguments: str | Path) -> str:
        """What wrong usage leaves."""
        told = self(*arguments)
        assert (told.code, told.out) == (2, "")
        return told.err


@pytest.fixture
def command(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    yield Command(monkeypatch, capsys)
    sys.modules.pop("modelwright_toybox", None)
    importlib.invalidate_caches()


@pytest.fixture(scope="session")
def finished(toys: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, as `modelwright train toy` with these settings leaves it; not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return mw.train("toy", out=out, catalog=toys, settings=TINY, warn=lambda message: None).folder


@pytest.fixture
def run(command: Command, finished: Path, tmp_path: Path) -> Path:
    """A finished run in the current folder."""
    return shutil.copytree(finished, tmp_path / "run")


def child(site: Path, *arguments: str | Path, cwd: Path, **further: Any) -> subprocess.Popen[str]:
    """`modelwright ARGUMENTS` in a process of its own."""
    line = [sys.executable, "-m", "modelwright", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(line, env=environment, cwd=cwd, text=True, **pipes, **further)


# Usage


def test_help_tells_every_command(command: Command) -> None:
    for flag in ("--help", "-h"):
        told = command(flag)
        assert (told.code, told.err) == (0, "")
        for name in ("tasks", "config", "train", "resume", "evaluate", "report", "demo", "doctor"):
            assert name in told.out


@pytest.mark.parametrize("name", ["tasks", "config", "train", "resume", "evaluate", "report", "demo", "doctor"])
def test_each_command_explains_itself(command: Command, name: str) -> None:
    told = command(name, "--help")
    assert (told.code, told.err) == (0, "")
    assert told.out.startswith(f"Usage: modelwright {name}")


def test_nothing_is_wrong_usage_and_shows_the_help(command: Command) -> None:
    told = command()
    assert told.code == 2
    assert "Usage: modelwright" in told.out + told.err


def test_the_version(command: Command) -> None:
    assert command("--version").out == f"modelwright {mw.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "No such command 'trian'"),
        (["train"], "Missing argument 'TASK'"),
        (["train", "toy", "--epochs", "3"], "No such option"),
        (["resume"], "Missing argument 'RUN'"),
        (["evaluate", "run", "--split", "nonsense"], "'nonsense' is not one of 'train', 'valid', 'test'"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_is_wrong(command: Command, arguments: list[str], said: str) -> None:
    assert said in command.refuses(*arguments)


# Tasks and settings


def test_tasks_lists_what_is_installed_and_what_each_lacks(command: Command) -> None:
    told = command("tasks")
    assert (told.code, told.err) == (0, "")
    (line,) = [line for line in told.out.splitlines() if line.startswith(" toy ")]
    assert "say which spiral a point lies on" in line
    assert "quick" in line
    assert "modelwright-toybox 1.2" in line
    (needy,) = [line for line in told.out.splitlines() if line.startswith(" toy-needy ")]
    assert 'needs surely_not_here: pip install "modelwright-toybox[needy]"' in needy


def test_tasks_as_json(command: Command, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "more", "broken", "import surely_not_here\n")
    install(tmp_path / "more", "twin", TOY_PLUGIN)
    monkeypatch.syspath_prepend(tmp_path / "more")
    told = command("tasks", "--json")
    sys.modules.pop("modelwright_twin", None)
    assert (told.code, told.err) == (0, "")
    assert list(told.object) == ["tasks", "failures", "conflicts"]
    (failure,) = [each for each in told.object["failures"] if each["plugin"] == "broken"]
    assert failure == {
        "plugin": "broken",
        "distribution": "modelwright-broken",
        "error": "ModuleNotFoundError: No module named 'surely_not_here'",
        "mend": "mend or remove it: pip install --upgrade modelwright-broken, or pip uninstall modelwright-broken",
    }
    assert sorted(told.object["conflicts"]["toy"]) == ["modelwright-toybox 1.2", "modelwright-twin 1.2"]
    shown = command("tasks").out
    assert "failed: plugin 'broken' of modelwright-broken: ModuleNotFoundError" in shown
    assert "conflict: task 'toy' is offered by" in shown


def test_a_task_in_json(command: Command) -> None:
    rows = {row["task"]: row for row in command("tasks", "--json").object["tasks"]}
    assert rows["toy"] == {
        "task": "toy",
        "summary": "say which spiral a point lies on",
        "provider": "modelwright-toybox 1.2",
        "recipes": ["quick"],
        "missing": [],
        "install": None,
    }
    assert rows["toy-needy"]["missing"] == ["surely_not_here"]
    assert rows["toy-needy"]["install"] == 'pip install "modelwright-toybox[needy]"'


def test_with_nothing_installed_tasks_says_what_to_install(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelwright.plugins.discover", Catalog)
    assert command("tasks").out == 'no task is installed; install one: pip install "modelwright[all]"\n'
    assert command.fails("demo").startswith("no task with a demo is installed; install one: pip install")


def test_config_shows_all_settings_and_can_be_fed_back(command: Command, tmp_path: Path) -> None:
    told = command("config", "toy", "train.optimizer.lr=1e-4", "data.path='a: b'")
    assert (told.code, told.err) == (0, "")
    assert told.out.startswith("# toy: say which spiral a point lies on\n")
    assert "    # Peak learning rate.\n    lr: 0.0001\n" in told.out
    shown = ToyConfig.model_validate(yaml.safe_load(told.out))
    assert (shown.train.optimizer.lr, shown.data.path, shown.model.hidden) == (1e-4, "a: b", 32)
    (tmp_path / "mine.yaml").write_text(told.out)
    assert command("config", "toy", "-c", "mine.yaml").out == told.out
    over = command("config", "toy", "-c", "mine.yaml", "seed=9", "train.optimizer.lr=0.5").out
    assert over == told.out.replace("seed: 0", "seed: 9").replace("lr: 0.0001", "lr: 0.5")


def test_config_takes_a_recipe_below_the_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("train: {epochs: 5}")
    told = command("config", "toy", "--recipe", "quick", "--config", "mine.yaml")
    found = yaml.safe_load(told.out)
    assert (found["train"]["epochs"], found["data"]["samples"]) == (5, 60)


@pytest.mark.parametrize("verb", ["config", "train"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tyo"], "no task 'tyo' is installed (did you mean 'toy'?); installed: "),
        (["toy", "train.epoch=3"], "unknown setting train.epoch (did you mean 'epochs'?)"),
        (["toy", "train.epochs=0"], "train.epochs: input should be greater than or equal to 1, got 0"),
        (["toy", "epochs"], "'epochs' is no setting: write key=value, for example train.epochs=20"),
        (["toy", "--recipe", "quik"], "toy has no recipe 'quik' (did you mean 'quick'?); it has: quick"),
        (["toy", "-c", "gone.yaml"], "gone.yaml could not be read: No such file or directory"),
        (["toy", "-c", "."], ". could not be read: Is a directory"),
        (["toy-needy"], "toy-needy could not load: no module named surely_not_here. Install it: pip install"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_1(
    command: Command, verb: str, arguments: list[str], said: str, tmp_path: Path
) -> None:
    assert command.fails(verb, *arguments).startswith(said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--debug", "config", "toy", "x=1"], ["config", "toy", "x=1", "--debug"]])
def test_debug_shows_the_traceback(command: Command, arguments: list[str]) -> None:
    told = command(*arguments)
    assert told.code == 1
    assert told.err.startswith("Traceback (most recent call last)")
    assert "ConfigError: unknown setting x" in told.err.splitlines()[-1]


# A run


def test_train_prints_the_results_and_its_folder_last(command: Command, tmp_path: Path) -> None:
    told = command("train", "toy", "--out", "deep/run", *TINY)
    assert told.code == 0
    lines = told.out.splitlines()
    assert lines[-1] == "deep/run"
    assert lines[-2] == "report: deep/run/report.html"
    assert [line.split()[:3] for line in lines if "accuracy" in line] == [
        ["accuracy", "valid", "20"],
        ["accuracy", "test", "20"],
    ]
    assert "toy: 1 steps, 1 epochs" in told.err  # progress, as plain lines
    assert "\x1b" not in told.out + told.err
    files = {path.name for path in (tmp_path / "deep" / "run").iterdir()}
    assert files >= {"config.yaml", "environment.json", "metrics.jsonl", "results.json", "report.html", "checkpoints"}
    environment = json.loads((tmp_path / "deep" / "run" / "environment.json").read_text())
    assert environment["command"].startswith("modelwright train toy --out deep/run 'observers=[]'")


def test_without_out_the_folder_is_named_by_the_task(command: Command, tmp_path: Path) -> None:
    told = command("train", "toy", "--recipe", "quick")
    folder = Path(told.out.splitlines()[-1])
    assert folder.parent == Path("runs")
    assert folder.name.startswith("toy-")
    assert (tmp_path / folder / "report.html").exists()


def test_a_run_can_be_repeated_from_its_settings(command: Command, run: Path) -> None:
    assert command("train", "toy", "-c", run / "config.yaml", "--out", "again").code == 0
    assert read_yaml(run.parent / "again" / "config.yaml") == read_yaml(run / "config.yaml")
    results = [json.loads((folder / "results.json").read_text()) for folder in (run, run.parent / "again")]
    assert results[0]["evaluations"] == results[1]["evaluations"]


def test_an_existing_run_is_replaced_only_with_overwrite(command: Command, run: Path) -> None:
    (run / "mark").write_text("")
    assert command.fails("train", "toy", "--out", run, *TINY) == (
        f"{run} exists already; choose another --out, or add --overwrite"
    )
    assert (run / "mark").exists()
    assert command("train", "toy", "--out", run, "--overwrite", *TINY).code == 0
    assert not (run / "mark").exists()


def test_a_folder_that_is_no_run_is_never_deleted(command: Command, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_text("mine")
    assert command.fails("train", "toy", "--out", photos, "--overwrite", *TINY) == (
        f"{photos} is no run folder and is not overwritten; choose another --out"
    )
    assert (photos / "a.jpg").read_text() == "mine"


def test_evaluate_prints_a_table_or_one_object(command: Command, run: Path) -> None:
    told = command("evaluate", run)
    assert (told.code, told.err) == (0, "")
    (line,) = [line for line in told.out.splitlines() if "accuracy" in line]
    assert line.split()[1:3] == ["test", "20"]
    told = command("evaluate", run, "--split", "valid", "--json")
    assert (told.code, told.err) == (0, "")
    found = told.object
    assert list(found) == ["task", "split", "samples", "metrics"]
    assert (found["task"], found["split"], found["samples"]) == ("toy", "valid", 20)
    assert list(found["metrics"]["accuracy"]) == ["value", "low", "high"]
    assert command("evaluate", run, "--split", "train", "--json").object["samples"] == 60


@pytest.mark.parametrize("verb", ["evaluate", "resume", "report"])
def test_what_is_no_run_is_told(command: Command, tmp_path: Path, verb: str) -> None:
    assert "no run folder" in command.fails(verb, "gone")
    (tmp_path / "empty").mkdir()
    assert "empty" in command.fails(verb, "empty")
    (tmp_path / "file").write_text("")
    assert "file" in command.fails(verb, "file")


def test_report_is_written_again(command: Command, run: Path) -> None:
    (run / "report.html").unlink()
    told = command("report", run)
    assert (told.code, told.out, told.err) == (0, f"{run / 'report.html'}\n", "")
    assert (run / "report.html").exists()


def test_demo_trains_one_task_with_its_recipe_quick(command: Command, tmp_path: Path) -> None:
    told = command("demo", "toy", "--out", "demos")
    assert told.code == 0
    assert told.out.splitlines()[0] == "toy: say which spiral a point lies on"
    assert "demos/toy" in told.out.splitlines()
    assert told.out.splitlines()[-2] == "bundle: demos/toy/bundle"
    assert (tmp_path / "demos" / "toy" / "report.html").exists()
    assert (tmp_path / "demos" / "toy" / "bundle" / "model.onnx").exists()
    again = command("demo", "toy", "--out", "demos")
    assert again.code == 1
    assert "add --overwrite" in again.error


def test_demo_of_a_task_without_one_says_what_to_try(
    command: Command, toys: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelwright.plugins.discover", lambda: toys)
    assert command.fails("demo", "toy") == "toy has no demo (no recipe 'quick'); try: modelwright train toy"
    assert command.fails("demo", "tyo").startswith("no task 'tyo' is installed (did you mean 'toy'?)")


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("broken", 1)])
def test_doctor_exits_with_1_where_something_is_broken(
    command: Command, monkeypatch: pytest.MonkeyPatch, status: Any, code: int
) -> None:
    found = Finding(status, "torch", "2.14.1", "pip install torch")
    monkeypatch.setattr("modelwright.doctor.diagnose", lambda: [found])
    told = command("doctor", "--json")
    assert told.code == code
    row = {"status": status, "what": "torch", "detail": "2.14.1", "mend": "pip install torch"}
    assert told.object == {"ok": code == 0, "findings": [row]}
    told = command("doctor")
    assert told.code == code
    assert "mend: pip install torch" in told.out


# Processes


def test_what_needs_no_torch_imports_none(tmp_path: Path) -> None:
    install(tmp_path / "site", "cheap", CHEAP_PLUGIN)
    code = (
        "import sys\n"
        "from modelwright.cli import main\n"
        "for line in sys.stdin.read().splitlines():\n"
        "    sys.argv = ['modelwright', *line.split()]\n"
        "    try: main()\n"
        "    except SystemExit as left: print('>', line, left.code, 'torch' in sys.modules)\n"
    )
    # The last three fail, and are to fail quickly.
    lines = ["--help", "tasks", "config cheap", "train cheap x=1", "resume gone", "report gone"]
    told = subprocess.run(
        [sys.executable, "-c", code],
        input="\n".join(lines),
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    found = [line.removeprefix("> ") for line in told.stdout.splitlines() if line.startswith("> ")]
    assert found == [f"{line} {code} False" for line, code in zip(lines, [0, 0, 0, 1, 1, 1], strict=True)]


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    install(tmp_path / "site", "cheap", CHEAP_PLUGIN)
    process = child(tmp_path / "site", "config", "cheap", cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait() == 1


@pytest.mark.once
def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(command: Command, site: Path, tmp_path: Path) -> None:
    settings = [*TINY, "observers=[ctrl-c]", "train.log_every=1", "train.epochs=12"]
    process = child(site, "train", "toy", "--out", "run", *settings, cwd=tmp_path)
    out, err = process.communicate()
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    found = re.fullmatch(
        r"modelwright: stopped at step (\d+) of 12, a checkpoint is saved; go on with: modelwright resume run",
        err.splitlines()[-1],
    )
    assert found, err
    step = int(found[1])
    assert (tmp_path / "run" / "checkpoints" / f"step-{step:08d}").is_dir()

    told = command("resume", "run")
    assert told.code == 0
    assert told.out.splitlines()[-1] == "run"
    assert f"resumed at step {step}\n" in told.err
    assert command("train", "toy", "--out", "whole", *settings, "observers=[]").code == 0
    assert_same(tmp_path / "whole", tmp_path / "run")  # although one process began it and another ended it
    assert command("evaluate", "run", "--json").object["samples"] == 20


def test_ctrl_c_twice_stops_at_once(command: Command) -> None:
    told = command("train", "toy", *TINY, "observers=[ctrl-c-twice]", "train.log_every=1", "train.epochs=12")
    assert (told.code, told.out) == (130, "")
    assert told.err.splitlines()[-1] == "modelwright: interrupted"
