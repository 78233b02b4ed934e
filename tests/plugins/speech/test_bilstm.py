"""bilstm-ctc: what is said of an utterance is the same alone and beside others, in torch and in ONNX Runtime."""

from __future__ import annotations

import pytest
import torch
from tests.plugins.speech.speech_made import exported, features, leak, sounds

from modelwright_speech.bilstm import BiLstmCtc


def made(**sizes):
    torch.manual_seed(0)
    return BiLstmCtc(features(), **{"tokens": 12, "width": 32, "blocks": 2, "dropout": 0.1, **sizes})


def test_nothing_leaks_between_neighbours():
    assert leak(made()) < 1e-4


def test_outputs_are_of_one_structure_in_both_modes():
    samples, lengths = sounds((8000, 4000))
    for train in (True, False):
        found = made().train(train)(samples, lengths)
        assert found["logits"].shape == (2, int(found["frames"].max()), 12)
        assert found["frames"].dtype == torch.int64


def test_frames_are_known_without_running():
    model, (samples, lengths) = made(), sounds((8000, 4000, 1000, 13))
    assert torch.equal(model.frames(lengths), model(samples, lengths)["frames"])


def test_masks_change_what_is_said():
    model, (samples, lengths) = made().eval(), sounds((8000, 4000))
    keep = torch.ones(2, 98, dtype=torch.bool)
    keep[0, 20:60] = False
    plain, masked = model(samples, lengths)["logits"], model(samples, lengths, keep_frames=keep)["logits"]
    assert not torch.allclose(plain[0], masked[0])
    torch.testing.assert_close(plain[1], masked[1])


@pytest.mark.once
def test_the_graph_says_the_same_at_three_sizes(tmp_path):
    assert exported(made(), tmp_path) < 1e-3
