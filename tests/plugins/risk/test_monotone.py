"""Constraints: whatever the weights, risk only rises, or only falls, with a feature that is to do so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from tests.plugins.risk.synthetic import SPECIAL, Rows, facts_of, rows
from tests.plugins.risk.test_model import trained
from torch import nn

from modelwright_risk.config import RiskModel
from modelwright_risk.model import build_network
from modelwright_risk.monotone import KindLinear, linear, unit_kinds
from modelwright_risk.schema import Feature, Schema

KINDS = ("mlp", "large", "scorecard", "tabm")
NAMES = ("income", "debts", "age", "used")
TABLES = {plain: rows(200, plain=plain) for plain in (True, False)}


def wild(model: nn.Module, seed: int, scale: float) -> nn.Module:
    """Any weights; in double precision, where rounding is no excuse."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * scale)
    return model.double().eval()


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["up", "down"]), min_size=1),
    st.integers(0, 2**31),
    st.sampled_from([0.1, 0.5, 2.0]),
    st.booleans(),
)
def test_no_violation_whatever_the_weights(name: str, monotone: dict[str, Any], seed: int, scale: float, plain: bool):
    table = TABLES[plain]
    model = wild(build_network(RiskModel(name=name, monotone=monotone), table.facts), seed, scale)
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(table.numbers), 8)
    numbers, codes = (each[chosen].double() if each.is_floating_point() else each[chosen] for each in table.inputs)
    for feature, direction in monotone.items():
        column = NAMES.index(feature)
        seen = table.numbers[:, column][~np.isnan(table.numbers[:, column]) & (table.numbers[:, column] != SPECIAL)]
        low, high = float(seen.min()), float(seen.max())
        # Values far outside, on edges and between them.
        grid = np.unique(
            np.concatenate(
                [rng.uniform(low - 1, high + 1, 20), table.facts.arrays["quantiles"][column], [low - 1e6, high + 1e6]]
            )
        )
        grid = torch.from_numpy(grid[grid != SPECIAL])
        many = numbers[:, None, :].repeat(1, len(grid), 1)
        many[:, :, column] = grid
        with torch.no_grad():
            found = model(many.flatten(0, 1), codes.repeat_interleave(len(grid), dim=0))
        for outputs in (found["logit"][:, None], found.get("members", found["logit"][:, None])):
            steps = outputs.unflatten(0, (8, -1)).diff(dim=1) * (1 if direction == "up" else -1)
            assert float(steps.min()) >= -1e-6 * max(1.0, float(outputs.abs().max()) * 1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_constrained_features_still_count(name: str):
    table = rows(400)
    model = trained(table, name=name, monotone={"debts": "up"})
    numbers, codes = (each[:1].repeat(2, 1) for each in table.inputs)
    numbers[:, 1] = torch.tensor([0.0, 4.0])
    few, many = model(numbers, codes)["logit"].tolist()
    assert many > few + 0.2


def test_missing_and_special_are_free():
    table = rows()
    model = build_network(RiskModel(monotone={"debts": "up"}), table.facts).eval()
    found = model.encoder.numbers
    assert found is not None
    assert found.flag_weight is not None
    numbers, codes = (each[:1].repeat(2, 1) for each in table.inputs)
    numbers[:, 1] = torch.tensor([0.0, SPECIAL])
    for sign in (-1.0, 1.0):
        nn.init.constant_(found.flag_weight, sign * 3)
        low, special = model(numbers, codes)["logit"].tolist()
        assert (special - low) * sign > 0


def test_both_directions_bend_both_ways():
    """A step and a ramp that levels off are both learnt: not only convex shapes."""
    x = np.linspace(-1, 1, 2001, dtype=np.float32)[:, None]
    none = np.zeros((2001, 0), dtype=np.int64)
    for shape in (np.tanh(8 * x[:, 0]), np.maximum(x[:, 0], 0) * 2 - 1):
        bad = (np.random.default_rng(0).random(2001) < 1 / (1 + np.exp(-2 * shape))).astype(np.float32)
        schema = Schema((Feature("x", "numeric"),))
        table = Rows(x, none, bad, facts_of(schema, x, none, bad, bins=8))
        model = trained(table, steps=150, monotone={"x": "up"}, dropout=0.0)
        with torch.no_grad():
            found = model(*table.inputs)["logit"].numpy()
        assert float(np.abs(found - 2 * shape).mean()) < 0.35


def test_rank_is_no_worse_where_the_knowledge_is_true():
    """Income lowers risk and debts raise it, more so for the young: within 0.01 AUC of the free network."""
    rng = np.random.default_rng(0)
    count = 6000
    numbers = rng.uniform(-1, 1, (count, 4)).astype(np.float32)
    income, debts, age, other = numbers.T
    risk = -2.5 * income + 2 * debts * (age < 0) + 1.5 * np.sin(4 * other) + np.maximum(debts, 0) * (other > 0) * 2
    bad = (rng.random(count) < 1 / (1 + np.exp(-risk))).astype(np.float32)
    schema = Schema(tuple(Feature(name, "numeric") for name in ("income", "debts", "age", "other")))
    none = np.zeros((count, 0), dtype=np.int64)
    train, test = slice(0, 3000), slice(3000, None)
    table = Rows(numbers[train], none[train], bad[train], facts_of(schema, numbers[train], none, bad[train], bins=8))

    def auc(**settings: Any) -> float:
        model = trained(table, steps=120, **settings)
        with torch.no_grad():
            found = model(torch.from_numpy(numbers[test]))["logit"]
        return float(roc_auc_score(bad[test], found.numpy()))

    assert auc(monotone={"income": "down", "debts": "up"}) > auc() - 0.01


# Parts ----------------------------------------------------------------------------------------------------------------


def test_half_the_units_are_free_and_the_rest_go_both_ways():
    assert unit_kinds(torch.tensor([1.0, 0.0]), 8).tolist() == [0, 0, 0, 0, 1, -1, 1, -1]
    assert unit_kinds(torch.tensor([1.0]), 4).tolist() == [1, -1, 1, -1]
    assert not unit_kinds(torch.zeros(3), 4).any()


def test_weights_have_the_signs_that_kinds_ask_for():
    layer = KindLinear(torch.tensor([0.0, 1.0, -1.0]), torch.tensor([0.0, 1.0, -1.0]), bias=False)
    nn.init.constant_(layer.weight, -2.0)
    found = layer(torch.eye(3)).T
    torch.testing.assert_close(found, torch.tensor([[-2.0, 0, 0], [-2, 2, -2], [-2, -2, 2]]))


def test_layers_that_nothing_constrained_reaches_are_plain():
    assert isinstance(linear(torch.zeros(3), torch.zeros(2)), nn.Linear)
    assert linear(torch.ones(3), torch.ones(2), bias=False).bias is None
