"""Words with their times as subtitles: SRT and WebVTT. Knows words; no sound, no model.

Lines of at most 42 characters, two of them at a time, shown between one and seven seconds: what the Timed Text Style
Guides of broadcasters ask for. WebVTT: https://www.w3.org/TR/webvtt1/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelwright_speech.align import Word

LINE = 42
"""Characters of a line; a longer word has a line of its own."""
LINES = 2
SHORTEST, LONGEST = 1.0, 7.0
"""Seconds that a cue is shown, where the words allow it."""
PAUSE = 1.0
"""Seconds of silence that end a cue."""


@dataclass(frozen=True)
class Cue:
    """What is shown at a time: milliseconds from, to, and its lines."""

    start: int
    end: int
    lines: tuple[str, ...]


def cues(words: Sequence[Word]) -> list[Cue]:
    """Words as cues, in order; none overlap, each is shown for at least a millisecond.

    Args:
        words: as of `align.words`, ascending.
    """
    groups: list[list[Word]] = []
    for word in words:
        group = groups[-1] if groups else []
        fits = len(_lines([*group, word])) <= LINES
        if group and fits and word.start - group[-1].end < PAUSE and word.end - group[0].start <= LONGEST:
            group.append(word)
        else:
            groups.append([word])
    found: list[Cue] = []
    for place, group in enumerate(groups):
        start = max(_milliseconds(group[0].start), found[-1].end if found else 0)
        end = max(_milliseconds(group[-1].end), start + _milliseconds(SHORTEST))
        if place + 1 < len(groups):
            end = min(end, _milliseconds(groups[place + 1][0].start))
        found.append(Cue(start, max(end, start + 1), tuple(_lines(group))))
    return found


def srt(words: Sequence[Word]) -> str:
    """SubRip: numbered cues."""
    blocks = [
        f"{number}\n{_time(cue.start, ',')} --> {_time(cue.end, ',')}\n" + "\n".join(cue.lines) + "\n"
        for number, cue in enumerate(cues(words), start=1)
    ]
    return "\n".join(blocks)


def vtt(words: Sequence[Word]) -> str:
    """WebVTT; what would be markup is escaped."""
    blocks = [
        f"{_time(cue.start, '.')} --> {_time(cue.end, '.')}\n" + "\n".join(map(_escaped, cue.lines)) + "\n"
        for cue in cues(words)
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def _lines(words: Sequence[Word]) -> list[str]:
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word.word) <= LINE:
            lines[-1] += f" {word.word}"
        else:
            lines.append(word.word)
    return lines


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _time(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{rest:03}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
