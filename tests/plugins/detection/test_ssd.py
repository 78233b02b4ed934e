"""SSDlite beside torchvision's own decoding and loss: the same numbers."""

from __future__ import annotations

import pytest

pytest.importorskip("torchvision")
import torch
from tests.plugins.detection.models_made import SIDE, at, batch, make, stirred
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from modelwright_detection.detector import trained_on


@pytest.fixture(scope="module")
def model():
    return stirred(make("ssdlite320"))


def test_default_boxes_are_those_of_torchvision(model):
    pictures = torch.zeros(2, 3, SIDE, SIDE)
    with torch.no_grad():
        maps = list(model.eval().network.backbone(pictures).values())
    theirs = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    expected = theirs.anchor_generator(ImageList(pictures, [(SIDE, SIDE)] * 2), maps)
    assert torch.equal(model.defaults, expected[1])
    assert "defaults" not in model.state_dict()


def test_boxes_and_scores_are_those_of_torchvision(model):
    with torch.no_grad():
        found = model.eval()(*batch().inputs)
    for index in range(3):
        expected = model.network.box_coder.decode_single(found["offsets"][index], model.defaults)
        torch.testing.assert_close(found["boxes"][index], expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found["scores"], found["logits"].softmax(2)[..., 1:])


def test_pictures_are_normalised_as_torchvision_does(model):
    given = batch().inputs[0]
    seen = []
    handle = model.network.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model.eval()(given)
    handle.remove()
    expected = torch.stack([model.network.transform.normalize(each.float() / 255) for each in given])
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=1e-6)


def test_the_loss_is_that_of_torchvision(model):
    given = batch()
    boxes, labels, wanted = trained_on(given)
    targets = [{"boxes": b[w], "labels": n[w] + 1} for b, n, w in zip(boxes, labels, wanted, strict=True)]
    network = model.eval().network
    with torch.no_grad():
        outputs = model(*given.inputs)
        matched = [
            network.proposal_matcher(box_iou(target["boxes"], model.defaults))
            if len(target["boxes"])
            else torch.full((len(model.defaults),), -1)
            for target in targets
        ]
        said = {"bbox_regression": outputs["offsets"], "cls_logits": outputs["logits"]}
        expected = network.compute_loss(targets, said, [model.defaults] * 3, matched)
        found = model.criterion()(outputs, given, at())
    assert float(found.sum) / float(found.weight) == pytest.approx(float(sum(expected.values())), rel=1e-5)
    assert float(found.weight) == sum(int((each >= 0).sum()) for each in matched)


def test_no_weights_are_fetched(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a download was begun")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision._internally_replaced_utils.load_state_dict_from_url", refuse)
    assert make("ssdlite320").needs_nms
