"""Attributions: they add up, are captum's, and come out of ONNX Runtime as they do of torch."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from tests.plugins.risk.synthetic import rows
from tests.plugins.risk.test_model import KINDS, MONOTONE, answers, exported, trained
from torch import Tensor, nn

from modelwright_risk.explain import STEPS, Explainer, Parts, explainer
from modelwright_risk.model import Network, Scorecard
from modelwright_risk.transformer import Transformer

TABLE = rows()
NEURAL = [settings for settings in KINDS if settings["name"] != "scorecard"]
SMALL = [settings for settings in NEURAL if settings["name"] != "large"]


@pytest.fixture(autouse=True, scope="module")
def _small_transformer():
    """One block says as much here as two do."""
    before, Transformer.BLOCKS = Transformer.BLOCKS, 1
    yield
    Transformer.BLOCKS = before
    _trained.cache_clear()


@cache
def _trained(settings: str) -> nn.Module:
    return trained(TABLE, **dict(next(each for each in KINDS if str(each) == settings)))


def network_of(settings: dict[str, Any]) -> Network:
    network = _trained(str(settings))
    assert isinstance(network, Network)
    return network


def explained(module: nn.Module, *inputs: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return module.eval()(*inputs)


@pytest.mark.parametrize("settings", NEURAL, ids=str)
def test_attributions_add_up(settings: dict[str, Any]):
    network = network_of(settings)
    module = explainer(network)
    assert isinstance(module, Explainer)
    assert len(module.places) == STEPS[type(network.head)]
    inputs = tuple(each[:20] for each in TABLE.inputs)
    found = explained(module, *inputs)
    assert found["attributions"].shape == (20, 6)
    torch.testing.assert_close(found["logit"], explained(network, *inputs)["logit"])
    start = explained(network.head, module.baseline[None])["logit"]
    gap = (found["attributions"].sum(dim=1) - (found["logit"] - start)).abs()
    assert float(gap.max()) <= 0.02


@pytest.mark.parametrize("settings", SMALL, ids=str)
def test_attributions_are_those_of_captum(settings: dict[str, Any]):
    network = network_of(settings)
    module = Explainer(network, steps=32)
    with torch.no_grad():
        tokens = network.encoder(*TABLE.inputs)
        ours = module.eval()(*TABLE.inputs)["attributions"]
    method = captum.attr.IntegratedGradients(lambda each: network.head(each)["logit"])
    baseline = network.encoder.average().detach().expand_as(tokens)
    theirs = network.encoder.per_feature(
        method.attribute(tokens, baseline, n_steps=32, method="gausslegendre").detach()
    )
    torch.testing.assert_close(ours, theirs.to(ours), atol=1e-4, rtol=0)
    leading = (ours.topk(4, dim=1).indices == theirs.topk(4, dim=1).indices).all(dim=1)
    assert float(leading.float().mean()) >= 0.99


def test_cells_that_are_average_explain_nothing():
    network = network_of({"name": "mlp"})
    module = Explainer(network, steps=8)
    first, second = (each[:1].clone() for each in TABLE.inputs)
    before = explained(module, first, second)["attributions"]
    first[:, 2] = 99.0
    after = explained(module, first, second)["attributions"]
    assert abs(float(after[0, 2] - before[0, 2])) > 1e-3
    with torch.no_grad():
        module.network.encoder.forward = lambda *_: module.baseline[None]  # type: ignore[method-assign]
        torch.testing.assert_close(module(first, second)["attributions"], torch.zeros(1, 6))
    del module.network.encoder.forward


def test_a_scorecard_explains_itself_exactly():
    card = _trained(str({"name": "scorecard"}))
    assert isinstance(card, Scorecard)
    module = explainer(card)
    assert isinstance(module, Parts)
    found = explained(module, *TABLE.inputs)
    torch.testing.assert_close(found["attributions"].sum(dim=1) + card.bias, explained(card, *TABLE.inputs)["logit"])
    torch.testing.assert_close(found["attributions"], card.contributions(*TABLE.inputs))


def test_what_is_no_network_of_ours_is_not_explained():
    assert explainer(nn.Linear(2, 1)) is None


def test_an_explainer_can_be_copied_and_leaves_the_network_alone():
    network = network_of({"name": "mlp"})
    before = explained(network, *TABLE.inputs)["logit"]
    names = list(network.state_dict())
    copied = copy.deepcopy(Explainer(network, steps=4))
    assert list(network.state_dict()) == names
    inputs = tuple(each[:3] for each in TABLE.inputs)
    assert explained(copied, *inputs)["attributions"].shape == (3, 6)
    torch.testing.assert_close(explained(network, *TABLE.inputs)["logit"], before)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "mlp"},
        {"name": "mlp", "monotone": MONOTONE},
        {"name": "scorecard"},
        pytest.param({"name": "tabm", "monotone": MONOTONE}, marks=pytest.mark.slow),
        pytest.param({"name": "ft-transformer"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_onnx_runtime_agrees(settings: dict[str, Any], tmp_path: Path):
    network = _trained(str(settings))
    module = explainer(network) if isinstance(network, Scorecard) else Explainer(network_of(settings), steps=16)
    assert module is not None
    session = exported(module, TABLE.inputs, tmp_path / "explain.onnx")
    for size in (1, 3, 200):
        inputs = tuple(each[:size] for each in TABLE.inputs)
        expected = explained(module, *inputs)
        for name, found in answers(session, inputs).items():
            np.testing.assert_allclose(found, expected[name].numpy(), atol=1e-4)


@pytest.mark.parametrize("kept", ["numeric", "categorical"])
def test_tables_of_one_kind_of_feature(kept: str):
    table = rows(50, numeric=kept == "numeric", categorical=kept == "categorical")
    network = trained(table, steps=5)
    assert isinstance(network, Network)
    count = table.numbers.shape[1] + table.codes.shape[1]
    assert explained(Explainer(network, steps=4), *table.inputs)["attributions"].shape == (50, count)
