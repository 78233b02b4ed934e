"""Plans: edits as JSON and back, replayed on a fresh model; plans of other models are refused."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from modelwright.compression.plan import Adapt, Fold, Kept, Plan, Resize, replay
from modelwright.compression.prune import prune
from modelwright.errors import CheckpointError
from tests.core.networks import network, samples

BLOCKS = ["plain", "residual", "padded"]


@pytest.fixture
def pruned():
    """A network, the plan of its pruning, and what is left."""
    net = network(BLOCKS)
    left = copy.deepcopy(net)
    plan = prune(left, [samples()], keep=0.5, prunable=left.modules())
    return net, plan, left


def outputs(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        (found,) = model.eval()(samples()).values()
    return found


def test_a_plan_and_weights_give_the_pruned_model_again(pruned):
    net, plan, left = pruned
    read = Plan.from_json(json.loads(json.dumps(plan.as_json())))
    assert read == plan
    fresh = replay(network(BLOCKS, seed=7), read)
    fresh.load_state_dict(left.state_dict())
    assert torch.equal(outputs(fresh), outputs(left))
    assert torch.equal(outputs(replay(copy.deepcopy(net), read)), outputs(left))  # the weights that stay are its own


def test_pruning_again_appends(pruned):
    net, first, left = pruned
    second = prune(left, [samples()], keep=0.7, prunable=left.modules())
    both = replay(copy.deepcopy(net), first + second)
    assert torch.equal(outputs(both), outputs(left))
    assert len((first + second).edits) == len(first.edits) + len(second.edits)


def test_sizes_that_modules_tell_are_those_of_their_weights(pruned):
    for module in pruned[2].modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels // module.groups)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert len(module.running_mean) == len(module.weight) == module.num_features


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.Conv2d(4, 6, 1, groups=2), nn.ConvTranspose2d(4, 6, 2)]
)
def test_a_folded_norm_says_the_same_under_the_same_name(layer):
    net = nn.Sequential(layer, nn.BatchNorm2d(6), nn.ReLU())
    for _ in range(3):
        net(torch.randn(8, 4, 6, 6) * 2 + 1)
    x = torch.randn(2, 4, 6, 6)
    before = net.eval()(x)
    replay(net, Plan([Fold("1", into="0")]))
    assert isinstance(net[1], nn.Identity)
    torch.testing.assert_close(net(x), before, rtol=1e-4, atol=1e-5)


KEPT = Kept(4, (0, 2))


@pytest.mark.parametrize(
    "plan",
    [
        Plan([Resize("absent", {"weight": {0: KEPT}})]),
        Plan([Resize("0", {"absent": {0: KEPT}})]),
        Plan([Resize("0", {"weight": {0: Kept(5, (0,))}})]),
        Plan([Adapt("0", KEPT, KEPT)]),
        Plan([Fold("0", into="0")]),
        Plan([Fold("1", into="1")]),
    ],
)
def test_a_plan_of_another_model_is_refused_in_one_line(plan):
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(3))
    with pytest.raises(CheckpointError) as caught:
        replay(net, plan)
    assert "another model" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "this plan has format None"),
        ({"format": 99, "edits": []}, "this plan has format 99 .* install a later modelwright"),
        ({"format": 1}, "this plan is damaged"),
        ({"format": 1, "edits": [{"melt": "conv"}]}, "this plan is damaged"),
        ({"format": 1, "edits": [{"resize": "0", "tensors": {"weight": {"0": {"of": 2, "kept": [3]}}}}]}, "damaged"),
        ({"format": 1, "edits": [{"resize": "0", "tensors": {"weight": {"0": {"of": 2, "kept": [1, 0]}}}}]}, "damaged"),
    ],
)
def test_what_is_no_plan_is_refused(values, said):
    with pytest.raises(CheckpointError, match=said):
        Plan.from_json(values)
