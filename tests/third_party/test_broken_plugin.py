"""Plugins of outsiders that are broken, installed beside the good ones: the good ones stay usable.

Each is a real distribution, as pip leaves it on the path; the command runs in a process of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.third_party.outside import Outside

HERE = Path(__file__).parent
GOOD = "image-classification"


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    return Outside(tmp_path / "site")


def check_that_the_good_one_works(outside: Outside) -> None:
    shown = outside.run("config", GOOD)
    assert shown.returncode == 0, shown.stderr
    assert "train:" in shown.stdout


def test_a_plugin_that_fails_at_import_is_shown_with_its_reason_and_the_command_that_mends_it(outside):
    outside.build_and_install(HERE / "modelwright-broken")
    told = outside.run("tasks")
    assert told.returncode == 0, told.stderr
    assert GOOD in told.stdout
    (line,) = [line for line in told.stdout.splitlines() if "modelwright-broken" in line]
    assert "cannot import name 'gone' from 'a_library_that_moved_on'" in line
    assert "pip uninstall modelwright-broken" in line
    check_that_the_good_one_works(outside)


def test_asking_for_the_task_of_a_plugin_that_fails_is_one_clear_line(outside):
    outside.build_and_install(HERE / "modelwright-broken")
    line = outside.error_of("config", "broken")
    assert "modelwright-broken" in line
    assert "a_library_that_moved_on" in line


def test_the_doctor_calls_a_plugin_that_fails_broken(outside):
    outside.build_and_install(HERE / "modelwright-broken")
    told = outside.run("doctor")
    assert told.returncode == 1
    assert "pip uninstall modelwright-broken" in told.stdout


def test_a_misspelt_hook_is_shown_with_the_nearest_known_one(outside):
    code = "from modelwright.hookspecs import hookimpl\n\n\n@hookimpl\ndef modelwright_task():\n    return []\n"
    outside.install(name="misspelt", code=code)
    told = outside.tasks()
    assert GOOD in [row["task"] for row in told["tasks"]]
    (failure,) = told["failures"]
    assert failure["distribution"] == "modelwright-misspelt"
    assert "modelwright_task" in failure["error"]
    assert "did you mean 'modelwright_tasks'" in failure["error"]
    check_that_the_good_one_works(outside)


TWIN = """
from modelwright.config import TaskConfig
from modelwright.hookspecs import TaskEntry, hookimpl


@hookimpl
def modelwright_tasks():
    yield TaskEntry("{name}", "a task", config=TaskConfig, build=lambda config: None)
"""


def test_two_distributions_with_one_task_name_are_both_named(outside):
    outside.install(name="one", code=TWIN.format(name="twin-finding"))
    outside.install(name="two", code=TWIN.format(name="twin-finding"))
    line = outside.error_of("config", "twin-finding")
    assert "modelwright-one 1.2" in line
    assert "modelwright-two 1.2" in line
    told = outside.tasks()
    assert [row["task"] for row in told["tasks"] if row["task"] in (GOOD, "twin-finding")] == [GOOD]
    assert list(told["conflicts"]) == ["twin-finding"]
    check_that_the_good_one_works(outside)


def test_nobody_takes_a_task_over_by_using_its_name(outside):
    outside.install(name="usurper", code=TWIN.format(name=GOOD))
    line = outside.error_of("config", GOOD)
    assert "modelwright 0" in line
    assert "modelwright-usurper 1.2" in line
