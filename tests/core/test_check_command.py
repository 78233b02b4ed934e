"""`modelwright check`: what is printed where, and exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from modelwright.cli import main
from tests.core.installed import install

pytestmark = pytest.mark.once

PLUGIN = """
from dataclasses import replace
from pathlib import Path

from modelwright.hookspecs import hookimpl
from tests.core.toys import GOOD, broken

RECIPES = Path(__file__).parent / "recipes"


@hookimpl
def modelwright_tasks():
    yield replace(GOOD, recipes=RECIPES)
    yield replace(broken("NotPerfect"), name="worse", recipes=RECIPES)
    yield replace(broken("Talks"), name="talker", recipes=RECIPES)
"""
KIT = "train:\n  batch_size: 16\n  optimizer: {lr: 0.02}\n"


class Told(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """`modelwright check ARGUMENTS` in this process, with toy tasks installed."""
    site = tmp_path / "site"
    install(site, "checked", PLUGIN)
    (site / "recipes").mkdir()
    (site / "recipes" / "kit.yaml").write_text(KIT)
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "modelwright_checked", raising=False)

    def check(*arguments: str) -> Told:
        monkeypatch.setattr(sys, "argv", ["modelwright", "check", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        said = capfd.readouterr()
        return Told(int(left.value.code or 0), said.out, said.err)

    return check


def only(*names: str) -> list[str]:
    return [word for name in names for word in ("--only", name)]


def test_a_row_for_each_check_and_a_line_of_counts(check):
    told = check("toy", *only("name_is_valid", "nothing_to_find_is_a_sample", "loss_is_finite"))
    assert (told.code, told.err) == (0, "")
    *rows, counts = told.out.splitlines()
    assert [row.split()[0] for row in rows] == ["name_is_valid", "nothing_to_find_is_a_sample", "loss_is_finite"]
    assert [row[36:].split()[0] for row in rows] == ["passed", "not", "passed"]
    assert rows[1].endswith(" s   the task has no samples with nothing in them")
    assert counts == "toy: 2 passed, 1 not offered"


def test_a_failed_check_is_told_with_its_reason_and_the_exit_code(check):
    told = check("worse", *only("name_is_valid", "the_truth_scores_best"))
    assert (told.code, told.err) == (1, "")
    assert "`perfect` scores 0, an untrained model" in told.out
    assert told.out.splitlines()[-1] == "worse: 1 passed, 1 failed"


@pytest.mark.parametrize(("task", "ok"), [("toy", True), ("worse", False)])
def test_json_is_one_object(check, task, ok):
    told = check(task, "--json", *only("the_truth_scores_best", "nothing_to_find_is_a_sample"))
    assert told.code == (0 if ok else 1)
    (line,) = told.out.splitlines()
    found = json.loads(line)
    assert (found["task"], found["ok"]) == (task, ok)
    assert [set(each) for each in found["checks"]] == [{"check", "outcome", "message", "seconds"}] * 2
    first, second = found["checks"]
    assert (first["check"], first["outcome"]) == ("the_truth_scores_best", "passed" if ok else "failed")
    assert (second["outcome"], second["message"]) == ("not offered", "the task has no samples with nothing in them")


def test_what_a_task_prints_stays_out_of_the_json(check):
    told = check("talker", "--json", *only("loss_is_finite", "ranks_agree"))
    assert told.code == 0, told
    assert [each["outcome"] for each in json.loads(told.out)["checks"]] == ["passed", "passed"]
    assert "hello from the model" in told.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tay"], "no task 'tay' is installed (did you mean 'toy'?)"),
        (["toy", "--only", "los_is_finite"], "no check 'los_is_finite' (did you mean 'loss_is_finite'?)"),
        (["toy", "--json", "--only", "los_is_finite"], "no check 'los_is_finite' (did you mean 'loss_is_finite'?)"),
    ],
)
def test_a_users_mistake_is_one_line(check, arguments, said):
    told = check(*arguments)
    assert (told.code, told.out) == (1, "")
    (line,) = told.err.splitlines()
    assert said in line
