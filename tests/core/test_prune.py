"""Pruning: how much is left and of what, which channels go first, what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modelwright.compression.cost import cost
from modelwright.compression.prune import prune, sparsify
from modelwright.errors import CompressionError
from tests.core.networks import network, samples


class Plain(nn.Module):
    """Two convolutions of 8 channels before the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.second(self.first(x).relu()).relu()
        return {"logits": self.head(x.mean(dim=(2, 3)))}


def pictures() -> list[torch.Tensor]:
    return [torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))]


def cut(model: nn.Module, **options) -> nn.Module:
    options = {"keep": 0.5, "prunable": model.modules(), **options}
    prune(model, pictures(), **options)
    return model


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("of", ["channels", "macs", "parameters"])
def test_what_is_left_is_as_near_below_as_whole_channels_allow(of, scope):
    model = Plain()
    before, channels = cost(model, pictures()), 16
    cut(model, of=of, scope=scope)
    after = cost(model, pictures())
    left = {
        "channels": (model.first.out_channels + model.second.out_channels) / channels,
        "macs": after.macs / before.macs,
        "parameters": after.parameters / before.parameters,
    }[of]
    assert 0.3 < left <= 0.5
    if scope == "layer":
        assert model.first.out_channels == model.second.out_channels
    assert model(*pictures())["logits"].shape == (2, 2)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.2, 0.95), st.sampled_from(["channels", "macs", "parameters"]), st.sampled_from(["layer", "global"]))
def test_never_more_than_asked_for_is_left_and_every_layer_keeps_something(keep, of, scope):
    net = network(["plain", "residual"], seed=3)
    before = cost(net, [samples()])
    prune(net, [samples()], keep=keep, of=of, scope=scope, prunable=net.modules())
    after = cost(net, [samples()])
    assert 0 < after.parameters <= before.parameters
    if of != "channels":
        assert getattr(after, of) <= keep * getattr(before, of)
    assert all(m.out_channels >= 1 for m in net.modules() if isinstance(m, nn.Conv2d))


def test_no_layer_is_all_but_emptied_for_the_sake_of_others():
    model = Plain()
    with torch.no_grad():
        model.first.weight[:7] *= 1e-6
        model.first.bias[:7] *= 1e-6
        model.second.weight[:, :7] *= 1e-6
    cut(model, scope="global")
    assert (model.first.out_channels, model.second.out_channels) == (2, 6)  # a quarter stays where half is asked for


def test_the_smallest_channels_go_first():
    model = Plain()
    with torch.no_grad():
        for channel in (1, 4, 6):
            model.first.weight[channel] *= 1e-3
            model.first.bias[channel] *= 1e-3
            model.second.weight[:, channel] *= 1e-3
    expected = model.first.weight[[0, 2, 3, 5, 7]].clone()
    cut(model, keep=5 / 8, prunable=[model.first])
    assert torch.equal(model.first.weight, expected)
    assert model.second.in_channels == 5


def test_taylor_looks_at_what_a_channel_does_to_the_loss():
    model = Plain()
    with torch.no_grad():
        model.second.weight[:, 2] = 0  # large weights whose results nobody reads
        model.first.weight[2] *= 100
    model(*pictures())["logits"].square().sum().backward()
    kept = model.first.weight[[0, 1, 3, 4, 5, 6, 7]].clone()
    cut(model, keep=7 / 8, importance="taylor", prunable=[model.first])
    assert torch.equal(model.first.weight, kept)


def test_channels_stay_in_multiples():
    model = cut(Plain(), keep=0.6, multiple=4)
    assert model.first.out_channels % 4 == model.second.out_channels % 4 == 0
    assert min(model.first.out_channels, model.second.out_channels) == 4


def test_only_what_is_prunable_is_pruned():
    model = Plain()
    cut(model, prunable=[model.second])
    assert (model.first.out_channels, model.second.out_channels) == (8, 4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prunable": []}, "no channels can be pruned"),
        ({"importance": "taylor"}, "needs gradients and there are none: run the loss backward first"),
        ({"keep": 0.01}, "of the channels stay when all that may go are gone, and 1.0% were asked for: raise keep"),
    ],
)
def test_what_cannot_be_done_is_said_and_the_model_stays(options, said):
    model = Plain()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CompressionError, match=said):
        cut(model, **options)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# Single weights


@settings(max_examples=15, deadline=None)
@given(st.floats(0.05, 1.0))
def test_the_largest_weights_stay_and_biases_too(keep):
    model = Plain()
    before = copy.deepcopy(model.state_dict())
    masks = sparsify(model, keep=keep)
    assert set(masks) == {"first.weight", "second.weight", "head.weight"}
    stays = torch.cat([mask.flatten() for mask in masks.values()])
    assert int(stays.sum()) == max(1, int(keep * len(stays)))
    sizes = torch.cat([before[name].abs().flatten() for name in masks])
    assert sizes[stays].min() >= (sizes[~stays].max() if bool((~stays).any()) else 0)
    assert torch.equal(model.first.bias, before["first.bias"])
    assert all(torch.equal(getattr(model, n.split(".")[0]).weight, before[n] * mask) for n, mask in masks.items())


def test_a_model_without_weights_has_none_to_lose():
    with pytest.raises(CompressionError, match="no weights to set to zero"):
        sparsify(nn.BatchNorm1d(3), keep=0.5)
