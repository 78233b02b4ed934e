"""Networks: what they take and give, that they learn, can be copied, written as ONNX, made smaller."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from packaging.version import Version
from tests.plugins.risk.synthetic import Rows, rows
from torch import Tensor, nn

from modelwright.compression.graph import trace
from modelwright.errors import ConfigError
from modelwright_risk.config import RiskModel
from modelwright_risk.model import HIDDEN, Scorecard, build_network
from modelwright_risk.schema import Schema

NAMES = get_args(RiskModel.model_fields["name"].annotation)
MONOTONE = {"debts": "up", "income": "down"}
KINDS: list[dict[str, Any]] = [{"name": name} for name in NAMES] + [
    {"name": name, "monotone": MONOTONE} for name in NAMES if name != "ft-transformer"
]


def build(table: Rows, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_network(RiskModel(**settings), table.facts)


def exported(model: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> onnxruntime.InferenceSession:
    """As the engine does it."""
    names = ["numbers" if each.is_floating_point() else "codes" for each in inputs]
    sizes = tuple({0: torch.export.Dim("batch", min=1)} for _ in inputs)
    with torch.no_grad():
        outputs = list(model.eval()(*inputs))
        program = torch.onnx.export(
            model,
            tuple(each[:3] for each in inputs),
            dynamo=True,
            opset_version=20,
            dynamic_shapes=sizes,
            verbose=False,
            input_names=names,
            output_names=outputs,
        )
    assert program is not None
    program.save(path)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def answers(session: onnxruntime.InferenceSession, inputs: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
    fed = {spec.name: each.numpy() for spec, each in zip(session.get_inputs(), inputs, strict=True)}
    return dict(zip([spec.name for spec in session.get_outputs()], session.run(None, fed), strict=True))


def trained(table: Rows, steps: int = 40, **settings: Any) -> nn.Module:
    model = build(table, **settings).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        logits = outputs_of(model(*table.inputs))
        target = torch.from_numpy(table.bad)[:, None].expand_as(logits)
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(logits, target).backward()
        optimizer.step()
    return model.eval()


def outputs_of(outputs: dict[str, Tensor]) -> Tensor:
    return outputs["members"] if "members" in outputs else outputs["logit"][:, None]


# Shapes and state -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_one_shape_of_output_in_training_and_after(settings: dict[str, Any]):
    table = rows()
    model = build(table, **settings)
    expected = {"logit": (200,), "members": (200, 32)} if settings["name"] == "tabm" else {"logit": (200,)}
    for mode in (True, False):
        found = model.train(mode)(*table.inputs)
        assert {name: tuple(each.shape) for name, each in found.items()} == expected
        assert all(torch.isfinite(each).all() for each in found.values())
    assert model(*(each[:1] for each in table.inputs))["logit"].shape == (1,)


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_every_parameter_learns(settings: dict[str, Any]):
    table = rows()
    model = build(table, **settings).train()
    outputs_of(model(*table.inputs)).square().sum().backward()
    assert [name for name, each in model.named_parameters() if each.grad is None or not each.grad.any()] == []


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_all_that_decides_is_in_the_state(settings: dict[str, Any]):
    table = rows()
    model = build(table, **settings).eval()
    other = build_network(RiskModel(**settings), rows(seed=1).facts).eval()
    other.load_state_dict(model.state_dict())
    copies = (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), other)
    for each in copies:
        torch.testing.assert_close(each(*table.inputs), model(*table.inputs), rtol=0, atol=0)
    torch.save(model.state_dict(), io.BytesIO())


@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_depend_on_each_other(name: str):
    table = rows()
    model = build(table, name=name).eval()
    alone = model(*(each[7:8] for each in table.inputs))["logit"]
    torch.testing.assert_close(alone, model(*table.inputs)["logit"][7:8])


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_training_lowers_the_loss(settings: dict[str, Any]):
    table = rows(plain=True)
    target = torch.from_numpy(table.bad)

    def loss(model: nn.Module) -> float:
        with torch.no_grad():
            return float(F.binary_cross_entropy_with_logits(model(*table.inputs)["logit"], target))

    assert loss(trained(table, dropout=None, **settings)) < loss(build(table, **settings).eval()) - 0.05


def test_the_start_is_the_base_rate():
    table = rows()
    card = build(table, name="scorecard")
    assert isinstance(card, Scorecard)
    base = torch.sigmoid(card.bias).item()
    assert base == pytest.approx(table.facts.values["base_rate"], abs=1e-6)
    for name in NAMES:
        found = torch.sigmoid(build(table, name=name).eval()(*table.inputs)["logit"]).mean()
        assert float(found) == pytest.approx(base, abs=0.15)


def test_a_target_of_one_class_starts_somewhere_finite():
    table = rows()
    table.facts.values["base_rate"] = 0.0
    assert torch.isfinite(build(table)(*table.inputs)["logit"]).all()


def test_small_tables_get_more_dropout():
    def dropout(table: Rows, **settings: Any) -> set[float]:
        return {each.p for each in build(table, **settings).modules() if isinstance(each, nn.Dropout)}

    small, large = rows(300), rows(300)
    large.facts.values["rows"] = 2000
    assert (dropout(small), dropout(large), dropout(small, dropout=0.2)) == ({0.3}, {0.1}, {0.2})


def test_tabm_is_the_mean_probability_of_members_that_differ():
    table = rows()
    found = trained(table, name="tabm")(*table.inputs)
    torch.testing.assert_close(torch.sigmoid(found["logit"]), torch.sigmoid(found["members"]).mean(dim=1))
    assert float(found["members"].std(dim=1).mean()) > 0.01


def test_tabm_stays_finite_where_members_are_sure():
    model = build(rows(), name="tabm").eval()
    with torch.no_grad():
        model.get_parameter("head.bias").fill_(1000.0)
    assert torch.isfinite(model(*rows().inputs)["logit"]).all()


# A scorecard ----------------------------------------------------------------------------------------------------------


def test_a_scorecard_is_exactly_a_sum_over_features():
    table = rows(1000)
    model = trained(table, name="scorecard")
    assert isinstance(model, Scorecard)
    first, second = (each[:50].clone() for each in table.inputs)
    with torch.no_grad():
        parts = model.contributions(first, second)
        torch.testing.assert_close(parts.sum(dim=1) + model.bias, model(first, second)["logit"])
        # They are relative to the average row.
        averages = model.contributions(*table.inputs).mean(dim=0)
        torch.testing.assert_close(averages, torch.zeros(6), atol=1e-4, rtol=0)
        first[:, 2] = 99.0
        changed = (model.contributions(first, second) - parts).abs().amax(dim=0) > 1e-6
    assert changed.tolist() == [False, False, True, False, False, False]


def test_a_scorecard_gives_the_same_within_a_bin():
    table = rows(plain=True)
    model = trained(table, name="scorecard")
    edges = table.facts.arrays["quantiles"][2]
    ages = torch.tensor([(edges[3] + 0.01), edges[4] - 0.01, edges[4] + 0.01])
    first, second = (each[:1].repeat(3, 1) for each in table.inputs)
    first[:, 2] = ages
    low, same, other = model(first, second)["logit"].tolist()
    assert low == same != other


# Settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"monotone": {"incom": "up"}}, "no feature 'incom' .did you mean 'income'"),
        ({"monotone": {"job": "up"}}, "'job' holds categories"),
        ({"name": "ft-transformer", "monotone": {"income": "down"}}, "cannot keep constraints .income.*model.name=mlp"),
        ({"name": "scorecard", "dropout": 0.2}, "model.dropout: a scorecard has no hidden units"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        build(rows(), **settings)
    assert "\n" not in str(caught.value)


def test_a_table_without_features():
    table = rows()
    table.facts.values["schema"] = []
    with pytest.raises(ConfigError, match=r"no column is left.*data\.ignored"):
        build(table)


def test_transformer_refuses_what_the_schema_constrains():
    table = rows()
    table.facts.values["schema"][0]["monotone"] = -1
    assert Schema.from_json(table.facts.values["schema"]).numeric[0].monotone == -1
    with pytest.raises(ConfigError, match=r"cannot keep constraints \(income\)"):
        build(table, name="ft-transformer")


# Graphs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [*KINDS[:5], {"name": "tabm", "monotone": MONOTONE}], ids=str)
def test_onnx_runtime_agrees(settings: dict[str, Any], tmp_path: Path):
    table = rows()
    model = trained(table, steps=5, **settings)
    session = exported(model, table.inputs, tmp_path / "model.onnx")
    for size in (1, 3, 200):
        inputs = tuple(each[:size] for each in table.inputs)
        with torch.no_grad():
            expected = model(*inputs)
        for name, found in answers(session, inputs).items():
            np.testing.assert_allclose(found, expected[name].numpy(), atol=1e-4)
    # Few operators: one row must take little time.
    # One row is answered in the time of so many operations; exporters before torch 2.14 write a few more.
    most = {"mlp": 32, "scorecard": 32}.get(settings["name"], 100)
    older = Version(torch.__version__) < Version("2.14")
    assert len(onnx.load(tmp_path / "model.onnx").graph.node) < most + 8 * older


@pytest.mark.parametrize("kept", ["numeric", "categorical"])
def test_tables_of_one_kind_of_feature(kept: str, tmp_path: Path):
    table = rows(50, numeric=kept == "numeric", categorical=kept == "categorical")
    model = build(table).eval()
    session = exported(model, table.inputs, tmp_path / "model.onnx")
    assert [spec.name for spec in session.get_inputs()] == ["numbers" if kept == "numeric" else "codes"]
    found = answers(session, table.inputs)["logit"]
    np.testing.assert_allclose(found, model(*table.inputs)["logit"].detach().numpy(), atol=1e-4)
    assert torch.isfinite(build(table, name="scorecard")(*table.inputs)["logit"]).all()


def test_hidden_units_can_be_pruned():
    table = rows()
    for name, layers in {"mlp": 2, "large": 3}.items():
        model = build(table, name=name).eval()
        found = trace(model, table.inputs, prunable=model.modules()).layers
        assert [len(each.groups) for each in found] == list(HIDDEN[name])[:layers]
