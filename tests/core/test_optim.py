"""Optimizers by torch's names, schedules as pure functions of the step, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from modelwright.config import EmaConfig, OptimizerConfig, ScheduleConfig
from modelwright.errors import ConfigError
from modelwright.task import Progress
from modelwright.training.optim import UNFIT, Ema, build_optimizer, build_schedule, optimizers

# Optimizers ---------------------------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def one_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(2, 1, 4, 4)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("name", sorted(set(optimizers()) - {"Muon"}))
def test_every_optimizer_of_torch_trains_by_its_name(name: str) -> None:
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    config = OptimizerConfig(name=name, lr=0.01)
    one_step(model, build_optimizer(config, [{"params": list(model.parameters())}]))
    after = list(model.parameters())
    assert all(p.isfinite().all() for p in after)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_muon_says_that_it_takes_matrices_only() -> None:
    with pytest.raises(ConfigError, match=r"Muon refuses its options: .*2D"):
        build_optimizer(OptimizerConfig(name="Muon"), [{"params": list(network().parameters())}])
    matrices = nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False))
    one_step(matrices, build_optimizer(OptimizerConfig(name="Muon"), [{"params": list(matrices.parameters())}]))


@pytest.mark.parametrize("name", sorted(UNFIT))
def test_an_optimizer_that_cannot_be_used_says_why(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} cannot be used, it .*; choose AdamW or SGD"):
        build_optimizer(OptimizerConfig(name=name), [{"params": list(network().parameters())}])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "RMSProp"}, r"torch.optim has no 'RMSProp' \(did you mean 'RMSprop'\?\)"),
        ({"name": "Optimizer"}, "torch.optim has no 'Optimizer'"),
        ({"name": "SGD", "options": {"nestrov": True}}, r"SGD takes no 'nestrov' \(did you mean 'nesterov'\?\)"),
        ({"name": "AdamW", "momentum": 0.9}, "AdamW takes no 'momentum'"),
        ({"name": "Rprop", "weight_decay": 0.1}, "Rprop takes no 'weight_decay'"),
        ({"name": "SGD", "options": {"nesterov": True}}, "SGD refuses its options: Nesterov"),
        ({"name": "SGD", "options": {"params": 1}}, "SGD refuses its options"),
        ({"name": "AdamW", "options": {"fused": True, "foreach": True}}, "AdamW refuses its options"),
        ({"name": "AdamW", "options": {"betas": [0.9, 2.0]}}, "AdamW refuses its options"),
    ],
)
def test_wrong_settings_are_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        build_optimizer(OptimizerConfig(**settings), [{"params": list(network().parameters())}])
    assert "\n" not in str(error.value)


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nothing to train"):
        build_optimizer(OptimizerConfig(), [])


def test_options_reach_the_optimizer_and_groups_keep_their_own() -> None:
    weight, bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    config = OptimizerConfig(name="SGD", lr=0.1, weight_decay=0.5, momentum=0.9, options={"nesterov": True})
    built = build_optimizer(config, [{"params": [weight]}, {"params": [bias], "weight_decay": 0.0, "lr": 1.0}])
    first, second = built.param_groups
    assert (first["lr"], first["weight_decay"], first["momentum"], first["nesterov"]) == (0.1, 0.5, 0.9, True)
    assert (second["lr"], second["weight_decay"], second["momentum"]) == (1.0, 0.0, 0.9)
    assert first["fused"] is True


@pytest.mark.parametrize("option", ["foreach", "differentiable"])
def test_what_excludes_the_fused_kernel_is_obeyed(option: str) -> None:
    built = build_optimizer(OptimizerConfig(options={option: True}), [{"params": list(network().parameters())}])
    assert not built.param_groups[0]["fused"]


# Schedules ----------------------------------------------------------------------------------------------------------

OURS = ["constant", "cosine", "linear", "onecycle", "step"]


def rates(config: ScheduleConfig, steps: int) -> list[float]:
    schedule = build_schedule(config, {})
    group = {"initial_lr": 2.0}
    return [schedule(Progress(step, steps, 0, 1), group)["lr"] for step in range(steps)]


@given(
    name=st.sampled_from(OURS),
    warmup=st.one_of(st.floats(0, 0.99), st.integers(1, 30)),
    final=st.floats(0, 1),
    milestones=st.lists(st.floats(0.01, 0.99), max_size=3),
    steps=st.integers(1, 60),
)
def test_rates_are_positive_at_most_the_peak_and_pure(
    name: str, warmup: float, final: float, milestones: list[float], steps: int
) -> None:
    config = ScheduleConfig(name=name, warmup=warmup, final=final, milestones=milestones)
    found = rates(config, steps)
    assert all(0 < rate <= 2.0 * (1 + 1e-12) for rate in found)
    assert rates(config, steps) == found


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "constant"}, {0: 2.0, 50: 2.0, 99: 2.0}),
        ({"name": "cosine"}, {0: 2.0, 25: 1 + math.sqrt(0.5), 50: 1.0, 75: 1 - math.sqrt(0.5)}),
        ({"name": "cosine", "final": 0.5}, {0: 2.0, 50: 1.5}),
        ({"name": "linear"}, {0: 2.0, 25: 1.5, 50: 1.0, 99: 0.02}),
        ({"name": "linear", "final": 0.1}, {0: 2.0, 50: 1.1}),
        ({"name": "onecycle"}, {0: 2 / 25, 15: 1 + 1 / 25, 30: 2.0, 65: 1.0}),
        ({"name": "onecycle", "final": 0.2}, {30: 2.0, 65: 1.2}),
        ({"name": "step"}, {0: 2.0, 49: 2.0, 50: 0.2, 74: 0.2, 75: 0.02, 99: 0.02}),
        ({"name": "step", "milestones": [0.3], "gamma": 0.5}, {29: 2.0, 30: 1.0}),
        # Warm-up rises in equal steps to the peak, which is reached when it is over.
        ({"name": "constant", "warmup": 4}, {0: 0.4, 1: 0.8, 2: 1.2, 3: 1.6, 4: 2.0}),
        ({"name": "constant", "warmup": 0.04}, {0: 0.4, 3: 1.6, 4: 2.0}),
        ({"name": "linear", "warmup": 20}, {19: 2 * 20 / 21, 20: 2.0, 60: 1.0}),
        ({"name": "cosine", "warmup": 200}, {0: 2 / 201, 99: 2 * 100 / 201}),
    ],
)
def test_shapes(settings: dict[str, Any], expected: dict[int, float]) -> None:
    found = rates(ScheduleConfig(**settings), 100)
    assert {step: found[step] for step in expected} == pytest.approx(expected)


def test_each_group_has_its_own_peak() -> None:
    schedule = build_schedule(ScheduleConfig(name="linear"), {})
    assert schedule(Progress(50, 100, 0, 1), {"initial_lr": 4.0, "lr": 1.0}) == {"lr": 2.0}


def test_a_task_may_bring_a_schedule_that_sets_momentum_too() -> None:
    def fall(progress: Progress, group: Mapping[str, Any]) -> Mapping[str, float]:
        return {"lr": group["initial_lr"] * (1 - progress.fraction), "momentum": 0.5 + 0.4 * progress.fraction}

    found = build_schedule(ScheduleConfig(name="fall"), {"fall": fall})
    assert found(Progress(50, 100, 0, 1), {"initial_lr": 1.0}) == {"lr": 0.5, "momentum": 0.7}


def test_an_unknown_schedule_names_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown 'cosin' \(did you mean 'cosine'\?\); known: .*onecycle, step, fall"
    ):
        build_schedule(ScheduleConfig(name="cosin"), {"fall": lambda progress, group: {}})


# The average --------------------------------------------------------------------------------------------------------


class Tied(nn.Module):
    """Two names for one weight, as a language model's embedding and its output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 3)
        self.out = nn.Linear(3, 4, bias=False)
        self.out.weight = self.embed.weight
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("scale", torch.ones(2, dtype=torch.float64))


def disturb(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter)
        for buffer in model.buffers():
            buffer += 1


@pytest.mark.parametrize(("decay", "tau"), [(0.9, 0.0), (0.99, 5.0)])
@pytest.mark.parametrize("build", [network, Tied])
def test_the_average_follows_its_formula(build: Any, decay: float, tau: float) -> None:
    model = build()
    ema = Ema(model, EmaConfig(decay=decay, tau=tau))
    plain = {name: value.detach().clone().double() for name, value in model.state_dict().items()}
    for update in range(1, 8):
        disturb(model)
        ema.update(update)
        share = decay * (1 - math.exp(-update / tau)) if tau else decay
        for name, value in model.state_dict().items():
            plain[name] = share * plain[name] + (1 - share) * value if value.is_floating_point() else value.double()
    ema.swap()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value.double(), plain[name], rtol=1e-5, atol=1e-6, msg=name)


def test_a_mask_of_infinities_stays_as_it_is() -> None:
    model = network()
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    ema = Ema(model, EmaConfig(decay=0.9))
    for update in (1, 2):
        ema.update(update)
    assert ema.tensors["mask"].tolist() == [0.0, -math.inf]


@pytest.mark.parametrize("build", [network, Tied])
def test_exchanging_twice_changes_nothing(build: Any) -> None:
    model = build()
    ema = Ema(model, EmaConfig(decay=0.9))
    for update in (1, 2):
        disturb(model)
        ema.update(update)
    places = [parameter.data_ptr() for parameter in model.parameters()]
    raw = {name: value.clone() for name, value in model.state_dict().items()}
    average = {name: value.clone() for name, value in ema.tensors.items()}
    ema.swap()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in average.items())
    assert not all(torch.equal(value, raw[name]) for name, value in model.state_dict().items())
    ema.swap()
    assert all(torch.equal(value, raw[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, average[name]) for name, value in ema.tensors.items())
    assert [parameter.data_ptr() for parameter in model.parameters()] == places


def test_a_saved_average_is_put_back() -> None:
    model = network()
    ema = Ema(model, EmaConfig(decay=0.9))
    kept: dict[str, Tensor] = {name: value.clone() for name, value in ema.tensors.items()}
    disturb(model)
    ema.update(1)
    ema.load(kept)
    assert all(torch.equal(value, kept[name]) for name, value in ema.tensors.items())
