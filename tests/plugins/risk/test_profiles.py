from __future__ import annotations

import io

import numpy as np
import pytest

from modelwright.data import Facts
from modelwright_risk import profiles
from modelwright_risk.calibration import sigmoid
from modelwright_risk.schema import Feature, Schema

SCHEMA = Schema(
    (
        Feature("a", "numeric"),
        Feature("home", "categorical", levels=tuple(f"level {i}" for i in range(30))),
        Feature("b", "numeric", special=(-9.0,)),
    )
)


def predict(numbers: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return 2 * np.nan_to_num(numbers[:, 0]) - 1.0 * (codes[:, 0] == 3)


def table(count: int = 3000) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    inputs = [rng.normal(0, 1, (count, 2)).astype(np.float32), rng.integers(1, 5, (count, 1))]
    return inputs, rng.random(count) < sigmoid(predict(*inputs))


def test_importance_is_what_shuffling_costs() -> None:
    inputs, bad = table()
    before = [each.copy() for each in inputs]
    found = profiles.importance(predict, inputs, bad=bad, schema=SCHEMA)
    assert list(found) == ["a", "b", "home"]
    assert found["a"] > found["home"] > 0.005
    assert found["b"] == 0
    assert all(np.array_equal(*each) for each in zip(inputs, before, strict=True))
    assert found == profiles.importance(predict, inputs, bad=bad, schema=SCHEMA)


def test_a_profile_sets_one_cell_and_leaves_the_others() -> None:
    inputs, _ = table(50)
    found = profiles.profile(predict, inputs, [-1.0, 0.5], which=0, column=0)
    assert found.shape == (2, 50)
    assert found[1] - found[0] == pytest.approx(np.full(50, 3.0), abs=1e-5)
    levels = profiles.profile(predict, inputs, [2, 3], which=1, column=0)
    assert levels[0] - levels[1] == pytest.approx(np.ones(50), abs=1e-5)


def test_many_levels_flags_and_names_fit() -> None:
    inputs, _ = table(50)
    facts = Facts(
        {
            "schema": SCHEMA.as_json(),
            "missing": {"a": 0.2, "b": 0.0},
            "categories": {"home": [0.0, 0.05, *np.full(30, 0.95 / 30)]},
        },
        {"quantiles": np.array([[-1e7, 0, 0, 1e7], [5, 5, 5, 5]], dtype=np.float32)},
    )
    canvas = profiles.draw(predict, inputs, names=["b", "home", "a"], facts=facts, monotone={"a": "up"})
    assert [axes.get_title() for axes in canvas.axes] == ["a ↑", "b", "home"]
    assert canvas.axes[0].get_xticklabels()[0].get_text() == "none"
    assert [text.get_text() for text in canvas.axes[1].get_xticklabels()] == ["-9", "5"]
    assert len(canvas.axes[2].get_yticklabels()) == profiles.LEVELS
    canvas.savefig(io.BytesIO(), format="png", dpi=40)


def test_what_is_known_beforehand_is_said() -> None:
    assert profiles.caption({}, SCHEMA) == ""
    assert profiles.caption({"a": "up"}, SCHEMA).endswith("for every applicant: a.")
