"""Which utterances train together: batches of like length, as index arrays. Knows durations; no sound, no text.

Padding is computed and thrown away, so utterances of like length share a batch. Short ones first makes CTC find its
alignments sooner (SortaGrad: Amodei et al., Deep Speech 2, ICML 2016).
"""

from __future__ import annotations

import numpy as np

JITTER = 0.15
"""Share by which a duration may be misjudged, so that each epoch has other batches."""


def order(
    durations: np.ndarray,
    *,
    batch_size: int,
    batch_seconds: float | None = None,
    curriculum: float = 0.0,
    epoch: int,
    epochs: int,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """The batches of an epoch; each utterance is in exactly one.

    Args:
        durations: float64, (n,), seconds.
        batch_size: utterances of a batch at most.
        batch_seconds: seconds of a batch at most, padding included; what is longer is alone. None: no such limit.
        curriculum: over this first share of the run, batches come from short to long; then in any order.
        epoch: from 0.
        epochs: of the run.
        rng: decides everything else.

    Returns:
        int64 arrays, none empty.
    """
    durations = np.asarray(durations, dtype=np.float64)
    judged = durations * (1 + JITTER * (2 * rng.random(len(durations)) - 1))
    ranked = np.argsort(judged, kind="stable")
    made = _cut(ranked, durations, batch_size, batch_seconds, rng)
    shuffled = [made[place] for place in rng.permutation(len(made)).tolist()]
    # Of the epoch in which the curriculum ends, a share of the batches still comes in order.
    sorted_share = min(max(curriculum * epochs - epoch, 0.0), 1.0)
    first = round(sorted_share * len(shuffled))
    ascending = sorted(shuffled[:first], key=lambda batch: (float(durations[batch].max()), int(batch[0])))
    return ascending + shuffled[first:]


def _cut(
    ranked: np.ndarray, durations: np.ndarray, batch_size: int, limit: float | None, rng: np.random.Generator
) -> list[np.ndarray]:
    """`ranked` in pieces; the one that is not full is at a place of chance, lest it always be that of the longest."""
    if limit is None:
        rest = len(ranked) % batch_size
        first = int(rng.integers(len(ranked) // batch_size + 1)) * batch_size
        ends = [*range(batch_size, first + 1, batch_size), *range(first + rest, len(ranked), batch_size)]
        return [piece for piece in np.split(ranked, ends) if len(piece)]
    made: list[np.ndarray] = []
    start, longest = 0, 0.0
    for place, seconds in enumerate(durations[ranked].tolist()):
        wider = max(longest, seconds)
        if place > start and (place - start == batch_size or wider * (place - start + 1) > limit):
            made.append(ranked[start:place])
            start, wider = place, seconds
        longest = wider
    return [*made, ranked[start:]] if len(ranked) else made
