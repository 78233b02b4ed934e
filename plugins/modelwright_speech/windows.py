"""Long recordings in overlapping windows, and what the model gives for them as one. Knows numpy only.

A model hears the edges of a window without what lies beyond them. So each window answers only for its middle: two that
overlap are cut in the middle of what they have in common. Windows begin at whole frames, and what is joined is the
sequence of frames of the whole recording: decoding and time stamps need not know that there were windows.
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
    """A window of a recording, in samples.

    Attributes:
        start, stop: what the model hears, from, to before.
        left, right: what it answers for; these of all windows lie side by side and make up the recording.
    """

    start: int
    stop: int
    left: int
    right: int


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
    return [_region(starts, place, length, n, hop) for place in range(len(starts))]


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
    first, seen, done = 0, 0, 0
    for block in blocks:
        held.append(block)
        seen += len(block)
        # Once the window after the next one is sure to begin at its usual place, so is the next one's answer.
        while seen > (done + 1) * step + length:
            held = [np.concatenate(held)]
            starts = [place * step for place in range(done + 2)]
            region = _region(starts, done, length, seen, hop)
            yield region, held[0][region.start - first : region.stop - first]
            # The last window may reach back to just behind this one's start.
            held, first, done = [held[0][region.start - first :]], region.start, done + 1
    rest = np.concatenate(held) if held else np.zeros(0, np.float32)
    for region in regions(seen, rate, window, overlap, hop=hop)[done:]:
        yield region, rest[region.start - first : region.stop - first]


def kept(log_probs: np.ndarray, region: Region, *, hop: int, last: bool = False) -> np.ndarray:
    """The frames that a window answers for.

    A model that gives fewer frames than fit into the samples leaves some out where windows do not overlap: these are
    surely blank, so that what follows keeps its time.

    Args:
        log_probs: (frames, tokens), of the window.
        region: the window.
        hop: samples per frame.
        last: there is no further window: all frames to the end are kept, none are added.
    """
    first = (region.left - region.start) // hop
    if last:
        return log_probs[first:]
    stop = (region.right - region.start) // hop
    found = log_probs[first:stop]
    if missing := stop - first - len(found):
        blank = np.full((missing, log_probs.shape[1]), EXCLUDED, log_probs.dtype)
        blank[:, BLANK] = 0.0
        found = np.concatenate([found, blank])
    return found


def joined(parts: Sequence[np.ndarray], regions: Sequence[Region], *, hop: int) -> np.ndarray:
    """Log-probabilities of the whole recording, (frames, tokens), from those of its windows.

    Raises:
        ValueError: there are not as many parts as windows.
    """
    ends = len(regions) - 1
    each = [
        kept(part, region, hop=hop, last=place == ends)
        for place, (part, region) in enumerate(zip(parts, regions, strict=True))
    ]
    return np.concatenate(each)


def _region(starts: Sequence[int], place: int, length: int, n: int, hop: int) -> Region:
    def between(before: int) -> int:
        """Where a window hands over to the next one."""
        return (starts[before] + length + starts[before + 1]) // 2 // hop * hop

    start = starts[place]
    left = between(place - 1) if place else 0
    right = between(place) if place + 1 < len(starts) else n
    return Region(start, min(n, start + length), left, right)


def _sizes(rate: int, window: float, overlap: float, hop: int) -> tuple[int, int]:
    """Samples of a window and from one to the next, whole frames both."""
    length = math.floor(window * rate / hop) * hop
    step = length - math.ceil(max(0.0, overlap) * rate / hop) * hop
    if step <= 0:
        line = f"evaluate.window={window} and evaluate.overlap={overlap} leave no step from one window to the next"
        raise ConfigError(f"{line}; make the overlap shorter, a fifth of the window is usual")
    return length, step
