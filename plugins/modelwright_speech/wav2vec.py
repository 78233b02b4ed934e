"""wav2vec2: a published network, fine-tuned with a new head. Knows transformers' Wav2Vec2; no text and no settings.

Baevski et al.: wav2vec 2.0, NeurIPS 2020 (https://arxiv.org/abs/2006.11477). Like its authors, fine-tuning leaves the
convolutions in front as they are. Two things of transformers' forward would leak between neighbours, so its parts are
called one by one here: the group norm of the first convolution, whose statistics would be of the padding too, is over
an utterance's own frames; and samples are normalised over an utterance's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import Wav2Vec2Config
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2Model

from modelwright.errors import ConfigError
from modelwright.weights import Loaded
from modelwright_speech import adapters
from modelwright_speech.features import hop_of, inside

RATE = 16000
"""Samples per second that published networks heard."""
ENOUGH = 0.9
"""Share of the network's tensors that a published file must have."""
OLD = {
    "pos_conv_embed.conv.weight_g": "pos_conv_embed.conv.parametrizations.weight.original0",
    "pos_conv_embed.conv.weight_v": "pos_conv_embed.conv.parametrizations.weight.original1",
}
"""Endings of names that older files have."""


class Wav2Vec2(nn.Module):
    """A published network under a head of its own: a score for each token at each frame (20 ms, mostly).

    Args:
        network: what its config.json says.
        tokens: how many, the blank included.
        lora: rank of the adapters that alone are trained, with the head; 0: all but the front.
        dropout: of the network's layers.

    Raises:
        ConfigError: config.json is of another network.
    """

    def __init__(self, network: Mapping[str, Any], *, tokens: int, lora: int, dropout: float) -> None:
        super().__init__()
        if network.get("model_type") != "wav2vec2":
            raise ConfigError(
                f"model.pretrained holds a {network.get('model_type', 'network of no kind')}, no wav2vec2: give "
                "another folder, or model.name"
            )
        given: dict[str, float] = dict.fromkeys(
            ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), dropout
        )
        # Its own masks and skipped layers draw from global generators; ours are hints.
        given |= {"layerdrop": 0.0, "mask_time_prob": 0.0, "mask_feature_prob": 0.0}
        config = Wav2Vec2Config.from_dict({**network, **given, "add_adapter": False})
        config._attn_implementation = "eager"  # pyright: ignore[reportPrivateUsage] - what exports everywhere
        self.network = Wav2Vec2Model(config)
        for parameter in self.network.feature_extractor.parameters():
            parameter.requires_grad_(False)
        if lora:
            adapters.adapt(self.network, lora)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(config.hidden_size, tokens)
        self._sizes = list(zip(config.conv_kernel, config.conv_stride, strict=True))

    def frames(self, lengths: Tensor) -> Tensor:
        """(B,) samples -> (B,) frames of the outputs."""
        for kernel, stride in self._sizes:
            lengths = (torch.div(lengths - kernel, stride, rounding_mode="floor") + 1).clamp(min=1)
        return lengths

    def forward(self, samples: Tensor, lengths: Tensor, keep_frames: Tensor | None = None) -> dict[str, Tensor]:
        """`logits` (B, T, tokens) and `frames` (B,): how many of the T hold sound.

        Args:
            samples: (B, S) in [-1, 1]; what lies beyond `lengths` does not matter.
            lengths: (B,) int64.
            keep_frames: (B, F) bool, every 10 ms: false where SpecAugment blanks.
        """
        lengths = lengths.clamp(max=samples.shape[1])
        x = self._convolved(_normalised(samples, lengths), lengths).transpose(1, 2)
        frames = self.frames(lengths).clamp(max=x.shape[1])
        valid = inside(frames, x.shape[1])
        x, _ = self.network.feature_projection(x)
        if keep_frames is not None:
            stride = samples.shape[1] // x.shape[1] // hop_of(RATE)
            places = torch.arange(x.shape[1], device=x.device) * max(stride, 1)
            x = x * keep_frames[:, places.clamp(max=keep_frames.shape[1] - 1)][:, :, None]
        x = self.network.encoder(x * valid[:, :, None], attention_mask=valid).last_hidden_state
        return {"logits": self.head(self.dropout(x)), "frames": frames}

    def _convolved(self, samples: Tensor, lengths: Tensor) -> Tensor:
        """(B, S) -> (B, channels, T)."""
        x = samples[:, None]
        for place, layer in enumerate(cast("Any", self.network.feature_extractor.conv_layers)):
            norm = getattr(layer, "layer_norm", None)
            if place == 0 and isinstance(norm, nn.GroupNorm):
                kernel, stride = self._sizes[0]
                x = layer.conv(x)
                frames = (torch.div(lengths - kernel, stride, rounding_mode="floor") + 1).clamp(min=1, max=x.shape[2])
                x = layer.activation(_normed(x, inside(frames, x.shape[2])[:, None], frames, norm))
            else:
                x = layer(x)
        return x

    def merge(self) -> None:
        """Makes adapters part of the weights, in place."""
        adapters.merge(self.network)

    def load(self, weights: Mapping[str, Tensor], source: str) -> Loaded:
        """Takes published weights over, all but the head.

        Raises:
            ConfigError: too little fits.
        """
        renamed: dict[str, Tensor] = {}
        for name, value in weights.items():
            ending = next((old for old in OLD if name.endswith(old)), None)
            renamed[name if ending is None else name.removesuffix(ending) + OLD[ending]] = value
        return adapters.load_below(self.network, renamed, source=source, least=ENOUGH)


def _normalised(samples: Tensor, lengths: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over an utterance's own samples, as published networks are fed; zero beyond."""
    valid, count = inside(lengths, samples.shape[1]), lengths[:, None].clamp(min=1)
    mean = (samples * valid).sum(dim=1, keepdim=True) / count
    centred = (samples - mean) * valid
    return centred * torch.rsqrt(centred.square().sum(dim=1, keepdim=True) / count + 1e-7)


def _normed(x: Tensor, valid: Tensor, frames: Tensor, norm: nn.GroupNorm) -> Tensor:
    """A group norm with a group for each channel, over the frames that hold sound."""
    count = frames[:, None, None]
    mean = (x * valid).sum(dim=2, keepdim=True) / count
    variance = ((x - mean) * valid).square().sum(dim=2, keepdim=True) / count
    y = (x - mean) * torch.rsqrt(variance + norm.eps)
    return y * norm.weight[:, None] + norm.bias[:, None]
