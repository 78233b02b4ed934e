"""What of the utterances can be used, and what a user should know of them before training. Opens no file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from modelwright.listings import some
from modelwright_speech.align import frames_needed
from modelwright_speech.sounds import CUT_OFF
from modelwright_speech.tokens import Tokens, normalised
from modelwright_speech.utterances import Problem, Utterance

SHOWN = 10
"""Problems that a message names."""
SILENT = 2e-4
"""Range of the samples below which nothing is heard (-80 dB)."""
SHORTEST = 0.03
"""Seconds below which nothing can be said."""
LOUD = 0.985
"""Where samples count as clipped."""
CLIPPED = 0.002
"""Share of clipped samples from which it is told."""


@dataclass
class Problems:
    """What cannot be used.

    Attributes:
        bad: where, and why.
        looked_at: utterances and lines.
    """

    bad: list[Problem] = field(default_factory=list[Problem])
    looked_at: int = 0

    def told(self) -> str:
        """The first problems with their reasons, and how many there are."""
        more = f"; and {len(self.bad) - SHOWN} more" if len(self.bad) > SHOWN else ""
        listed = "; ".join(f"{where}: {reason}" for where, reason in self.bad[:SHOWN])
        return f"{len(self.bad):,} of {self.looked_at:,} utterances cannot be used: {listed}{more}"


@dataclass(frozen=True)
class Heard:
    """What was found in a sound.

    Attributes:
        seconds: how long it is.
        mark: a digest of its samples.
        clipped: whether many of them are at the limit.
        reason: why it cannot be used; "": it can.
    """

    seconds: float
    mark: bytes
    clipped: bool
    reason: str = ""


def heard(samples: np.ndarray, utterance: Utterance, rate: int, *, longest: float | None) -> Heard:
    """What is in the samples of an utterance.

    Args:
        longest: seconds it may last; None: any.
    """
    seconds = len(samples) / rate
    reason = ""
    if seconds < SHORTEST:
        reason = f"it lasts only {seconds:.3f} s"
    elif longest is not None and seconds > longest:
        reason = f"it lasts {seconds:.1f} s, longer than data.longest={longest:g}"
    elif utterance.duration is not None and seconds < utterance.duration - CUT_OFF - 1 / rate:
        reason = f"its text is for {utterance.duration:.2f} s, the sound has {seconds:.2f} s"
    elif float(samples.max()) - float(samples.min()) < SILENT:
        reason = "it is silent"
    mark = hashlib.blake2b(np.ascontiguousarray(samples).view(np.uint8).data, digest_size=16).digest()
    clipped = int(np.count_nonzero(np.abs(samples) >= LOUD)) > CLIPPED * len(samples)
    return Heard(seconds, mark, clipped, reason)


def text_reason(text: str | None) -> str:
    """Why a text cannot be used, whatever the others are; "": it can."""
    return "" if text and normalised(text) else "it has no text"


def letters_reason(text: str, tokens: Tokens) -> str:
    """Why a model that writes `tokens` cannot write a text; "": it can."""
    missing = ", ".join("a space" if letter == " " else letter for letter in sorted(tokens.missing(text)))
    return f"its text has {missing}, which no training text has" if missing else ""


def frames_reason(text: str, seconds: float, tokens: Tokens, frames_per_second: float) -> str:
    """Why a text cannot be aligned with its sound, which would make CTC's loss infinite; "": it can.

    Args:
        text: of letters that `tokens` have.
        frames_per_second: that the model gives.
    """
    frames, needed = int(seconds * frames_per_second), frames_needed(tokens.encode(text))
    if needed <= frames:
        return ""
    return f"its text takes {needed} frames, its {seconds:.2f} s give {frames}: more text than can be said in it"


# What is told --------------------------------------------------------------------------------------------------------


def table_row(split: str, durations: np.ndarray, speakers: Sequence[str]) -> str:
    """How much a split has."""
    ends = f"{durations.min():.1f} to {durations.max():.1f} s, {durations.mean():.1f} s on average"
    named = set(speakers) - {""}
    by = f", {len(named):,} speakers" if named else ""
    return f"{split}: {len(durations):,} utterances, {_long(float(durations.sum()))} ({ends}){by}"


def _long(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds >= 360 else f"{seconds / 60:.1f} min"


class Twins:
    """Finds equal sounds, and speakers, that the splits given so far share."""

    def __init__(self) -> None:
        self._seen: dict[str, Mapping[bytes, int]] = {}
        self._names: dict[str, Sequence[str]] = {}
        self._speakers: dict[str, Counter[str]] = {}

    def add(
        self, split: str, marks: Sequence[bytes], names: Sequence[str], texts: Sequence[str], speakers: Sequence[str]
    ) -> Iterator[str]:
        """What is equal within `split`, and what is in another split too.

        Args:
            marks: a digest of each sound.
            names: what each is called.
            texts: what is said in each.
            speakers: who says it; "": not known.
        """
        first: dict[bytes, int] = {}
        within: list[str] = []
        otherwise: list[str] = []
        for place, mark in enumerate(marks):
            other = first.setdefault(mark, place)
            if other != place:
                within.append(f"{names[place]} = {names[other]}")
                if texts[other] != texts[place]:
                    otherwise.append(within[-1])
        if within:
            yield f"{split}: {len(within)} sounds are equal to another ({some(within)})"
        if otherwise:
            yield f"{split}: {len(otherwise)} equal sounds have different texts ({some(otherwise)})"
        for name, seen in self._seen.items():
            twins = [
                f"{names[place]} = {self._names[name][seen[mark]]}" for place, mark in enumerate(marks) if mark in seen
            ]
            if twins:
                yield f"{len(twins)} sounds of {split} are in {name} too, which flatters the score ({some(twins)})"
        counts = Counter(speaker for speaker in speakers if speaker)
        for name, others in self._speakers.items():
            if shared := sorted(set(counts) & set(others)):
                yield (
                    f"{len(shared)} of {len(counts)} speakers of {split} are in {name} too ({some(shared)}): the score "
                    "is for known voices"
                )
        self._seen[split], self._names[split], self._speakers[split] = first, list(names), counts


def clipped_note(split: str, names: Sequence[str], total: int) -> Iterator[str]:
    """Tells of sounds that are clipped."""
    if names:
        yield f"{split}: {len(names):,} of {total:,} sounds are clipped: recorded too loud, but used ({some(names)})"
