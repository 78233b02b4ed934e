"""Long recordings in overlapping windows, and what the model gives for them as one. Knows numpy only.

A model hears the edges of a window without what lies beyond them: two that overlap are cut in the middle of what they
have in common. Windows begin at whole frames, and what is joined is the sequence of frames of the whole recording:
decoding and time stamps need not know that there were windows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from modelwright.errors import ConfigError
from modelwright_speech.tokens import BLANK

EXCLUDED = -100.0
"""Natural log of what counts as impossible."""


@dataclass(frozen=True)
class Region:
    """A window of a recording, in samples: from, to before."""

    start: int
    stop: int


def regions(n: int, rate: int, window: float, overlap: float, *, hop: int = 1) -> list[Region]:
    """The windows of a recording; one, where it fits into one.

    All but the last are equally far apart. The last is moved back to be as long as the others, or up to a frame less.

    Args:
        n: samples of the recording.
        rate: samples per second.
        window, overlap: seconds of a window, and at least in common with the next.
        hop: samples per frame of the model; windows begin at multiples of it.

    Raises:
        ConfigError: the overlap is as long as the window, or the window shorter than a frame.
    """
    length, step = _sizes(rate, window, overlap, hop)
    starts = [0]
    if n > length:
        starts = [*range(0, n - length, step), -((length - n) // hop) * hop]
    return [Region(start, min(n, start + length)) for start in starts]


def cut(
    blocks: Iterable[np.ndarray], rate: int, window: float, overlap: float, *, hop: int = 1
) -> Iterator[tuple[Region, np.ndarray]]:
    """The windows of a recording that comes in blocks, as `regions` gives them, each with its samples.

    At most two windows and a block are in memory.

    Args:
        blocks: (n,) each, of any lengths.

    Raises:
        ConfigError: as of `regions`.
    """
    length, step = _sizes(rate, window, overlap, hop)
    held: list[np.ndarray] = []
    start, first, seen = 0, 0, 0
    for block in blocks:
        held.append(block)
        seen += len(block)
        while seen > start + length:  # so this window is not the last one
            known = np.concatenate(held)
            yield Region(start, start + length), known[start - first : start - first + length]
            # The last window may reach back to just behind this one's start.
            held, first, start = [known[start - first :]], start, start + step
    rest = np.concatenate(held) if held else np.zeros(0, np.float32)
    last = regions(seen, rate, window, overlap, hop=hop)[-1]
    yield last, rest[last.start - first :]


def joined(parts: Sequence[np.ndarray], regions: Sequence[Region], *, hop: int) -> np.ndarray:
    """Log-probabilities of the whole recording, (frames, tokens), from those of its windows.

    A model that gives fewer frames than fit into the samples may leave a gap where windows do not overlap: it is filled
    with frames that are surely blank, so that what follows keeps its time.

    Args:
        parts: (frames, tokens) of each window, in order; at least one.
        regions: the windows, which begin at whole frames.
        hop: samples per frame of the model.

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
