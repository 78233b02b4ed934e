"""Detectors by name: what all of them promise, freezing, weights to start from, one-line errors."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from tests.plugins.detection.models_made import CLASSES, at, batch, make, need_ultralytics, rows, settings
from torch import nn

from modelwright.errors import ConfigError
from modelwright_detection import model
from modelwright_detection.detector import centre_size, corners
from modelwright_detection.model import check_name, hints, load_pretrained

NAMES = ["yolo26n", "yolo11n", "d-fine", "rt-detr", "ssdlite320"]


@pytest.fixture(scope="module", params=NAMES)
def detector(request):
    if request.param.startswith("yolo"):
        need_ultralytics()
    if request.param in model.SETS:
        pytest.importorskip("transformers")
    return request.param, make(request.param)


def test_a_detector_says_the_same_names_in_both_modes_and_boxes_without_gradient(detector):
    name, network = detector
    given = batch(name)
    said = network.train()(*given.inputs, **given.hints)
    assert not said["boxes"].requires_grad
    assert not said["scores"].requires_grad
    network.eval()
    with torch.no_grad():
        heard = network(*given.inputs)
        served = network.served()(*given.inputs)
    assert set(said) == set(heard)
    count = heard["boxes"].shape[1]
    assert said["boxes"].shape == heard["boxes"].shape == (3, count, 4)
    assert said["scores"].shape == heard["scores"].shape == (3, count, len(CLASSES))
    assert 0 <= heard["scores"].min() <= heard["scores"].max() <= 1
    assert list(served) == ["boxes", "scores"]
    for key, value in served.items():
        torch.testing.assert_close(value, heard[key])


def test_pictures_as_floats_say_the_same(detector):
    _, network = detector
    given = batch().inputs[0]
    with torch.no_grad():
        whole, parts = (network.eval().served()(each) for each in (given, given.float()))
    torch.testing.assert_close(whole, parts)


def test_the_loss_is_its_parts_and_reaches_every_parameter(detector):
    name, network = detector
    given = batch(name)
    found = network.train().criterion()(network(*given.inputs, **given.hints), given, at())
    found.sum.backward()
    assert float(sum(found.parts.values()).detach()) == pytest.approx(float(found.sum.detach()), rel=1e-5)
    assert [key for key, p in network.named_parameters() if p.requires_grad and p.grad is None] == []
    network.zero_grad()


def test_a_picture_without_objects_has_a_loss(detector):
    name, network = detector
    given = rows(batch(name), [2, 2])  # twice, since batch norms cannot learn of one
    found = network.train().criterion()(network(*given.inputs, **given.hints), given, at())
    assert torch.isfinite(found.sum)
    found.sum.backward()


def test_crowds_and_padding_are_not_trained_on(detector):
    name, network = detector
    given, other = batch(name), batch(name)
    network.eval()
    other.targets["boxes"] = given.targets["boxes"].clone()
    other.targets["boxes"][0, 3] = torch.tensor([1.0, 2.0, 50.0, 60.0])  # the crowd
    other.targets["boxes"][2] = 7.0  # padding
    with torch.no_grad():
        said = network(*given.inputs)
        found = [network.criterion()(said, each, at()).sum for each in (given, other)]
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_weighed_losses_add_up(detector):
    name, network = detector
    given, criterion = batch(name), network.eval().criterion()
    parts = [rows(given, [0]), rows(given, [1, 2])]
    with torch.no_grad():
        whole, first, second = (criterion(network(*each.inputs), each, at()) for each in (given, *parts))
    if whole.weight is None:
        pytest.skip("normalised over its batch")
    assert float(whole.weight) == float(first.weight) + float(second.weight) > 0
    assert float(whole.sum) == pytest.approx(float(first.sum + second.sum), rel=1e-4)


def test_nothing_but_the_head_learns_when_frozen(detector, tmp_path):
    name, network = detector
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, tmp_path / "model.safetensors")
    frozen = make(name, freeze=True, pretrained=str(tmp_path))
    said = load_pretrained(frozen, str(tmp_path / "model.safetensors"))
    assert said.startswith(f"{tmp_path}/model.safetensors: ")
    before = {key: value.clone() for key, value in frozen.state_dict().items()}
    head = {id(p) for module in frozen.head() for p in module.parameters()}
    assert all(id(p) in head for p in frozen.parameters() if p.requires_grad)
    assert any(p.requires_grad for p in frozen.parameters())
    given = batch(name)
    frozen.train()(*given.inputs, **given.hints)
    inside = {id(t) for module in frozen.head() for t in module.buffers()}
    for key, value in frozen.named_buffers():
        if key in before and id(value) not in inside:
            assert torch.equal(value, before[key]), key


def test_state_is_all_there_is(detector):
    name, network = detector
    other = make(name, seed=1).eval()
    other.load_state_dict(network.eval().state_dict())
    with torch.no_grad():
        torch.testing.assert_close(network.served()(batch().inputs[0]), other.served()(batch().inputs[0]))


def test_nothing_stays_behind_when_it_moves(detector):
    name, _ = detector
    network = make(name)
    with torch.no_grad():
        network.eval()(batch().inputs[0])
    network.to("meta")
    for path, part in network.named_modules():
        for key, value in vars(part).items():
            if isinstance(value, torch.Tensor):
                assert value.device.type == "meta", f"{path}.{key}"


# Errors ---------------------------------------------------------------------------------------------------------------


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(ConfigError, match=r"model.name: there is no detector 'yolo62n' \(did you mean 'yolo26n'\?\)"):
        make("yolo62n")
    check_name("yolo11m")


@pytest.mark.parametrize(("side", "near"), [(100, 96), (16, 32), (0, 32)])
def test_sides_are_multiples_of_32(side, near):
    with pytest.raises(ConfigError, match=f"multiple of 32 pixels: set data.size={near}"):
        make("ssdlite320", side=side)


def test_freezing_needs_weights():
    with pytest.raises(ConfigError, match=r"model.freeze trains only the head and needs model.pretrained"):
        make("ssdlite320", freeze=True)


def test_more_objects_than_queries_are_refused():
    with pytest.raises(ConfigError, match=r"model\.queries=10: a training picture holds 12 objects"):
        make("d-fine", queries=10, most=12)


def test_a_network_of_another_name_is_refused(tmp_path):
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "some.pt")
    with pytest.raises(ConfigError, match=r"no tensor of .*some.pt fits the network"):
        load_pretrained(make("ssdlite320"), str(tmp_path / "some.pt"))


def test_only_set_detectors_are_given_hints():
    given = batch("ssdlite320")
    assert hints(settings("ssdlite320"), given) == {}
    found = hints(settings("d-fine"), given)
    assert found["labels"][0].tolist()[3] == -1  # the crowd
    assert found["labels"][0].tolist()[:3] == given.targets["labels"][0].tolist()[:3]


def test_corners_and_centres_are_inverse():
    boxes = batch().targets["boxes"]
    torch.testing.assert_close(corners(centre_size(boxes)), boxes)


def test_frozen_norms_stay_in_evaluation():
    network = make("ssdlite320")
    network.freeze()
    norms = [each for each in network.train().network.backbone.modules() if isinstance(each, nn.BatchNorm2d)]
    assert norms
    assert not any(each.training for each in norms)
    assert network.training
