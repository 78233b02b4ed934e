"""conformer-ctc: self-attention and convolution in turn. Knows features; knows no text and no settings.

Gulati et al.: Conformer: Convolution-augmented Transformer for Speech Recognition, Interspeech 2020
(https://arxiv.org/abs/2005.08100), with a layer norm in place of the batch norm, whose statistics would be of padding
and of neighbours too (torchaudio's leaks there), and with rotary positions (Su et al. 2021,
https://arxiv.org/abs/2104.09864), which need no table of lengths.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright_speech.conv import Strided
from modelwright_speech.features import LogMel, inside

HEAD_SIZE = 32
"""Channels of one attention head, about."""
KERNEL = 15
"""Frames of the depthwise convolution: 0.6 s."""
BASE = 10000.0
"""Slowest rotation of the positions."""
AWAY = -1e4
"""Added to the attention's scores where there is no sound."""


class FeedForward(nn.Module):
    """Layer norm, four times as wide and back, by half (Macaron)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> the same."""
        return x + 0.5 * self.dropout(self.narrow(F.silu(self.wide(self.norm(x)))))


class Attention(nn.Module):
    """Multi-head self-attention over the frames that hold sound."""

    turns: Tensor

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.heads = max(1, width // HEAD_SIZE)
        while width % (2 * self.heads):  # heads of an even number of channels: rotations take two
            self.heads -= 1
        size = width // self.heads
        self.norm = nn.LayerNorm(width)
        self.asked = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        turns = BASE ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
        self.register_buffer("turns", turns.float(), persistent=False)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, T, width), (B, T) bool -> (B, T, width)."""
        query, key, value = self.asked(self.norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        angles = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)[:, None] * self.turns
        cosine, sine = angles.cos(), angles.sin()
        query, key = (_rotated(each, cosine, sine) for each in (query, key))
        scores = query @ key.transpose(2, 3) * query.shape[3] ** -0.5
        scores = scores + (AWAY * ~valid)[:, None, None, :]
        found = scores.softmax(dim=3) @ value
        return x + self.dropout(self.out(found.transpose(1, 2).flatten(2)))


def _rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Each pair of channels, turned by its position."""
    left, right = x.chunk(2, dim=3)
    return torch.cat([left * cosine - right * sine, left * sine + right * cosine], dim=3)


class Convolution(nn.Module):
    """Layer norm, a gate, a depthwise convolution over time, layer norm, back."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.after = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, T, width), (B, T) bool -> (B, T, width)."""
        y = F.glu(self.gate(self.norm(x)), dim=2) * valid[:, :, None]
        y = self.depthwise(y.transpose(1, 2)).transpose(1, 2)
        return x + self.dropout(self.out(F.silu(self.after(y))))


class ConformerBlock(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, layer norm."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.before = FeedForward(width, dropout)
        self.attention = Attention(width, dropout)
        self.convolution = Convolution(width, dropout)
        self.after = FeedForward(width, dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, T, width), (B, T) bool -> (B, T, width)."""
        x = self.convolution(self.attention(self.before(x), valid), valid)
        return cast("Tensor", self.norm(self.after(x)))


class ConformerCtc(Strided):
    """Log-mel, two strided convolutions, Conformer blocks, and a score for each token at each frame.

    Args:
        features: the front end.
        tokens: how many, the blank included.
        width: channels.
        blocks: how many.
        dropout: in the blocks.
    """

    def __init__(self, features: LogMel, *, tokens: int, width: int, blocks: int, dropout: float) -> None:
        super().__init__(features, width)
        self.blocks = nn.ModuleList(ConformerBlock(width, dropout) for _ in range(blocks))
        self.head = nn.Linear(width, tokens)

    def forward(
        self, samples: Tensor, lengths: Tensor, keep_frames: Tensor | None = None, keep_mels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """`logits` (B, T, tokens) and `frames` (B,): how many of the T hold sound.

        Args:
            samples, lengths, keep_frames, keep_mels: as for `LogMel`.
        """
        x, frames = self.front(*self.features(samples, lengths, keep_frames, keep_mels))
        valid = inside(frames, x.shape[1])
        for block in self.blocks:
            x = block(x, valid)
        return {"logits": self.head(x), "frames": frames}
