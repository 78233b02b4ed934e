"""What a step does to weights: clipping, precision, layout, the divisor of the loss, what is frozen or tied."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright.errors import ConfigError, Interrupted
from modelwright.events import EpochDone, Event, StepDone
from modelwright.task import Batch, Losses, Progress
from modelwright.testing.toy import ToyTask
from tests.core.making import Maker, assert_same


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def test_clipping_bounds_the_step(make: Maker) -> None:
    sgd = {
        "train.optimizer.name": "SGD",
        "train.optimizer.lr": 1.0,
        "train.schedule.name": "constant",
        "train.steps": 1,
    }
    moved: list[float] = []
    for clip in (None, 1e-3):
        made = make({**sgd, "train.clip": clip}, name=str(clip))
        before = made.weights()
        made.fit()
        after = made.weights()
        moved.append(math.sqrt(sum(float((after[name] - before[name]).square().sum()) for name in before)))
    assert moved[0] > 1e-2
    assert moved[1] == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_in_bf16_keeps_weights_in_fp32(make: Maker, accumulate: int) -> None:
    bf16 = {"train.precision": "bf16", "train.epochs": 20, "train.accumulate": accumulate}
    made = make(bf16).fit()
    assert {value.dtype for value in made.weights().values()} == {torch.float32}
    losses = [event.loss for event in made.of(EpochDone)]
    assert losses[-1] < losses[0]
    exact = make({**bf16, "train.precision": "fp32"}, name="fp32").fit()
    assert not torch.equal(made.weights()["layers.0.weight"], exact.weights()["layers.0.weight"])


def test_fp16_on_a_cpu_is_refused(make: Maker) -> None:
    with pytest.raises(ConfigError, match="fp16 needs a GPU; on a CPU use bf16 or fp32"):
        make({"train.precision": "fp16"})


class Pictures(ToyTask):
    """Points as pictures of 2 x 2 pixels, so that memory layout matters."""

    seen: list[bool]

    def model(self) -> nn.Module:
        task = self
        task.seen = []

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(3, 6, 2)
                self.norm = nn.BatchNorm2d(6)
                self.out = nn.Linear(6, 3)

            def forward(self, point: Tensor) -> dict[str, Tensor]:
                pictures = point.repeat(1, 6).view(-1, 3, 2, 2) if point.ndim == 2 else point
                task.seen.append(self.conv.weight.is_contiguous(memory_format=torch.channels_last))
                return {"logits": self.out(self.norm(self.conv(pictures)).flatten(1))}

        return Model()


def test_channels_last_changes_the_layout_and_not_the_result(make: Maker) -> None:
    settings = {"train.channels_last": True, "train.optimizer.name": "SGD", "train.optimizer.momentum": 0.9}
    last = make(settings, task=Pictures, name="last").fit()
    plain = make({**settings, "train.channels_last": False}, task=Pictures, name="plain").fit()
    assert all(last.trainer.step._task.seen)
    assert not any(plain.trainer.step._task.seen)
    for name, value in last.kept("last").items():
        torch.testing.assert_close(value, plain.kept("last")[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_compiled_model_learns_the_same(make: Maker) -> None:
    compiled = make({"train.compile": True, "train.epochs": 1}, name="compiled").fit()
    eager = make({"train.epochs": 1}, name="eager").fit()
    assert compiled.kept("last").keys() == eager.kept("last").keys()
    for name, value in compiled.kept("last").items():
        torch.testing.assert_close(value, eager.kept("last")[name], rtol=1e-4, atol=1e-5)


class Undivided(ToyTask):
    """A loss that nothing divides."""

    def loss(
        self, criterion: nn.Module | None, outputs: Mapping[str, Tensor], batch: Batch, progress: Progress
    ) -> Losses:
        return Losses(F.cross_entropy(outputs["logits"], batch.targets["label"], reduction="sum") / 10, None)


class Weighted(ToyTask):
    """Class weights: the loss weighs what its samples weigh, as a tensor."""

    weights = (1.0, 3.0, 0.5)

    def loss(
        self, criterion: nn.Module | None, outputs: Mapping[str, Tensor], batch: Batch, progress: Progress
    ) -> Losses:
        weights, labels = torch.tensor(self.weights), batch.targets["label"]
        return Losses(F.cross_entropy(outputs["logits"], labels, weights, reduction="sum"), weights[labels].sum())


class Weightless(Weighted):
    weights = (0.0, 0.0, 0.0)


@pytest.mark.parametrize("task", [Undivided, Weighted])
def test_losses_of_either_kind_add_up_over_micro_batches(make: Maker, task: type[ToyTask]) -> None:
    # 41 samples: the last step of an epoch has one sample for three micro-batches.
    settings = {"train.optimizer.name": "SGD", "train.optimizer.lr": 0.1, "data.samples": 41}
    whole, parts = (make({**settings, "train.accumulate": n}, task=task, name=str(n)).fit() for n in (1, 3))
    for name, value in whole.weights().items():
        torch.testing.assert_close(value, parts.weights()[name], rtol=1e-4, atol=1e-6)
    if task is Weighted:  # how an undivided loss is told depends on the number of its batches
        for a, b in zip(whole.of(StepDone), parts.of(StepDone), strict=True):
            assert a.loss == pytest.approx(b.loss, rel=1e-4)


def test_a_weighted_loss_is_torchs_own(make: Maker) -> None:
    made = make({"train.steps": 1, "train.batch_size": 40, "data.noise": 0.0}, task=Weighted)
    model, data = made.trainer.step.model, made.trainer._dataset
    expected = F.cross_entropy(model(data.points)["logits"], data.labels, torch.tensor(Weighted.weights))  # type: ignore[attr-defined]
    made.fit()
    assert made.of(StepDone)[0].loss == pytest.approx(float(expected.detach()), rel=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_that_weighs_nothing_changes_nothing(make: Maker, accumulate: int) -> None:
    made = make({"train.accumulate": accumulate, "train.optimizer.name": "SGD"}, task=Weightless)
    before = made.weights()
    made.fit()
    assert_same(made.weights(), before)


class Balanced(nn.Module):
    """A loss with a parameter, a buffer and a counter that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.zeros(()))
        self.register_buffer("mean", torch.zeros(3))
        self.calls = 0

    def get_extra_state(self) -> dict[str, int]:
        return {"calls": self.calls}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.calls = state["calls"]

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        self.mean.lerp_(logits.detach().mean(dim=0), 0.1)
        scaled = (logits - self.mean) * self.temperature.exp() * (1 + 0.1 * math.sin(self.calls))
        return F.cross_entropy(scaled, labels, reduction="sum")


class WithCriterion(ToyTask):
    def criterion(self, model: nn.Module) -> nn.Module | None:
        return Balanced()

    def loss(
        self, criterion: nn.Module | None, outputs: Mapping[str, Tensor], batch: Batch, progress: Progress
    ) -> Losses:
        assert criterion is not None
        return Losses(criterion(outputs["logits"], batch.targets["label"]), len(batch))


def stop_at(step: int) -> Callable[[Event], None]:
    def observer(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return observer


def test_a_loss_with_a_state_of_its_own_is_trained_and_goes_on_exactly(make: Maker) -> None:
    settings = {"train.log_every": 1, "train.ema.decay": 0.9}
    whole = make(settings, task=WithCriterion, name="whole").fit()
    with pytest.raises(Interrupted, match=r"stopped at step 5 of 12, a checkpoint is saved; go on with: .* resume"):
        make(settings, task=WithCriterion, name="cut", observer=stop_at(5)).fit()
    cut = make(settings, task=WithCriterion, name="cut").fit()
    a, b = whole.trainer.step.state_dict(), cut.trainer.step.state_dict()
    assert a.keys() == b.keys()
    assert {"criterion.temperature", "criterion.mean", "criterion._extra_state"} < a.keys()
    assert a["criterion._extra_state"] == b["criterion._extra_state"] == {"calls": 12}
    assert a["criterion.temperature"] != 0
    tensors = {name: value for name, value in a.items() if isinstance(value, Tensor)}
    assert_same(tensors, {name: b[name] for name in tensors})
    assert not any(name.startswith("criterion") for name in whole.kept("last"))


class Odd(ToyTask):
    """A frozen layer, and a parameter that nothing uses."""

    def model(self) -> nn.Module:
        model = super().model()
        model.layers[0].requires_grad_(False)  # type: ignore[index, union-attr]
        model.unused = nn.Parameter(torch.ones(2, 2))
        return model


@pytest.mark.parametrize("accumulate", [1, 2])
def test_frozen_and_unused_parameters_are_left_alone(make: Maker, accumulate: int) -> None:
    settings = {"train.accumulate": accumulate, "train.optimizer.weight_decay": 0.5, "train.clip": 1.0}
    made = make(settings, task=Odd)
    before = made.weights()
    made.fit()
    after = made.weights()
    for name in ("layers.0.weight", "layers.0.bias", "unused"):
        assert torch.equal(before[name], after[name]), name
    assert not torch.equal(before["layers.2.weight"], after["layers.2.weight"])
    assert made.trainer.step.model.unused.grad is None  # type: ignore[union-attr]


class TiedTask(ToyTask):
    """Two names for one weight, and a layer after it."""

    def model(self) -> nn.Module:
        model = super().model()
        model.again = model.layers[2]  # type: ignore[index]
        return model


def test_tied_weights_are_averaged_once(make: Maker) -> None:
    settings = {"train.ema.decay": 0.9, "train.epochs": 3}
    tied, plain = make(settings, task=TiedTask, name="tied").fit(), make(settings, name="plain").fit()
    for kind in ("last", "best"):
        kept = tied.kept(kind)
        assert torch.equal(kept["again.weight"], kept["layers.2.weight"])
        assert_same({name: kept[name] for name in plain.kept(kind)}, plain.kept(kind))
    assert_same({name: tied.weights()[name] for name in plain.weights()}, plain.weights())
