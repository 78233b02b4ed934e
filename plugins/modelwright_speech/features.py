"""Sound samples -> log-mel features, in the model's graph. Knows torch and frames; knows no network and no settings.

Nothing leaks between neighbours: windows are not centred (a centred one reflects real samples into the padding), means
and deviations are over an utterance's own frames, and what lies beyond these is zero.

The Fourier transform comes in two shapes of the same maths. In eager mode torch's is the fastest; ONNX Runtime's is the
slowest, and a matrix of sines and cosines would be half of a small model's file. What is exported is therefore the
two-step transform of Cooley and Tukey (1965, doi:10.1090/S0025-5718-1965-0178586-1): two small matrices.
"""

from __future__ import annotations

import math
import warnings
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

WINDOW, HOP = 0.025, 0.010
"""Seconds of one frame, and between two."""
FLOOR = 1e-6
"""Added to the power in a mel band before the logarithm: the sound of nothing."""
LEAST = 1e-2
"""Added to the variance of a band: one that never changes says nothing and is not blown up."""
NARROW, FEW, MANY = 8000, 40, 80
"""Up to this rate so few mel bands by default, else so many."""


def usual_mels(rate: int) -> int:
    """Mel bands where the settings name none."""
    return FEW if rate <= NARROW else MANY


def window_of(rate: int) -> int:
    """Samples of one frame."""
    return round(WINDOW * rate)


def hop_of(rate: int) -> int:
    """Samples between two frames."""
    return round(HOP * rate)


def inside(lengths: Tensor, size: int | Tensor) -> Tensor:
    """(B, size) bool: what lies within each length."""
    return torch.arange(size, device=lengths.device)[None] < lengths[:, None]


class LogMel(nn.Module):
    """Log-mel features of raw samples, normalised by utterance and band.

    Args:
        rate: samples per second.
        mels: bands.

    Attributes:
        window, hop: samples of a frame and between two; a batch must hold one window at least.
        bins: size of the Fourier transform: a power of two that leaves no band without a frequency.
    """

    bands: Tensor

    def __init__(self, rate: int, mels: int) -> None:
        super().__init__()
        self.rate, self.mels = rate, mels
        self.window, self.hop = window_of(rate), hop_of(rate)
        self.bins, bands = _bands(rate, mels, least=self.window)
        self.register_buffer("shape", torch.hann_window(self.window), persistent=False)
        self.register_buffer("bands", bands, persistent=False)
        for name, value in _steps(self.bins, bands).items():
            self.register_buffer(name, value, persistent=False)

    def frames(self, lengths: Tensor) -> Tensor:
        """(B,) samples -> (B,) frames that hold sound; at least one."""
        return (torch.div(lengths - self.window, self.hop, rounding_mode="floor") + 1).clamp(min=1)

    def forward(
        self, samples: Tensor, lengths: Tensor, keep_frames: Tensor | None = None, keep_mels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features (B, F, mels), zero beyond each utterance's frames, and how many these are, (B,).

        Args:
            samples: (B, S) in [-1, 1]; what lies beyond `lengths` does not matter.
            lengths: (B,) int64.
            keep_frames: (B, F) bool, keep_mels: (B, mels) bool: false where SpecAugment blanks (Park et al. 2019).
        """
        lengths = lengths.clamp(max=samples.shape[1])
        framed = self._framed(samples * inside(lengths, samples.shape[1]))
        mel = torch.log(self._power(framed * cast("Tensor", self.shape)) + FLOOR)
        frames = self.frames(lengths)
        valid = inside(frames, mel.shape[1])[:, :, None]
        count = frames[:, None, None]
        mean = (mel * valid).sum(dim=1, keepdim=True) / count
        centred = (mel - mean) * valid
        features = centred * torch.rsqrt(centred.square().sum(dim=1, keepdim=True) / count + LEAST)
        if keep_frames is not None:
            features = features * keep_frames[:, :, None]
        if keep_mels is not None:
            features = features * keep_mels[:, None, :]
        return features, frames

    def _framed(self, samples: Tensor) -> Tensor:
        """(B, S) -> (B, F, window)."""
        if not _exporting():
            return samples.unfold(1, self.window, self.hop)
        count = (samples.shape[1] - self.window) // self.hop + 1
        starts = self.hop * torch.arange(count, device=samples.device)
        return samples[:, starts[:, None] + torch.arange(self.window, device=samples.device)]

    def _power(self, framed: Tensor) -> Tensor:
        """(B, F, window) -> power in each mel band, (B, F, mels)."""
        if _exporting():
            return self._in_steps(framed)
        spectrum = torch.view_as_real(torch.fft.rfft(framed.float(), self.bins))
        return spectrum.square().sum(dim=-1) @ self.bands

    def _in_steps(self, framed: Tensor) -> Tensor:
        """The same by two small transforms, along n1 and n2 of n = n1 * wide + n2."""
        high, wide = _factors(self.bins)
        padded = F.pad(framed, (0, self.bins - self.window)).unflatten(2, (high, wide))
        first = padded.transpose(2, 3) @ cast("Tensor", self.first)  # (B, F, wide, 2 x half)
        real, imaginary = first.transpose(2, 3).chunk(2, dim=2)  # (B, F, half, wide)
        cosine, sine = cast("Tensor", self.cosine), cast("Tensor", self.sine)
        turned = torch.cat([real * cosine - imaginary * sine, real * sine + imaginary * cosine], dim=3)
        real, imaginary = (turned @ cast("Tensor", self.second)).chunk(2, dim=3)
        return (real * real + imaginary * imaginary).flatten(2) @ cast("Tensor", self.folded)


def _exporting() -> bool:
    """Whether a graph is being written, by either of torch's exporters."""
    return torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()


def _factors(bins: int) -> tuple[int, int]:
    """A power of two as a product of two, the second no smaller."""
    high = 2 ** (int(math.log2(bins)) // 2)
    return high, bins // high


def _bands(rate: int, mels: int, *, least: int) -> tuple[int, Tensor]:
    """The size of the transform and (size / 2 + 1, mels) triangles on the mel scale, none of them empty."""
    bins = 2 ** math.ceil(math.log2(least))
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of empty bands: that is what is looked for
            bands = melscale_fbanks(bins // 2 + 1, 0.0, rate / 2, mels, rate)
        if bool((bands.amax(dim=0) > 0).all()):
            return bins, bands
        bins *= 2


def _steps(bins: int, bands: Tensor) -> dict[str, Tensor]:
    """Constants of the transform in two steps.

    A real signal's spectrum is symmetric, so of the first step's `high` results the first half and one are enough: what
    the others would give stands elsewhere. `folded` are the mel bands in the order in which the powers come out.
    """
    high, wide = _factors(bins)
    half = high // 2 + 1
    n1, n2, k1, k2 = (torch.arange(each, dtype=torch.float64) for each in (high, wide, half, wide))
    angle = -2 * math.pi * torch.outer(n1, k1) / high
    turn = -2 * math.pi * torch.outer(k1, n2) / bins
    second = -2 * math.pi * torch.outer(n2, k2) / wide
    real, imaginary = second.cos(), second.sin()
    folded = torch.zeros(half * wide, bands.shape[1])
    seen: set[int] = set()
    for row in range(half):
        for column in range(wide):
            place = row + high * column
            frequency = min(place, bins - place)
            if frequency not in seen:  # of two equal ones, the first
                seen.add(frequency)
                folded[row * wide + column] = bands[frequency]
    return {
        "first": torch.cat([angle.cos(), angle.sin()], dim=1).float(),
        "cosine": turn.cos().float(),
        "sine": turn.sin().float(),
        "second": torch.cat([torch.cat([real, imaginary], dim=1), torch.cat([-imaginary, real], dim=1)]).float(),
        "folded": folded,
    }
