"""The best token of each frame, as CTC reads it. Knows log-probabilities; no tokens' texts, no torch.

Graves, Fernández, Gomez, Schmidhuber: Connectionist Temporal Classification, ICML 2006 (best path decoding).
"""

from __future__ import annotations

import numpy as np

from modelwright_speech.tokens import BLANK


def greedy(log_probs: np.ndarray) -> tuple[list[int], np.ndarray]:
    """The best path without its repeats and blanks.

    Args:
        log_probs: (frames, tokens), or any scores that rank a frame's tokens alike, such as logits.

    Returns:
        The tokens, and int64 (tokens, 2): the frames in which each was the best, from, to before.
    """
    if not len(log_probs):
        return [], np.zeros((0, 2), np.int64)
    best = np.asarray(log_probs).argmax(axis=1)
    starts = np.flatnonzero(np.diff(best, prepend=-1))
    ends = np.append(starts[1:], len(best))
    said = best[starts] != BLANK
    return best[starts][said].tolist(), np.stack([starts, ends], axis=1)[said].astype(np.int64)
