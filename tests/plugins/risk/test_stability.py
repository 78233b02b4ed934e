from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pyarrow")
from hypothesis import given
from hypothesis import strategies as st

from modelwright.data import Facts
from modelwright_risk import stability
from modelwright_risk.facts import binned
from modelwright_risk.schema import Feature, Schema

counts = st.lists(st.integers(0, 1000), min_size=8, max_size=8).filter(any)


@given(counts, counts)
def test_psi_is_never_negative_and_zero_for_equal_shares(first: list[int], second: list[int]) -> None:
    before, after = (np.array(each) / sum(each) for each in (first, second))
    assert stability.psi(before, after) >= 0
    assert stability.psi(before, before) == 0
    assert stability.psi(before, after) == pytest.approx(stability.psi(after, before))


def test_psi_of_a_textbook_shift() -> None:
    assert stability.psi(np.array([0.5, 0.5]), np.array([0.6, 0.4])) == pytest.approx(
        0.1 * np.log(1.2) - 0.1 * np.log(0.8)
    )


def test_an_empty_bin_is_a_large_but_finite_shift() -> None:
    assert 0.25 < stability.psi(np.array([0.5, 0.5]), np.array([1.0, 0.0])) < 10


def test_other_bins_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match=r"shares of \(2,\) and of \(3,\) bins"):
        stability.psi(np.ones(2) / 2, np.ones(3) / 3)


def test_even_edges_cut_into_tenths() -> None:
    values = np.random.default_rng(0).permutation(np.arange(1000.0))
    edges = stability.even_edges(values)
    assert len(edges) == 9
    assert stability.shares(values, edges) == pytest.approx(np.full(10, 0.1))


def test_equal_values_give_fewer_bins() -> None:
    values = np.repeat([1.0, 2.0, 3.0], [80, 10, 10])
    edges = stability.even_edges(values)
    assert edges.tolist() == [1.0, 2.0]
    assert stability.shares(values, edges) == pytest.approx([0.8, 0.1, 0.1])
    assert stability.even_edges(np.ones(5)).tolist() == []
    assert stability.even_edges(np.zeros(0)).tolist() == []


def test_weights_count() -> None:
    values, weight = np.array([1.0, 2.0, 3.0]), np.array([8.0, 1.0, 1.0])
    assert stability.even_edges(values, bins=2, weight=weight).tolist() == [1.0]
    assert stability.shares(values, np.array([1.0]), weight=weight) == pytest.approx([0.8, 0.2])


def training(count: int = 4000, *, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Whole numbers, money with a code, a category; and probabilities."""
    rng = np.random.default_rng(seed)
    money = np.where(rng.random(count) < 0.1, -9.0, np.exp(rng.normal(8, 1, count)))
    whole = np.where(rng.random(count) < 0.05, np.nan, rng.poisson(1.2, count))
    numbers = np.stack([whole, money], axis=1).astype(np.float32)
    return [numbers, rng.integers(1, 4, (count, 1))], rng.beta(1, 15, count)


def known(inputs: list[np.ndarray], probability: np.ndarray | None) -> Facts:
    numbers, codes = inputs
    schema = Schema(
        (
            Feature("whole", "numeric"),
            Feature("money", "numeric", special=(-9.0,)),
            Feature("home", "categorical", levels=("own", "rent")),
        )
    )
    whole, money = numbers[:, 0], numbers[:, 1]
    counted = [binned(whole[~np.isnan(whole)], 16), binned(money[money != -9], 16)]
    values = {
        "schema": schema.as_json(),
        "missing": {"whole": float(np.isnan(whole).mean())},
        "categories": {"home": (np.bincount(codes[:, 0], minlength=4) / len(codes)).tolist()},
    }
    if probability is not None:
        edges = stability.even_edges(probability)
        values["settled"] = {
            "score_edges": edges.tolist(),
            "score_shares": stability.shares(probability, edges).tolist(),
        }
    shares = np.stack([counts / len(numbers) for _, counts in counted]).astype(np.float32)
    return Facts(values, {"quantiles": np.stack([edges for edges, _ in counted]), "shares": shares})


def test_training_rows_have_not_moved() -> None:
    inputs, probability = training()
    found = stability.shifts(known(inputs, probability), inputs=inputs, probability=probability)
    assert found[0].name == "score"
    assert {each.name for each in found[1:]} == {"whole", "money", "home"}
    for each in found:
        assert each.psi == pytest.approx(0, abs=1e-9), each
        assert each.verdict == "stable"


def test_what_has_moved_is_said() -> None:
    inputs, probability = training()
    facts = known(inputs, None)
    numbers, codes = (each.copy() for each in inputs)
    numbers[:2000, 1] = np.nan
    codes[:400, 0] = 0
    found = stability.shifts(facts, inputs=[numbers, codes], probability=probability)
    assert [each.name for each in found] == ["money", "home", "whole"]
    money, home, whole = found
    assert (money.most, money.before, money.after) == ("missing", 0.0, 0.5)
    assert money.verdict == "shifted"
    assert (home.most, home.after) == ("unseen", 0.1)
    assert whole.psi == pytest.approx(0, abs=1e-9)


def test_moved_scores_and_codes_are_named() -> None:
    inputs, probability = training()
    facts = known(inputs, probability)
    numbers = inputs[0].copy()
    numbers[:3000, 1] = -9
    moved = stability.shifts(facts, inputs=[numbers, inputs[1]], probability=1 - probability)
    found = {each.name: each for each in moved}
    assert found["money"].most == "special code"
    assert found["score"].most.startswith("above ")
    assert found["score"].most.endswith(" %")
    assert found["score"].after == pytest.approx(1, abs=0.01)


def test_a_moderate_shift_is_called_some() -> None:
    assert stability.Shift("x", 0.2, "", 0, 0).verdict == "some shift"


def test_tables_of_one_kind() -> None:
    inputs, probability = training()
    facts = known(inputs, None)
    for place, names in ((0, {"whole", "money"}), (1, {"home"})):
        own = [each for each in facts.values["schema"] if each["name"] in names]
        part = Facts({**facts.values, "schema": own}, facts.arrays)
        found = stability.shifts(part, inputs=[inputs[place]], probability=probability)
        assert {each.name for each in found} == names
