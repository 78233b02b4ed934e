"""YOLO networks beside ultralytics' own decoding and loss: the same numbers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tests.plugins.detection.models_made import SIDE, at, batch, make, need_ultralytics, stirred

from modelwright_detection.detector import centre_size, trained_on

need_ultralytics()

NAMES = ["yolo11n", "yolo26n"]


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    return stirred(make(request.param))


def theirs(given):
    """A batch as ultralytics has it."""
    boxes, labels, wanted = trained_on(given)
    owner, _ = torch.where(wanted)
    shares = centre_size(boxes[wanted]) / SIDE
    return {
        "img": given.inputs[0].float() / 255,
        "batch_idx": owner.float(),
        "cls": labels[wanted].float().unsqueeze(1),
        "bboxes": shares,
    }


def test_boxes_and_scores_are_those_of_ultralytics(model):
    given = batch()
    network = model.eval().network
    network.end2end = False
    network.model[-1].xyxy = True
    with torch.no_grad():
        outputs = model(*given.inputs)
        said = network(given.inputs[0].float() / 255)[0].transpose(1, 2)
        boxes, scores = model._decode(outputs["maps"], outputs["logits"], model._features(given.inputs[0]))
    torch.testing.assert_close(boxes, said[..., :4])
    torch.testing.assert_close(scores, said[..., 4:])


def test_the_end_to_end_head_is_served_on_request():
    one, many = (stirred(make("yolo26n", end_to_end=wanted)).eval() for wanted in (True, False))
    assert not one.needs_nms
    assert many.needs_nms
    given = batch()
    with torch.no_grad():  # fresh, the second head is a copy of the first
        for each in (one, many):
            for parameter in each.network.model[-1].one2one_cv2.parameters():
                parameter.mul_(0.7)
    one.network.end2end = True
    with torch.no_grad():
        best = one.network(given.inputs[0].float() / 255)[0][:, 0]  # box, score, class
        found = one.served()(*given.inputs)
        assert not torch.equal(found["boxes"], many.served()(*given.inputs)["boxes"])
    place = found["scores"].amax(2).argmax(1)
    torch.testing.assert_close(found["boxes"][torch.arange(3), place], best[:, :4])
    torch.testing.assert_close(found["scores"].amax((1, 2)), best[:, 4])


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_the_loss_is_that_of_ultralytics(model, epoch):
    given = batch(seed=epoch)
    network = model.train().network
    network.args = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, epochs=3)
    network.criterion = criterion = network.init_criterion()
    for _ in range(epoch):
        getattr(criterion, "update", lambda: None)()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    expected, _ = network.loss(theirs(given))
    expected.sum().backward()
    gradients = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    model.load_state_dict(state)
    model.zero_grad()
    found = model.criterion()(model(*given.inputs), given, at(epoch, 3))
    found.sum.backward()
    torch.testing.assert_close(found.sum, expected.sum(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.stack(list(found.parts.values())), expected, rtol=1e-4, atol=1e-5)
    scale = max(float(each.abs().max()) for each in gradients.values())
    for key, parameter in model.named_parameters():
        if key in gradients:
            torch.testing.assert_close(parameter.grad, gradients[key], rtol=1e-2, atol=1e-4 * scale)
    assert found.weight is None
    model.zero_grad()
    del network.criterion


def test_a_loss_follows_the_epoch_whatever_came_before():
    model = make("yolo26n")
    given, criterion = batch(), model.criterion()
    with torch.no_grad():
        outputs = model.train()(*given.inputs)
        there = [float(criterion(outputs, given, at(epoch, 4)).sum) for epoch in (0, 1, 2, 3)]
        back = [float(criterion(outputs, given, at(epoch, 4)).sum) for epoch in (3, 2, 1, 0)]
        fresh = float(model.criterion()(outputs, given, at(2, 4)).sum)
    assert there == back[::-1]
    assert len(set(there)) == 4
    assert fresh == there[2]
    assert dict(criterion.state_dict()) == {}


def test_gains_weigh_the_parts():
    given = batch()
    parts = []
    for box in (7.5, 15.0):
        model = make("yolo11n")
        model._gains = model._gains.model_copy(update={"box": box})
        with torch.no_grad():
            parts.append(model.criterion()(model.train()(*given.inputs), given, at()).parts)
    assert float(parts[1]["box"]) == pytest.approx(2 * float(parts[0]["box"]), rel=1e-5)
    assert float(parts[1]["cls"]) == pytest.approx(float(parts[0]["cls"]), rel=1e-5)


def test_the_second_head_does_not_move_the_rest():
    model = make("yolo26n").train()
    outputs = model(*batch().inputs)
    (outputs["one_maps"].sum() + outputs["one_logits"].sum()).backward()
    moved = {key for key, p in model.named_parameters() if p.grad is not None}
    assert moved
    assert all("one2one" in key for key in moved)
