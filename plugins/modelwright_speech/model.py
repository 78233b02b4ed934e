"""Recognizers by name. Knows the settings and which network each name is; imports a library when it is asked for.

What a recognizer here gets is raw samples and their number, so that what was trained is what is served:
``forward(samples (B, S), lengths (B,), **hints) -> {"logits": (B, T, tokens), "frames": (B,)}``, the same in train and
eval mode. Hints are inputs of training alone: `keep_frames` and `keep_mels` (SpecAugment), `teacher` (Whisper).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from torch import Tensor, nn

from modelwright.data import Facts
from modelwright.errors import ConfigError, did_you_mean
from modelwright.weights import load_matching, read_weights
from modelwright_speech.config import SpeechConfig, SpeechModel
from modelwright_speech.features import LogMel, hop_of, usual_mels, window_of
from modelwright_speech.tokens import Tokens

OWN = ("conv-ctc", "bilstm-ctc", "conformer-ctc")
"""Networks of this plugin: small, trained from scratch."""
WAV2VEC, WHISPER = "wav2vec2", "whisper"
TUNED = (WAV2VEC, WHISPER)
"""Networks of transformers: fine-tuned from a local folder."""
PUBLISHED_RATE = 16000
"""Samples per second that these have heard."""
NAMES = (*OWN, *TUNED)
HEAD = "head"
"""Name of the layer that gives the logits."""
ENOUGH = 0.5
"""Share of a network's tensors that weights to start from must fit."""
LEAST_SECONDS = 0.1
"""A shorter sound is padded to this."""
QUARTER = 4
"""Frames of the features to one of the outputs, in networks of this plugin."""


class Recognizer(Protocol):
    """What networks have in common besides being modules."""

    head: nn.Module

    def frames(self, lengths: Tensor) -> Tensor:
        """(B,) samples -> (B,) frames of the outputs."""
        ...


def check(settings: SpeechModel) -> None:
    """Looks whether the settings fit each other, without importing any library.

    Raises:
        ConfigError: there is no such network, or it needs, or cannot use, what is set.
    """
    name = settings.name
    if name not in NAMES:
        near = did_you_mean(name, NAMES)
        raise ConfigError(f"model.name: there is no network '{name}'{near}; known are {', '.join(NAMES)}")
    if name in TUNED and not settings.pretrained:
        raise ConfigError(
            f"model.name={name} is fine-tuned, not trained from scratch: give model.pretrained, the local folder of a "
            "published model (config.json, model.safetensors)"
        )
    if settings.freeze and not settings.pretrained:
        raise ConfigError("model.freeze trains only the head and needs model.pretrained: a local file, folder or run")
    if settings.lora and name not in TUNED:
        raise ConfigError(f"model.lora is for {' and '.join(TUNED)}; {name} is small enough to be trained as it is")
    if settings.lora and settings.freeze:
        raise ConfigError("model.lora trains adapters and the head, model.freeze the head alone: set one of them")


def build(config: SpeechConfig, facts: Facts) -> nn.Module:
    """The network that the settings under `model` name, with fresh weights.

    Args:
        facts: the tokens, and of a published network its `network` (config.json).

    Raises:
        ConfigError: the settings do not fit each other.
    """
    settings = config.model
    check(settings)
    if settings.name in TUNED and config.data.rate != PUBLISHED_RATE:
        raise ConfigError(
            f"model.name={settings.name} hears {PUBLISHED_RATE} samples a second: set data.rate={PUBLISHED_RATE}"
        )
    model = _make(config, facts)
    if settings.freeze:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(f"{HEAD}."))
    return model


def _make(config: SpeechConfig, facts: Facts) -> nn.Module:
    settings = config.model
    if settings.name == WAV2VEC:
        from modelwright_speech.wav2vec import Wav2Vec2

        tokens = Tokens.of(facts.values["tokens"])
        return Wav2Vec2(facts.values["network"], tokens=tokens.size, lora=settings.lora, dropout=settings.dropout)
    if settings.name == WHISPER:
        from modelwright_speech.whisper import Whisper

        return Whisper(facts.values["network"], lora=settings.lora, dropout=settings.dropout)
    features = LogMel(config.data.rate, settings.mels or usual_mels(config.data.rate))
    sizes: dict[str, Any] = {"tokens": Tokens.of(facts.values["tokens"]).size, "width": settings.width}
    sizes |= {"blocks": settings.blocks, "dropout": settings.dropout}
    if settings.name == "conv-ctc":
        from modelwright_speech.conv import ConvCtc

        return ConvCtc(features, **sizes)
    if settings.name == "bilstm-ctc":
        from modelwright_speech.bilstm import BiLstmCtc

        return BiLstmCtc(features, **sizes)
    from modelwright_speech.conformer import ConformerCtc

    return ConformerCtc(features, **sizes)


def published(settings: SpeechModel) -> dict[str, Any]:
    """Facts of a published network, so that a run stands without the folder it started from.

    `network` is its config.json; of Whisper also `tokenizer`, its tokenizer.json.

    Raises:
        ConfigError: the folder lacks them.
    """
    if settings.name not in TUNED:
        return {}
    folder = Path(str(settings.pretrained)).expanduser()
    facts: dict[str, Any] = {"network": _json(folder / "config.json")}
    if settings.name == WHISPER:
        facts["tokenizer"] = _text(folder / "tokenizer.json")
        facts["network"]["prompt"] = _prompt(folder, facts["tokenizer"])
    return facts


def _prompt(folder: Path, tokenizer: str) -> list[int]:
    """What begins every text of a Whisper: generation_config.json says whether it knows several languages."""
    from modelwright_speech.whisper import prompt

    path = folder / "generation_config.json"
    said = _json(path) if path.is_file() else {}
    multilingual = bool(said.get("is_multilingual", "lang_to_id" in said))
    return prompt(tokenizer, language=str(said.get("language") or "en"), multilingual=multilingual)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_text(path))
    except ValueError as error:
        raise ConfigError(f"model.pretrained: {path} holds no JSON ({error}): fetch it again") from error
    return cast("dict[str, Any]", found)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"model.pretrained: {path} could not be read: give the folder that save_pretrained of transformers wrote"
        ) from error


def load_pretrained(model: nn.Module, settings: SpeechModel) -> str:
    """Puts `model.pretrained` into a network, all but the head where its tokens are others in number.

    Returns:
        One line: how many tensors were taken over.

    Raises:
        ConfigError: they cannot be read, or too little fits.
    """
    source = str(settings.pretrained)
    if settings.name in TUNED:
        loaded = cast("Any", model).load(read_weights(source), source)
    else:
        loaded = load_matching(model, read_weights(source), source=source, head=HEAD, least=ENOUGH)
    return f"{source}: {loaded}"


def least_samples(rate: int) -> int:
    """Samples that a network takes at least."""
    return max(window_of(rate), math.ceil(LEAST_SECONDS * rate))


def stride_of(config: SpeechConfig, network: Mapping[str, Any] | None) -> int:
    """Samples between two frames of the outputs. `network`: a published network's config.json."""
    if config.model.name == WAV2VEC and network is not None:
        return math.prod(network["conv_stride"])
    return QUARTER * hop_of(config.data.rate)


def frames_per_second(config: SpeechConfig, facts: Facts) -> float:
    """Of the outputs: a text of more tokens than frames cannot be said."""
    network = facts.values.get("network") or published(config.model).get("network")
    return config.data.rate / stride_of(config, network)
