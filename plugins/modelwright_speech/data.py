"""Settings -> the three splits, cut where the data have none, and checked. Knows no layouts and no models."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelwright.data import Dataset, Datasets, Facts, Split
from modelwright.errors import ConfigError, DataError
from modelwright.listings import some
from modelwright_speech import spoken
from modelwright_speech.augment import Augmenter
from modelwright_speech.checks import Problems, Twins, clipped_note, frames_reason, letters_reason, table_row
from modelwright_speech.config import SpeechConfig
from modelwright_speech.cutting import with_cuts
from modelwright_speech.datasets import Budget, Clip, Clips, Kept, TrainClips
from modelwright_speech.language import Bigram
from modelwright_speech.reading import Reading, read
from modelwright_speech.sources import find
from modelwright_speech.tokens import Tokens
from modelwright_speech.utterances import SPLITS, Layout

__all__ = ["Clips", "Known", "TrainClips", "find_facts", "load", "tokens_of"]

GIB = 2**30
PAIRS = 50_000
"""Pairs of words that the facts keep without being asked: some megabytes."""


@dataclass(frozen=True)
class Known:
    """What a run knows already of its training data (its facts).

    Attributes:
        tokens: what the model writes; None: the model brings its own.
    """

    tokens: Tokens | None

    @staticmethod
    def of(facts: Facts) -> Known | None:
        """What the facts of a run say; None: nothing yet."""
        if not facts.values:
            return None
        settings = facts.values.get("tokens")
        return Known(Tokens.of(settings) if settings else None)


def load(
    config: SpeechConfig,
    *,
    seed: int,
    known: Known | Facts | None = None,
    frames_per_second: float | None = None,
    own_tokens: bool = False,
) -> Datasets:
    """The splits that the settings describe: train is a `TrainClips`, the others are `Clips`.

    Splits of the data are kept; where there is no valid or test split, a share of the training utterances is cut off,
    whole speakers where they are known: a pure function of the data and `seed`.

    Args:
        seed: of the cuts, and of what the embedded data say.
        known: what the facts of a run say, or these facts. None, or empty facts, for a new run: every split is read
            and checked at once, so that a broken file does not show after hours of training. Else each split is read
            when first asked for, and what is noticed then joins the notes.
        frames_per_second: that the model gives: a text that does not fit into them is bad. None: it has no such limit.
        own_tokens: the model brings its own tokens, so that no letter is foreign to it.

    Raises:
        ConfigError: `data.path` is missing or names too many places.
        DataError: sound or text is missing or broken (with `known`, some only when a split is asked for).
    """
    data = config.data
    known = Known.of(known) if isinstance(known, Facts) else known
    notes: list[str] = []
    if data.name == "spoken":
        if data.path or data.split:
            given = "path" if data.path else "split"
            raise ConfigError(
                f"data.{given} does not go with data.name=spoken: leave it out, or name the data's layout"
            )
        return _spoken(config, seed=seed, notes=notes)
    layout = find(data, notes=notes)
    if "train" not in layout:
        raise DataError(f"the data have no train split, only {', '.join(layout)}: name one in the data or data.split")
    layout = with_cuts(layout, {"test": data.test, "valid": data.valid}, seed=seed, notes=notes)
    reader = _Reader(config, layout, notes, known, frames_per_second, own_tokens)
    if known is None:
        made = reader.all()
        return Datasets(made["train"], made.get("valid"), made.get("test"), notes=notes)
    makers = {split: functools.partial(reader.one, split) for split in layout}
    return Datasets(makers["train"], makers.get("valid"), makers.get("test"), notes=notes)


def find_facts(dataset: Dataset, config: SpeechConfig, *, own_tokens: bool = False) -> Facts:
    """What model and codec need to know of the training utterances.

    values: tokens (`Tokens.settings()`; none with `own_tokens`), rate, words (of the training texts, sorted), bigram
    (word -> next word -> count, as `language.Bigram` takes it; of large sets only where `evaluate.language` asks for
    it), utterances, seconds, longest (seconds).

    Args:
        dataset: the train split as `load` gives it.
    """
    if not isinstance(dataset, Clips):
        raise TypeError(f"a {type(dataset).__name__} is none of this plugin's datasets")
    texts = dataset.texts
    values: dict[str, Any] = {
        "rate": dataset.rate,
        "words": sorted({word for text in texts for word in text.split()}),
        "utterances": len(dataset),
        "seconds": float(dataset.durations.sum()),
        "longest": float(dataset.durations.max()),
    }
    if not own_tokens:
        values["tokens"] = tokens_of(texts, config).settings()
    pairs = Bigram.counted(texts).settings()["pairs"]
    if config.evaluate.language == "bigram" or sum(map(len, pairs.values())) <= PAIRS:
        values["bigram"] = pairs
    return Facts(values)


def tokens_of(texts: Sequence[str], config: SpeechConfig) -> Tokens:
    """The tokens that the settings ask for, learnt from training texts."""
    if config.model.tokens == "bpe":
        return Tokens.bpe(texts, config.model.vocabulary)
    return Tokens.characters(texts)


def _train(plain: Clips, config: SpeechConfig) -> TrainClips:
    return TrainClips(plain, Augmenter(config.augment, plain.rate))


# The embedded data ---------------------------------------------------------------------------------------------------


def _spoken(config: SpeechConfig, *, seed: int, notes: list[str]) -> Datasets:
    """All splits are spoken at once, in one order: one split alone would sound otherwise."""
    data = config.data
    valid, test = round(data.utterances * data.valid), round(data.utterances * data.test)
    counts: dict[Split, int] = {"train": data.utterances - valid - test, "valid": valid, "test": test}
    if counts["train"] < 1:
        raise ConfigError(
            f"data.valid={data.valid:g} and data.test={data.test:g} leave nothing to train on: lower them"
        )
    lines = spoken.plan(counts, seed=seed)
    said = spoken.speak([line for split in SPLITS for line in lines[split]], data.rate)
    made: dict[Split, Clips] = {}
    start = 0
    for split in SPLITS:
        if not counts[split]:
            continue
        kept = Kept(Budget(float("inf")))
        clips: list[Clip] = []
        for place, line in enumerate(lines[split]):
            samples = said.samples[start + place].astype(np.float32) / 32768
            kept.add(place, samples)
            name = f"spoken/{split}[{place}]"
            clips.append(Clip(name, line.text, line.voice, len(samples) / data.rate, _kept_whole))
        start += counts[split]
        made[split] = Clips(clips, rate=data.rate, kept=kept.close(range(len(clips))))
        notes.append(table_row(split, made[split].durations, [clip.speaker for clip in clips]))
    notes.append("spoken by espeak-ng (GPL-3.0), other voices in each split; kept in " + str(said.folder))
    return Datasets(_train(made["train"], config), made.get("valid"), made.get("test"), notes=notes)


def _kept_whole() -> np.ndarray:
    raise RuntimeError("spoken data are in memory as a whole")  # pragma: no cover


# Files ---------------------------------------------------------------------------------------------------------------


class _Reader:
    """Reads splits, the training split first: it decides on the tokens."""

    def __init__(
        self,
        config: SpeechConfig,
        layout: Layout,
        notes: list[str],
        known: Known | None,
        frames_per_second: float | None,
        own_tokens: bool,
    ) -> None:
        self._config = config
        self._layout = layout
        self._notes = notes
        self._budget = Budget(config.data.memory * GIB)
        self._own_tokens = own_tokens
        self._tokens = known.tokens if known else None
        self._frames_per_second = None if own_tokens else frames_per_second
        self._twins = Twins()

    def all(self) -> dict[Split, Clips]:
        """Every split; one error names what is bad in all of them."""
        problems = Problems()
        readings = self._read(self._layout, problems)
        self._judge(problems)
        return {split: self._made(split, reading) for split, reading in readings.items()}

    def one(self, split: Split) -> Clips:
        """One split."""
        problems = Problems()
        readings = self._read({split: self._layout[split]}, problems)
        self._judge(problems)
        return self._made(split, readings[split])

    def _read(self, layout: Layout, problems: Problems) -> dict[Split, Reading]:
        data = self._config.data
        for split, found in layout.items():
            if not found.utterances and not found.bad:
                raise DataError(f"the {split} split has no utterance: check data.path")
        readings = read(layout, data.rate, self._budget, problems, longest=data.longest)
        return {split: self._writable(split, reading, problems) for split, reading in readings.items()}

    def _writable(self, split: Split, reading: Reading, problems: Problems) -> Reading:
        """Without the texts that the model cannot write or, for training, not be taught."""
        if self._own_tokens or not reading.clips:
            return reading.without([])
        if self._tokens is None:
            self._tokens = tokens_of([clip.text for clip in reading.clips], self._config)
        gone: list[int] = []
        tight: list[str] = []
        for row, clip in enumerate(reading.clips):
            reason = letters_reason(clip.text, self._tokens)
            if not reason and self._frames_per_second is not None:
                reason = frames_reason(clip.text, clip.seconds, self._tokens, self._frames_per_second)
                if reason and split != "train":  # leaving it out would flatter the score
                    tight.append(clip.name)
                    continue
            if reason:
                problems.bad.append((reading.told[row], reason))
                gone.append(row)
        if tight:
            self._notes.append(
                f"{split}: {len(tight):,} texts do not fit into the frames of their sound ({some(tight)}); they count"
            )
        return reading.without(gone)

    def _judge(self, problems: Problems) -> None:
        """Stops at what is bad, or counts it, as `data.on_bad` says."""
        if not problems.bad:
            return
        if self._config.data.on_bad == "error":
            raise DataError(f"{problems.told()}; mend them, or set data.on_bad=skip to leave them out")
        self._notes.append(f"{problems.told()}; they are left out")

    def _made(self, split: Split, reading: Reading) -> Clips:
        if not reading.clips:
            wanted = self._layout[split].wanted
            raise DataError(f"the {split} split has no utterance that can be used: check data.path and {wanted}")
        made = Clips(reading.clips, rate=self._config.data.rate, kept=reading.kept)
        names, speakers = [clip.name for clip in made.clips], [clip.speaker for clip in made.clips]
        self._notes.append(table_row(split, made.durations, speakers))
        clipped = [name for name, heard in zip(names, reading.heard, strict=True) if heard.clipped]
        self._notes += clipped_note(split, clipped, len(made))
        self._notes += self._twins.add(split, [heard.mark for heard in reading.heard], names, made.texts, speakers)
        if made.kept < len(made):
            self._notes.append(
                f"{split}: {len(made) - made.kept:,} of {len(made):,} sounds do not fit into "
                f"data.memory={self._config.data.memory:g}; they are decoded whenever they are needed, which is slower"
            )
        return _train(made, self._config) if split == "train" else made
