"""What plugin authors write their tests with, as pytest meets it: the suite in one line, and the decorator."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modelwright.errors import ConfigError
from modelwright.testing import parametrize_with_checks
from modelwright.testing.kit import all_checks
from tests.core.toys import GOOD

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


class Told(dict[str, str]):
    """Test id (without the file) -> outcome in one word; `out` is all that pytest printed."""

    out: str


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Told]:
    """Runs pytest in a folder of the author's, on a file of tests."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")

    def run(code: str, *arguments: str) -> Told:
        (tmp_path / "test_contract.py").write_text(code)
        command = [sys.executable, "-m", "pytest", "-v", "-rsx", "-p", "no:cacheprovider", "--color=no", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        told = Told(re.findall(r"^test_contract\.py::(\S+) ([A-Z]+)", done.stdout, flags=re.MULTILINE))
        told.out = done.stdout
        return told

    return run


def test_one_line_and_one_fixture_give_a_test_per_check(run):
    told = run(AUTHORS_FILE.format(task="GOOD"), "-k", "not ranks_agree")
    expected = dict.fromkeys((f"test_contract[{name}]" for name in all_checks() if name != "ranks_agree"), "PASSED")
    expected["test_contract[nothing_to_find_is_a_sample]"] = "SKIPPED"
    assert told == expected
    assert "the task has no samples with nothing in them" in told.out


def test_what_fails_is_told_with_promise_and_reason_and_what_was_raised(run):
    code = AUTHORS_FILE.format(task='broken("Raises")').replace("return KIT", "return KIT | {'data.name': 'KeyError'}")
    told = run(code, "-k", "one_prediction")
    assert told == {"test_contract[one_prediction_per_sample]": "FAILED"}
    assert "have one row for each sample of the batch. KeyError: 'label'" in told.out
    assert "broken.py" in told.out  # where it was raised


def test_expected_failures_are_the_authors_to_name(run):
    code = (
        AUTHORS_FILE.format(task='broken("NotPerfect")')
        + """
@pytest.fixture(scope="session")
def expected_failures():
    return {"the_truth_scores_best": "not done yet", "name_is_valid": "who knows"}
"""
    )
    told = run(code, "-k", "truth or name_is or objective_is")
    assert told == {
        "test_contract[name_is_valid]": "FAILED",
        "test_contract[objective_is_measured]": "PASSED",
        "test_contract[the_truth_scores_best]": "XFAIL",
    }
    assert "not done yet (`perfect` scores 0" in told.out
    assert "take it off the list" in told.out


def test_an_expected_failure_of_nothing_is_told(run):
    code = (
        AUTHORS_FILE.format(task="GOOD")
        + """
@pytest.fixture
def expected_failures():
    return {"name_is_vald": "a slip"}
"""
    )
    told = run(code, "-k", "name_is")
    assert told == {"test_contract[name_is_valid]": "FAILED"}
    assert "no check 'name_is_vald' (did you mean 'name_is_valid'?)" in told.out


def test_a_task_that_is_not_installed_is_told(run):
    told = run(AUTHORS_FILE.format(task='"no-such-task"'), "-k", "name_is")
    assert told == {"test_contract[name_is_valid]": "ERROR"}
    assert "no task 'no-such-task' is installed" in told.out


# The decorator --------------------------------------------------------------------------------------------------------


def test_the_decorator_gives_a_case_per_task_and_check(run):
    told = run(DECORATED.format(further=""), "-k", "truth or nothing_to_find")
    assert told == {
        "test_promises[toy-nothing_to_find_is_a_sample]": "SKIPPED",
        "test_promises[toy-the_truth_scores_best]": "PASSED",
        "test_promises[worse-nothing_to_find_is_a_sample]": "SKIPPED",
        "test_promises[worse-the_truth_scores_best]": "FAILED",
    }
    assert "Failed: `perfect` predictions are scored better" in told.out


def test_the_decorator_takes_expected_failures_by_task(run):
    expected = '{"worse": {"the_truth_scores_best": "not yet"}, "toy": {"the_truth_scores_best": "who knows"}}'
    told = run(DECORATED.format(further=f"expected_failures={expected}"), "-k", "truth")
    assert told == {
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
