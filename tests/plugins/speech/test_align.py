"""A text in its frames: the best path against all paths and against torchaudio's; words with times."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from modelwright.errors import DataError
from modelwright_speech.align import align, frames_needed, words
from modelwright_speech.greedy import greedy
from modelwright_speech.tokens import Tokens


def scores(seed, frames, tokens, sharp=2.0):
    raw = np.random.default_rng(seed).normal(size=(frames, tokens)) * sharp
    return raw - np.logaddexp.reduce(raw, axis=1, keepdims=True)


def collapsed(path):
    return [token for token, _ in itertools.groupby(path) if token]


def total(log_probs, ids, spans):
    """Log-probability of the path that the spans say."""
    path = np.zeros(len(log_probs), np.int64)
    for token, (first, last) in zip(ids, spans, strict=True):
        path[first:last] = token
    assert collapsed(path) == list(ids)
    return log_probs[np.arange(len(path)), path].sum()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(2, 4), st.data())
def test_it_is_the_best_of_all_paths(seed, frames, tokens, data):
    ids = data.draw(st.lists(st.integers(1, tokens - 1), min_size=1, max_size=4))
    assume(frames_needed(ids) <= frames)
    log_probs = scores(seed, frames, tokens)
    paths = [path for path in itertools.product(range(tokens), repeat=frames) if collapsed(path) == ids]
    best = max(log_probs[np.arange(frames), list(path)].sum() for path in paths)
    assert total(log_probs, ids, align(log_probs, ids)) == pytest.approx(best)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 6), st.data())
def test_it_equals_torchaudio(seed, frames, tokens, data):
    torch = pytest.importorskip("torch")
    from torchaudio.functional import forced_align

    ids = data.draw(st.lists(st.integers(1, tokens - 1), min_size=1, max_size=20))
    assume(frames_needed(ids) <= frames)
    log_probs = scores(seed, frames, tokens)
    path, _ = forced_align(torch.from_numpy(log_probs)[None], torch.tensor([ids]), blank=0)
    theirs = log_probs[np.arange(frames), path[0].numpy()].sum()
    assert total(log_probs, ids, align(log_probs, ids)) == pytest.approx(theirs)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 90), st.data())
def test_a_band_always_reaches_the_end(seed, frames, data):
    ids = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=80))
    assume(frames_needed(ids) <= frames)
    log_probs = scores(seed, frames, 4)
    spans = align(log_probs, ids, band=1)
    assert total(log_probs, ids, spans) <= total(log_probs, ids, align(log_probs, ids)) + 1e-9
    assert (np.diff(spans.ravel())[::2] > 0).all()
    assert (np.diff(spans.ravel()) >= 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_band_finds_what_was_said_in_a_long_recording(seed):
    log_probs = scores(seed, 3000, 8, sharp=6.0)
    ids, frames = greedy(log_probs)
    assert len(ids) > 1000
    np.testing.assert_array_equal(align(log_probs, ids, band=64), frames)


def test_what_the_model_excludes_has_frames_all_the_same():
    log_probs = np.full((5, 3), -np.inf)
    log_probs[:, 0] = 0.0
    spans = align(log_probs, [1, 2, 2])
    assert (spans[:, 1] > spans[:, 0]).all()
    assert words(log_probs, Tokens.characters(["ab"]), "ab", seconds=0.1)[0].confidence == 0.0


def test_words_have_times_and_confidence():
    tokens = Tokens.characters(["ab c"])
    path = [0, 2, 2, 0, 3, 1, 0, 4, 4, 0]
    probabilities = np.full((10, 5), 0.1)
    probabilities[np.arange(10), path] = 0.6
    probabilities[2] = [0.0, 0.0, 1.0, 0.0, 0.0]
    with np.errstate(divide="ignore"):
        found = words(np.log(probabilities), tokens, "AB  c", seconds=0.04)
    assert [word for word, *_ in found] == ["ab", "c"]
    np.testing.assert_allclose([[start, end] for _, start, end, _ in found], [[0.04, 0.2], [0.28, 0.36]])
    np.testing.assert_allclose([each.confidence for each in found], [np.sqrt(0.6), 0.6])


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from(["characters", "bpe"]), st.text("ab ", max_size=20)
)
def test_words_come_one_after_the_other_and_lie_in_the_sound(seed, frames, kind, text):
    tokens = Tokens.characters(["ab ab"]) if kind == "characters" else Tokens.bpe(["ab ab abab"], 12)
    assume(frames_needed(tokens.encode(text)) <= frames)
    found = words(scores(seed, frames, tokens.size), tokens, text, seconds=0.02)
    assert [each.word for each in found] == text.split()
    times = [time for each in found for time in each[1:3]]
    assert times == sorted(times)
    assert all(each.start < each.end <= frames * 0.02 + 1e-9 and 0 < each.confidence <= 1 for each in found)


def test_an_empty_text_needs_no_frames():
    assert align(scores(0, 4, 3), []).shape == (0, 2)
    assert align(scores(0, 0, 3), []).shape == (0, 2)
    assert words(scores(0, 4, 3), Tokens.characters(["ab"]), "", seconds=0.02) == []


@pytest.mark.parametrize(("ids", "frames"), [([1, 2], 1), ([1, 1], 2), ([1], 0)])
def test_a_text_with_more_tokens_than_frames_is_refused(ids, frames):
    line = rf"{len(ids)} tokens, which need {frames_needed(ids)} frames, but the sound has {frames}; it is cut short"
    with pytest.raises(DataError, match=line):
        align(scores(0, frames, 3), ids)
    align(scores(0, frames_needed(ids), 3), ids)


def test_blanks_are_no_text():
    with pytest.raises(ValueError, match="no blanks"):
        align(scores(0, 9, 3), [1, 0, 2])
