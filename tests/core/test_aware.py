"""Training with simulated rounding: what is rounded, what comes back, and that it goes on where it stopped."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn

from modelwright.compression.aware import QuantizationAware, foldable, round_activations, round_weights
from modelwright.compression.plan import Plan, replay
from modelwright.errors import CompressionError, Interrupted
from modelwright.events import StepDone
from modelwright.task import Keys, Progress
from modelwright.testing.toy import Spirals, ToyTask
from modelwright.training.checkpoint import newest
from tests.core.broken import BatchNormed
from tests.core.making import Made, Maker, assert_same

FLOATS = st.floats(-1000, 1000, width=32)


@pytest.fixture
def made(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def aware(task: ToyTask, *, bits: int = 7, start: dict[str, Tensor] | None = None) -> QuantizationAware:
    model = task.model()
    if start is not None:
        model.load_state_dict(start)
    return QuantizationAware(task, model, [task.datasets()["train"].points[:20]], bits=bits)


def ready(bits: int = 7, *, task: type[ToyTask] = ToyTask, tmp_path: Path) -> tuple[QuantizationAware, Any]:
    """The step, and data."""
    step = Maker(tmp_path)(task=task, step=partial(aware, bits=bits)).trainer.step
    assert isinstance(step, QuantizationAware)
    return step, Spirals(40, seed=0, noise=0.05)


# What is rounded ------------------------------------------------------------------------------------------------------


def test_the_model_says_what_it_says_with_rounded_weights(tmp_path):
    step, data = ready(3, tmp_path=tmp_path)
    step.eval()
    before = {name: value.clone() for name, value in step.model.state_dict().items()}
    with torch.no_grad():
        said = step.model(data.points)["logits"]
        step.finish()  # leaves weights of so few bits rounded
        after = step.model(data.points)["logits"]
    layers = [module for module in step.model.modules() if isinstance(module, nn.Linear)]
    assert [len(torch.unique(layer.weight[0])) <= 7 for layer in layers] == [True] * 3
    assert not torch.equal(said, after)  # activations were rounded as well
    assert torch.allclose(said, after, atol=0.1 * float(after.abs().max()))
    assert step.model.state_dict().keys() == before.keys()


def test_weights_and_names_stay_the_models_own(tmp_path):
    step, data = ready(tmp_path=tmp_path)
    names = list(ToyTask.model(step._task).state_dict())
    before = {name: value.clone() for name, value in step.model.state_dict().items()}
    step.model(data.points)["logits"].sum().backward()
    assert list(step.model.state_dict()) == names
    assert_same(step.model.state_dict(), before)
    assert all(isinstance(p, nn.Parameter) and p.grad is not None for p in step.model.parameters())
    step.finish()
    assert_same(step.model.state_dict(), before)  # the static quantizer rounds 7 bits itself
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in step.model.modules())


def test_a_layer_that_fails_has_its_own_weights_again(tmp_path):
    step, _ = ready(tmp_path=tmp_path)
    before = {name: value.clone() for name, value in step.model.state_dict().items()}
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        step.model.layers(torch.zeros(3, 5))
    assert_same(step.model.state_dict(), before)
    assert all(isinstance(p, nn.Parameter) for module in step.model.modules() for p in module._parameters.values())


def test_ranges_are_learned_in_training_only(tmp_path):
    step, data = ready(tmp_path=tmp_path)
    step.eval()
    low, high = step.low.clone(), step.high.clone()
    assert (low <= 0).all()
    assert (high > 0).all()
    step.model(100 * data.points)
    assert torch.equal(step.high, high)
    step.train()
    step.model(100 * data.points)
    assert (step.high > high).all()  # at once
    grown = step.high.clone()
    step.model(data.points)
    assert (step.high < grown).all()  # slowly
    assert (step.high > 0.9 * grown).all()


def test_an_input_by_name_is_taken_as_it_is(tmp_path):
    step, data = ready(tmp_path=tmp_path)
    first = step.model.layers[0]
    assert first(input=data.points).shape == (40, 8)
    assert isinstance(first.weight, nn.Parameter)


def test_every_parameter_gets_a_gradient(tmp_path):
    step, data = ready(tmp_path=tmp_path)
    batch = data.__getitems__(Keys(0, 0, 1, np.arange(20)))
    losses = step(batch, Progress(0, 1, 0, 1, 0))
    losses.sum.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in step.model.parameters())


@pytest.mark.parametrize("bits", [1, 9])
def test_bits_that_cannot_be_are_refused(bits, tmp_path):
    with pytest.raises(CompressionError, match=f"cannot be rounded to {bits} bits: take 2 to 8"):
        ready(bits, tmp_path=tmp_path)


def test_a_model_with_nothing_to_round_is_refused(made):
    task = made().trainer._task
    with pytest.raises(CompressionError, match="no convolution or linear layer"):
        QuantizationAware(task, nn.Sequential(nn.ReLU()), [torch.zeros(2, 2)])


# Batch norms ----------------------------------------------------------------------------------------------------------


class Norms(nn.Module):
    """Batch norms, of which the first two and the transposed one can be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4, affine=False)
        self.up, self.norm3 = nn.ConvTranspose2d(4, 6, 2, groups=2), nn.BatchNorm2d(6)
        self.shared, self.norm4 = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.forked, self.norm5 = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.shown, self.norm6 = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.norm7 = nn.BatchNorm2d(6)
        self.last, self.norm8 = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6, track_running_stats=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.norm3(self.up(self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))))
        x = self.norm4(self.shared(torch.relu(self.shared(x))))
        y = self.forked(x)
        x = self.norm5(y) + y
        shown = self.shown(x)
        x = self.norm7(torch.relu(self.norm6(shown)))
        return {"shown": shown, "y": self.norm8(self.last(x))}


@pytest.fixture
def norms() -> Norms:
    torch.manual_seed(0)
    model = Norms()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            if norm.affine:
                nn.init.normal_(norm.weight)
                nn.init.normal_(norm.bias)
    return model.eval()


def test_batch_norms_that_alone_take_what_a_layer_gives_can_be_folded(norms):
    x = torch.randn(2, 3, 5, 5)
    before = norms(x)
    plan = foldable(norms, [x])
    assert [(edit.norm, edit.into) for edit in plan.edits] == [
        ("norm1", "conv1"),
        ("norm2", "conv2"),
        ("norm3", "up"),
    ]
    after = replay(norms, Plan.from_json(plan.as_json()))(x)
    assert all(torch.allclose(before[name], after[name], atol=1e-4) for name in before)
    assert foldable(norms, [x]) == Plan()


def test_the_step_folds_and_says_so(tmp_path):
    step, data = ready(task=BatchNormed, tmp_path=tmp_path)
    assert [(edit.norm, edit.into) for edit in step.folded.edits] == [("layers.1", "layers.0")]
    assert isinstance(step.model.layers[1], nn.Identity)
    fresh = replay(BatchNormed.model(step._task), step.folded)
    fresh.load_state_dict(step.model.state_dict())
    step.finish()
    assert torch.equal(fresh.eval()(data.points)["logits"], step.model.eval()(data.points)["logits"])


# Training -------------------------------------------------------------------------------------------------------------


def everything(made: Made) -> dict[str, Tensor]:
    """What the newest checkpoint holds of the step."""
    return newest(made.folder, "step", warn=lambda message: None).tensors["model"]


def test_a_training_that_was_stopped_ends_the_same(made):
    settings = {"train.accumulate": 2, "train.log_every": 1}
    whole = made(settings, name="whole", task=BatchNormed, step=aware).fit()
    assert everything(whole).keys() >= {"low", "high"}

    class Stop(Exception):
        pass

    def stop(event: Any) -> None:
        if isinstance(event, StepDone) and event.step == 6:
            raise Stop

    with pytest.raises((Stop, Interrupted)):
        made(settings | {"train.checkpoint_every": 1}, name="cut", task=BatchNormed, step=aware, observer=stop).fit()
    gone_on = made(settings, name="cut", task=BatchNormed, step=aware).fit()
    assert min(gone_on.steps(StepDone)) == 6
    assert_same(everything(whole), everything(gone_on))


def test_training_with_rounding_makes_up_for_it(made):
    settings = {"seed": 2, "data.samples": 301, "train.batch_size": 30, "train.optimizer.name": "Adam"}
    plain = made(settings | {"train.epochs": 40, "train.optimizer.lr": 0.02}, name="plain").fit()
    start = plain.weights()

    def accuracy(made: Made) -> float:
        return made.trainer._scores(made.trainer._dataset)["accuracy"]

    for bits, lost, regained in ((3, 0.02, 0.02), (2, 0.15, 0.1)):
        step = partial(aware, bits=bits, start=start)
        rounded = made(settings, name=f"rounded to {bits}", step=step)
        trained = made(settings | {"train.epochs": 15}, name=f"trained at {bits}", step=step).fit()
        for each in (rounded, trained):
            each.trainer.step.finish()
            each.trainer.step.eval()
        before, without, after = accuracy(plain), accuracy(rounded), accuracy(trained)
        assert without < before - lost, (bits, before, without, after)
        assert after > without + regained, (bits, before, without, after)


# Laws -----------------------------------------------------------------------------------------------------------------


@given(hnp.arrays(np.float32, st.tuples(*[st.integers(1, 5)] * 2), elements=FLOATS), st.integers(2, 8))
def test_weights_are_rounded_once_and_for_all(values, bits):
    weight = torch.from_numpy(values)
    rounded = round_weights(weight, bits=bits)
    assert torch.allclose(round_weights(rounded, bits=bits), rounded, rtol=1e-5, atol=1e-30)
    step = weight.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
    assert ((rounded - weight).abs() <= 0.5001 * step + 1e-30).all()
    assert all(len(torch.unique(row)) < 2**bits for row in rounded)


@given(hnp.arrays(np.float32, st.integers(1, 30), elements=FLOATS), FLOATS, FLOATS)
def test_activations_are_rounded_once_and_for_all(values, one, other):
    x = torch.from_numpy(values)
    low, high = torch.tensor(min(one, other, 0.0)), torch.tensor(max(one, other, 0.0))
    rounded = round_activations(x, low, high)
    scale = (high - low) / 255
    tolerance = float(scale) * 1e-3 + 1e-30
    assert torch.allclose(round_activations(rounded, low, high), rounded, rtol=1e-5, atol=tolerance)
    inside = (x >= low + scale) & (x <= high - scale)
    assert ((rounded - x).abs()[inside] <= 0.5 * scale + tolerance).all()
    assert torch.equal(round_activations(torch.zeros(3), low, high), torch.zeros(3))


def test_the_gradient_goes_straight_through_and_stops_outside():
    x = torch.tensor([-5.0, -0.3, 0.2, 0.7, 5.0], requires_grad=True)
    round_activations(x, torch.tensor(-1.0), torch.tensor(1.0)).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
    weight = torch.tensor([[3.0, -1.2, 0.1]], requires_grad=True)
    round_weights(weight, bits=3).sum().backward()
    assert weight.grad.tolist() == [[1, 1, 1]]
