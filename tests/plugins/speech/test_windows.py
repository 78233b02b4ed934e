"""Windows and pieces make up the recording, and what is joined is what the whole would have given."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.errors import ConfigError
from modelwright_speech.windows import EXCLUDED, PAUSE, Region, joined, said, utterances


@st.composite
def shapes_made(draw):
    """Samples, rate, seconds of a window and of the overlap, samples per frame."""
    rate, hop = draw(st.sampled_from([10, 16, 50])), draw(st.integers(1, 12))
    window = draw(st.floats(2 * hop / rate, 20))
    # Rounded to whole frames, the window loses up to one and the overlap gains up to one.
    overlap = draw(st.floats(0, 0.95)) * max(0.0, window - 3 * hop / rate)
    return draw(st.integers(0, 3000)), rate, window, overlap, hop


shapes = shapes_made()


def windows_of(n, rate, window, overlap, hop):
    """Those of a recording without a pause."""
    return [region for region, _ in utterances([np.ones(n, np.float32)], rate, window, overlap, hop=hop)]


@settings(deadline=None, max_examples=150)
@given(shapes)
def test_windows_cover_the_recording_and_overlap_as_asked(shape):
    n, rate, window, overlap, hop = shape
    found = windows_of(n, rate, window, overlap, hop)
    assert (found[0].start, found[-1].stop) == (0, n)
    assert all(each.start % hop == 0 and each.stop - each.start <= window * rate for each in found)
    for one, other in pairwise(found):
        assert one.start < other.start
        assert one.stop - other.start >= overlap * rate - 1e-6
    assert (len(found) == 1) == (n <= int(window * rate) // hop * hop)
    assert all(each.stop - each.start == int(window * rate) // hop * hop for each in found[:-1])


@settings(deadline=None, max_examples=150)
@given(shapes, st.integers(0, 2))
def test_what_is_joined_is_the_whole(shape, more):
    """The frames of a window are those of its samples; a model may give some more at its end."""
    n, rate, window, overlap, hop = shape
    whole = np.arange(2 * (-(-n // hop) + more), dtype=np.float32).reshape(-1, 2)
    found = windows_of(n, rate, window, overlap, hop)
    parts = [whole[each.start // hop : -(-each.stop // hop) + more].copy() for each in found]
    np.testing.assert_array_equal(joined(parts, found, hop=hop), whole)


def test_windows_come_as_soon_as_they_are_heard():
    read = 0

    def blocks():
        nonlocal read
        for _ in range(1000):
            read += 100
            yield np.ones(100, np.float32)

    for region, part in utterances(blocks(), 100, 10.0, 2.0, hop=4):
        assert len(part) == region.stop - region.start
        assert read - region.stop <= 800 + 100  # the next one, which shows that this is not the last, and a block


def test_where_windows_overlap_each_gives_a_half():
    found = joined([np.zeros((10, 2)), np.ones((10, 2))], [Region(0, 50), Region(30, 80)], hop=5)
    assert found[:, 0].tolist() == [0] * 8 + [1] * 8


def test_a_frame_that_the_model_leaves_out_is_blank():
    parts = [np.full((4, 3), -1.0, np.float32), np.full((4, 3), -2.0, np.float32)]
    found = joined(parts, [Region(0, 60), Region(60, 120)], hop=10)
    assert found.dtype == np.float32
    assert found[:, 0].tolist() == [-1.0] * 4 + [0.0] * 2 + [-2.0] * 4
    assert (found[4:6, 1:] < -50).all()


def test_each_window_has_its_part():
    with pytest.raises(ValueError, match="zip"):
        joined([np.zeros((4, 3))], [Region(0, 4), Region(4, 8)], hop=1)


@pytest.mark.parametrize(("window", "overlap", "hop"), [(4.0, 4.0, 1), (4.0, 5.0, 1), (2.0, 0.0, 1000)])
def test_windows_that_do_not_advance_are_refused(window, overlap, hop):
    with pytest.raises(ConfigError, match=rf"window={window} and evaluate.overlap={overlap} leave no step"):
        next(utterances([], 100, window, overlap, hop=hop))


# Pauses ---------------------------------------------------------------------------------------------------------------


@st.composite
def recordings(draw):
    """Speech and quiet by turns, at 20 samples a second, in blocks."""
    lengths = draw(st.lists(st.tuples(st.integers(1, 90), st.integers(0, 60)), min_size=1, max_size=8))
    lead = draw(st.integers(0, 40))
    parts = [np.zeros(lead, np.float32)]
    for loud, quiet in lengths:
        parts += [np.where(np.arange(loud) % 3, 0.5, -0.4), np.full(quiet, 1e-4)]
    samples = np.concatenate(parts).astype(np.float32)
    cuts = sorted(draw(st.lists(st.integers(0, len(samples)), max_size=6)))
    return samples, np.split(samples, cuts)


@settings(deadline=None, max_examples=150)
@given(recordings(), st.integers(1, 4))
def test_pieces_hold_all_that_is_said_whatever_the_blocks(recording, hop):
    samples, blocks = recording
    found = list(utterances(blocks, 20, 5.0, 1.0, hop=hop))
    assert [region for region, _ in found] == [region for region, _ in utterances([samples], 20, 5.0, 1.0, hop=hop)]
    heard = np.zeros(len(samples), bool)
    for region, part in found:
        np.testing.assert_array_equal(part, samples[region.start : region.stop])
        assert region.start % hop == 0
        assert 0 < region.stop - region.start <= 100
        heard[region.start : region.stop] = True
    assert heard[np.abs(samples) > 0.1].all()
    assert [region.whole for region, _ in found] == [0] * (len(found) - 1) + [len(samples)]
    assert all(one.start < other.start for (one, _), (other, _) in pairwise(found))


def test_a_recording_is_cut_where_it_is_quiet_for_long_enough():
    word = np.full(20, 0.3, np.float32)
    samples = np.concatenate([np.zeros(9), word, np.zeros(5), word, np.zeros(40), word, np.zeros(30)]).astype(
        np.float32
    )
    assert PAUSE * 20 > 5
    assert said(samples, 20) == [(9, 54), (94, 114)]
    found = [region for region, _ in utterances([samples], 20, 10.0, 1.0)]
    assert found == [Region(9, 54), Region(94, 114, 144)]


def test_what_has_no_pause_is_cut_into_windows_that_overlap():
    samples = np.full(250, 0.3, np.float32)
    found = [region for region, _ in utterances([samples], 20, 5.0, 1.0)]
    assert found == [Region(0, 100), Region(80, 180), Region(160, 250, 250)]


def test_silence_is_one_piece():
    ((region, samples),) = utterances([np.zeros(90, np.float32)] * 9, 20, 5.0, 1.0)
    assert region == Region(0, 100, 810)
    assert not samples.any()


def test_no_word_goes_on_over_a_pause():
    parts = [np.log(np.full((3, 4), 0.25, np.float32))] * 2
    found = joined(parts, [Region(4, 10), Region(14, 20)], hop=2, space=3)
    assert found.shape == (10, 4)
    assert found[[0, 1, 5, 6]].argmax(axis=1).tolist() == [0, 0, 3, 0]
    assert found[5, 0] == EXCLUDED
