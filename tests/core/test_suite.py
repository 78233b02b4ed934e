"""What plugin authors write their tests with, as pytest meets it: the suite in one line, and the decorator."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from modelwright.errors import ConfigError
from modelwright.testing import parametrize_with_checks
from modelwright.testing.kit import all_checks
from tests.core.toys import GOOD

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]

AUTHORS_FILE = """
import pytest
from modelwright.testing.suite import *
from tests.core.toys import GOOD, KIT, broken

@pytest.fixture
def task():
    return {task}

@pytest.fixture
def settings():
    return KIT
"""
DECORATED = """
from modelwright.testing import parametrize_with_checks
from tests.core.toys import GOOD, KIT, broken
from dataclasses import replace

@parametrize_with_checks([GOOD, replace(broken("NotPerfect"), name="worse")], settings=KIT, {further})
def test_promises(task, check):
    check(task)
"""


EXPECTED = """
@pytest.fixture{scope}
def expected_failures():
    return {names}
"""
FILES = {
    "test_good.py": AUTHORS_FILE.format(task="GOOD"),
    "test_raising.py": AUTHORS_FILE.format(task='broken("Raises")').replace(
        "return KIT", "return KIT | {'data.name': 'KeyError'}"
    ),
    "test_expecting.py": AUTHORS_FILE.format(task='broken("NotPerfect")')
    + EXPECTED.format(
        scope='(scope="session")', names={"the_truth_scores_best": "not done yet", "name_is_valid": "who knows"}
    ),
    "test_mistaken.py": AUTHORS_FILE.format(task="GOOD") + EXPECTED.format(scope="", names={"name_is_vald": "a slip"}),
    "test_absent.py": AUTHORS_FILE.format(task='"no-such-task"'),
    "test_decorated.py": DECORATED.format(further=""),
    "test_foreseen.py": DECORATED.format(
        further="expected_failures="
        + repr({"worse": {"the_truth_scores_best": "not yet"}, "toy": {"the_truth_scores_best": "it may be"}})
    ),
}
"""Files of tests as authors write them."""
SLOW = ("export_agrees", "int8_model_scores", "ranks_agree")
CHOSEN = [
    "test_good.py",
    *(f"--deselect=test_good.py::test_contract[{check}]" for check in SLOW),
    "test_raising.py::test_contract[one_prediction_per_sample]",
    *(f"test_expecting.py::test_contract[{each}]" for each in ("name_is_valid", "objective_is_measured")),
    "test_expecting.py::test_contract[the_truth_scores_best]",
    "test_mistaken.py::test_contract[name_is_valid]",
    "test_absent.py::test_contract[name_is_valid]",
    *(f"test_decorated.py::test_promises[{task}-nothing_to_find_is_a_sample]" for task in ("toy", "worse")),
    *(f"test_decorated.py::test_promises[{task}-the_truth_scores_best]" for task in ("toy", "worse")),
    *(f"test_foreseen.py::test_promises[{task}-the_truth_scores_best]" for task in ("toy", "worse")),
]


class Told(dict[str, dict[str, str]]):
    """File -> test id (without the file) -> outcome in one word; `out` is all that pytest printed."""

    out: str


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """What pytest says in a folder of the author's. Once for all files: each start imports torch."""
    folder = tmp_path_factory.mktemp("authors")
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name, code in FILES.items():
        (folder / name).write_text(code)
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "-v", "-rsx", "-p", "no:cacheprovider", "--color=no", *CHOSEN]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    told = Told({name: {} for name in FILES})
    for file, test, outcome in re.findall(r"^(\w+\.py)::(\S+) ([A-Z]+)", done.stdout, flags=re.MULTILINE):
        told[file][test] = outcome
    told.out = done.stdout
    return told


def test_one_line_and_one_fixture_give_a_test_per_check(told: Told):
    expected = dict.fromkeys((f"test_contract[{name}]" for name in all_checks() if name not in SLOW), "PASSED")
    expected["test_contract[nothing_to_find_is_a_sample]"] = "SKIPPED"
    assert told["test_good.py"] == expected
    assert "the task has no samples with nothing in them" in told.out


def test_what_fails_is_told_with_promise_and_reason_and_what_was_raised(told: Told):
    assert told["test_raising.py"] == {"test_contract[one_prediction_per_sample]": "FAILED"}
    assert "have one row for each sample of the batch. KeyError: 'label'" in told.out
    assert "broken.py" in told.out  # where it was raised


def test_expected_failures_are_the_authors_to_name(told: Told):
    assert told["test_expecting.py"] == {
        "test_contract[name_is_valid]": "FAILED",
        "test_contract[objective_is_measured]": "PASSED",
        "test_contract[the_truth_scores_best]": "XFAIL",
    }
    assert "not done yet (`perfect` scores 0" in told.out
    assert "(who knows) and holds: take it off the list" in told.out


def test_an_expected_failure_of_nothing_is_told(told: Told):
    assert told["test_mistaken.py"] == {"test_contract[name_is_valid]": "FAILED"}
    assert "no check 'name_is_vald' (did you mean 'name_is_valid'?)" in told.out


def test_a_task_that_is_not_installed_is_told(told: Told):
    assert told["test_absent.py"] == {"test_contract[name_is_valid]": "ERROR"}
    assert "no task 'no-such-task' is installed" in told.out


# The decorator --------------------------------------------------------------------------------------------------------


def test_the_decorator_gives_a_case_per_task_and_check(told: Told):
    assert told["test_decorated.py"] == {
        "test_promises[toy-nothing_to_find_is_a_sample]": "SKIPPED",
        "test_promises[toy-the_truth_scores_best]": "PASSED",
        "test_promises[worse-nothing_to_find_is_a_sample]": "SKIPPED",
        "test_promises[worse-the_truth_scores_best]": "FAILED",
    }
    assert "Failed: `perfect` predictions are scored better" in told.out


def test_the_decorator_takes_expected_failures_by_task(told: Told):
    assert told["test_foreseen.py"] == {
        "test_promises[toy-the_truth_scores_best]": "FAILED",
        "test_promises[worse-the_truth_scores_best]": "XFAIL",
    }


def test_the_decorator_names_every_check():
    @parametrize_with_checks([GOOD, "not-looked-up-yet"])
    def promises(task, check):
        check(task)

    names, cases = promises.pytestmark[0].args  # type: ignore[attr-defined]
    assert names == ("task", "check")
    assert [case.id for case in cases] == [f"{t}-{c}" for t in ("toy", "not-looked-up-yet") for c in all_checks()]
    assert all(case.values[1].name in case.id and case.values[1].promise for case in cases)


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ({"tay": {}}, r"names the task 'tay' \(did you mean 'toy'\?\)"),
        ({"toy": {"name_is_vald": "a slip"}}, "no check 'name_is_vald'"),
    ],
)
def test_an_expected_failure_of_nothing_is_refused(expected, said):
    with pytest.raises(ConfigError, match=said):
        parametrize_with_checks([GOOD], expected_failures=expected)
