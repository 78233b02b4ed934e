"""The best token of each frame, against a loop that reads as CTC is defined."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modelwright_speech.greedy import greedy


def plain(best):
    found, before = [], None
    for frame, token in enumerate(best):
        if token == before and found and token:
            found[-1][2] = frame + 1
        elif token:
            found.append([token, frame, frame + 1])
        before = token
    return found


@given(st.lists(st.integers(0, 3), max_size=30))
def test_it_equals_a_plain_loop(best):
    log_probs = np.log(np.eye(4)[np.array(best, int)] * 0.6 + 0.1).reshape(-1, 4)
    ids, frames = greedy(log_probs)
    assert [[token, *span] for token, span in zip(ids, frames.tolist(), strict=True)] == plain(best)
    assert frames.shape == (len(ids), 2)


def test_a_letter_said_twice_has_a_blank_between():
    assert greedy(np.eye(3)[[1, 1, 0, 1, 2, 2]])[0] == [1, 1, 2]


def test_no_frames_say_nothing():
    ids, frames = greedy(np.zeros((0, 5), np.float32))
    assert ids == []
    assert frames.shape == (0, 2)
