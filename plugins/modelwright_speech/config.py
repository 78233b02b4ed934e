"""Settings of speech recognition. Knows no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from modelwright.config import DataConfig, EvaluateConfig, ModelConfig, Settings, TaskConfig, TrainConfig


class SpeechData(DataConfig):
    """Sound and the text that is spoken in it."""

    name: Literal["spoken", "manifest", "librispeech", "common-voice", "speech-commands", "folder"] = "spoken"
    """spoken (embedded: commands and digits by espeak-ng, extra speech-demo), or your own: manifest, folder, ..."""
    rate: Annotated[int, Field(ge=4000, le=48000)] = 16000
    """Samples per second that the model hears; whatever is read is resampled to it once."""
    valid: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the training utterances kept for validation where the data have no such split; whole speakers, where
    they are known."""
    test: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share kept for the test where the data have no such split; whole speakers, where they are known."""
    utterances: Annotated[int, Field(ge=20, le=1_000_000)] = 3000
    """How many utterances data.name=spoken speaks, over all splits."""
    longest: Annotated[float, Field(gt=0)] = 30.0
    """Seconds; a longer utterance in training data is bad (on_bad); a longer one to predict is cut."""
    memory: Annotated[float, Field(ge=0)] = 4.0
    """GiB of decoded sound that may stay in memory; the rest is decoded as it is needed."""


class SpeechModel(ModelConfig):
    """Features and network."""

    name: str = "conv-ctc"
    """conv-ctc, bilstm-ctc, conformer-ctc; wav2vec2 and whisper (fine-tuned from model.pretrained)."""
    width: Annotated[int, Field(ge=8)] = 128
    """Channels of the hidden layers."""
    blocks: Annotated[int, Field(ge=1)] = 5
    """Residual blocks, or layers."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout in the blocks."""
    mels: Annotated[int, Field(ge=8, le=256)] | None = None
    """Mel bands; empty: 80, at 8 kHz and less 40."""
    tokens: Literal["characters", "bpe"] = "characters"
    """What the model writes: characters of the training texts, or pieces of words (for large sets)."""
    vocabulary: Annotated[int, Field(ge=16)] = 500
    """Pieces that tokens=bpe learns."""
    lora: Annotated[int, Field(ge=0)] = 0
    """wav2vec2, whisper: rank of the low-rank adapters that alone are trained (Hu et al. 2021); 0: all weights are."""


class AugmentConfig(Settings):
    """Changes made to training sound; 0: off. A pure function of seed, epoch and utterance."""

    speed: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """Play faster or slower by a factor in [1 - speed, 1 + speed] (Ko et al. 2015)."""
    gain: Annotated[float, Field(ge=0)] = 6.0
    """Louder or softer by up to so many dB."""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Probability that noise is added, coloured or from noise_path."""
    snr: tuple[float, float] = (10.0, 40.0)
    """Speech over noise, in dB, from, to."""
    noise_path: str | None = None
    """A folder of noise recordings; empty: coloured noise made on the fly."""
    room: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Probability that the sound is put into a room, synthetic or from room_path."""
    room_path: str | None = None
    """A folder of room impulse responses; empty: exponentially decaying ones made on the fly."""
    time_masks: Annotated[int, Field(ge=0)] = 2
    """SpecAugment (Park et al. 2019): stretches of time that are blanked."""
    time_width: Annotated[float, Field(ge=0, le=1)] = 0.05
    """The longest of them, as a share of the utterance."""
    mel_masks: Annotated[int, Field(ge=0)] = 2
    """SpecAugment: bands of frequency that are blanked."""
    mel_width: Annotated[float, Field(ge=0, le=1)] = 0.15
    """The widest of them, as a share of the bands."""


class SpeechTrain(TrainConfig):
    """Training."""

    batch_size: Annotated[int, Field(ge=1)] = 8
    """Utterances of one optimizer step at most, over all ranks and micro-batches."""
    batch_seconds: Annotated[float, Field(gt=0)] | None = None
    """Seconds of sound of one step at most, padding included; empty: no such limit."""
    curriculum: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Over this first share of the epochs, short utterances come first and the longest join last; 0: all at once."""


class SpeechEvaluate(EvaluateConfig):
    """Evaluation, and what a bundle answers with."""

    batch_size: Annotated[int, Field(ge=1)] = 16
    """Utterances of one batch."""
    decoder: Literal["greedy", "beam"] = "greedy"
    """greedy: the best token of each frame; beam: prefix beam search, with what is given below."""
    beam: Annotated[int, Field(ge=1, le=1000)] = 16
    """Prefixes kept at each frame."""
    lexicon: Literal["none", "training"] | str = "none"
    """Words that may be said: none (anything), training (those of the training texts), or a file, one a line."""
    language: Literal["none", "bigram"] | str = "none"
    """Which words follow which: none, bigram (counted in the training texts), or an ARPA file."""
    weight: Annotated[float, Field(ge=0)] = 0.5
    """How much the language model counts."""
    bonus: float = 0.0
    """Added for each word; above 0 longer texts win."""
    hotwords: dict[str, float] = {}
    """Words that are more likely than usual, with what is added (natural log) when one is said."""
    window: Annotated[float, Field(gt=1)] = 20.0
    """Seconds; recordings are cut at pauses, and where there is none into overlapping windows of this length."""
    overlap: Annotated[float, Field(ge=0)] = 4.0
    """Seconds that two windows have in common."""


class SpeechConfig(TaskConfig):
    """All settings of speech-recognition."""

    data: SpeechData = SpeechData()
    model: SpeechModel = SpeechModel()
    augment: AugmentConfig = AugmentConfig()
    train: SpeechTrain = SpeechTrain()
    evaluate: SpeechEvaluate = SpeechEvaluate()
