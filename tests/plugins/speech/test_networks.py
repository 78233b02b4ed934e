"""The plugin's own networks: what is said of an utterance is the same alone and beside others, in torch and in ONNX."""

from __future__ import annotations

import pytest
import torch
from tests.plugins.speech.speech_made import exported, features, leak, sounds

from modelwright_speech.bilstm import BiLstmCtc
from modelwright_speech.conformer import ConformerCtc
from modelwright_speech.conv import ConvCtc
from modelwright_speech.features import LogMel

NETWORKS = [ConvCtc, BiLstmCtc, ConformerCtc]


def made(kind, **sizes):
    torch.manual_seed(0)
    return kind(features(), **{"tokens": 12, "width": 32, "blocks": 2, "dropout": 0.1, **sizes})


@pytest.fixture(params=NETWORKS, ids=lambda kind: kind.__name__)
def model(request):
    return made(request.param)


def test_nothing_leaks_between_neighbours(model):
    assert leak(model) < 1e-4


def test_outputs_are_of_one_structure_in_both_modes(model):
    samples, lengths = sounds((8000, 4000))
    for train in (True, False):
        found = model.train(train)(samples, lengths)
        assert found["logits"].shape == (2, int(found["frames"].max()), 12)
        assert found["frames"].dtype == torch.int64


def test_frames_are_known_without_running(model):
    samples, lengths = sounds((8000, 4000, 1000, 13))
    assert torch.equal(model.frames(lengths), model(samples, lengths)["frames"])


def test_masks_change_what_is_said(model):
    samples, lengths = sounds((8000, 4000))
    keep = torch.ones(2, 98, dtype=torch.bool)
    keep[0, 20:60] = False
    model.eval()
    plain, masked = model(samples, lengths)["logits"], model(samples, lengths, keep_frames=keep)["logits"]
    assert not torch.allclose(plain[0], masked[0])
    torch.testing.assert_close(plain[1], masked[1])


@pytest.mark.once
def test_the_graph_says_the_same_at_three_sizes(model, tmp_path):
    assert exported(model, tmp_path) < 1e-3


def test_the_usual_size_is_about_half_a_million():
    model = ConvCtc(LogMel(16000, 80), tokens=28, width=128, blocks=5, dropout=0.1)
    assert 0.4e6 < sum(parameter.numel() for parameter in model.parameters()) < 0.5e6


@pytest.mark.parametrize("width", [8, 24, 40, 144])
def test_any_even_width_of_a_conformer_has_heads(width):
    samples, lengths = sounds((4000,))
    assert made(ConformerCtc, width=width)(samples, lengths)["logits"].shape[2] == 12
