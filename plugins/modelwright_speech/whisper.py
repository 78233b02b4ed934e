"""whisper: a published network that writes one token after the other, fine-tuned. Knows transformers' Whisper; no text.

Radford et al.: Robust Speech Recognition via Large-Scale Weak Supervision, 2022 (https://arxiv.org/abs/2212.04356). It
always hears 30 seconds: what is shorter is padded alike alone and beside others, so nothing leaks. In training it is
told the true tokens before each (the hint `teacher`); otherwise it writes the most probable one until it says that it
has ended. What it gives is a row of scores for each token it writes, not for each frame of the sound: no times of
words, no beam search with a lexicon, and no ONNX graph, for how often it has to be asked depends on what it says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperModel

from modelwright.errors import ConfigError, ExportError
from modelwright.task import Losses
from modelwright.weights import Loaded
from modelwright_speech import adapters
from modelwright_speech.features import inside

if TYPE_CHECKING:
    from tokenizers import Tokenizer

RATE, BINS, HOP = 16000, 400, 160
"""Samples per second, and of its Fourier transform; frames are 10 ms apart."""
ENOUGH = 0.9
"""Share of the network's tensors that a published file must have."""
START, END, PLAIN, TRANSCRIBE = "<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>", "<|transcribe|>"


class Whisper(nn.Module):
    """A published network, head included.

    Args:
        network: what its config.json says, with `prompt`: the tokens that begin every text.
        lora: rank of the adapters that alone are trained; 0: everything is.
        dropout: of the network's layers.

    Raises:
        ConfigError: config.json is of another network.
    """

    bands: Tensor
    shape: Tensor

    def __init__(self, network: Mapping[str, Any], *, lora: int, dropout: float) -> None:
        super().__init__()
        if network.get("model_type") != "whisper":
            raise ConfigError(
                f"model.pretrained holds a {network.get('model_type', 'network of no kind')}, no whisper: give another "
                "folder, or model.name"
            )
        config = WhisperConfig.from_dict({**network, "dropout": dropout, "apply_spec_augment": False})
        self.network = WhisperModel(config)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.head.weight = self.network.decoder.embed_tokens.weight
        self._prompt, self._end = list(network["prompt"]), int(cast("int", config.eos_token_id))
        self._frames = 2 * config.max_source_positions
        self._longest = config.max_target_positions - len(self._prompt)
        if lora:
            adapters.adapt(self.network, lora)
        bands = melscale_fbanks(BINS // 2 + 1, 0.0, RATE / 2, config.num_mel_bins, RATE, "slaney", "slaney")
        self.register_buffer("bands", bands, persistent=False)
        self.register_buffer("shape", torch.hann_window(BINS), persistent=False)

    def forward(
        self,
        samples: Tensor,
        lengths: Tensor,
        teacher: Tensor | None = None,
        counts: Tensor | None = None,
        keep_frames: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """`logits` (B, L, vocabulary) of each token written, and `frames` (B,): how many these are.

        Args:
            samples: (B, S) in [-1, 1]; what lies beyond `lengths`, or 30 seconds, is not heard.
            lengths: (B,) int64.
            teacher: (B, L) true tokens, the end among them; counts: (B,) how many. None: it writes by itself.
            keep_frames: (B, F) bool, every 10 ms: false where SpecAugment blanks.

        Raises:
            ExportError: a graph is being written.
        """
        if torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export():
            raise ExportError("whisper writes one token after the other, which no graph does: use the run itself")
        features = self._features(samples, lengths)
        if keep_frames is not None:
            kept = F.pad(keep_frames, (0, max(0, self._frames - keep_frames.shape[1])), value=True)
            features = features * kept[:, None, : self._frames]
        heard = self.network.encoder(features).last_hidden_state
        if teacher is None or counts is None:
            return self._written(heard)
        prompt = torch.tensor(self._prompt, device=teacher.device).expand(len(teacher), -1)
        given = torch.cat([prompt, teacher[:, :-1]], dim=1)
        found = self.network.decoder(given, encoder_hidden_states=heard, use_cache=False).last_hidden_state
        return {"logits": self.head(found[:, len(self._prompt) - 1 :]), "frames": counts}

    def _features(self, samples: Tensor, lengths: Tensor) -> Tensor:
        """Log-mel as published networks are fed, (B, mels, frames)."""
        size = self._frames * HOP
        own = samples * inside(lengths, samples.shape[1])
        own = F.pad(own, (0, max(0, size - own.shape[1])))[:, :size]
        spectrum = torch.view_as_real(torch.stft(own, BINS, HOP, window=self.shape, return_complex=True))
        power = spectrum.square().sum(dim=-1)[:, :, :-1]
        mel = (power.transpose(1, 2) @ self.bands).transpose(1, 2).clamp(min=1e-10).log10()
        return (torch.maximum(mel, mel.amax(dim=(1, 2), keepdim=True) - 8.0) + 4.0) / 4.0

    def _written(self, heard: Tensor) -> dict[str, Tensor]:
        """The most probable token after those before it, until every text has ended."""
        tokens = torch.tensor(self._prompt, device=heard.device).expand(len(heard), -1)
        ended = torch.zeros(len(heard), dtype=torch.bool, device=heard.device)
        counts = torch.zeros(len(heard), dtype=torch.int64, device=heard.device)
        rows: list[Tensor] = []
        cache: Any = None
        while len(rows) < self._longest and not bool(ended.all()):
            found = self.network.decoder(tokens, encoder_hidden_states=heard, cache=cache, use_cache=True)
            cache = found.cache
            logits = self.head(found.last_hidden_state[:, -1])
            counts = counts + ~ended
            best = logits.argmax(dim=1)
            ended = ended | (best == self._end)
            rows.append(logits)
            tokens = best[:, None]
        return {"logits": torch.stack(rows, dim=1), "frames": counts}

    def merge(self) -> None:
        """Makes adapters part of the weights, in place."""
        adapters.merge(self.network)

    def load(self, weights: Mapping[str, Tensor], source: str) -> Loaded:
        """Takes published weights over.

        Raises:
            ConfigError: too little fits.
        """
        return adapters.load_below(self.network, weights, source=source, least=ENOUGH)


def cross_entropy(logits: Tensor, tokens: Tensor, counts: Tensor) -> Losses:
    """Of each true token after those before it, summed over a text's tokens; weight: utterances.

    Args:
        logits: (B, L, vocabulary); tokens: (B, L); counts: (B,) of the tokens that count.
    """
    each = F.cross_entropy(logits.float().transpose(1, 2), tokens, reduction="none")
    return Losses((each * inside(counts, tokens.shape[1])).sum(), float(len(tokens)))


def encoded(tokenizer: str, text: str) -> list[int]:
    """The tokens of a text with a space in front, as the network was trained, and the end.

    Args:
        tokenizer: JSON of the library `tokenizers`.
    """
    read = _tokenizer(tokenizer)
    end = cast("int", read.token_to_id(END))  # `prompt` has looked
    return [*read.encode(f" {text}", add_special_tokens=False).ids, end]


def prompt(tokenizer: str, *, language: str = "en", multilingual: bool = True) -> list[int]:
    """The tokens that begin every text: start, and of a multilingual network the language and the task; no times.

    Raises:
        ConfigError: the tokenizer is none of Whisper's, or has no such language.
    """
    read = _tokenizer(tokenizer)
    wanted = [START, *((f"<|{language}|>", TRANSCRIBE) if multilingual else ()), PLAIN]
    found = [read.token_to_id(each) for each in wanted]
    if None in [*found, read.token_to_id(END)]:
        missing = [each for each in (*wanted, END) if read.token_to_id(each) is None]
        raise ConfigError(
            f"model.pretrained: its tokenizer.json lacks {', '.join(missing)}: give a folder of Whisper's"
        )
    return cast("list[int]", found)


@lru_cache(maxsize=2)
def _tokenizer(model: str) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        json.loads(model)
        return Tokenizer.from_str(model)
    except Exception as error:  # its errors are plain Exceptions
        raise ConfigError(f"model.pretrained: its tokenizer.json cannot be read: {error}; fetch it again") from error
