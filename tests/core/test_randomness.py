"""Random numbers are a pure function of (seed, epoch, sample id, name), and look random."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import dropout

from modelwright.training.randomness import KeyedNumbers, fold, generator, seed_everything, uniform

IDS = st.lists(st.integers(0, 2**40), min_size=1, max_size=20).map(lambda ids: np.array(ids, dtype=np.int64))
MANY = np.arange(20_000, dtype=np.int64)


@given(ids=IDS, order=st.randoms(use_true_random=False), seed=st.integers(0, 2**63), epoch=st.integers(0, 1000))
def test_the_row_of_an_id_is_the_same_in_any_batch(
    ids: np.ndarray, order: random.Random, seed: int, epoch: int
) -> None:
    together = uniform(seed, epoch, ids, "crop", 3)
    assert together.dtype == np.float64
    assert together.shape == (len(ids), 3)
    assert ((together >= 0) & (together < 1)).all()
    rows = list(range(len(ids)))
    order.shuffle(rows)
    assert np.array_equal(uniform(seed, epoch, ids[rows], "crop", 3), together[rows])
    assert np.array_equal(uniform(seed, epoch, ids[:1], "crop", 3), together[:1])
    assert np.array_equal(KeyedNumbers(seed=seed, epoch=epoch, ids=ids)("crop", 3), together)


def test_further_columns_leave_the_first_ones_as_they_are() -> None:
    assert np.array_equal(uniform(1, 2, MANY, "mix", 5)[:, :2], uniform(1, 2, MANY, "mix", 2))


def test_no_ids_give_no_rows() -> None:
    assert uniform(0, 0, np.array([], dtype=np.int64), "flip", 2).shape == (0, 2)


DRAWS: dict[str, Callable[[], np.ndarray]] = {
    "another seed": lambda: uniform(8, 3, MANY, "flip")[:, 0],
    "another epoch": lambda: uniform(7, 4, MANY, "flip")[:, 0],
    "another name": lambda: uniform(7, 3, MANY, "crop")[:, 0],
    "the next id": lambda: uniform(7, 3, MANY + 1, "flip")[:, 0],
    "a far id": lambda: uniform(7, 3, MANY + 2**32, "flip")[:, 0],
    "the second column": lambda: uniform(7, 3, MANY, "flip", 2)[:, 1],
}


@pytest.mark.parametrize("other", DRAWS)
def test_numbers_have_nothing_to_do_with_each_other(other: str) -> None:
    mine, theirs = uniform(7, 3, MANY, "flip")[:, 0], DRAWS[other]()
    # 20,000 pairs: a correlation beyond 0.03 is more than four deviations from none.
    assert abs(np.corrcoef(mine, theirs)[0, 1]) < 0.03
    assert abs(np.corrcoef(mine < 0.5, theirs < 0.5)[0, 1]) < 0.03
    if other not in {"the next id"}:  # that one is the same stream, moved by one
        assert not np.isin(mine, theirs).any()


@pytest.mark.parametrize("column", range(4))
@pytest.mark.parametrize("step", [1, 2, 1024])
def test_numbers_are_uniform(column: int, step: int) -> None:
    drawn = uniform(0, 0, MANY * step, "anything", 4)[:, column]
    counts = np.histogram(drawn, bins=20, range=(0, 1))[0]
    # 19 degrees of freedom: beyond 55 once in 40,000 times.
    assert ((counts - 1000) ** 2 / 1000).sum() < 55
    assert len(np.unique(drawn)) == len(drawn)


def test_the_order_of_parts_matters() -> None:
    parts: list[tuple[int | str, ...]] = [(), (0,), (0, 0), (1, 2), (2, 1), ("a", "b"), ("ab",), ("b", "a"), (1, "a")]
    assert len({fold(*each) for each in parts}) == len(parts)
    assert all(0 <= fold(*each) < 2**64 for each in parts)


def test_a_generator_depends_on_its_parts_only() -> None:
    first = generator(1, 2, "order").permutation(100)
    np.random.default_rng().random()
    assert np.array_equal(generator(1, 2, "order").permutation(100), first)
    assert not np.array_equal(generator(1, 3, "order").permutation(100), first)


def test_every_global_generator_is_seeded() -> None:
    def draw() -> list[float]:
        dropped = dropout(torch.ones(50), training=True)
        return [random.random(), float(np.random.rand()), float(torch.rand(())), *dropped.tolist()]  # noqa: NPY002

    seed_everything(3, 17, 0, 1)
    first = draw()
    draw()
    seed_everything(3, 17, 0, 1)
    assert draw() == first
    seed_everything(3, 18, 0, 1)
    assert draw() != first


def test_keyed_numbers_leave_the_global_generators_alone() -> None:
    seed_everything(0)
    expected = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
    seed_everything(0)
    uniform(1, 2, MANY, "flip")
    generator(5).random(10)
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])  # noqa: NPY002
    assert random.random() == expected[2]
