"""Which network the settings name, what it starts from, and what is refused in one line."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from tests.plugins.speech.speech_made import tiny_wav2vec, tiny_whisper

from modelwright.data import Facts
from modelwright.errors import ConfigError
from modelwright_speech import model
from modelwright_speech.config import SpeechConfig, SpeechModel
from modelwright_speech.tokens import Tokens

FACTS = Facts({"tokens": Tokens.characters(["one two"]).settings()})


def config(rate=8000, **settings):
    usual = {"width": 32, "blocks": 1}
    return SpeechConfig.model_validate({"data": {"rate": rate}, "model": {**usual, **settings}})


@pytest.mark.parametrize("name", model.OWN)
def test_own_networks_are_made_by_name(name):
    made = model.build(config(name=name), FACTS)
    samples, lengths = torch.zeros(1, 8000), torch.tensor([8000])
    assert made(samples, lengths)["logits"].shape[2] == Tokens.of(FACTS.values["tokens"]).size
    assert int(made(samples, lengths)["frames"]) in (24, 25)
    assert model.stride_of(config(name=name), None) == 320
    assert model.frames_per_second(config(name=name), FACTS) == 25.0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "conv-ctx"}, "there is no network 'conv-ctx' .did you mean 'conv-ctc'"),
        ({"name": "wav2vec2"}, "fine-tuned, not trained from scratch: give model.pretrained"),
        ({"freeze": True}, "freeze trains only the head and needs model.pretrained"),
        ({"lora": 4}, "lora is for wav2vec2 and whisper"),
        ({"name": "whisper", "pretrained": "x", "lora": 4, "freeze": True}, "set one of them"),
    ],
)
def test_what_does_not_go_together_is_one_line(settings, said):
    with pytest.raises(ConfigError, match=said):
        model.check(SpeechModel(**settings))


def test_weights_of_another_run_are_taken_over_all_but_other_tokens(tmp_path):
    first = model.build(config(), FACTS)
    save_file(first.state_dict(), tmp_path / "model.safetensors")
    settings = config(pretrained=str(tmp_path / "model.safetensors"), freeze=True)
    same = model.build(settings, FACTS)
    assert "tensors taken over" in model.load_pretrained(same, settings.model)
    assert torch.equal(same.head.weight, first.head.weight)
    assert [name for name, p in same.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    other = model.build(settings, Facts({"tokens": Tokens.characters(["other letters"]).settings()}))
    model.load_pretrained(other, settings.model)
    assert torch.equal(other.front.layers[0].weight, first.front.layers[0].weight)
    assert other.head.weight.shape != first.head.weight.shape


def test_too_little_is_no_start(tmp_path):
    first = model.build(config(width=64), FACTS)
    save_file(first.state_dict(), tmp_path / "model.safetensors")
    settings = config(pretrained=str(tmp_path / "model.safetensors"))
    with pytest.raises(ConfigError, match=r"no tensor of .* fits the network"):
        model.load_pretrained(model.build(settings, FACTS), settings.model)


def test_published_networks_stand_without_their_folder(tmp_path):
    for name, make in (("wav2vec2", tiny_wav2vec), ("whisper", tiny_whisper)):
        folder = make(tmp_path / name)
        settings = config(rate=16000, name=name, pretrained=str(folder))
        facts = Facts({**FACTS.values, **model.published(settings.model)})
        gone = config(rate=16000, name=name, pretrained=str(tmp_path / "gone"))
        assert model.build(gone, facts) is not None
        assert "tensors taken over" in model.load_pretrained(model.build(settings, facts), settings.model)
    assert (
        model.stride_of(
            config(rate=16000, name="wav2vec2", pretrained="x"),
            facts.values["network"] | {"conv_stride": [5, 2, 2, 2, 2, 2, 2]},
        )
        == 320
    )


def test_a_folder_without_its_settings_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json could not be read: give the folder"):
        model.published(SpeechModel(name="wav2vec2", pretrained=str(tmp_path)))
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(ConfigError, match=r"config\.json holds no JSON"):
        model.published(SpeechModel(name="wav2vec2", pretrained=str(tmp_path)))


@pytest.mark.parametrize("name", model.TUNED)
def test_published_networks_hear_their_own_rate_only(name):
    with pytest.raises(ConfigError, match=r"hears 16000 samples a second: set data\.rate=16000"):
        model.build(config(name=name, pretrained="x"), FACTS)
