"""Whisper: what transformers writes, token by token; taught in training; no graph, and it says so."""

from __future__ import annotations

import pytest
import torch
from tests.plugins.speech.speech_made import sounds, tiny_whisper
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

from modelwright.errors import ConfigError, ExportError
from modelwright.weights import read_weights
from modelwright_speech.config import SpeechModel
from modelwright_speech.model import published
from modelwright_speech.whisper import Whisper, cross_entropy, encoded, prompt


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("whisper"))


def facts(folder):
    return published(SpeechModel(name="whisper", pretrained=str(folder)))


def made(folder, *, lora=0):
    model = Whisper(facts(folder)["network"], lora=lora, dropout=0.0)
    model.load(read_weights(str(folder)), str(folder))
    return model.eval()


def test_features_are_as_published_networks_are_fed(folder):
    samples, lengths = sounds((16000, 24000))
    extract = WhisperFeatureExtractor(feature_size=80, chunk_length=2)
    rows = [row[:length].numpy() for row, length in zip(samples, lengths, strict=True)]
    wanted = torch.from_numpy(extract(rows, sampling_rate=16000, return_tensors="np").input_features)
    torch.testing.assert_close(made(folder)._features(samples, lengths), wanted, rtol=0, atol=2e-3)


def test_it_writes_what_transformers_writes(folder):
    model, (samples, lengths) = made(folder), sounds((16000, 24000))
    with torch.no_grad():
        found = model(samples, lengths)
        reference = WhisperForConditionalGeneration.from_pretrained(folder, local_files_only=True).eval()
        given = torch.tensor([facts(folder)["network"]["prompt"]] * 2)
        features = model._features(samples, lengths)
        for place in range(5):
            logits = reference(input_features=features, decoder_input_ids=given).logits[:, -1]
            torch.testing.assert_close(found["logits"][:, place], logits, rtol=1e-4, atol=1e-4)
            given = torch.cat([given, logits.argmax(dim=1, keepdim=True)], dim=1)


def test_nothing_leaks_between_neighbours(folder):
    model, (samples, lengths) = made(folder), sounds((16000, 9000))
    with torch.no_grad():
        together = model(samples, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = model(samples[row : row + 1, :length], lengths[row : row + 1])
            count = int(alone["frames"])
            assert count == int(together["frames"][row])
            torch.testing.assert_close(alone["logits"][0], together["logits"][row, :count], rtol=0, atol=1e-4)


def test_taught_it_is_scored_on_the_true_tokens(folder):
    model, (samples, lengths) = made(folder), sounds((16000, 9000))
    tokenizer = facts(folder)["tokenizer"]
    texts = [encoded(tokenizer, text) for text in ("one two", "a")]
    tokens = torch.zeros(2, max(map(len, texts)), dtype=torch.int64)
    for row, each in enumerate(texts):
        tokens[row, : len(each)] = torch.tensor(each)
    counts = torch.tensor([len(each) for each in texts])
    found = model(samples, lengths, teacher=tokens, counts=counts)
    assert found["logits"].shape[:2] == tokens.shape
    assert torch.equal(found["frames"], counts)
    both = cross_entropy(found["logits"], tokens, counts)
    each = [cross_entropy(found["logits"][row, None], tokens[row, None], counts[row, None]) for row in range(2)]
    torch.testing.assert_close(both.sum, each[0].sum + each[1].sum)
    assert both.weight == 2.0


def test_it_learns_a_text_by_heart(folder):
    model, (samples, lengths) = made(folder).train(), sounds((16000,))
    tokens = torch.tensor([encoded(facts(folder)["tokenizer"], "ab")])
    counts = torch.tensor([tokens.shape[1]])
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    first = last = 0.0
    for step in range(30):
        loss = cross_entropy(model(samples, lengths, teacher=tokens, counts=counts)["logits"], tokens, counts).sum
        first, last = float(loss.detach()) if step == 0 else first, float(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert last < first / 2


def test_what_begins_every_text_depends_on_the_network(folder, tmp_path):
    tokenizer = facts(folder)["tokenizer"]
    assert len(prompt(tokenizer)) == 4
    assert len(prompt(tokenizer, multilingual=False)) == 2
    assert len(facts(tiny_whisper(tmp_path, multilingual=False))["network"]["prompt"]) == 2
    with pytest.raises(ConfigError, match=r"lacks <\|xx\|>"):
        prompt(tokenizer, language="xx")


def test_a_broken_tokenizer_is_one_line():
    with pytest.raises(ConfigError, match=r"tokenizer\.json cannot be read"):
        prompt("{}")


def test_another_network_is_refused():
    with pytest.raises(ConfigError, match="holds a wav2vec2, no whisper"):
        Whisper({"model_type": "wav2vec2"}, lora=0, dropout=0.0)


def test_there_is_no_graph_and_it_says_why(folder, monkeypatch):
    samples, lengths = sounds((16000,))
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    with pytest.raises(ExportError, match="one token after the other"):
        made(folder)(samples, lengths)
