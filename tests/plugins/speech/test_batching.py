"""Each utterance is in one batch of an epoch; batches are of like length, and short ones come first for a while."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modelwright_speech.batching import order

DURATIONS = np.random.default_rng(0).uniform(0.5, 8.0, 203)


def made(durations=DURATIONS, *, seed=0, **settings):
    usual = {"batch_size": 8, "curriculum": 0.3, "epoch": 0, "epochs": 10}
    return order(durations, **{**usual, **settings}, rng=np.random.default_rng(seed))


@given(
    durations=st.lists(st.floats(0.05, 40), max_size=80),
    batch_size=st.integers(1, 12),
    limit=st.none() | st.floats(0.1, 100),
    curriculum=st.floats(0, 1),
    epoch=st.integers(0, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_each_utterance_is_in_one_batch_and_none_is_too_large(durations, batch_size, limit, curriculum, epoch, seed):
    settings = {"batch_size": batch_size, "batch_seconds": limit, "curriculum": curriculum, "epoch": epoch}
    lengths = np.array(durations)
    batches = made(lengths, seed=seed, **settings)
    assert sorted(np.concatenate([np.zeros(0, int), *batches]).tolist()) == list(range(len(durations)))
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        assert limit is None or len(batch) == 1 or lengths[batch].max() * len(batch) <= limit
    again = made(lengths, seed=seed, **settings)
    assert [batch.tolist() for batch in batches] == [batch.tolist() for batch in again]


@given(count=st.integers(1, 60), size=st.integers(1, 9), seed=st.integers(0, 99))
def test_there_are_no_more_batches_than_needed(count, size, seed):
    assert len(made(np.ones(count), batch_size=size, seed=seed)) == -(-count // size)


def test_batches_are_of_like_length():
    padded = sum(DURATIONS[batch].max() * len(batch) for batch in made())
    assert padded < 1.2 * DURATIONS.sum()
    pieces = np.array_split(np.random.default_rng(0).permutation(203), 26)
    assert padded < 0.75 * sum(DURATIONS[piece].max() * len(piece) for piece in pieces)


def longest(batches):
    return np.array([DURATIONS[batch].max() for batch in batches])


def test_short_ones_first_then_in_any_order():
    for epoch in (0, 2):
        assert (np.diff(longest(made(epoch=epoch))) >= 0).all()
    for settings in ({"epoch": 3}, {"curriculum": 0.0}):
        assert not (np.diff(longest(made(**settings))) >= 0).all()


def test_of_a_single_epoch_the_first_share_is_in_order():
    found = longest(made(curriculum=0.5, epochs=1))
    assert (np.diff(found[:13]) >= 0).all()
    assert not (np.diff(found[13:]) >= 0).all()


def test_each_epoch_has_other_batches():
    first, second = ({tuple(sorted(batch.tolist())) for batch in made(seed=seed)} for seed in (0, 1))
    assert len(first & second) < 5
