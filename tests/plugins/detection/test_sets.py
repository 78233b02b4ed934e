"""RT-DETR and D-FINE beside transformers' own forward pass and loss: the same numbers."""

from __future__ import annotations

import importlib
import importlib.util

import pytest

pytest.importorskip("transformers")
import torch
from tests.plugins.detection.models_made import CLASSES, SIDE, at, batch, make, settings, stirred

from modelwright.errors import PluginError
from modelwright_detection import sets
from modelwright_detection.detector import trained_on

NAMES = ["rt-detr", "d-fine"]


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    # As many queries as places: which of them are best is another test's matter.
    return stirred(make(request.param))


def whole(model):
    """The library's detector around the same network."""
    _, made = sets._network(
        {"rt_detr": "rt-detr", "d_fine": "d-fine"}[model.config.model_type],
        classes=len(CLASSES),
        size=SIDE,
        queries=model.config.num_queries,
        gains=settings("rt-detr").loss,
    )
    made.model = model.network
    return made.train(model.training)


def labels_of(given):
    sides = torch.tensor([SIDE] * 4)
    return sets._labels(*trained_on(given), sides)


def test_objects_are_those_of_transformers(model):
    given = batch()
    with torch.no_grad():
        expected = whole(model.eval())(given.inputs[0].float() / 255)
        found = model(*given.inputs)
    order = sets._best(expected.enc_outputs_class, model.config.num_queries)
    rank = expected.enc_outputs_class.max(-1).values.topk(model.config.num_queries, dim=1).indices.argsort(dim=1)
    assert torch.equal(order, order.sort(dim=1).values)
    logits = expected.logits.gather(1, rank.unsqueeze(2).expand(-1, -1, len(CLASSES)))
    places = expected.pred_boxes.gather(1, rank.unsqueeze(2).expand(-1, -1, 4))
    torch.testing.assert_close(found["scores"], logits.sigmoid(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["places"][:, -1], places, rtol=1e-4, atol=1e-5)
    width = found["boxes"][..., 2] - found["boxes"][..., 0]
    torch.testing.assert_close(width, places[..., 2] * SIDE, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("spoilt", [True, False])
def test_the_loss_is_that_of_transformers(model, spoilt):
    given = batch("rt-detr")
    given.hints = given.hints if spoilt else {}
    criterion = model.train(spoilt).criterion()
    expected = whole(model)
    for module in model.modules():  # statistics would change between the two runs
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    torch.manual_seed(3)
    theirs = expected(given.inputs[0].float() / 255, labels=labels_of(given))
    torch.manual_seed(3)
    found = criterion(model(*given.inputs, **given.hints), given, at())
    assert float(found.weight) == 5
    assert float(found.sum.detach()) / 5 == pytest.approx(float(theirs.loss.detach()), rel=1e-3)
    assert set(found.parts) >= {"vfl", "l1", "giou"}


def test_spoilt_boxes_are_further_queries_in_training_only(model):
    given = batch("d-fine")
    rows = {}
    for training in (True, False):
        rows[training] = model.train(training)(*given.inputs, **given.hints)["logits"].shape[2]
    queries = model.config.num_queries
    assert rows[False] == queries
    assert rows[True] == queries + 2 * 3 * (100 // 3)  # twice the longest picture's objects, about 100 in all


def test_queries_are_no_more_than_places():
    assert make("d-fine", side=64).config.num_queries == 4 * 4 + 2 * 2
    assert make("rt-detr", side=64).config.num_queries == 8 * 8 + 4 * 4 + 2 * 2
    assert make("rt-detr", side=160, queries=77).config.num_queries == 77


def test_the_best_places_do_not_depend_on_the_last_bits():
    logits = torch.full((2, 50, 3), -1.5)
    logits[0, 30] = 2.0
    noise = torch.rand(logits.shape, generator=torch.Generator().manual_seed(0)) * 1e-6
    assert sets._best(logits, 4).tolist() == [[0, 1, 2, 30], [0, 1, 2, 3]]
    assert torch.equal(sets._best(logits, 4), sets._best(logits + noise, 4))


def test_gains_weigh_the_parts(model):
    given = batch()
    with torch.no_grad():
        outputs = model.eval()(*given.inputs)
        before = model.criterion()(outputs, given, at()).parts
        model.config.weight_loss_giou *= 3
        after = model.criterion()(outputs, given, at()).parts
        model.config.weight_loss_giou /= 3
    assert float(after["giou"]) == pytest.approx(3 * float(before["giou"]), rel=1e-5)
    assert float(after["l1"]) == pytest.approx(float(before["l1"]), rel=1e-5)


def test_published_sizes_are_met():
    for name, millions in (("d-fine", 3.8), ("d-fine-s", 10.2), ("rt-detr-r18", 20.1)):
        found = sum(p.numel() for p in make(name).parameters()) / 1e6
        assert found == pytest.approx(millions, rel=0.03), name


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PluginError, match=r"d-fine needs transformers.*modelwright\[detection-permissive\]"):
        make("d-fine")


def test_transformers_that_cannot_be_imported_says_why(monkeypatch):
    def broken(name):
        raise ImportError("tokenizers is too old")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(PluginError, match=r"could not be imported \(tokenizers is too old"):
        sets.transformers("rt-detr")


def test_old_transformers_are_named(monkeypatch):
    monkeypatch.setitem(sets._CLASSES, "d_fine", "Unheard")
    with pytest.raises(PluginError, match=r"the transformers \S+ that is installed does not know d-fine"):
        make("d-fine")
