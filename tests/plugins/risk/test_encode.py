"""What cells become before a network sees them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.plugins.risk.synthetic import facts_of, one_feature, rows

from modelwright_risk.encode import Categories, Encoder, Numbers, boundaries, just_below, ramps
from modelwright_risk.schema import MISSING, UNSEEN, Feature, Schema
from modelwright_risk.stability import bins_of


def codes_of(quantiles: list[float], values: list[float], *, steps: bool = False) -> np.ndarray:
    """(values, parts of the code)"""
    edges, slopes = (boundaries if steps else ramps)(np.array([quantiles], dtype=np.float32))
    return np.clip((np.array(values, dtype=np.float32)[:, None] - edges) * slopes, 0, 1)


def numbers_of(values: np.ndarray, *, special: tuple[float, ...] = (), bins: int = 4, steps: bool = False) -> Numbers:
    schema = Schema((Feature("x", "numeric", special=special),))
    column = values.astype(np.float32)[:, None]
    facts = facts_of(schema, column, np.zeros((len(values), 0), dtype=np.int64), values, bins=bins)
    numbers = Encoder(schema, facts, width=3, category_width=3, steps=steps).numbers
    assert numbers is not None
    return numbers


def token(numbers: Numbers, *values: float) -> torch.Tensor:
    return numbers(torch.tensor(values, dtype=torch.float32)[:, None])


# Codes ----------------------------------------------------------------------------------------------------------------


def test_piecewise_linear_as_published():
    expected = [[0, 0], [0.5, 0], [1, 0], [1, 0.25], [1, 1], [1, 1]]
    np.testing.assert_allclose(codes_of([0, 2, 6], [-5, 1, 2, 3, 6, 99]), expected)


def test_repeated_edges_tell_their_value_from_smaller_and_larger_ones():
    below, at, above = codes_of([0, 5, 5, 5, 9], [4.999, 5, 5.001])
    assert not np.allclose(below, at, atol=0.1)
    assert not np.allclose(at, above, atol=0.1)


def test_most_values_at_the_lowest_edge():
    at, above = codes_of([0, 0, 0, 4], [0, 1e-6])
    np.testing.assert_array_equal(at, [0, 0, 0])
    np.testing.assert_allclose(above, [1, 1, 0], atol=1e-6)


def test_a_constant_feature_gives_finite_codes():
    assert set(codes_of([3, 3, 3], [2, 3, 4]).flatten().tolist()) <= {0.0, 1.0}


def test_tiny_bins_are_no_infinity():
    tiny = float(np.float32(1e-42))
    found = codes_of([0, tiny, 1], [0, tiny, 1])
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[-1], [1, 1])


def test_just_below_zero_is_told_apart():
    np.testing.assert_array_equal(codes_of([-1, 0, 0, 1], [-0.001, 0])[:, 1], [0, 1])
    assert just_below(np.float32([7.0]))[0] < 7


edges = st.lists(st.integers(-6, 6), min_size=3, max_size=9).map(sorted)


@given(edges, st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=20))
def test_no_part_of_a_code_falls_as_values_rise(quantiles: list[float], values: list[float]):
    for steps in (False, True):
        assert (np.diff(codes_of(quantiles, sorted(values), steps=steps), axis=0) >= 0).all()


@given(edges, st.lists(st.integers(-8, 8), min_size=1, max_size=20))
def test_steps_count_the_bin_that_statistics_use(quantiles: list[float], values: list[float]):
    found = codes_of(quantiles, values, steps=True).sum(axis=1)
    np.testing.assert_array_equal(found, bins_of(np.float32(values), np.float32(quantiles)))


# Numbers --------------------------------------------------------------------------------------------------------------


def test_missing_and_special_have_nothing_but_their_flag():
    values = np.array([1, 2, 3, 4, np.nan, 96, 98])
    numbers = numbers_of(values, special=(96, 98))
    assert numbers.flag_weight is not None
    with torch.no_grad():
        numbers.flag_weight.normal_()
    expected = numbers.flag_weight[0].T
    torch.testing.assert_close(token(numbers, np.nan, 96, 98), expected)


def test_a_special_code_is_no_quantity_but_its_neighbours_are():
    numbers = numbers_of(np.array([1, 2, 3, 4, 96]), special=(96,))
    special, large = token(numbers, 96, 97)
    torch.testing.assert_close(special, torch.zeros(3))
    torch.testing.assert_close(large, token(numbers, 4)[0])


def test_what_was_never_missing_is_taken_as_its_median():
    numbers = numbers_of(np.array([1.0, 2, 3, 4, 5]))
    torch.testing.assert_close(token(numbers, np.nan), token(numbers, 3))


@given(st.floats(allow_nan=True, allow_infinity=True, width=32))
def test_any_cell_gives_a_finite_token(value: float):
    for values in (np.array([0, 0, 1, 2, np.nan]), np.array([7.0, 7, 7])):
        for steps in (False, True):
            assert torch.isfinite(token(numbers_of(values, special=(-9,), steps=steps), value)).all()


def test_large_quantities_keep_their_differences():
    numbers = numbers_of(np.linspace(1e6, 1e6 + 64, 65))
    first, second = token(numbers, 1e6 + 1, 1e6 + 2)
    torch.testing.assert_close(second - first, (numbers.bins()[0, :, 0] / 16), atol=1e-6, rtol=1e-3)


def test_averages_are_those_of_training_rows():
    torch.manual_seed(0)
    table = rows(2000)
    schema = Schema.from_json(table.facts.values["schema"])
    for steps, features, tolerance in (
        (True, range(6), 1e-4),
        (False, [0, 2, 4, 5], 0.05),  # of linear codes it is known what lies in a bin, not where
    ):
        encoder = Encoder(schema, table.facts, width=1, category_width=1, steps=steps)
        for parameter in encoder.parameters():
            torch.nn.init.normal_(parameter)
        found, expected = encoder.average()[features], encoder(*table.inputs).mean(dim=0)[features]
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


# Categories -----------------------------------------------------------------------------------------------------------


def test_unseen_categories_get_the_average_of_seen_ones():
    categories = Categories([[0.0, 0.0, 0.75, 0.25]], width=2)
    with torch.no_grad():
        categories.weight[2:] = torch.tensor([[1.0, 2.0], [5.0, 6.0]])
    found = categories(torch.tensor([[UNSEEN], [MISSING], [2], [3]]))
    torch.testing.assert_close(found, torch.tensor([[2.0, 3.0], [2.0, 3.0], [1.0, 2.0], [5.0, 6.0]]))


def test_missing_categories_are_learnt_where_training_rows_have_them():
    categories = Categories([[0.0, 0.5, 0.5]], width=2)
    torch.testing.assert_close(categories(torch.tensor([[MISSING]])), categories.weight[MISSING : MISSING + 1])


def test_features_do_not_share_levels():
    categories = Categories([[0, 0, 0.5, 0.5], [0, 0, 1.0]], width=1)
    torch.testing.assert_close(categories(torch.tensor([[3, 2]]))[0], categories.weight[[3, 6], 0])


# Both -----------------------------------------------------------------------------------------------------------------


def test_tokens_are_in_the_order_of_the_schema_and_sum_up_by_feature():
    table = rows()
    schema = Schema.from_json(table.facts.values["schema"])
    encoder = Encoder(schema, table.facts, width=4, category_width=3)
    values = torch.arange(22.0)[None]
    assert encoder(*table.inputs).shape == (200, 22)
    torch.testing.assert_close(encoder.per_feature(values), torch.tensor([[6.0, 22, 38, 54, 51, 60]]))


@pytest.mark.parametrize("kept", ["numeric", "categorical"])
def test_one_kind_of_feature_alone(kept: str):
    table = rows(numeric=kept == "numeric", categorical=kept == "categorical")
    schema = Schema.from_json(table.facts.values["schema"])
    encoder = Encoder(schema, table.facts, width=2, category_width=2)
    assert encoder(*table.inputs).shape == (200, 2 * len(schema.features))
    assert encoder.average().shape == (2 * len(schema.features),)


def test_nothing_is_flagged_where_nothing_was_missing():
    facts = one_feature(np.arange(9.0), bins=4)
    numbers = Encoder(Schema.from_json(facts.values["schema"]), facts, width=2, category_width=2).numbers
    assert numbers is not None
    assert numbers.flag_weight is None
