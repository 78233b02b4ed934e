"""The core's observers: what they leave on disk and on the console. Knows no trainer."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from modelwright.events import (
    CheckpointSaved,
    EpochDone,
    EvaluationDone,
    Event,
    RunFinished,
    RunStarted,
    StepDone,
)
from modelwright.observers import ConsoleProgress, MetricsLog, modelwright_observers, parse_line, tensorboard


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def started(step: int = 0, *, task: str = "toy", validated: bool = True) -> RunStarted:
    length = {"steps": 40, "epochs": 4, "steps_per_epoch": 10}
    return RunStarted(step, task, **length, objective="accuracy", goal="max", validated=validated)


def stepped(step: int, loss: float = 0.5) -> StepDone:
    return StepDone(step, step / 10, loss, {"box": 0.25}, 0.01, 1000.0)


def evaluated(step: int, accuracy: float, *, best: bool) -> EvaluationDone:
    return EvaluationDone(step, step / 10, "valid", {"accuracy": accuracy, "f1/cat": 0.5}, best, 0.1)


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


# metrics.jsonl


@pytest.mark.once
def test_each_event_is_one_line(tmp_path: Path) -> None:
    clock = Clock()
    log = MetricsLog(tmp_path, clock=clock)
    log(started())
    clock.now = 2.5
    log(stepped(10))
    log(EpochDone(10, 1, 0.5, 2.5))
    log(evaluated(10, 0.75, best=True))
    log(CheckpointSaved(10, tmp_path / "checkpoints" / "step-10"))
    log(RunFinished(10, "completed", 3.0))
    start, step, epoch, evaluation, checkpoint, finished = lines(tmp_path)
    assert start == {
        "event": "run_started", "step": 0, "task": "toy", "steps": 40, "epochs": 4, "steps_per_epoch": 10,
        "validated": True, "objective": "accuracy", "goal": "max",
    }  # fmt: skip
    assert step == {
        "event": "step", "step": 10, "epoch": 1.0, "loss": 0.5, "parts": {"box": 0.25}, "lr": 0.01,
        "samples_per_second": 1000.0, "seconds": 2.5,
    }  # fmt: skip
    assert epoch == {"event": "epoch", "step": 10, "epoch": 1, "loss": 0.5, "seconds": 2.5}
    assert evaluation == {
        "event": "evaluation", "step": 10, "epoch": 1.0, "split": "valid",
        "metrics": {"accuracy": 0.75, "f1/cat": 0.5}, "best": True, "seconds": 0.1,
    }  # fmt: skip
    assert checkpoint == {"event": "checkpoint", "step": 10, "path": "checkpoints/step-10"}
    assert finished == {"event": "finished", "step": 10, "reason": "completed", "seconds": 3.0}


def test_a_line_is_on_disk_at_once(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log(started())
    log(stepped(10))
    assert len(lines(tmp_path)) == 2


def test_a_resume_drops_later_lines_and_the_clock_goes_on(tmp_path: Path) -> None:
    clock = Clock()
    first = MetricsLog(tmp_path, clock=clock)
    first(started())
    for step in (10, 20, 30):
        clock.now = float(step)
        first(stepped(step))
    later = Clock()
    later.now = 500.0
    second = MetricsLog(tmp_path, clock=later)
    second(started(20))
    later.now = 507.0
    second(stepped(30, 0.4))
    found = [(line["event"], line["step"], line.get("seconds")) for line in lines(tmp_path)]
    assert found == [
        ("run_started", 0, None), ("step", 10, 10.0), ("step", 20, 20.0), ("run_started", 20, None), ("step", 30, 27.0),
    ]  # fmt: skip


def test_a_half_line_is_dropped_on_a_resume(tmp_path: Path) -> None:
    first = MetricsLog(tmp_path)
    first(started())
    first(stepped(10))
    first.close()
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"event": "step", "st')
    MetricsLog(tmp_path)(started(10))
    assert [line["step"] for line in lines(tmp_path)] == [0, 10, 10]


def test_nothing_is_glued_to_a_half_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"event": "step", "step": 10}\n{"event": "ste')
    MetricsLog(tmp_path)(RunFinished(40, "completed", 1.0))
    assert [line["event"] for line in lines(tmp_path)] == ["step", "finished"]


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log(started())
    log(stepped(10, math.nan))
    log(EvaluationDone(10, 1.0, "valid", {"auc": math.inf}, False, 0.1))
    assert lines(tmp_path)[1]["loss"] is None
    assert lines(tmp_path)[2]["metrics"] == {"auc": None}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"event": "step"}', '{"step": 1}', '{"event": 1, "step": 1}', b"\xff"]
)
def test_a_damaged_line_is_none(text: str | bytes) -> None:
    assert parse_line(text) is None


@given(st.integers(0, 40), st.integers(0, 40))
def test_a_resume_at_any_step_leaves_each_step_once(
    tmp_path_factory: pytest.TempPathFactory, cut: int, half: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    whole = MetricsLog(folder)
    whole(started())
    for step in range(1, 41):
        whole(stepped(step))
    whole.close()
    path = folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[: -1 - half])
    again = MetricsLog(folder)
    again(started(cut))
    for step in range(cut + 1, 41):
        again(stepped(step))
    steps = [line["step"] for line in lines(folder) if line["event"] == "step"]
    # Up to `half` bytes of the last line were lost; only a resume from before it can bring it back.
    assert steps == list(range(1, 41)) or (cut == 40 and steps == list(range(1, 40)))


# TensorBoard


def test_tensorboard_holds_each_step_once_after_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = tensorboard(tmp_path)
    for event in (started(), stepped(10, 1.0), stepped(20, 0.9), stepped(30, 0.8), CheckpointSaved(30, tmp_path)):
        first(event)
    second = tensorboard(tmp_path)
    for event in (started(20), stepped(30, 0.7), evaluated(30, 0.75, best=True), RunFinished(30, "completed", 1.0)):
        second(event)
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [(point.step, round(point.value, 4)) for point in read.Scalars("train/loss")] == [
        (10, 1.0), (20, 0.9), (30, 0.7),
    ]  # fmt: skip
    assert [point.value for point in read.Scalars("valid/accuracy")] == [0.75]
    assert {"train/lr", "train/samples_per_second", "train/parts/box", "valid/f1/cat"} <= set(read.Tags()["scalars"])


def test_tensorboard_is_offered_without_importing_torch() -> None:
    (entry,) = modelwright_observers()
    assert (entry.name, entry.build, entry.requires) == ("tensorboard", tensorboard, ("tensorboard",))
    code = "import sys, modelwright.observers; sys.exit('torch' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Console


def show(events: list[Event], *, terminal: bool, clock: Clock | None = None) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=60, _environ={"TERM": "xterm"})
    with ConsoleProgress(console, clock=clock or Clock()) as progress:
        for event in events:
            progress(event)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_plain_lines_where_the_output_is_no_terminal() -> None:
    events = [
        started(task="a [bold]task[/bold]"),
        stepped(10, 1.25), EpochDone(10, 1, 1.2, 1.0), evaluated(10, 0.5, best=True),
        stepped(20, 1.0), evaluated(20, 0.25, best=False), evaluated(30, 0.75, best=True),
        CheckpointSaved(30, Path("x")), RunFinished(30, "early stop", 3725.0),
    ]  # fmt: skip
    assert show(events, terminal=False) == (
        "a [bold]task[/bold]: 40 steps, 4 epochs\n"
        "epoch 1, step 10/40: loss 1.2000, accuracy 0.5000 (best)\n"
        "epoch 2, step 20/40: loss 1.0000, accuracy 0.2500 (best 0.5000)\n"
        "epoch 3, step 30/40: loss 1.0000, accuracy 0.7500 (best)\n"
        "early stop after 1:02:05\n"
    )


def test_plain_lines_after_a_resume_name_no_best_that_was_not_seen() -> None:
    assert show([started(20), evaluated(30, 0.5, best=False)], terminal=False) == (
        "toy: 40 steps, 4 epochs, resumed at step 20\nepoch 3, step 30/40: accuracy 0.5000\n"
    )


def test_plain_lines_without_a_validation_split_tell_each_epoch() -> None:
    assert show([started(validated=False), EpochDone(10, 1, 1.25, 1.0)], terminal=False) == (
        "toy: 40 steps, 4 epochs\nepoch 1, step 10/40: loss 1.2500\n"
    )


def test_an_evaluation_without_the_objective_is_still_told() -> None:
    event = EvaluationDone(10, 1.0, "valid", {}, False, 0.1)
    assert show([started(), event], terminal=False).endswith("epoch 1, step 10/40\n")


def test_a_terminal_shows_share_time_left_loss_and_metric() -> None:
    clock = Clock()
    console = Console(file=io.StringIO(), force_terminal=True, width=80, _environ={"TERM": "xterm"})
    with ConsoleProgress(console, clock=clock) as progress:
        progress(started())
        clock.now = 30.0
        progress(stepped(10, 1.25))
        progress(evaluated(10, 0.5, best=True))
        progress(evaluated(10, 0.25, best=False))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "epoch 2/4" in shown
    assert " 25 %" in shown
    assert "1:30 left" in shown
    assert "loss 1.2500" in shown
    assert "accuracy 0.2500 (best 0.5000)" in shown


def test_the_bar_ends_with_the_run() -> None:
    shown = show([started(), stepped(40), RunFinished(40, "completed", 61.0)], terminal=True)
    assert "completed after 1:01" in shown
    assert "100 %" in shown


@pytest.mark.parametrize("terminal", [False, True])
def test_a_warning_is_printed_as_it_is(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=40, _environ={"TERM": "xterm"})
    with ConsoleProgress(console) as progress:
        progress(started())
        progress.say("observer [red] failed and is left out from now on")
    assert "observer [red] failed and is left out from now on" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_terminal_is_restored_when_an_exception_flies() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, _environ={"TERM": "xterm"})
    out = sys.stdout
    progress = ConsoleProgress(console)

    def fly() -> None:
        with progress:
            progress(started())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fly()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert sys.stdout is out
