"""wav2vec2: transformers' outputs without its leaks; adapters, masks, weights of a local folder."""

from __future__ import annotations

import json

import pytest
import torch
from tests.plugins.speech.speech_made import exported, leak, sounds, tiny_wav2vec
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2Model

from modelwright.errors import ConfigError
from modelwright.weights import read_weights
from modelwright_speech.wav2vec import Wav2Vec2

LENGTHS = (16000, 9001, 1600)


@pytest.fixture(params=["group", "layer"])
def folder(request, tmp_path):
    return tiny_wav2vec(tmp_path / "published", norm=request.param)


def made(folder, *, lora=0):
    network = json.loads((folder / "config.json").read_text())
    torch.manual_seed(1)
    model = Wav2Vec2(network, tokens=12, lora=lora, dropout=0.1)
    model.load(read_weights(str(folder)), str(folder))
    return model


def test_nothing_leaks_between_neighbours(folder):
    assert leak(made(folder), lengths=LENGTHS, least=1600) < 1e-4


def test_an_utterance_alone_is_heard_as_by_transformers(folder):
    model = made(folder).eval()
    published = Wav2Vec2Model.from_pretrained(folder, local_files_only=True, mask_time_prob=0.0).eval()
    samples, lengths = sounds((8000,))
    normal = (samples - samples.mean()) / torch.sqrt(samples.var(unbiased=False) + 1e-7)
    with torch.no_grad():
        wanted = model.head(published(normal).last_hidden_state)
        torch.testing.assert_close(model(samples, lengths)["logits"], wanted, rtol=1e-4, atol=1e-4)


def test_frames_are_known_without_running(folder):
    model, (samples, lengths) = made(folder), sounds(LENGTHS)
    assert torch.equal(model.frames(lengths), model(samples, lengths)["frames"])


def test_adapters_and_head_alone_are_trained_and_become_part_of_the_weights(folder):
    model, (samples, lengths) = made(folder, lora=4), sounds(LENGTHS)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert all(".lora_" in name or name.startswith("head.") for name in trained)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(0, 0.1)
    model.eval()
    before, plain = model(samples, lengths)["logits"], made(folder).eval()(samples, lengths)["logits"]
    assert not torch.allclose(before, plain, atol=1e-3)
    model.merge()
    assert not [name for name, _ in model.named_parameters() if ".lora_" in name]
    torch.testing.assert_close(model(samples, lengths)["logits"], before, rtol=1e-3, atol=1e-4)


def test_the_front_stays_as_it_is(folder):
    model = made(folder)
    assert not any(parameter.requires_grad for parameter in model.network.feature_extractor.parameters())
    assert model.network.feature_projection.projection.weight.requires_grad


def test_masks_blank_frames_of_their_own_row(folder):
    model, (samples, lengths) = made(folder).eval(), sounds((8000, 8000))
    keep = torch.ones(2, 48, dtype=torch.bool)
    keep[0, 10:30] = False
    plain, masked = model(samples, lengths)["logits"], model(samples, lengths, keep_frames=keep)["logits"]
    assert not torch.allclose(plain[0], masked[0])
    torch.testing.assert_close(plain[1], masked[1])


def test_older_names_of_weights_are_known(folder):
    weights = read_weights(str(folder))
    old = {name.replace("parametrizations.weight.original0", "weight_g"): value for name, value in weights.items()}
    assert old.keys() != weights.keys()
    assert not made(folder).load(old, "old").skipped


def test_another_network_is_refused(folder):
    with pytest.raises(ConfigError, match="holds a whisper, no wav2vec2"):
        Wav2Vec2({"model_type": "whisper"}, tokens=12, lora=0, dropout=0.0)
    with pytest.raises(ConfigError, match="no tensor of elsewhere fits"):
        made(folder).load({"something.weight": torch.zeros(3, 3)}, "elsewhere")


@pytest.mark.once
def test_the_graph_says_the_same_at_three_sizes(folder, tmp_path):
    assert exported(made(folder), tmp_path) < 1e-3
