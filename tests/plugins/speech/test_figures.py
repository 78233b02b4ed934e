"""Figures of an evaluation: what they show, and that anything can be drawn."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from tests.plugins.speech.speech_made import RATE

from modelwright.codec import Columns
from modelwright.task import Evaluated, Example
from modelwright_speech import figures, metrics
from modelwright_speech.codec import SpeechCodec

WORDS = st.lists(st.sampled_from(["one", "two", "on", "o"]), max_size=6).map(" ".join)
CODEC = SpeechCodec("characters", ("", "a"), rate=RATE)


class Sounds:
    def __len__(self):
        return 9

    def __getitem__(self, key):
        rng = np.random.default_rng(key.index)
        return Example(rng.normal(0, 0.1, 100 + 1000 * key.index).astype(np.float32), {})


def evaluated(true, said, *, ids=None):
    rows = np.arange(len(true)) if ids is None else np.array(ids)
    truths = Columns({"text": list(true), "speaker": ["ann"] * len(true)}, rows)
    predictions = Columns({"text": list(said)}, rows)
    measured = metrics.measure(predictions, truths)
    return Evaluated("test", Sounds(), predictions, truths, measured, lambda *arrays: {})


@given(WORDS, WORDS)
def test_alignments_hold_every_word_and_as_many_errors_as_are_counted(true, said):
    pairs = figures.aligned(true, said)
    assert [pair.true for pair in pairs if pair.true != figures.NOTHING] == true.split()
    assert [pair.said for pair in pairs if pair.said != figures.NOTHING] == said.split()
    measured = evaluated([true], [said]).measured
    wrong = sum(int(measured.array(name)[0]) for name in ("substitutions", "insertions", "deletions"))
    assert sum(not pair.right for pair in pairs) == wrong


def test_the_worst_come_first_and_nothing_right_is_among_them():
    table = evaluated(["a b", "a b", "a b c d"], ["a b", "x y", "a b c"]).measured
    assert figures.worst_rows(table) == [1, 2]


def test_mistakes_are_counted():
    pairs = [figures.aligned("one two", "one too"), figures.aligned("two", "too"), figures.aligned("six", "")]
    assert figures.confusions(pairs) == [(figures.Pair("two", "too"), 2), (figures.Pair("six", "-"), 1)]


@pytest.mark.parametrize(
    ("true", "said", "names"),
    [
        (["one two $3", "", "four"], ["one too", "x", ""], ["worst", "confusions", "lengths"]),
        (["one two"], ["one two"], ["lengths"]),
        ([""], ["x"], ["worst", "confusions"]),
        ([], [], []),
    ],
)
def test_anything_can_be_drawn(true, said, names):
    drawn = list(figures.draw(evaluated(true, said), codec=CODEC))
    assert [figure.name for figure in drawn] == names
    for figure in drawn:
        figure.figure.draw_without_rendering()


def test_a_long_text_is_broken_into_lines():
    text = " ".join(["word"] * 40)
    drawn = figures.worst_grid(evaluated([text], [""]), [0], [figures.aligned(text, "")], rate=RATE)
    drawn.draw_without_rendering()


def test_spectrograms_are_of_any_sound():
    for length in (1, 50, 8000):
        shown = figures.spectrogram(np.zeros(length, np.float32), RATE)
        assert np.isfinite(shown).all()
        assert shown.max() <= 0 or length == 1


def test_the_worst_can_be_listened_to():
    (worst, *_) = figures.draw(evaluated(["one two", "three"], ["one two", "tree"]), codec=CODEC)
    (sound,) = worst.sounds
    assert sound.title == "utterance 1: three; heard: tree"
    samples, rate = soundfile.read(io.BytesIO(sound.wav), dtype="float32")
    assert rate == RATE
    assert 0 < len(samples) <= figures.HEARD * RATE
