"""Sound -> samples and their number; scores of tokens -> text and words with times. Knows numpy and sound, no torch.

What is longer than the model ever heard in training is cut at its pauses, into overlapping windows where it has none,
read piece by piece, and joined.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from modelwright.codec import Codec, Columns, Context, Format, Sample
from modelwright_speech import align, language, sounds, subtitles, windows
from modelwright_speech.beam import Beam
from modelwright_speech.greedy import greedy
from modelwright_speech.lexicon import Lexicon
from modelwright_speech.tokens import Tokens

SEQUENCE = "sequence"
"""Kind of tokens whose scores are one for each token of the text, not one for each frame of the sound (Whisper)."""


@dataclass(frozen=True)
class SpeechCodec(Codec):
    """Pads sounds and reads scores.

    Attributes:
        kind, pieces, model: of the tokens, see `tokens.Tokens`; kind "sequence": `model` is a tokenizer's JSON and the
            network gives one token after the other.
        rate: samples per second that the model hears.
        stride: samples between two frames of its outputs.
        least: samples that it needs at least; shorter sounds are padded.
        longest: seconds; what is longer is cut.
        window, overlap: seconds of a window, and of what two have in common.
        decoder: greedy, or beam with the settings below.
        beam: prefixes kept at each frame.
        lexicon: the words that may be said; empty: any.
        language: a language model's settings as JSON; empty: none.
        weight, bonus: of the language model, and for each word.
        hotwords: words with what is added when they are said.
    """

    suffixes: ClassVar[tuple[str, ...]] = sounds.SUFFIXES
    batch_size: ClassVar[int] = 8
    """Sounds are large."""

    kind: str
    pieces: tuple[str, ...]
    model: str = ""
    rate: int = 16000
    stride: int = 640
    least: int = 400
    longest: float = 30.0
    window: float = 20.0
    overlap: float = 4.0
    decoder: str = "greedy"
    beam: int = 16
    lexicon: tuple[str, ...] = ()
    language: str = ""
    weight: float = 0.5
    bonus: float = 0.0
    hotwords: tuple[tuple[str, float], ...] = ()

    # Before the model ---------------------------------------------------------------------------------------------

    def prepare(self, raws: Sequence[Any]) -> list[Sample]:
        """Sounds (paths, bytes of files, (array, rate), or arrays at `rate`) as `samples` float32 (n,) and `lengths`.

        Raises:
            modelwright.errors.DataError: a sound that cannot be read, or has no sample.
        """
        return [sample for row, raw in enumerate(raws) for sample in self._samples(raw, row)]

    def whole(self, heard: Sequence[np.ndarray]) -> list[Sample]:
        """Samples at `rate` as one sample each, however long, without times of words: for training and scoring."""
        return [_sample(samples, row, times=False) for row, samples in enumerate(heard)]

    def batches(self, raws: Sequence[Any], *, size: int) -> Iterator[tuple[dict[str, np.ndarray], Context]]:
        """As the default, but sounds are read as they are needed: an hour of them would fill the memory."""
        waiting: list[Sample] = []
        for row, raw in enumerate(raws):
            for sample in self._samples(raw, row):
                waiting.append(sample)
                if len(waiting) == size:
                    yield self.collate(waiting)
                    waiting = []
        if waiting:
            yield self.collate(waiting)

    def _samples(self, raw: Any, row: int) -> Iterator[Sample]:
        if sounds.seconds_of(raw, self.rate) <= self.longest:
            yield _sample(sounds.to_samples(raw, self.rate), row, times=True)
            return
        blocks = sounds.blocks(raw, self.rate, self.window)
        overlap = 0.0 if self.kind == SEQUENCE else min(self.overlap, self.window / 2)
        parts = windows.utterances(blocks, self.rate, self.window, overlap, hop=self.stride)
        first, second = next(parts), next(parts, None)
        if second is None:
            yield _sample(first[1], row, times=True, region=first[0], alone=True)
            return
        for region, samples in chain((first, second), parts):
            yield _sample(samples, row, times=True, region=region)

    def collate(self, samples: Sequence[Sample]) -> tuple[dict[str, np.ndarray], Context]:
        """`samples` float32 (B, S), zero where a sound has ended, and `lengths` int64 (B,)."""
        lengths = np.array([len(sample.arrays["samples"]) for sample in samples], np.int64)
        padded = np.zeros((len(samples), max(self.least, int(lengths.max(initial=0)))), np.float32)
        for row, sample in enumerate(samples):
            padded[row, : lengths[row]] = sample.arrays["samples"]
        rows = np.array([sample.row for sample in samples], dtype=np.int64)
        return {"samples": padded, "lengths": lengths}, Context(rows, [sample.context for sample in samples])

    # After the model ----------------------------------------------------------------------------------------------

    @cached_property
    def tokens(self) -> Tokens:
        """What the model writes."""
        return Tokens(cast("Any", self.kind), self.pieces, self.model)

    def decode(self, outputs: Mapping[str, np.ndarray], context: Context | None) -> Columns:
        """Logits (B, T, tokens) and `frames` (B,), how many of the T count, as text.

        Without a context, each row is a whole sound.

        Returns:
            Lists: `text`; `words`, (word, from, to, confidence) each, in seconds, where times are asked for; `seconds`
            that were heard; of pieces also `region` (see `windows.Region`) and `scores` float32 (frames, tokens):
            they are read once they are joined.
        """
        logits, frames = np.asarray(outputs["logits"], np.float32), np.asarray(outputs["frames"], np.int64)
        contexts = [_asked(0)] * len(logits) if context is None else context.samples
        return _columns(
            [self._row(each[:count], asked) for each, count, asked in zip(logits, frames, contexts, strict=True)]
        )

    def _row(self, logits: np.ndarray, asked: Mapping[str, Any]) -> dict[str, Any]:
        row = {"seconds": asked["samples"] / self.rate, "region": asked["region"], "scores": _NOTHING}
        if asked["region"] and self.kind != SEQUENCE:
            row = {**row, "text": "", "words": [], "scores": _log_probs(logits)}
            return self._joined([row]) if asked["alone"] else row
        return {**row, **self._read(logits, times=asked["times"])}

    def _read(self, logits: np.ndarray, *, times: bool) -> dict[str, Any]:
        """Text and words of one sound."""
        if self.kind == SEQUENCE:
            return {"text": self._written(logits.argmax(axis=1).tolist()), "words": []}
        if self.decoder == "greedy":
            text = self.tokens.decode(greedy(logits)[0])
        else:
            text = self._searcher.search(_log_probs(logits))
        if not times:
            return {"text": text, "words": []}
        found = align.words(_log_probs(logits), self.tokens, text, seconds=self.stride / self.rate)
        return {"text": text, "words": [tuple(word) for word in found]}

    @cached_property
    def _searcher(self) -> Beam:
        return Beam(
            self.tokens,
            Lexicon.of(self.lexicon, self.tokens) if self.lexicon else None,
            language.of(json.loads(self.language)) if self.language else None,
            dict(self.hotwords),
            self.beam,
            self.weight,
            self.bonus,
        )

    def _written(self, numbers: Sequence[int]) -> str:
        """What the tokens of a tokenizer's own say."""
        from tokenizers import Tokenizer

        return " ".join(Tokenizer.from_str(self.model).decode(list(numbers), skip_special_tokens=True).lower().split())

    def merge(self, parts: Sequence[Columns]) -> Columns:
        """The pieces of a recording as one: scores are joined in the middle of what two have in common, then read.

        What a network wrote token after token (Whisper) has no frames to be joined at: texts follow each other.
        """
        rows = [{name: part[name][0] for name in _NAMES} for part in parts]
        if not rows[0]["region"]:
            return parts[0]
        return _columns([self._joined(sorted(rows, key=lambda row: row["region"][0]))])

    def _joined(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        regions = [windows.Region(*row["region"]) for row in rows]
        row = {"seconds": (regions[-1].whole or regions[-1].stop) / self.rate, "region": (), "scores": _NOTHING}
        if self.kind == SEQUENCE:
            return {**row, "text": " ".join(row["text"] for row in rows if row["text"]), "words": []}
        parts = [row["scores"] for row in rows]
        scores = windows.joined(parts, regions, hop=self.stride, space=self.tokens.space)
        return {**row, **self._read(scores, times=True)}

    # Files and people ---------------------------------------------------------------------------------------------

    def records(self, predictions: Columns) -> list[dict[str, Any]]:
        """The text, how long the sound is, and each word with its times (in seconds) and confidence (0 to 1)."""
        return [
            {
                "text": predictions["text"][row],
                "seconds": round(float(predictions["seconds"][row]), 3),
                "words": [
                    {"word": word, "start": round(start, 3), "end": round(end, 3), "confidence": round(sure, 4)}
                    for word, start, end, sure in predictions["words"][row]
                ],
            }
            for row in range(predictions.rows)
        ]

    def formats(self) -> Mapping[str, Format]:
        """`txt`, and subtitles as `srt` and `vtt`."""
        return {
            "txt": Format("the text of each sound", self._txt),
            "srt": Format("subtitles (SubRip)", self._srt),
            "vtt": Format("subtitles for web pages (WebVTT)", self._vtt),
        }

    def _txt(self, name: str, raw: Any, prediction: Columns) -> tuple[str, bytes]:
        return f"{Path(name).stem}.txt", f"{prediction['text'][0]}\n".encode()

    def _srt(self, name: str, raw: Any, prediction: Columns) -> tuple[str, bytes]:
        return f"{Path(name).stem}.srt", subtitles.srt(_words(prediction)).encode()

    def _vtt(self, name: str, raw: Any, prediction: Columns) -> tuple[str, bytes]:
        return f"{Path(name).stem}.vtt", subtitles.vtt(_words(prediction)).encode()


_NOTHING = np.zeros((0, 0), np.float32)
_NAMES = ("text", "words", "seconds", "region", "scores")


def _sample(
    samples: np.ndarray, row: int, *, times: bool, region: windows.Region | None = None, alone: bool = False
) -> Sample:
    arrays = {"samples": samples, "lengths": np.array(len(samples), np.int64)}
    place = () if region is None else astuple(region)
    return Sample(arrays, row, _asked(len(samples), times=times, region=place, alone=alone))


def _asked(samples: int, *, times: bool = True, region: Sequence[int] = (), alone: bool = False) -> dict[str, Any]:
    """What decoding needs to know. `region`: the piece's place in its recording; empty: it is the whole."""
    return {"samples": samples, "times": times, "region": region, "alone": alone}


def _columns(rows: Sequence[Mapping[str, Any]]) -> Columns:
    return Columns({name: [row[name] for row in rows] for name in _NAMES}, np.arange(len(rows)))


def _words(prediction: Columns) -> list[align.Word]:
    """The words of one sound; all of it as one where the network gives no times."""
    found = [align.Word(*word) for word in prediction["words"][0]]
    text = prediction["text"][0]
    return found if found or not text else [align.Word(text, 0.0, float(prediction["seconds"][0]), 1.0)]


def _log_probs(logits: np.ndarray) -> np.ndarray:
    """Natural log of each token's probability, (frames, tokens)."""
    shifted = logits - logits.max(axis=1, keepdims=True, initial=-np.inf)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
