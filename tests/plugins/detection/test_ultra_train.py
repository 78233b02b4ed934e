"""The parameter groups and the schedule of ultralytics: each parameter once, warm-up to the step, down by the epoch."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from modelwright.task import Progress
from modelwright_detection.ultra_train import groups, schedule


def network():
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)))
    made[0].weight.requires_grad_(False)
    return made


def test_weights_decay_and_norms_and_biases_do_not():
    model = network()
    decayed, norms, biases = groups(model)
    assert [id(p) for p in decayed["params"]] == [id(model[2][0].weight)]
    assert [id(p) for p in norms["params"]] == [id(model[1].weight), id(model[2][1].weight)]
    assert {id(p) for p in biases["params"]} == {id(p) for name, p in model.named_parameters() if "bias" in name}
    optimizer = torch.optim.SGD(groups(model), lr=0.1, weight_decay=0.01)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0, 0.0]


def test_groups_of_nothing_are_left_out():
    assert len(groups(nn.Linear(2, 2, bias=False))) == 1


def at(step, *, steps=10, epochs=4):
    return Progress(step, steps * epochs, step // steps, epochs)


def test_warm_up_ends_at_the_rate_and_the_rate_falls_by_the_epoch():
    follow = schedule(momentum=0.9, warmup=1.0)
    weight, bias = {"initial_lr": 0.01, "momentum": 0.9}, {"initial_lr": 0.01, "momentum": 0.9, "role": "bias"}
    assert follow(at(0), weight) == {"lr": 0.0, "momentum": 0.8}
    assert follow(at(0), bias) == {"lr": 0.1, "momentum": 0.8}
    assert follow(at(5), bias)["lr"] == pytest.approx((0.1 + 0.01) / 2)
    assert follow(at(10), weight) == follow(at(10), bias)
    assert follow(at(10), weight)["lr"] == pytest.approx(0.01 * (0.75 * 0.99 + 0.01))
    assert {follow(at(step), weight)["lr"] for step in range(20, 30)} == {0.01 * (0.5 * 0.99 + 0.01)}
    assert follow(at(39), weight)["momentum"] == 0.9


def test_optimizers_without_momentum_get_none():
    assert list(schedule(momentum=None)(at(0), {"initial_lr": 0.01, "momentum": 0.9})) == ["lr"]
    assert list(schedule(momentum=0.9)(at(0), {"initial_lr": 0.01, "betas": (0.9, 0.99)})) == ["lr"]


@given(st.integers(1, 20), st.integers(1, 8), st.floats(0, 5), st.data())
def test_the_last_epoch_is_never_warm_up(steps, epochs, warmup, data):
    step = data.draw(st.integers(steps * (epochs - 1), steps * epochs - 1))
    follow = schedule(momentum=0.9, warmup=warmup, bias_lr=7.0)
    progress = Progress(step, steps * epochs, step // steps, epochs)
    found = follow(progress, {"initial_lr": 1.0, "momentum": 0.9, "role": "bias"})
    assert found["lr"] == pytest.approx((1 - (epochs - 1) / epochs) * 0.99 + 0.01)
    assert found["momentum"] == pytest.approx(0.9)
