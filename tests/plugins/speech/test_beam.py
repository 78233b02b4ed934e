"""The search against all paths, with and without what is known beforehand about words."""

from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.errors import ConfigError
from modelwright_speech import beam as module
from modelwright_speech.beam import Beam
from modelwright_speech.greedy import greedy
from modelwright_speech.language import END, Bigram
from modelwright_speech.lexicon import Lexicon
from modelwright_speech.tokens import Tokens

TOKENS = Tokens.characters(["a b"])
PIECES = Tokens.bpe(["ab a ab"], 6)
WHOLE = {"width": 100_000, "least": 0.0, "sure": 2.0, "floor": 0.0}
"""Nothing is cut."""


def scores(seed, frames, tokens, sharp=2.0):
    raw = np.random.default_rng(seed).normal(size=(frames, tokens)) * sharp
    return raw - np.logaddexp.reduce(raw, axis=1, keepdims=True)


def collapsed(path):
    return tuple(token for token, _ in itertools.groupby(path) if token)


def said(log_probs):
    """The log-probability of all that can be said: tokens -> sum over all paths."""
    found = defaultdict(lambda: -np.inf)
    frames, tokens = log_probs.shape
    for path in itertools.product(range(tokens), repeat=frames):
        ids = collapsed(path)
        found[ids] = np.logaddexp(found[ids], log_probs[np.arange(frames), list(path)].sum())
    return found


def texts(found, tokens, worth=lambda ids: 0.0):
    summed = defaultdict(lambda: -np.inf)
    for ids, score in found.items():
        if (gain := worth(ids)) is not None:
            summed[tokens.decode(ids)] = np.logaddexp(summed[tokens.decode(ids)], score + gain)
    return summed


def same(hypotheses, expected):
    assert {each.text for each in hypotheses} == set(expected)
    for each in hypotheses:
        assert each.score == pytest.approx(expected[each.text])
    assert [each.score for each in hypotheses] == sorted((each.score for each in hypotheses), reverse=True)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.sampled_from([TOKENS, PIECES]))
def test_a_wide_beam_is_the_sum_over_all_paths(seed, frames, tokens):
    log_probs = scores(seed, frames, tokens.size)
    same(Beam(tokens, **WHOLE).hypotheses(log_probs), texts(said(log_probs), tokens))


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
    st.sets(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=4),
    st.dictionaries(st.text("ab", min_size=1, max_size=3), st.floats(-3, 3), max_size=2),
    st.floats(0, 2),
    st.floats(-2, 2),
    st.booleans(),
)
def test_what_is_known_of_words_is_added_once_they_are_said(seed, frames, words, hot, weight, bonus, limited):
    log_probs = scores(seed, frames, TOKENS.size)
    language = Bigram.counted(["a b", "ab a", " ".join(sorted(words))])

    def worth(ids):
        text = "".join(TOKENS.surfaces[token] for token in ids)
        if limited and (text.startswith(" ") or "  " in text or not words.issuperset(text.split())):
            return None
        total, state = 0.0, language.start
        for word in text.split():
            score, state = language.score(state, word)
            total += weight * score + bonus + hot.get(word, 0.0)
        return total + weight * language.score(state, END)[0]

    expected = texts(said(log_probs), TOKENS, worth)
    known = {"lexicon": Lexicon.of(words, TOKENS) if limited else None, "language": language, "hotwords": hot}
    same(Beam(TOKENS, weight=weight, bonus=bonus, **known, **WHOLE).hypotheses(log_probs), expected)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 40),
    st.integers(1, 20),
    st.sets(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=5),
    st.sampled_from([TOKENS, PIECES]),
)
def test_with_a_lexicon_only_its_words_are_said(seed, frames, width, words, tokens):
    search = Beam(tokens, Lexicon.of(words, tokens), Bigram.counted(words), {"ab": 5.0}, width=width)
    found = search.hypotheses(scores(seed, frames, tokens.size))
    assert 1 <= len(found) <= width
    assert all(words.issuperset(each.text.split()) for each in found)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_the_usual_cuts_change_little(seed, frames):
    log_probs = scores(seed, frames, TOKENS.size, sharp=20.0)
    cut, exact = Beam(TOKENS), Beam(TOKENS, width=64, least=0.0, sure=2.0, floor=0.0)
    assert cut.hypotheses(log_probs)[0].score == pytest.approx(exact.hypotheses(log_probs)[0].score, abs=0.5)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_tidying_changes_nothing(seed):
    log_probs = scores(seed, 60, TOKENS.size, sharp=3.0)
    words = {"lexicon": Lexicon.of(["a", "ab", "ba"], TOKENS)} if seed % 2 else {}
    found = []
    for every in (1, 7, 10_000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "TIDY", every)
            patch.setattr(module, "CHUNK", every)
            found.append(Beam(TOKENS, width=8, **words).hypotheses(log_probs))
    assert found[0] == found[1] == found[2]


def test_what_lies_far_back_is_settled_and_the_beam_free_again(monkeypatch):
    log_probs = np.concatenate(
        [heard("aa", doubt="bb", share=0.45), heard("ab" * 40), heard("aa", doubt="bb", share=0.45)]
    )
    found = Beam(TOKENS, width=4).hypotheses(log_probs)
    monkeypatch.setattr(module, "TIDY", 10)
    monkeypatch.setattr(module, "HORIZON", 8)
    settled = Beam(TOKENS, width=4).hypotheses(log_probs)
    assert settled[0].text == found[0].text
    assert {each.text[:-2] for each in settled} == {found[0].text[:-2]}
    assert {each.text[-2:] for each in settled} == {"aa", "ab", "ba", "bb"}


def test_a_sharp_model_is_read_as_best_path_reads_it():
    log_probs = scores(1, 500, TOKENS.size, sharp=40.0)
    assert Beam(TOKENS).search(log_probs) == TOKENS.decode(greedy(log_probs)[0])


def heard(text, *, doubt="", share=0.0, tokens=TOKENS):
    """Frames that say a text, a blank after each; where `doubt` has another letter, that has `share`."""
    rows = []
    for letter, other in itertools.zip_longest(text, doubt or text):
        row = np.full(tokens.size, 1e-5)
        row[tokens.encode(f"a{letter}a")[1]] += 1 - share
        row[tokens.encode(f"a{other}a")[1]] += share
        blank = np.full(tokens.size, 1e-5)
        blank[0] = 1.0
        rows += [row / row.sum(), blank / blank.sum()]
    return np.log(rows)


def test_hotwords_win_where_the_model_doubts_and_give_back_what_they_were_lent():
    log_probs = heard("aa ba", doubt="ab bb", share=0.3)
    assert Beam(TOKENS).search(log_probs) == "aa ba"
    assert Beam(TOKENS, hotwords={"AB": 3.0}).search(log_probs) == "ab ba"
    assert Beam(TOKENS, hotwords={"aba": 3.0}).search(log_probs) == "aa ba"
    assert Beam(TOKENS, hotwords={"aa": -3.0}).search(log_probs) == "ab ba"


def test_hotwords_help_their_first_letters_in_a_narrow_beam():
    log_probs = heard("aaaa", doubt="abbb", share=0.4)
    assert Beam(TOKENS, width=1, hotwords={"abbb": 6.0}).search(log_probs) == "abbb"


def test_a_language_model_decides_between_words_that_sound_alike():
    log_probs = heard("a a", doubt="a b", share=0.4)
    language = Bigram.counted(["a b"] * 20)
    assert Beam(TOKENS, language=language, weight=0.0).search(log_probs) == "a a"
    assert Beam(TOKENS, language=language, weight=1.0).search(log_probs) == "a b"


def test_a_word_that_is_cut_off_is_left_out_with_a_lexicon():
    found = Beam(TOKENS, Lexicon.of(["ab", "abba"], TOKENS), width=1).hypotheses(heard("ab abb"))
    assert [each.text for each in found] == ["ab"]


def test_pieces_with_a_lexicon_and_a_language_model():
    tokens = Tokens.bpe(["zero one two"] * 3, 30)
    said_ = "two zero one"
    log_probs = np.log(np.eye(tokens.size)[[0, *[each for i in tokens.encode(said_) for each in (i, 0)]]] * 0.9 + 1e-3)
    search = Beam(tokens, Lexicon.of(["zero", "one", "two"], tokens), Bigram.counted([said_]), {"one": 1.0}, bonus=0.5)
    assert search.search(log_probs) == said_


def test_what_is_impossible_ends_nothing():
    log_probs = np.full((4, TOKENS.size), -np.inf)
    log_probs[:, TOKENS.encode("a")[0]] = 0.0
    assert Beam(TOKENS, Lexicon.of(["b"], TOKENS)).search(log_probs) == ""
    assert Beam(TOKENS).search(log_probs) == "a"


def test_pieces_that_write_nothing_are_not_tried():
    tokens = Tokens("characters", ("", "", "a", " "))
    log_probs = np.log(np.array([[0.1, 0.8, 0.1, 0.0], [0.9, 0.0, 0.1, 0.0]]) + 1e-12)
    assert all(each.text in ("", "a") for each in Beam(tokens, **WHOLE).hypotheses(log_probs)[:2])


@pytest.mark.parametrize(
    ("settings_", "line"),
    [
        ({"width": 0}, "evaluate.beam=0: at least one"),
        ({"weight": -1.0}, "evaluate.weight=-1.0: a language model counts 0 or more"),
        ({"bonus": 1e4}, "evaluate.bonus: 10000.0 is out of bounds"),
        ({"hotwords": {"a": float("nan")}}, "a: nan is out of bounds"),
        ({"hotwords": {"a b": 1.0}}, "'a b' is not one word; give each word"),
        ({"hotwords": {" ": 1.0}}, "'' is not one word"),
        ({"hotwords": {"ax": 1.0}}, "'ax' holds x, which the model cannot write"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings_, line):
    with pytest.raises(ConfigError, match=line):
        Beam(TOKENS, **settings_)
