"""The contract kit on itself: a good toy passes, and for each check a broken one fails that check and no other."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import modelwright.testing
from modelwright.errors import ConfigError, DataError, Interrupted, UnknownTask
from modelwright.hookspecs import TaskEntry
from modelwright.testing import CheckResult, Failed, check_task
from modelwright.testing.kit import all_checks, run_check
from modelwright.testing.toy import ToyTask
from tests.core.toys import BROKEN, GOOD, KIT, broken

pytestmark = pytest.mark.once

CASES = [("entry_imports_no_torch", replace(GOOD, build=ToyTask)), *BROKEN]
SLOW = ("entry_imports_no_torch", "export_agrees", "int8_model_scores", "ranks_agree")
QUICK = [name for name in all_checks() if name not in SLOW]
ROOT = str(Path(__file__).parents[2])


def name_of(value: object) -> str:
    return value if isinstance(value, str) else value.summary.split()[-1] if isinstance(value, TaskEntry) else ""


@pytest.fixture(autouse=True)
def _seen_by_other_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ranks import the broken toys by name; what these write lands in a folder of the test's own."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.chdir(tmp_path)


def one(task: TaskEntry, name: str, **further: Any) -> CheckResult:
    """The result of a single check."""
    (result,) = check_task(task, only=[name], settings=KIT | further.pop("settings", {}), **further)
    return result


def bad(results: list[CheckResult]) -> dict[str, str]:
    return {result.check: result.message for result in results if not result.good}


# Each check can pass and can fail -------------------------------------------------------------------------------------


def test_the_good_toy_passes_everything_that_it_offers():
    results = check_task(GOOD, settings=KIT)
    assert [result.check for result in results] == list(all_checks())
    assert {result.check: result.outcome for result in results if result.outcome != "passed"} == {
        "nothing_to_find_is_a_sample": "not offered"
    }


@pytest.mark.parametrize(("name", "task"), CASES, ids=name_of)
def test_a_broken_toy_fails_its_check_and_no_other(name, task):
    """All checks but those that export or start processes; two tests below add them."""
    found = bad(check_task(task, settings=KIT, only=[each for each in all_checks() if each in (name, *QUICK)]))
    assert set(found) == {name}, found
    assert found[name]
    assert "\n" not in found[name]


def test_the_broken_toys_are_offered_by_one_module_which_imports_no_torch():
    offering = {getattr(task.build, "func", task.build).__module__ for name, task in BROKEN}
    assert offering == {GOOD.build.__module__}
    assert one(GOOD, "entry_imports_no_torch").good


@pytest.mark.slow
@pytest.mark.parametrize(("name", "task"), CASES, ids=name_of)
def test_what_breaks_another_check_passes_the_slow_ones(name, task):
    broken_too = {"metrics_are_pure": "int8_model_scores"}  # what gives no numbers cannot be scored in 8 bits either
    only = [each for each in SLOW if each not in (name, broken_too.get(name))]
    assert bad(check_task(task, settings=KIT, only=only)) == {}


def test_every_check_has_a_toy_that_breaks_it():
    assert {name for name, _ in CASES} == set(all_checks())


DECLARED = {
    "KnowsNothingness": set(),
    "Windowed": {"nothing_to_find_is_a_sample"},
    "BatchNormed": {"nothing_to_find_is_a_sample", "ranks_agree"},
    "NormalisesOverBatch": {"nothing_to_find_is_a_sample", "losses_add_up", "ranks_agree"},
}
"""Toys that are good in their own way, and what they do not offer."""
USUAL = ("KnowsNothingness", "NormalisesOverBatch")
"""Their graphs are the good toy's."""


@pytest.mark.parametrize("kind", DECLARED)
def test_what_is_declared_is_said_and_not_held_against_a_task(kind):
    only = [*QUICK, "ranks_agree"] if kind in USUAL else None
    results = check_task(broken(kind), settings=KIT, only=only)
    assert bad(results) == {}
    assert {result.check for result in results if result.outcome == "not offered"} == DECLARED[kind]
    assert all(result.message for result in results if result.outcome == "not offered")


@pytest.mark.slow
@pytest.mark.parametrize("kind", USUAL)
def test_what_is_declared_passes_the_slow_checks_too(kind):
    assert bad(check_task(broken(kind), settings=KIT, only=SLOW)) == {}


def test_every_check_says_what_it_promises():
    assert [name for name, check in all_checks().items() if not check.promise.endswith(".")] == []


@pytest.mark.parametrize("filled_in", [False, True])
def test_a_module_that_cannot_be_imported_alone_is_told(filled_in):
    def build(config):
        raise NotImplementedError

    build.__module__ = "modelwright_nowhere"
    offered = functools.partial(build) if filled_in else build
    result = one(replace(GOOD, build=offered), "entry_imports_no_torch")
    assert "importing modelwright_nowhere alone fails: ModuleNotFoundError" in result.message


def test_a_rank_that_fails_is_told_with_its_reason():
    result = one(broken("DiesOnASecondRank"), "ranks_agree")
    assert result.message == "one of two ranks fails with RuntimeError: no room for two"


@pytest.mark.slow
def test_a_script_that_every_rank_would_run_again_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {ROOT!r})\n"
        "from modelwright.testing import check_task\n"
        "from tests.core.toys import GOOD, KIT\n"
        "(result,) = check_task(GOOD, settings=KIT, only=['ranks_agree'])\n"
        "print(result.message)\n"
        "assert result.good\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert "call this below `if __name__ == '__main__':`" in done.stdout


# Data that are not there ----------------------------------------------------------------------------------------------


def test_a_task_without_data_is_told_in_one_line():
    results = check_task(GOOD, settings=KIT | {"data.samples": 0})
    assert bad(results)["splits_are_not_empty"] == "the train split is empty: check data.path"
    assert not bad(results).keys() & {"entry_imports_no_torch", "name_is_valid", "defaults_round_trip"}
    assert isinstance(next(r.error for r in results if r.check == "splits_are_not_empty"), DataError)


# Whatever a check does ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "said"), [("KeyError", "KeyError: 'label'"), ("SystemExit", "SystemExit: 3"), ("empty", "RuntimeError")]
)
def test_whatever_a_task_raises_is_a_failed_check_in_one_line(raised, said):
    result = one(broken("Raises"), "one_prediction_per_sample", settings={"data.name": raised})
    assert (result.outcome, result.message, result.good) == ("failed", said, False)
    assert result.error is not None
    assert result.error.__traceback__ is not None


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), Interrupted("stopped at step 2")])
def test_ctrl_c_ends_the_checks(raised, monkeypatch):
    def stop(task, batch):
        raise raised

    monkeypatch.setattr(ToyTask, "truths", stop)
    with pytest.raises(KeyboardInterrupt):
        one(GOOD, "one_prediction_per_sample")


def test_a_check_that_hangs_fails_even_where_the_task_catches_everything():
    result = one(broken("Hangs"), "one_prediction_per_sample", limit=0.3)
    assert (result.outcome, result.message) == ("failed", "it did not end within 0.3 s")


@pytest.fixture
def alarm() -> Iterator[None]:
    """Somebody else's alarm, far away."""
    signal.setitimer(signal.ITIMER_REAL, 3000)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.mark.usefixtures("alarm")
def test_an_alarm_of_somebody_else_stays_set():
    before = signal.getsignal(signal.SIGALRM)
    assert one(GOOD, "name_is_valid").good
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getsignal(signal.SIGALRM) is before


def test_checks_run_in_another_thread_too():
    found: list[CheckResult] = []
    thread = threading.Thread(target=lambda: found.append(one(GOOD, "loss_is_finite")))
    thread.start()
    thread.join()
    assert [result.outcome for result in found] == ["passed"]


# How it is asked ------------------------------------------------------------------------------------------------------


def test_an_expected_failure_is_good_and_keeps_both_reasons():
    expected = {"the_truth_scores_best": "not done yet"}
    result = one(broken("NotPerfect"), "the_truth_scores_best", expected_failures=expected)
    assert (result.outcome, result.good) == ("expected failure", True)
    assert result.message.startswith("not done yet (`perfect` scores 0")


def test_what_is_expected_to_fail_and_holds_is_not_good():
    result = one(GOOD, "loss_is_finite", expected_failures={"loss_is_finite": "not done yet"})
    assert (result.outcome, result.good) == ("unexpected pass", False)
    assert "not done yet" in result.message


def test_what_is_expected_to_fail_may_not_be_offered():
    expected = {"nothing_to_find_is_a_sample": "not done yet"}
    assert one(GOOD, "nothing_to_find_is_a_sample", expected_failures=expected).outcome == "not offered"


@pytest.mark.parametrize("asked", [{"only": ["loss_is_finit"]}, {"expected_failures": {"loss_is_finit": "?"}}])
def test_an_unknown_check_is_refused_with_the_nearest_known_one(asked):
    with pytest.raises(ConfigError, match=r"no check 'loss_is_finit' \(did you mean 'loss_is_finite'\?\); known: "):
        check_task(GOOD, **asked)


def test_only_what_is_asked_for_runs_in_that_order_and_is_told_as_it_comes():
    told: list[CheckResult] = []
    names = ["name_is_valid", "defaults_round_trip"]
    assert check_task(GOOD, only=names[::-1], report=told.append) == told
    assert [result.check for result in told] == names[::-1]
    assert all(result.seconds >= 0 and result.message == "" for result in told)


def test_settings_that_the_task_does_not_take_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'samples'"):
        check_task(GOOD, settings={"data.sampels": 3})


def test_a_recipe_named_kit_is_what_checks_run_on(tmp_path):
    (tmp_path / "kit.yaml").write_text("data: {samples: 0}\n")
    result = one(replace(GOOD, recipes=tmp_path), "splits_are_not_empty")
    assert "the train split is empty" in result.message


def test_a_task_that_is_not_installed_is_refused():
    with pytest.raises(UnknownTask, match="no task 'no-such-task' is installed"):
        check_task("no-such-task")


def test_each_check_has_an_empty_folder_of_its_own_that_goes_at_the_end():
    seen: list[Path] = []

    def look(subject):
        assert list(subject.folder.iterdir()) == []
        (subject.folder / "left").write_text("over")
        seen.append(subject.folder)

    from modelwright.testing.subject import Subject

    subject = Subject(GOOD, KIT)
    check = replace(all_checks()["name_is_valid"], run=look)
    assert [run_check(check, subject, None).outcome for _ in range(2)] == ["passed", "passed"]
    assert not any(folder.exists() for folder in seen)


# The package ----------------------------------------------------------------------------------------------------------


def test_public_names_come_when_asked_for_and_torch_not_before():
    code = "import sys, modelwright.testing as t; t.check_task, t.CheckResult, t.Failed; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert dir(modelwright.testing) == sorted(modelwright.testing.__all__)
    assert all(getattr(modelwright.testing, name) for name in modelwright.testing.__all__)
    assert issubclass(Failed, AssertionError)
    with pytest.raises(AttributeError, match="has no attribute 'check_tasks'"):
        _ = modelwright.testing.check_tasks  # type: ignore[attr-defined]
