"""When a known text was said: CTC forced alignment. Knows log-probabilities and numbers of tokens; no sound, no torch.

The most probable path of the text through the frames (Viterbi) over its tokens with blanks between them; Graves et al.,
ICML 2006, and Kürzinger et al.: CTC-Segmentation of Large Corpora, SPECOM 2020. Of a long text only a band of states
around the best one is followed: memory grows with the frames, not with frames times text.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from modelwright.errors import DataError
from modelwright_speech.tokens import BLANK, Tokens

BAND = 2048
"""States that are followed at a time: about a thousand characters, a minute of speech. Shorter texts are exact."""
IMPOSSIBLE = -1e4
"""Natural log of the least probability that counts."""


class Word(NamedTuple):
    """A word, when it was said, in seconds, and how sure the model is of it: 0 to 1."""

    word: str
    start: float
    end: float
    confidence: float


def frames_needed(ids: Sequence[int]) -> int:
    """The least number of frames that can say these tokens: one each, and a blank between two that are equal.

    >>> frames_needed([5, 5, 7])
    4
    """
    return len(ids) + sum(left == right for left, right in pairwise(ids))


def align(log_probs: np.ndarray, ids: Sequence[int], *, band: int = BAND) -> np.ndarray:
    """The frames of each token on the most probable path that says all of them.

    Args:
        log_probs: (frames, tokens), natural log.
        ids: the tokens of the text, without blanks.
        band: states followed at a time, at least 8; the path is the best one where the text has no more.

    Returns:
        int64 (len(ids), 2): frames from, to before; ascending, not overlapping, none empty.

    Raises:
        DataError: there are fewer frames than the text needs.
        ValueError: a blank among the tokens.
    """
    frames = len(log_probs)
    if not len(ids):
        return np.zeros((0, 2), np.int64)
    if BLANK in ids:
        raise ValueError("a text holds no blanks")
    if (needed := frames_needed(ids)) > frames:
        line = f"the text has {len(ids)} tokens, which need {needed} frames, but the sound has {frames}"
        raise DataError(f"{line}; it is cut short, or its text belongs to another sound")
    labels = np.full(2 * len(ids) + 1, BLANK, np.int64)
    labels[1::2] = ids
    states = _path(np.asarray(log_probs), labels, min(max(8, band), len(labels)))
    said = np.flatnonzero(states % 2)
    tokens = states[said] // 2
    first = np.searchsorted(tokens, np.arange(len(ids)), side="left")
    last = np.searchsorted(tokens, np.arange(len(ids)), side="right") - 1
    return np.stack([said[first], said[last] + 1], axis=1)


def words(log_probs: np.ndarray, tokens: Tokens, text: str, *, seconds: float, band: int = BAND) -> list[Word]:
    """The words of a text with their times and how sure the model is of each.

    A token is as probable as in the best of its frames; a word's confidence is the geometric mean over its tokens.

    Args:
        log_probs: (frames, tokens), natural log.
        tokens: what the numbers stand for.
        text: what is said, as decoded or as it is known.
        seconds: from one frame to the next.
        band: as of `align`.

    Raises:
        DataError: the text needs more frames than there are, or holds a character that the tokens do not.
    """
    ids = tokens.encode(text)
    spans = align(log_probs, ids, band=band)
    sure = [float(log_probs[first:last, number].max()) for number, (first, last) in zip(ids, spans, strict=True)]
    found: list[Word] = []
    for word, first, last in tokens.words(ids):
        confidence = float(np.exp(min(0.0, np.mean(sure[first:last]))))
        found.append(Word(word, float(spans[first, 0] * seconds), float(spans[last - 1, 1] * seconds), confidence))
    return found


def _path(log_probs: np.ndarray, labels: np.ndarray, width: int) -> np.ndarray:
    """The state of each frame, int64 (frames,). `labels`: the token of each state; `width`: states in the band."""
    frames, count = len(log_probs), len(labels)
    skips = np.full(count, -np.inf)
    skips[3::2][labels[3::2] != labels[1:-2:2]] = 0.0  # two equal tokens need a blank between them
    # The band follows the best state; states from which the end is out of reach must not lead it.
    floors = _floors(labels, frames)
    score = np.full(width + 2, -np.inf)  # two in front: where the band's first states come from, after it moved
    score[2] = 0.0
    offsets = np.zeros(frames + 1, np.int64)
    moves = np.zeros((2, frames, (width + 7) // 8), np.uint8)
    for frame in range(frames):
        offset = int(offsets[frame])
        here = slice(offset, offset + width)
        stay, step, skip = score[2:], score[1:-1], score[:-2] + skips[here]
        ahead = np.maximum(stay, step)
        moves[0, frame], moves[1, frame] = np.packbits(step > stay), np.packbits(skip > ahead)
        new = np.full(width + 2, -np.inf)
        # What is impossible counts as nearly so: a text that the model excludes has its frames all the same.
        new[2:] = np.maximum(ahead, skip) + np.maximum(log_probs[frame, labels[here]], IMPOSSIBLE)
        new[2 : 2 + max(0, floors[frame] - offset)] = -np.inf
        shift = min(max(0, int(new.argmax()) - 2 - width // 2), count - width - offset)
        score = np.concatenate([new[shift:], np.full(shift, -np.inf)]) if shift else new
        offsets[frame + 1] = offset + shift
    path = np.zeros(frames, np.int64)
    state = int(offsets[frames]) + int(score.argmax()) - 2
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        byte, bit = divmod(state - int(offsets[frame]), 8)
        single, double = (moves[:, frame, byte] >> (7 - bit)) & 1
        state -= 2 if double else int(single)
    return path


def _floors(labels: np.ndarray, frames: int) -> np.ndarray:
    """int64 (frames,): the first state from which the frames that are left reach the end."""
    tokens = labels[1::2]
    again = np.append(tokens[1:] == tokens[:-1], False)
    # Frames from each token to the last one; from the blank in front of a token, one more.
    token = np.append(np.cumsum((1 + again[:-1])[::-1])[::-1], 0)
    needed = np.zeros(len(labels), np.int64)
    needed[1::2], needed[:-1:2] = token, token + 1
    left = np.arange(frames)[::-1]
    return len(labels) - np.searchsorted(needed[::-1], left, side="right")
