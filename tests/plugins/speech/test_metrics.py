"""Error rates are sums over utterances: of any choice of them, and as jiwer has them for all."""

from __future__ import annotations

import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.codec import Columns
from modelwright_speech import metrics

TEXTS = st.lists(st.sampled_from(["one", "two", "three", "on", "o"]), max_size=5).map(" ".join)


def measured(true, said, speakers=None):
    truths = Columns({"text": list(true), "speaker": list(speakers or [""] * len(true))})
    return metrics.measure(Columns({"text": list(said)}), truths)


@given(st.lists(st.tuples(TEXTS.filter(bool), TEXTS), min_size=1, max_size=6))
def test_rates_are_jiwers(pairs):
    true, said = ([pair[side] for pair in pairs] for side in (0, 1))
    found = metrics.scores(measured(true, said))
    assert found["wer"] == pytest.approx(jiwer.wer(true, said))
    assert found["cer"] == pytest.approx(jiwer.cer(true, said))
    assert found["substitutions"] + found["insertions"] + found["deletions"] == pytest.approx(found["wer"])


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=2, max_size=6), st.randoms())
def test_any_choice_of_utterances_is_a_sum(pairs, random):
    rows = [random.randrange(len(pairs)) for _ in pairs]
    table = measured(*zip(*pairs, strict=True))
    chosen = measured(*zip(*(pairs[row] for row in rows), strict=True))
    wanted = metrics.scores(chosen)
    for name, value in metrics.scores(table.select(rows)).items():
        assert value == pytest.approx(wanted[name], nan_ok=True)


def test_only_case_and_spaces_are_normalised():
    found = metrics.scores(measured(["Zero  ONE two"], ["zero one two"]))
    assert found["wer"] == 0
    assert metrics.scores(measured(["zero one two"], ["012"]))["wer"] == 1


def test_a_model_that_says_nothing_shows():
    found = metrics.scores(measured(["one two", "three", ""], ["", "three", ""]))
    assert found["empty"] == 0.5
    assert found["deletions"] == pytest.approx(2 / 3)


def test_what_is_said_of_silence_counts_as_made_up():
    table = measured(["", "one"], ["one two", "one"])
    assert table["insertions"].tolist() == [2, 0]
    assert metrics.scores(table)["wer"] == 2.0


def test_without_words_there_is_no_rate():
    found = metrics.scores(measured([""], [""]))
    assert np.isnan(found["wer"])
    assert np.isnan(found["empty"])


def test_speakers_are_told_apart_unless_they_are_too_many():
    found = metrics.scores(measured(["one", "two", "six"], ["one", "too", "six"], ["ann", "bob", ""]))
    assert (found["wer/ann"], found["wer/bob"]) == (0.0, 1.0)
    assert "wer/" not in found
    many = [f"speaker {number}" for number in range(60)]
    assert not [name for name in metrics.scores(measured(["a"] * 60, ["a"] * 60, many)) if "/" in name]


def test_the_truth_scores_best():
    truths = Columns({"text": ["one two"], "speaker": [""]})
    assert metrics.scores(metrics.measure(metrics.perfect(truths), truths))["wer"] == 0


def test_other_utterances_are_refused():
    truths = Columns({"text": ["one"], "speaker": [""]}, np.array([4]))
    with pytest.raises(ValueError, match="of different utterances"):
        metrics.measure(Columns({"text": ["one"]}, np.array([5])), truths)
