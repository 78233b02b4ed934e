"""Speech recognition as the engine asks for it. Knows the contract and the parts of this plugin, no trainer."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright.codec import Columns
from modelwright.task import (
    Batch,
    Datasets,
    Evaluated,
    Example,
    Facts,
    Figure,
    Input,
    Keyed,
    Losses,
    Objective,
    Progress,
    Size,
    Task,
)
from modelwright_speech import batching, data, figures, metrics
from modelwright_speech import model as networks
from modelwright_speech.codec import SEQUENCE, SpeechCodec
from modelwright_speech.config import SpeechConfig
from modelwright_speech.distilling import distill_loss
from modelwright_speech.features import hop_of, usual_mels, window_of
from modelwright_speech.masks import blanked
from modelwright_speech.prior import prior
from modelwright_speech.tokens import BLANK, Tokens


class SpeechTask(Task):
    """Turns speech into text.

    Raises:
        ConfigError: there is no such network, or the settings do not fit it.
    """

    objective = Objective("wer", "min")

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__(config)
        networks.check(config.model)
        self.settings = config
        self._data: Datasets | None = None

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Samples at the rate of the settings, padded with zeros, and how many they are."""
        least = networks.least_samples(self.settings.data.rate)
        return (Input("samples", (Size("samples", minimum=least),), "float32"), Input("lengths", (), "int64"))

    @property
    def codec(self) -> SpeechCodec:
        """Reads sounds; writes texts."""
        settings, rate = self.settings.evaluate, self.settings.data.rate
        tokens, longest = self._written, self.settings.data.longest
        heard = longest if tokens["kind"] == SEQUENCE else self.facts.values.get("longest", longest)
        return SpeechCodec(
            tokens["kind"],
            tuple(tokens["pieces"]),
            tokens["model"],
            rate=rate,
            stride=networks.stride_of(self.settings, self.facts.values.get("network")),
            least=networks.least_samples(rate),
            longest=min(longest, heard),
            window=min(settings.window, longest),
            overlap=settings.overlap,
            decoder=settings.decoder,
            beam=settings.beam,
            **prior(settings, self.facts),
            weight=settings.weight,
            bonus=settings.bonus,
            hotwords=tuple(sorted(settings.hotwords.items())),
        )

    @property
    def _written(self) -> Mapping[str, Any]:
        """Settings of the tokens that the model writes."""
        if self.settings.model.name == networks.WHISPER:
            return {"kind": SEQUENCE, "pieces": (), "model": self.facts.values["tokenizer"]}
        return self.facts.values["tokens"]

    # Data -------------------------------------------------------------------------------------------------------

    def datasets(self) -> Datasets:
        """The splits that the settings under `data` name."""
        own = self.settings.model.name == networks.WHISPER
        self._data = data.load(
            self.settings,
            seed=self.settings.seed,
            known=self.facts,
            frames_per_second=None if own else networks.frames_per_second(self.settings, self.facts),
            own_tokens=own,
        )
        return self._data

    def find_facts(self, datasets: Datasets) -> Facts:
        """Tokens and words of the training texts; of a published network, what it is and how it writes."""
        own = self.settings.model.name == networks.WHISPER
        facts = data.find_facts(datasets["train"], self.settings, own_tokens=own)
        return Facts({**facts.values, **networks.published(self.settings.model)}, facts.arrays)

    def empty(self) -> Example:
        """A second of silence."""
        return Example(np.zeros(self.settings.data.rate, np.float32), {"text": "", "speaker": ""})

    def order(
        self, size: int, *, batch_size: int, epoch: int, epochs: int, rng: np.random.Generator
    ) -> Sequence[np.ndarray]:
        """Utterances of like duration together, short ones first; see `batching`."""
        loaded = self._data or self.datasets()
        durations = cast("Any", loaded["train"]).durations
        settings = self.settings.train
        return batching.order(
            durations,
            batch_size=batch_size,
            batch_seconds=settings.batch_seconds,
            curriculum=settings.curriculum,
            epoch=epoch,
            epochs=epochs,
            rng=rng,
        )

    def collate(self, examples: Sequence[Example], ids: np.ndarray) -> Batch:
        """Padded sounds, each as a whole, and what is said in them.

        Targets: lists `text` and `speaker`; `tokens` int64 (B, L), the blank where there is none, and how many they
        are, `counts` (B,).
        """
        codec = self.codec
        arrays, context = codec.collate(codec.whole([np.asarray(example.raw) for example in examples]))
        texts = [str(example.targets["text"]) for example in examples]
        encoded = [self._encoded(text) for text in texts]
        counts = np.array([len(each) for each in encoded], np.int64)
        tokens = np.full((len(encoded), max(1, int(counts.max(initial=0)))), BLANK, np.int64)
        for row, each in enumerate(encoded):
            tokens[row, : len(each)] = each
        targets: dict[str, Any] = {
            "text": texts,
            "speaker": [str(example.targets.get("speaker") or "") for example in examples],
            "tokens": torch.from_numpy(tokens),
            "counts": torch.from_numpy(counts),
        }
        batch = Batch(tuple(torch.from_numpy(arrays[spec.name]) for spec in self.inputs), targets, ids, context)
        if self.settings.model.name == networks.WHISPER:
            batch.hints = {"teacher": targets["tokens"], "counts": targets["counts"]}
        return batch

    def _encoded(self, text: str) -> list[int]:
        """Numbers of a text. What held-out texts have beyond the alphabet cannot be said, which metrics will show."""
        if self.settings.model.name == networks.WHISPER:
            from modelwright_speech.whisper import encoded

            return encoded(self.facts.values["tokenizer"], text)
        tokens = self._tokens
        missing = tokens.missing(text)
        return tokens.encode("".join(character for character in text if character.lower() not in missing))

    @property
    def _tokens(self) -> Tokens:
        return Tokens.of(self.facts.values["tokens"])

    def augment(self, batch: Batch, keyed: Keyed, progress: Progress) -> Batch:
        """SpecAugment as hints: which frames and mel bands are kept. Sounds were changed when they were read."""
        settings, rate = self.settings.augment, self.settings.data.rate
        samples, lengths = batch.inputs
        window, hop = window_of(rate), hop_of(rate)
        size = (samples.shape[1] - window) // hop + 1
        frames = (torch.div(lengths - window, hop, rounding_mode="floor") + 1).clamp(1, size)
        hints = dict(batch.hints)
        if settings.time_masks:
            draws = keyed("time-masks", 2 * settings.time_masks)
            hints["keep_frames"] = ~blanked(draws, frames, size=size, width=settings.time_width)
        if settings.mel_masks and self.settings.model.name in networks.OWN:
            draws = keyed("mel-masks", 2 * settings.mel_masks)
            mels = self.settings.model.mels or usual_mels(rate)
            hints["keep_mels"] = ~blanked(draws, torch.full_like(frames, mels), size=mels, width=settings.mel_width)
        return Batch(batch.inputs, batch.targets, batch.ids, batch.context, hints)

    # Model and loss -----------------------------------------------------------------------------------------------

    def model(self) -> nn.Module:
        """The network that the settings under `model` name.

        Raises:
            ConfigError: the settings do not fit each other.
        """
        return networks.build(self.settings, self.facts)

    def initialize(self, model: nn.Module) -> str | None:
        """Starts from `model.pretrained`, where that is given.

        Raises:
            ConfigError: the weights cannot be had, or too little of them fits.
        """
        settings = self.settings.model
        return None if settings.pretrained is None else networks.load_pretrained(model, settings)

    def served(self, model: nn.Module) -> nn.Module:
        """The network itself; adapters become part of the weights they adapt, in a copy."""
        if not self.settings.model.lora:
            return model
        merged = copy.deepcopy(model)
        cast("Any", merged).merge()
        return merged

    def loss(
        self, criterion: nn.Module | None, outputs: Mapping[str, Tensor], batch: Batch, progress: Progress
    ) -> Losses:
        """CTC (Graves et al. 2006), summed; Whisper: cross-entropy of each token. Weight: utterances."""
        tokens, counts = batch.targets["tokens"], batch.targets["counts"]
        if self.settings.model.name == networks.WHISPER:
            from modelwright_speech.whisper import cross_entropy

            return cross_entropy(outputs["logits"], tokens, counts)
        log_probs = outputs["logits"].float().log_softmax(dim=2).transpose(0, 1)
        # Texts with more tokens than frames are found by the checks of the data; speeding up can make one of another.
        each = F.ctc_loss(
            log_probs, tokens, outputs["frames"], counts, blank=BLANK, reduction="none", zero_infinity=True
        )
        return Losses(each.sum(), float(len(batch)))

    def distill_loss(
        self,
        outputs: Mapping[str, Tensor],
        teacher: Mapping[str, Tensor],
        batch: Batch,
        progress: Progress,
        *,
        temperature: float,
    ) -> Losses | None:
        """Tokens frame by frame, see `distilling`; None for Whisper, which has no frames."""
        if self.settings.model.name == networks.WHISPER:
            return None
        return distill_loss(outputs, teacher, temperature=temperature)

    def prunable(self, model: nn.Module) -> Iterable[nn.Module] | None:
        """The wide layers inside blocks; None for published networks and for those that have no such layers."""
        wide = [module for name, module in model.named_modules() if name.endswith(".wide")]
        return wide or None

    # Truth and metrics ----------------------------------------------------------------------------------------------

    def truths(self, batch: Batch) -> Columns:
        """Lists `text` and `speaker`."""
        return Columns({name: list(batch.targets[name]) for name in ("text", "speaker")}, batch.ids)

    def measure(self, predictions: Columns, truths: Columns) -> Columns:
        """Counts errors."""
        return metrics.measure(predictions, truths)

    def metrics(self, measured: Columns) -> dict[str, float]:
        """Word and character error rate and the other scores of `modelwright_speech.metrics.scores`."""
        return metrics.scores(measured)

    def perfect(self, truths: Columns) -> Columns:
        """The true texts."""
        return metrics.perfect(truths)

    def figures(self, evaluated: Evaluated) -> Iterator[Figure]:
        """The worst utterances and which words are taken for which, see `modelwright_speech.figures`."""
        return figures.draw(evaluated, codec=self.codec)
