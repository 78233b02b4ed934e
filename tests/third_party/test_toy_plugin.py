"""A plugin of an outsider from beginning to end: built, installed, found, checked, trained, scored and uninstalled."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.third_party.outside import Outside

TOY = Path(__file__).parent / "modelwright-toy"
TASK = "tide-forecasting"


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    outside = Outside(tmp_path / "site")
    outside.build_and_install(TOY)
    return outside


def test_it_is_found_with_its_distribution_and_version(outside: Outside):
    told = outside.tasks()
    (row,) = [row for row in told["tasks"] if row["task"] == TASK]
    assert row["provider"] == "modelwright-toy 2.1.0"
    assert row["recipes"] == ["kit", "quick"]
    assert row["missing"] == []
    assert told["failures"] == []
    shown = outside.run("config", TASK, "data.days=80")
    assert shown.returncode == 0, shown.stderr
    assert "# How long the level was recorded, one value an hour.\n  days: 80" in shown.stdout


CHECK = """
from modelwright.testing.kit import all_checks, check_task

if __name__ == "__main__":
    results = check_task("tide-forecasting")
    print([(each.check, each.message) for each in results if not each.good])
    assert len(results) == len(all_checks())
"""


def test_it_passes_every_check(outside: Outside, tmp_path: Path):
    (tmp_path / "check.py").write_text(CHECK, encoding="utf-8")
    done = outside.python("check.py", cwd=tmp_path)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
    assert done.returncode == 0, done.stderr


def test_its_own_tests_pass(outside: Outside, tmp_path: Path):
    shutil.copytree(TOY / "tests", tmp_path / "tests")  # away from the settings of this repository's pytest
    # The contract is checked above; here only that its author's file is found to do so too.
    chosen = "not test_contract or name_is_valid or losses_add_up"
    done = outside.python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, "tests", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_it_trains_is_scored_and_is_gone_when_it_is_uninstalled(outside: Outside, tmp_path: Path):
    run = tmp_path / "run"
    trained = outside.run("train", TASK, "--recipe", "quick", "observers=[tide-diary]", "--out", run, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.splitlines()[-1].endswith("run")
    assert (run / "diary.txt").read_text(encoding="utf-8").startswith("tide-forecasting: ")
    assert (run / "figures" / "test-forecast.svg").is_file()

    scored = outside.run("evaluate", run, "--split", "valid", "--json")
    assert scored.returncode == 0, scored.stderr
    found = json.loads(scored.stdout)
    assert (found["task"], found["split"]) == (TASK, "valid")
    assert found["metrics"]["skill"]["low"] > 0.5

    (tmp_path / "calm.yaml").write_text("- stage: tide-lull\n", encoding="utf-8")
    squeezed = outside.run("compress", run, "--recipe", tmp_path / "calm.yaml", "--json")
    assert squeezed.returncode == 0, squeezed.stderr
    (receipt,) = json.loads(squeezed.stdout)["variants"]
    assert (receipt["variant"], receipt["notes"]) == ("calm-1-tide-lull", {"lulled_below": 0.01})
    exported = outside.run("export", run, "--variant", "calm", "--runtime", "tide-tally", "--out", tmp_path / "bundle")
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "bundle" / "tally.onnx").is_file()
    served = outside.run("evaluate", tmp_path / "bundle", "--json")
    assert json.loads(served.stdout)["metrics"]["skill"]["low"] > 0.5, served.stderr

    outside.uninstall("modelwright-toy")
    assert list(outside.folder.iterdir()) == []
    told = outside.tasks()
    assert TASK not in [row["task"] for row in told["tasks"]]
    assert told["failures"] == []
    for command in ("evaluate", "resume"):
        line = outside.error_of(command, run)
        assert f"no task '{TASK}' is installed" in line


def test_it_can_be_installed_beside_a_broken_one(outside: Outside):
    outside.build_and_install(TOY.parent / "modelwright-broken")
    told = outside.tasks()
    assert TASK in [row["task"] for row in told["tasks"]]
    assert [failure["distribution"] for failure in told["failures"]] == ["modelwright-broken"]
