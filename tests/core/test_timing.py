"""Times side by side, and inputs to time with."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.bundle import timing
from modelwright.bundle.timing import WARM, Latency, Observed, example, interleaved, observe, ratios, summary
from modelwright.data import Input, Size

IMAGE = Input("image", (3, Size("side", 8, 4), Size("side", 8, 4)), "uint8")
SOUND = Input("sound", (Size("time", 16),), "float32")


def test_calls_take_turns_after_a_warm_up():
    told: list[str] = []
    taken = interleaved({"a": lambda: told.append("a"), "b": lambda: told.append("b")}, seconds=0, least=4)
    assert told == ["a"] * WARM + ["b"] * WARM + ["a", "b"] * 4
    assert {name: len(each) for name, each in taken.items()} == {"a": 4, "b": 4}
    assert all((each > 0).all() for each in taken.values())


def test_it_goes_on_while_there_is_time_and_not_for_ever(monkeypatch):
    monkeypatch.setattr(timing, "MOST", 7)
    assert len(interleaved({"a": lambda: None}, seconds=60, least=1)["a"]) == 7


def test_a_summary_is_in_milliseconds_and_counts_the_samples_of_a_call():
    found = summary(np.arange(1, 102) / 1000, batch=32)
    assert found == Latency(32, 51.0, 96.0, 101)
    assert found.samples_per_second == pytest.approx(32 / 0.051)


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=20), st.floats(0.1, 10))
def test_noise_that_hits_both_alike_leaves_the_ratio(noise, ratio):
    base = np.array(noise)
    found = ratios({"slow": base, "other": base * ratio}, reference="slow")
    assert found == {"slow": 1.0, "other": pytest.approx(ratio)}


def test_what_is_seen_of_an_input():
    batches = [[np.full((1, side), value, np.float32)] for side, value in ((16, -1.0), (24, 2.0), (40, np.nan))]
    (seen,) = observe([SOUND], batches)
    assert (seen.low, seen.high, seen.sizes) == (-1.0, 2.0, {"time": 24})


def test_nothing_but_nothing_seen():
    (seen,) = observe([SOUND], [[np.full((1, 16), np.nan, np.float32)]])
    assert (seen.low, seen.high) == (0.0, 0.0)


def test_sizes_that_are_seen_are_sizes_that_are_allowed():
    (seen,) = observe([IMAGE], [[np.zeros((1, 3, side, side), np.uint8)] for side in (8, 16, 16, 12)])
    assert seen.sizes == {"side": 12}


def test_what_was_seen_travels_as_json():
    for seen in (Observed(IMAGE, 0, 255, {"side": 16}), Observed(SOUND, -0.5, 0.5, {"time": 100})):
        assert Observed.from_json(json.loads(json.dumps(seen.as_json()))) == seen


@given(
    batch=st.integers(1, 5),
    dtype=st.sampled_from(["uint8", "int64", "float32", "bool"]),
    ends=st.tuples(st.integers(0, 100), st.integers(0, 100)),
)
def test_an_example_is_like_what_was_seen(batch, dtype, ends):
    low, high = sorted(ends)
    if dtype == "bool":
        low, high = 0, 1
    seen = [Observed(Input("x", (2, Size("n", 1)), dtype), low, high, {"n": 6}), Observed(SOUND, -1, 1, {"time": 9})]
    x, sound = example(seen, batch=batch, rng=np.random.default_rng(0))
    assert (x.shape, x.dtype.name, sound.shape) == ((batch, 2, 6), dtype, (batch, 9))
    assert low <= x.min() <= x.max() <= high
