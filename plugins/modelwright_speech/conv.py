"""conv-ctc: a small convolutional network that learns quickly. Knows features; knows no text and no settings.

Residual blocks of a depthwise convolution and two linear layers, as ConvNeXt has them for pictures (Liu et al. 2022,
https://arxiv.org/abs/2201.03545) and QuartzNet without batch norm for speech (Kriman et al. 2019,
https://arxiv.org/abs/1910.10261). Trained by connectionist temporal classification (Graves et al. 2006).
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from modelwright_speech.features import LogMel, inside

KERNEL = 11
"""Frames that a block looks at: 0.44 s."""
STRIDES = 2
"""Convolutions in front, each of which leaves half of the frames."""


class Front(nn.Module):
    """Features -> a quarter of the frames: two convolutions of stride 2.

    Args:
        mels: bands of the features.
        width: channels of the result.
    """

    def __init__(self, mels: int, width: int) -> None:
        super().__init__()
        sizes = [mels, *(width for _ in range(STRIDES))]
        self.layers = nn.ModuleList(
            nn.Conv1d(before, after, 5, stride=2, padding=2) for before, after in pairwise(sizes)
        )

    def forward(self, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, mels), (B,) -> (B, T, width), (B,); what lies beyond the frames does not matter."""
        x = features.transpose(1, 2)
        for layer in self.layers:
            x = F.gelu(layer(x * inside(frames, x.shape[2])[:, None, :]))
            frames = halved(frames)
        return x.transpose(1, 2), frames


def halved(frames: Tensor) -> Tensor:
    """Frames that a convolution of stride 2 leaves, padded by half of its kernel."""
    return (frames + 1) // 2


class Strided(nn.Module):
    """Log-mel and two strided convolutions, which all networks of this plugin's own begin with.

    Args:
        features: the front end.
        width: channels of what comes out.
    """

    def __init__(self, features: LogMel, width: int) -> None:
        super().__init__()
        self.features = features
        self.front = Front(features.mels, width)

    def frames(self, lengths: Tensor) -> Tensor:
        """(B,) samples -> (B,) frames of the outputs."""
        frames = self.features.frames(lengths)
        for _ in range(STRIDES):
            frames = halved(frames)
        return frames


class Block(nn.Module):
    """Residual: layer norm, a depthwise convolution over time, twice as wide and back."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.depthwise = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.wide = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, T, width), (B, T, 1) bool -> (B, T, width)."""
        # The norm gives padding a value again: masked here, for only the convolution sees other frames.
        y = self.norm(x) * valid
        y = self.depthwise(y.transpose(1, 2)).transpose(1, 2)
        return x + self.dropout(self.narrow(F.gelu(self.wide(y))))


class ConvCtc(Strided):
    """Log-mel, two strided convolutions, residual blocks, and a score for each token at each frame.

    Args:
        features: the front end.
        tokens: how many, the blank included.
        width: channels.
        blocks: how many.
        dropout: in the blocks.
    """

    def __init__(self, features: LogMel, *, tokens: int, width: int, blocks: int, dropout: float) -> None:
        super().__init__(features, width)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, tokens)

    def forward(
        self, samples: Tensor, lengths: Tensor, keep_frames: Tensor | None = None, keep_mels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """`logits` (B, T, tokens) and `frames` (B,): how many of the T hold sound.

        Args:
            samples, lengths, keep_frames, keep_mels: as for `LogMel`.
        """
        x, frames = self.front(*self.features(samples, lengths, keep_frames, keep_mels))
        valid = inside(frames, x.shape[1])[:, :, None]
        for block in self.blocks:
            x = block(x, valid)
        return {"logits": self.head(self.norm(x)), "frames": frames}
