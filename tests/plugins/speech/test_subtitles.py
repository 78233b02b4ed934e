"""Subtitles: times in order, lines of a length that can be read, nothing lost."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright_speech.align import Word
from modelwright_speech.subtitles import LINE, LINES, LONGEST, cues, srt, vtt

steps = st.lists(
    st.tuples(st.text("abc<&>", min_size=1, max_size=50), st.floats(0, 3), st.floats(0.001, 3)), max_size=40
)


def spoken(found, start=0.0):
    words = []
    for text, pause, length in found:
        start += pause
        words.append(Word(text, start, start + length, 0.9))
        start += length
    return words


@given(steps)
def test_cues_come_one_after_the_other_and_hold_all_words(found):
    words = spoken(found)
    shown = cues(words)
    assert [word for cue in shown for line in cue.lines for word in line.split()] == [each.word for each in words]
    times = [time for cue in shown for time in (cue.start, cue.end)]
    assert times == sorted(times)
    for cue in shown:
        assert cue.start < cue.end
        assert cue.end - cue.start <= LONGEST * 1000 + 1
        assert 1 <= len(cue.lines) <= LINES
        assert all(len(line) <= LINE or " " not in line for line in cue.lines)


def test_a_pause_ends_a_cue_and_a_short_one_stays_a_second():
    shown = cues([Word("one", 0.5, 0.7, 1), Word("two", 0.8, 1.0, 1), Word("three", 3.0, 3.1, 1)])
    assert [(cue.start, cue.end, cue.lines) for cue in shown] == [(500, 1500, ("one two",)), (3000, 4000, ("three",))]


def test_a_cue_makes_way_for_the_next():
    shown = cues(spoken([("a" * 42, 0, 0.1), ("b" * 42, 0, 0.1), ("c", 0, 0.1)]))
    assert [(cue.start, cue.end) for cue in shown] == [(0, 200), (200, 1200)]


WORDS = [Word("a<b&c", 0.0, 0.0312, 0.5), Word("--> d", 3661.5, 3663.25, 0.5)]


def test_srt():
    assert srt(WORDS) == "1\n00:00:00,000 --> 00:00:01,000\na<b&c\n\n2\n01:01:01,500 --> 01:01:03,250\n--> d\n"


def test_vtt_escapes_markup():
    first = "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\na&lt;b&amp;c\n\n"
    assert vtt(WORDS) == first + "01:01:01.500 --> 01:01:03.250\n--&gt; d\n"


@pytest.mark.parametrize(("write", "point"), [(srt, ","), (vtt, r"\.")])
@given(found=steps)
def test_files_hold_as_many_times_as_cues(write, point, found):
    time = rf"\d\d:\d\d:\d\d{point}\d\d\d"
    text = write(spoken(found, start=359990.0))
    assert len(re.findall(rf"^{time} --> {time}$|^\d+:\d\d:\d\d", text, re.M)) == len(cues(spoken(found, 359990.0)))


def test_nothing_said_is_an_empty_file():
    assert cues([]) == []
    assert srt([]) == ""
    assert vtt([]) == "WEBVTT\n"
