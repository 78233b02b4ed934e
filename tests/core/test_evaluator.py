"""Each sample is scored once, whatever gives the predictions and however they are cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from modelwright.codec import Codec, Columns, Context, Sample
from modelwright.config import build_config
from modelwright.errors import EvaluationError
from modelwright.evaluation.evaluator import Scores, evaluate, lay_out
from modelwright.task import Batch, Datasets, Example, Input, Key, Losses, Objective, Progress, Task
from modelwright.testing.toy import Spirals, ToyConfig, ToyTask

DATA = Spirals(31, seed=0, noise=0.05)


@pytest.fixture(scope="module")
def toy() -> ToyTask:
    task = ToyTask(build_config(ToyConfig))
    task.facts = task.find_facts(Datasets(DATA))
    return task


@pytest.fixture(scope="module")
def model(toy: ToyTask) -> nn.Module:
    torch.manual_seed(0)
    return toy.model().eval()


def assert_equal(a: Columns, b: Columns) -> None:
    assert list(a) == list(b)
    assert a.ids.tolist() == b.ids.tolist()
    for name in a:
        np.testing.assert_allclose(a.array(name), b.array(name), rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 30, 31, 1000])
def test_the_size_of_batches_changes_nothing(toy: ToyTask, model: nn.Module, batch_size: int) -> None:
    whole = evaluate(toy, model, DATA, batch_size=31)
    found = evaluate(toy, model, DATA, batch_size=batch_size)
    assert found.samples == 31
    assert found.truths.ids.tolist() == list(range(31))
    assert found.truths.array("label").tolist() == DATA.labels.tolist()
    assert_equal(found.predictions, whole.predictions)
    assert found.metrics == whole.metrics


def test_workers_change_nothing(toy: ToyTask, model: nn.Module) -> None:
    alone, helped = (evaluate(toy, model, DATA, batch_size=4, workers=workers) for workers in (0, 2))
    assert_equal(alone.measured, helped.measured)


def test_what_is_changed_for_training_is_scored_as_it_is(toy: ToyTask, model: nn.Module) -> None:
    class Changed:
        plain = DATA

        def __len__(self) -> int:
            return len(DATA)

        def __getitem__(self, key: Key) -> Example:
            raise AssertionError("a changed sample was scored")

    assert_equal(
        evaluate(toy, model, Changed(), batch_size=8).measured, evaluate(toy, model, DATA, batch_size=8).measured
    )


def test_any_callable_is_scored(toy: ToyTask, model: nn.Module) -> None:
    weights = {name: value.numpy() for name, value in model.state_dict().items()}

    def session(point: Tensor) -> dict[str, np.ndarray]:
        """What an ONNX session gives: numpy arrays."""
        hidden = (point.numpy() - weights["mean"]) / weights["std"]
        for layer in (0, 2, 5):
            hidden = hidden @ weights[f"layers.{layer}.weight"].T + weights[f"layers.{layer}.bias"]
            hidden = hidden if layer == 5 else np.maximum(hidden, 0)
        return {"logits": hidden}

    expected, found = (evaluate(toy, each, DATA, batch_size=8) for each in (model, session))
    np.testing.assert_allclose(
        found.predictions.array("probabilities"), expected.predictions.array("probabilities"), rtol=1e-4
    )
    assert found.metrics == expected.metrics


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_outputs_of_any_precision_are_read(toy: ToyTask, model: nn.Module, dtype: torch.dtype) -> None:
    found = evaluate(toy, lambda point: {"logits": model(point)["logits"].to(dtype)}, DATA, batch_size=8)
    expected = evaluate(toy, model, DATA, batch_size=8)
    np.testing.assert_allclose(
        found.predictions.array("probabilities").astype(float), expected.predictions.array("probabilities"), atol=0.02
    )


def test_intervals_are_asked_for(toy: ToyTask, model: nn.Module) -> None:
    def scores(resamples: int, seed: int = 0) -> Scores:
        return evaluate(toy, model, DATA, batch_size=8, resamples=resamples, seed=seed)

    assert scores(0).metrics["accuracy"].low is None
    accuracy = scores(50).metrics["accuracy"]
    assert accuracy.low is not None
    assert accuracy.high is not None
    assert accuracy.low <= accuracy.value <= accuracy.high
    assert scores(50).metrics == scores(50).metrics


def test_what_a_model_keeps_from_evaluation_serves_in_training(toy: ToyTask) -> None:
    """Positions or anchors that a model computes at first use."""

    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 3)
            self.scale: Tensor | None = None

        def forward(self, point: Tensor) -> dict[str, Tensor]:
            if self.scale is None:
                self.scale = torch.full((3,), 2.0)
            return {"logits": self.layer(point) * self.scale}

    caching = Caching()
    evaluate(toy, caching, DATA, batch_size=8)
    caching(torch.ones(1, 2))["logits"].sum().backward()
    assert caching.layer.weight.grad is not None


def test_no_gradient_is_recorded(toy: ToyTask, model: nn.Module) -> None:
    def watched(point: Tensor) -> dict[str, Tensor]:
        outputs = model(point)
        assert not outputs["logits"].requires_grad
        return outputs

    evaluate(toy, watched, DATA, batch_size=8)


def test_pictures_are_laid_out_as_asked() -> None:
    pictures = torch.zeros(2, 3, 4, 5)
    assert lay_out(pictures, channels_last=True).is_contiguous(memory_format=torch.channels_last)
    assert lay_out(pictures, channels_last=False) is pictures
    table = torch.zeros(2, 3)
    assert lay_out(table, channels_last=True) is table


# Things cut into windows, columns of lists ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Windows(Codec):
    """Cuts a sequence into windows of two; a prediction is the list of all its windows' sums."""

    def prepare(self, raws: Sequence[Any]) -> list[Sample]:
        return [
            Sample({"window": np.asarray(raw[at : at + 2], dtype=np.float32)}, row, {"at": at})
            for row, raw in enumerate(raws)
            for at in range(0, len(raw), 2)
        ]

    def decode(self, outputs: Mapping[str, np.ndarray], context: Context | None) -> Columns:
        assert context is not None
        sums = [[(each["at"], float(value))] for each, value in zip(context.samples, outputs["sum"], strict=True)]
        return Columns({"sums": sums})

    def merge(self, parts: Sequence[Columns]) -> Columns:
        return Columns({"sums": [[pair for part in parts for pair in part["sums"][0]]]})


class Sequences:
    """Sequences of 2, 4, 6, ... numbers."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, key: Key) -> Example:
        return Example(np.full(self.lengths[key.index], key.index), {"length": self.lengths[key.index]})


class Summing(Task):
    codec = Windows()
    inputs = (Input("window", (2,), "float32"),)
    objective = Objective("exact", "max")

    def datasets(self) -> Datasets:
        return Datasets(None)

    def model(self) -> nn.Module:
        raise NotImplementedError

    def loss(
        self, criterion: nn.Module | None, outputs: Mapping[str, Tensor], batch: Batch, progress: Progress
    ) -> Losses:
        raise NotImplementedError

    def truths(self, batch: Batch) -> Columns:
        return Columns({"length": batch.targets["length"].numpy(), "number": batch.ids})

    def metrics(self, measured: Columns) -> dict[str, float]:
        hits = [
            sums == [(at, 2.0 * number) for at in range(0, length, 2)]
            for sums, length, number in zip(*(measured[name] for name in ("sums", "length", "number")), strict=True)
        ]
        return {"exact": float(np.mean(hits))}

    def perfect(self, truths: Columns) -> Columns:
        raise NotImplementedError


def windows_sum(window: Tensor) -> dict[str, Tensor]:
    return {"sum": window.sum(dim=1)}


@pytest.mark.parametrize("batch_size", [1, 2, 3, 10])
@pytest.mark.parametrize("lengths", [[2, 6, 4, 2, 8], [2, 2, 2]])
def test_things_that_were_cut_are_joined_again(batch_size: int, lengths: list[int]) -> None:
    found = evaluate(Summing(build_config(ToyConfig)), windows_sum, Sequences(lengths), batch_size=batch_size)
    assert found.samples == len(lengths)
    assert found.predictions.ids.tolist() == found.truths.ids.tolist() == list(range(len(lengths)))
    assert found.truths.array("length").tolist() == lengths
    assert isinstance(found.predictions["sums"], list)
    assert found.metrics["exact"].value == 1.0


# What goes wrong ----------------------------------------------------------------------------------------------------


def test_a_thing_that_gave_no_sample_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="2 of 3 samples were scored: the codec must make at least one sample"):
        evaluate(Summing(build_config(ToyConfig)), windows_sum, Sequences([2, 0, 4]), batch_size=3)


def test_too_few_predictions_are_an_error(toy: ToyTask, model: nn.Module) -> None:
    with pytest.raises(EvaluationError, match="predictions have 7 rows for 8 samples: one row per sample is needed"):
        evaluate(toy, lambda point: {"logits": model(point[1:])["logits"]}, DATA, batch_size=8)


def test_too_many_truths_are_an_error(toy: ToyTask, model: nn.Module) -> None:
    class Double(ToyTask):
        def truths(self, batch: Batch) -> Columns:
            return Columns({"label": batch.targets["label"].repeat(2).numpy()})

    with pytest.raises(EvaluationError, match="truths have 16 rows for 8 samples"):
        evaluate(Double(toy.config), model, DATA, batch_size=8)


def test_an_objective_that_is_not_measured_is_an_error(toy: ToyTask, model: nn.Module) -> None:
    class Other(ToyTask):
        objective = Objective("f1", "max")

    with pytest.raises(EvaluationError, match="the task measures accuracy, but its objective is 'f1'"):
        evaluate(Other(toy.config), model, DATA, batch_size=8)


def test_memory_that_ran_out_is_one_line(toy: ToyTask) -> None:
    def greedy(point: Tensor) -> dict[str, Tensor]:
        return {"logits": torch.empty(2**60, dtype=torch.uint8)}

    with pytest.raises(
        EvaluationError, match=r"out of memory while scoring samples 0, 1, .*: lower evaluate.batch_size"
    ):
        evaluate(toy, greedy, DATA, batch_size=8)


def test_another_error_of_the_predictor_stays_what_it_is(toy: ToyTask) -> None:
    def broken(point: Tensor) -> dict[str, Tensor]:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        evaluate(toy, broken, DATA, batch_size=8)
