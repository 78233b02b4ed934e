"""Networks of pictures lose channels and go on working: ours, and some of torchvision's."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from modelwright.compression.cost import cost
from modelwright.compression.plan import Plan, replay
from modelwright.compression.prune import prune
from modelwright_image.config import ImageModel
from modelwright_image.model import build_model

pytestmark = pytest.mark.once


def build(name: str, size: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(ImageModel(name=name), classes=4, channels=3, size=size, mean=[120.0] * 3, std=[60.0] * 3)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("lenet", 32),
        ("cnn", 32),
        ("resnet20", 32),
        ("resnet18", 32),
        ("torchvision/mobilenet_v2", 32),
        ("torchvision/densenet121", 32),
        ("torchvision/shufflenet_v2_x0_5", 32),
    ],
)
def test_half_of_the_channels_go_and_what_is_left_reloads_and_learns(name, size):
    model = build(name, size).eval()
    pictures = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    before = cost(model, [pictures])
    plan = prune(model, [pictures], keep=0.5, scope="layer", prunable=model.modules())
    assert cost(model, [pictures]).macs < 0.6 * before.macs

    again = replay(build(name, size), Plan.from_json(json.loads(json.dumps(plan.as_json()))))
    again.load_state_dict(copy.deepcopy(model.state_dict()))
    with torch.no_grad():
        assert torch.equal(again.eval()(pictures)["logits"], model.eval()(pictures)["logits"])
    again.train()(pictures)["logits"].square().sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in again.parameters())


def test_the_residual_stream_of_a_small_resnet_is_pruned_too():
    model = build("resnet20", 32)
    pictures = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    prune(model, [pictures], keep=0.5, scope="layer", prunable=model.modules())
    stages = (model.network.stage1, model.network.stage2, model.network.stage3)
    widths = [stage[0].conv2.out_channels for stage in stages]
    assert all(width < full for width, full in zip(widths, (16, 32, 64), strict=True))
