"""The loop: when it evaluates, keeps, stops and tells. Exact resume is in test_resume, weights in test_update."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import modelwright as mw
from modelwright.codec import Columns
from modelwright.errors import CheckpointError, TrainingError
from modelwright.events import CheckpointSaved, EpochDone, EvaluationDone, Event, RunFinished, RunStarted, StepDone
from modelwright.task import Batch, Losses, Objective, Progress
from modelwright.testing.toy import ToyTask
from modelwright.training.checkpoint import load
from modelwright.training.signals import StopSignal
from tests.core.making import Maker, assert_same


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def scripted(*values: float, goal: Any = "max") -> type[ToyTask]:
    """A toy task whose n-th evaluation gives the n-th value."""
    script: Iterator[float] = iter(values)

    class Scripted(ToyTask):
        objective = Objective("score", goal)

        def metrics(self, measured: Columns) -> dict[str, float]:
            return {"score": next(script)}

    return Scripted


# What is told, and when ---------------------------------------------------------------------------------------------


def test_events_come_in_order(make: Maker) -> None:
    made = make({"train.epochs": 2, "train.log_every": 3}).fit()
    assert made.reason == "completed"
    kinds = [(type(event).__name__, event.step) for event in made.told]
    epoch = ["StepDone", "EpochDone", "EvaluationDone", "CheckpointSaved"]
    assert kinds == [
        ("RunStarted", 0),
        ("CheckpointSaved", 0),
        ("StepDone", 3),
        *((kind, 4) for kind in epoch),
        ("StepDone", 6),
        *((kind, 8) for kind in epoch),
        ("RunFinished", 8),
    ]
    (started,) = made.of(RunStarted)
    assert (started.steps, started.epochs, started.steps_per_epoch) == (8, 2, 4)
    assert (started.task, started.objective, started.goal) == ("toy", "accuracy", "max")
    assert [event.epoch for event in made.of(StepDone)] == [0.75, 1.0, 1.5, 2.0]
    assert [event.epoch for event in made.of(EpochDone)] == [1, 2]
    assert made.of(RunFinished)[0].reason == "completed"
    assert all(event.path.is_dir() for event in made.of(CheckpointSaved)[-2:])


def test_the_loss_of_an_epoch_is_the_mean_of_its_steps(make: Maker) -> None:
    seldom, often = (make({"train.log_every": every}, name=str(every)).fit() for every in (1000, 1))
    steps = [event.loss for event in often.of(StepDone)]
    for number in range(3):
        mean = sum(steps[number * 4 : number * 4 + 4]) / 4
        for made in (seldom, often):
            assert made.of(EpochDone)[number].loss == pytest.approx(mean, rel=1e-5)


def test_named_parts_of_the_loss_are_told_as_means(make: Maker) -> None:
    class Parts(ToyTask):
        def loss(
            self, criterion: nn.Module | None, outputs: Mapping[str, Tensor], batch: Batch, progress: Progress
        ) -> Losses:
            whole = super().loss(criterion, outputs, batch, progress)
            return Losses(whole.sum * 2, whole.weight, {"fit": whole.sum, "decay": whole.sum})

    for made in (make(task=Parts).fit(), make({"train.accumulate": 3}, task=Parts, name="parts").fit()):
        for event in made.of(StepDone):
            assert event.parts.keys() == {"fit", "decay"}
            assert event.parts["fit"] == pytest.approx(event.loss / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "evaluated", "saved"),
    [
        ({}, [4, 8, 12], [0, 4, 8, 12]),
        ({"train.evaluate_every": 2}, [8, 12], [0, 8, 12]),
        ({"train.evaluate_every": 9}, [12], [0, 12]),
        ({"train.checkpoint_every": 5}, [4, 8, 12], [0, 5, 10, 12]),
        ({"train.steps": 3}, [3], [0, 3]),
        ({"train.steps": 6}, [4, 6], [0, 4, 6]),
        ({"train.steps": 14}, [4, 8, 12, 14], [0, 4, 8, 12, 14]),
        ({"train.steps": 14, "train.evaluate_every": 3}, [12, 14], [0, 12, 14]),
    ],
)
def test_what_is_due_when(make: Maker, settings: dict[str, Any], evaluated: list[int], saved: list[int]) -> None:
    made = make(settings).fit()
    assert made.steps(EvaluationDone) == evaluated
    assert made.steps(CheckpointSaved) == saved
    assert made.names("last") == [f"last-{evaluated[-1]:08d}"]


def test_without_a_validation_split_nothing_is_chosen(make: Maker) -> None:
    made = make({"train.early_stop.patience": 1}, valid=False).fit()
    assert made.reason == "completed"
    assert made.of(EvaluationDone) == []
    assert made.steps(CheckpointSaved) == [0, 4, 8, 12]
    assert made.names("best") == []
    assert made.names("last") == ["last-00000012"]


def test_an_observer_that_fails_is_left_out_with_a_warning(train_toy: Callable[..., mw.Run]) -> None:
    asked: list[str] = []
    said: list[str] = []

    def fails(event: Event) -> None:
        asked.append(type(event).__name__)
        raise ValueError("the tracker is down")

    train_toy("run", {"train.epochs": 1}, observer=fails, warn=said.append)
    assert asked == ["RunStarted"]
    assert [line for line in said if "tracker" in line] == [
        "observer observer failed and is left out from now on: ValueError: the tracker is down"
    ]


# Best, last, early stop ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("goal", "values", "best"),
    [
        ("max", (0.1, 0.5, 0.3), 8),
        ("max", (0.5, 0.5, 0.5), 4),  # a tie is no improvement
        ("min", (0.5, 0.1, 0.3), 8),
        ("min", (0.5, 0.4, -0.3), 12),
        ("max", (math.nan, 0.5, math.nan), 8),
    ],
)
def test_the_best_and_the_last_weights_are_kept(make: Maker, goal: str, values: tuple[float, ...], best: int) -> None:
    seen: dict[int, dict[str, Tensor]] = {}
    made = make(task=scripted(*values, goal=goal), observer=lambda e: seen.update({e.step: made.weights()}))
    made.fit()
    assert made.names("best") == [f"best-{best:08d}"]
    assert [event.step for event in made.of(EvaluationDone) if event.best][-1] == best
    assert_same(made.kept("best"), seen[best])
    assert_same(made.kept("last"), seen[12])


def test_a_score_that_is_never_a_number_keeps_no_best(make: Maker) -> None:
    made = make(task=scripted(math.nan, math.nan, math.nan)).fit()
    assert made.names("best") == []


@pytest.mark.parametrize(("select", "weights"), [("best", "best"), ("last", "last")])
def test_a_run_ends_with_the_weights_that_were_asked_for(
    train_toy: Callable[..., mw.Run], select: str, weights: str
) -> None:
    run = train_toy("run", {"train.select": select})
    assert {each["weights"] for each in run.results["evaluations"]} == {weights}


@pytest.mark.parametrize(
    ("goal", "patience", "min_delta", "values", "stops"),
    [
        ("max", 2, 0.0, (0.5, 0.6, 0.6, 0.6), 16),
        ("max", 1, 0.0, (0.5, 0.4), 8),
        ("min", 2, 0.0, (0.5, 0.6, 0.4, 0.5, 0.4), 20),
        ("max", 2, 0.1, (0.5, 0.55, 0.58), 12),
        ("min", 2, 0.1, (0.5, 0.45, 0.42), 12),
        # Two small steps up are one large enough.
        ("max", 2, 0.1, (0.50, 0.56, 0.62, 0.68, 0.74, 0.74, 0.74), 28),
        ("max", 2, 0.0, (math.nan, math.nan), 8),
        ("max", 2, 0.0, (0.5, math.nan, 0.6, math.nan, math.nan), 20),
    ],
)
def test_early_stopping_counts_evaluations_without_improvement(
    make: Maker, goal: str, patience: int, min_delta: float, values: tuple[float, ...], stops: int
) -> None:
    settings = {
        "train.epochs": 50,
        "train.early_stop.patience": patience,
        "train.early_stop.min_delta": min_delta,
        "train.optimizer.lr": 1e-6,
    }
    made = make(settings, task=scripted(*values, goal=goal)).fit()
    assert made.reason == "early stop"
    assert made.steps(RunFinished) == [stops]
    assert made.names("last") == [f"last-{stops:08d}"]
    assert made.steps(CheckpointSaved)[-1] == stops


def test_the_average_is_what_is_evaluated_and_kept(make: Maker) -> None:
    raw = make(name="raw").fit()
    average = make({"train.ema.decay": 0.9}, name="average").fit()
    unused = make({"train.ema.decay": 0.9, "train.ema.use": False}, name="unused").fit()
    assert_same(average.weights(), raw.weights())
    assert_same(unused.kept("last"), raw.kept("last"))
    (newest,) = average.folder.glob("step-00000012")
    ema = load(newest).tensors["ema"]
    assert_same({name: average.kept("last")[name] for name in ema}, ema)
    assert not torch.equal(ema["layers.0.weight"], raw.kept("last")["layers.0.weight"])


# Time ---------------------------------------------------------------------------------------------------------------


def test_minutes_become_steps_once_and_leave_no_other_trace(make: Maker, tmp_path: Path) -> None:
    settings = {"train.minutes": 0.002, "train.ema.decay": 0.9, "model.dropout": 0.1, "train.optimizer.name": "Adagrad"}
    timed = make(settings, name="timed").fit()
    steps = timed.trainer.state.steps
    assert steps is not None
    assert steps >= 1
    assert timed.of(RunStarted)[0].steps == steps
    counted = make({**settings, "train.minutes": None, "train.steps": steps}, name="counted").fit()
    assert_same(timed.kept("last"), counted.kept("last"))
    # A run that goes on keeps the number, however fast the machine is by then.
    (tmp_path / "again").mkdir()
    (timed.folder).rename(tmp_path / "again" / "checkpoints")
    again = make({**settings, "train.minutes": 1000.0}, name="again")
    again.fit()
    assert again.of(RunStarted)[0].steps == steps
    assert_same(again.kept("last"), counted.kept("last"))


# What goes wrong ----------------------------------------------------------------------------------------------------


def failing(step: int, how: Callable[[Tensor, Mapping[str, Tensor]], Tensor]) -> type[ToyTask]:
    """A toy task whose loss is changed at one step."""

    class Failing(ToyTask):
        def loss(
            self, criterion: nn.Module | None, outputs: Mapping[str, Tensor], batch: Batch, progress: Progress
        ) -> Losses:
            losses = super().loss(criterion, outputs, batch, progress)
            return Losses(how(losses.sum, outputs), losses.weight) if progress.step == step else losses

    return Failing


@pytest.mark.parametrize("every", [1, 3, 100])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_that_is_not_finite_ends_the_run(make: Maker, every: int, accumulate: int) -> None:
    nan = failing(6, lambda loss, outputs: loss * math.nan)
    made = make({"train.accumulate": accumulate}, task=nan)
    made.trainer._update.guard._every = every
    place = made.trainer._planned(None).place(6)
    samples = made.trainer._planned(None).indices(place)
    listed = ", ".join(map(str, samples[:8]))
    with pytest.raises(TrainingError, match=rf"the loss became nan at step 6 \(samples {listed}, \.\.\. \(10 in all\)"):
        made.fit()
    assert made.names("step") == ["step-00000000", "step-00000004"]
    assert all(value.isfinite().all() for value in load(made.folder / "step-00000004").tensors["model"].values())


@pytest.mark.parametrize("valid", [True, False])
def test_weights_that_are_not_finite_are_not_kept(make: Maker, valid: bool) -> None:
    """The last loss before a checkpoint is finite, but its gradient is not."""

    def root(loss: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        return loss + (outputs["logits"] * 0).abs().sum().sqrt()

    made = make(task=failing(7, root), valid=valid)
    with pytest.raises(TrainingError, match="weights became NaN or infinite within the 8 steps done"):
        made.fit()
    assert made.names("step") == ["step-00000000", "step-00000004"]
    assert "best-00000008" not in made.names("best")


def test_memory_that_ran_out_names_step_samples_and_settings(make: Maker) -> None:
    def greedy(loss: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        return torch.empty(2**60)

    message = r"out of memory at step 2 \(samples .*\(10 in all\)\): lower train.batch_size, raise train.accumulate"
    with pytest.raises(TrainingError, match=message):
        make(task=failing(2, greedy)).fit()


def test_another_error_keeps_its_traceback(make: Maker) -> None:
    def wrong(loss: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        raise RuntimeError("a defect of the task")

    with pytest.raises(RuntimeError, match="a defect of the task"):
        make(task=failing(2, wrong)).fit()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train.optimizer.name": "SGD"}, "state is of AdamW, not SGD"),
        ({"train.ema.decay": 0.9}, "holds no average of weights"),
        ({"model.hidden": 9}, "belongs to another model"),
    ],
)
def test_going_on_with_other_settings_is_an_error(make: Maker, settings: dict[str, Any], message: str) -> None:
    make({"train.epochs": 1}).fit()
    with pytest.raises(CheckpointError, match=message):
        make({"train.epochs": 2, **settings}).fit()


def test_more_epochs_go_on_from_the_end(make: Maker) -> None:
    constant = {"train.schedule.name": "constant"}
    make({**constant, "train.epochs": 1}, name="grown").fit()
    grown = make({**constant, "train.epochs": 3}, name="grown").fit()
    whole = make(constant, name="whole").fit()
    assert_same(grown.kept("last"), whole.kept("last"))


def test_a_run_that_was_not_begun_yet_is_not_saved_over(make: Maker) -> None:
    """Another rank may still be reading what rank 0 would replace."""
    with pytest.raises(KeyboardInterrupt):
        make(observer=interrupt_at_start).fit()
    again = make().fit()
    assert again.steps(CheckpointSaved) == [4, 8, 12]


def interrupt_at_start(event: Event) -> None:
    if isinstance(event, CheckpointSaved):
        raise KeyboardInterrupt


# Signals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_the_second_interrupts(number: int) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), StopSignal(said.append) as stop:  # noqa: PT012
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert stop.asked
        assert said == ["stopping after this step; press Ctrl-C again to stop at once"]
        os.kill(os.getpid(), number)
    assert len(said) == 1
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGINT)
    found: list[bool] = []

    def work() -> None:
        with StopSignal(lambda message: None) as stop:
            found.append(stop.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
    assert signal.getsignal(signal.SIGINT) is before
