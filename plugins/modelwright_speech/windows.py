"""Long recordings in pieces, and what the model gives for them as one. Knows numpy only.

They are cut at pauses, so that a piece is what the model was trained on: an utterance. Where there is no pause, windows
overlap: a model hears the edges of a window without what lies beyond them, so two are joined in the middle of what they
have in common. Pieces begin at whole frames, and what is joined is the sequence of frames of the whole recording:
decoding and time stamps need not know that there were pieces.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from modelwright.errors import ConfigError
from modelwright_speech.tokens import BLANK

EXCLUDED = -100.0
"""Natural log of what counts as impossible."""
PAUSE = 0.3
"""Seconds of quiet that end an utterance; within one, people rarely wait so long."""
QUIET = 50.0
"""dB below the loudest of the surroundings: what is softer is quiet."""


@dataclass(frozen=True)
class Region:
    """A piece of a recording, in samples: from, to before; and of the last piece how many samples there are in all."""

    start: int
    stop: int
    whole: int = 0


def utterances(
    blocks: Iterable[np.ndarray], rate: int, window: float, overlap: float, *, hop: int = 1
) -> Iterator[tuple[Region, np.ndarray]]:
    """What is said between the pauses of a recording that comes in blocks; what has none is cut into windows.

    At most two windows and a block are in memory.

    Args:
        blocks: (n,) each, of any lengths.
        rate: samples per second.
        window, overlap: seconds of a window, and at least in common with the next.
        hop: samples per frame of the model; pieces begin at multiples of it.

    Yields:
        Pieces in order, each with its samples; at least one. Only the last has `whole`.

    Raises:
        ConfigError: the overlap is as long as the window, or the window shorter than a frame.
    """
    length, step = _sizes(rate, window, overlap, hop)
    held, first = np.zeros(0, np.float32), 0
    waiting: tuple[Region, np.ndarray] | None = None
    for block in chain[np.ndarray | None](blocks, [None]):
        held = held if block is None else np.concatenate([held, block])
        while len(held) > length or (block is None and len(held)):
            piece = held[:length]
            found = said(piece, rate, hop=hop)
            taken = len(piece)
            if len(held) > length and found and found[-1][1] == length:  # who knows where it ends
                taken = step if found == [(0, length)] else found.pop()[0]
            for start, stop in found:
                if waiting is not None:
                    yield waiting
                waiting = Region(first + start, first + stop), piece[start:stop].copy()
            held, first = held[taken:], first + taken
    region, samples = waiting or (Region(0, min(first, length)), np.zeros(min(first, length), np.float32))
    yield replace(region, whole=first), samples


def said(samples: np.ndarray, rate: int, *, hop: int = 1) -> list[tuple[int, int]]:
    """What lies between pauses, in samples, from and to before; whole frames, but for the end of all.

    >>> said(np.array([0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0], np.float32), rate=10)
    [(3, 7), (11, 12)]
    """
    count = -(-len(samples) // hop)
    loud = np.pad(np.abs(samples), (0, count * hop - len(samples))).reshape(count, hop).max(axis=1, initial=0)
    heard = np.flatnonzero(loud > loud.max(initial=0) * 10 ** (-QUIET / 20))
    if not len(heard):
        return []
    breaks = np.flatnonzero(np.diff(heard) > math.ceil(PAUSE * rate / hop)) + 1
    spoken = np.split(heard, breaks)
    return [(int(each[0]) * hop, min((int(each[-1]) + 1) * hop, len(samples))) for each in spoken]


def joined(parts: Sequence[np.ndarray], regions: Sequence[Region], *, hop: int, space: int = BLANK) -> np.ndarray:
    """Log-probabilities of the whole recording, (frames, tokens), from those of its pieces.

    Pauses are filled with frames that are surely blank, so that what follows keeps its time; so is the gap that a model
    leaves that gives fewer frames than fit into the samples.

    Args:
        parts: (frames, tokens) of each piece, in order; at least one.
        regions: the pieces, which begin at whole frames.
        hop: samples per frame of the model.
        space: the token that a pause begins with: no word goes on behind it.

    Raises:
        ValueError: there are not as many parts as windows.
    """
    starts = [region.start // hop for region in regions]
    found: list[np.ndarray] = []
    done = 0  # frames of the whole that are settled
    for place, (part, start) in enumerate(zip(parts, starts, strict=True)):
        if start > done:
            blank = np.full((start - done, part.shape[1]), EXCLUDED, part.dtype)
            blank[:, BLANK] = 0.0
            if place and regions[place - 1].stop < regions[place].start:
                blank[0, [BLANK, space]] = EXCLUDED, 0.0
            found.append(blank)
            done = start
        end = start + len(part)
        stop = end if place + 1 == len(parts) else min(end, (end + starts[place + 1]) // 2)
        kept = part[done - start : max(done, stop) - start]
        found.append(kept)
        done += len(kept)
    return np.concatenate(found)


def _sizes(rate: int, window: float, overlap: float, hop: int) -> tuple[int, int]:
    """Samples of a window and from one to the next, whole frames both."""
    length = math.floor(window * rate / hop) * hop
    step = length - math.ceil(max(0.0, overlap) * rate / hop) * hop
    if step <= 0:
        line = f"evaluate.window={window} and evaluate.overlap={overlap} leave no step from one window to the next"
        raise ConfigError(f"{line}; make the overlap shorter, a fifth of the window is usual")
    return length, step
