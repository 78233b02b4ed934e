"""The Python API: its names, and a run from import to result."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

import modelwright as mw
from modelwright import folder
from modelwright.errors import CheckpointError, ConfigError, DataError, RunError, UnknownTask
from modelwright.events import EvaluationDone, Event, RunFinished, RunStarted
from modelwright.files import write_json
from modelwright.plugins import Catalog, settings_of
from modelwright.testing.toy import ToyConfig, ToyTask

QUIET = {"observers": [], "evaluate.resamples": 20, "train.epochs": 2, "train.optimizer.lr": 0.01}


@pytest.mark.parametrize("name", mw.__all__)
def test_each_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(mw, name).__doc__
    assert name in dir(mw)


def test_public_names_are_sorted_and_there_once() -> None:
    assert mw.__all__ == sorted(set(mw.__all__))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'modelwright' has no attribute 'trian'"):
        mw.trian  # noqa: B018


def test_the_version_is_the_distributions() -> None:
    assert metadata.version("modelwright") == mw.__version__


def test_a_run_from_import_to_result(train_toy: Callable[..., mw.Run], tmp_path: Path) -> None:
    events: list[Event] = []
    said: list[str] = []
    run = train_toy("run", QUIET, observer=events.append, warn=said.append)
    assert (run.folder, run.task) == (tmp_path / "run", "toy")
    assert run.report.read_text(encoding="utf-8").startswith("<!doctype html>")
    accuracy = run.metrics["accuracy"]
    assert accuracy.low is not None
    assert accuracy.high is not None
    assert 0 <= accuracy.low <= accuracy.value <= accuracy.high <= 1  # type: ignore[operator]
    assert [each["split"] for each in run.results["evaluations"]] == ["valid", "test"]
    kinds = [type(event) for event in events]
    assert (kinds[0], kinds[-1]) == (RunStarted, RunFinished)
    assert kinds.count(EvaluationDone) == 2
    assert said == []


def test_what_an_evaluation_gives_back(train_toy: Callable[..., mw.Run], toys: Catalog) -> None:
    run = train_toy("run", QUIET)
    again = mw.evaluate(run, catalog=toys)
    assert list(again) == ["task", "split", "samples", "weights", "metrics"]
    assert (again["task"], again["split"], again["samples"]) == ("toy", "test", 100)
    assert list(again["metrics"]["accuracy"]) == ["value", "low", "high"]
    assert again["metrics"]["accuracy"]["value"] == run.metrics["accuracy"].value
    mw.evaluate(str(run.folder), split="train", catalog=toys)
    assert [each["split"] for each in run.results["evaluations"]] == ["valid", "test", "train"]
    with pytest.raises(DataError, match="no nonsense split"):
        mw.evaluate(run, split="nonsense", catalog=toys)  # type: ignore[arg-type]


def test_settings_may_be_given_in_three_ways(toys: Catalog, tmp_path: Path) -> None:
    texts = [f"{key}={json.dumps(value)}" for key, value in QUIET.items()]
    nested = {"observers": [], "evaluate": {"resamples": 20}, "train": {"epochs": 2, "optimizer": {"lr": 0.01}}}
    metrics = [
        mw.train("toy", out=tmp_path / "dotted", catalog=toys, settings=QUIET).metrics,
        mw.train("toy", out=str(tmp_path / "texts"), catalog=toys, settings=texts).metrics,
        mw.train("toy", out=tmp_path / "nested", catalog=toys, config=nested).metrics,
        mw.train("toy", out=tmp_path / "again", catalog=toys, config=tmp_path / "nested" / "config.yaml").metrics,
    ]
    assert all(each == metrics[0] for each in metrics)


def test_mistakes_are_told_before_anything_is_written(toys: Catalog, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(UnknownTask, match="did you mean 'toy'"):
        mw.train("toys", out=out, catalog=toys)
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        mw.train("toy", out=out, catalog=toys, settings={"train.epoch": 1})
    with pytest.raises(ConfigError, match=r"train\.device: 'toaster' is no device of torch; use auto, cpu or cuda"):
        mw.train("toy", out=out, catalog=toys, settings={"train.device": "toaster"})
    with pytest.raises(RunError, match="there is no run folder"):
        mw.evaluate(out, catalog=toys)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_taken_is_not_touched(toys: Catalog, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for overwrite in (True, False):
        with pytest.raises(RunError, match="choose another --out"):
            mw.train("toy", out=tmp_path, catalog=toys, settings=QUIET, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_run_that_fails_before_its_first_checkpoint_leaves_what_was_there(
    train_toy: Callable[..., mw.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(task: ToyTask) -> None:
        raise DataError("the data are gone")

    good = train_toy("run", QUIET)
    monkeypatch.setattr(ToyTask, "datasets", fail)
    for name in ("new", "run"):
        with pytest.raises(DataError, match="the data are gone"):
            train_toy(name, QUIET, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert "accuracy" in good.metrics


def test_a_run_that_was_never_trained_can_be_resumed_but_not_evaluated(toys: Catalog, tmp_path: Path) -> None:
    """As after kill -9 in the first moments."""
    folder.write_config(tmp_path, settings_of(toys.task("toy"), settings=QUIET), task="toy")
    write_json(tmp_path / folder.ENVIRONMENT, {"task": "toy"})
    with pytest.raises(CheckpointError, match="was never trained; go on with: modelwright resume"):
        mw.evaluate(tmp_path, catalog=toys)
    folder.write_facts(tmp_path, ToyTask(ToyConfig()).find_facts(ToyTask(ToyConfig()).datasets()))
    with pytest.raises(CheckpointError, match="is not finished; go on with: modelwright resume"):
        mw.evaluate(tmp_path, catalog=toys)
    assert "accuracy" in mw.resume(tmp_path, catalog=toys, warn=lambda message: None).metrics


def test_without_a_run_there_are_no_metrics(tmp_path: Path) -> None:
    run = mw.Run(tmp_path, "toy")
    assert run.results == {}
    assert run.metrics == {}
