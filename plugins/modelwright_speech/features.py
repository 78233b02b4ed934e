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

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

WINDOW, HOP = 0.025, 0.010
"""Seconds of one frame, and between two."""
FLOOR = 1e-10
"""Added to the power in a mel band before the logarithm: the sound of nothing."""
RANGE = 14.0
"""Natural log of the power, 61 dB: what is further below an utterance's loudest band counts as silent. Digital silence
would else lie so deep that pauses alone made the mean, and a recording of several sentences another world than one."""
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


def inside(lengths: Tensor, size: int) -> Tensor:
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

    shape: Tensor
    bands: Tensor
    padded: Tensor
    first: Tensor
    cosine: Tensor
    sine: Tensor
    second: Tensor
    folded: Tensor

    def __init__(self, rate: int, mels: int) -> None:
        super().__init__()
        self.rate, self.mels = rate, mels
        self.window, self.hop = window_of(rate), hop_of(rate)
        self.bins, bands = _bands(rate, mels, least=self.window)
        shape = torch.hann_window(self.window)
        for name, value in {"shape": shape, "bands": bands, **_steps(self.bins, bands, shape)}.items():
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
        mel = torch.log(self._power(samples * inside(lengths, samples.shape[1])) + FLOOR)
        frames = self.frames(lengths)
        valid = inside(frames, mel.shape[1])[:, :, None]
        loudest = torch.where(valid, mel, math.log(FLOOR)).amax(dim=(1, 2), keepdim=True)
        mel = torch.maximum(mel, loudest - RANGE)
        count = frames[:, None, None]
        mean = (mel * valid).sum(dim=1, keepdim=True) / count
        centred = (mel - mean) * valid
        features = centred * torch.rsqrt(centred.square().sum(dim=1, keepdim=True) / count + LEAST)
        if keep_frames is not None:
            features = features * keep_frames[:, :, None]
        if keep_mels is not None:
            features = features * keep_mels[:, None, :]
        return features, frames

    def _power(self, samples: Tensor) -> Tensor:
        """(B, S) -> power in each mel band, (B, F, mels)."""
        if _exporting():
            return self._in_steps(samples)
        framed = samples.unfold(1, self.window, self.hop).float() * self.shape
        spectrum = torch.view_as_real(torch.fft.rfft(framed, self.bins))
        return spectrum.square().sum(dim=-1) @ self.bands

    def _in_steps(self, samples: Tensor) -> Tensor:
        """The same by two small transforms, along n1 and n2 of n = n1 * wide + n2."""
        framed = self._framed(samples)
        batch, count, _, wide = framed.shape
        half, many = len(self.first) // 2, len(self.folded)
        both = _product("ij,bfjk->bfik", self.first, framed, (batch, count, 2 * half, wide))
        real, imaginary = both.chunk(2, dim=2)
        turned = torch.cat(
            [real * self.cosine - imaginary * self.sine, real * self.sine + imaginary * self.cosine], dim=3
        )
        rows = batch * count * half
        both = _product("ri,ij->rj", turned.reshape(rows, 2 * wide), self.second, (rows, 2 * wide))
        real, imaginary = both.chunk(2, dim=1)
        power = (real * real + imaginary * imaginary).reshape(batch * count, half * wide)[:, :many]
        return _product("ri,ij->rj", power, self.folded, (batch * count, self.mels)).reshape(batch, count, self.mels)

    def _framed(self, samples: Tensor) -> Tensor:
        """Frames times their window, (B, F, n1, wide): hops beside each other, since picking single samples is slow."""
        _, wide = _factors(self.bins)
        hops, rest = -(-self.window // self.hop), len(self.padded)
        count = (samples.shape[1] - self.window) // self.hop + 1
        cut = F.pad(samples, (0, hops * self.hop))[:, : (count - 1 + hops) * self.hop].unflatten(1, (-1, self.hop))
        framed = torch.cat([cut[:, place : place + count] for place in range(hops)], dim=2)
        framed = F.pad(framed, (0, rest - hops * self.hop)) if rest > hops * self.hop else framed[:, :, :rest]
        return (framed * self.padded).unflatten(2, (-1, wide))


def _exporting() -> bool:
    """Whether a graph is being written, by either of torch's exporters."""
    return torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()


def _product(equation: str, a: Tensor, b: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A product of matrices as ONNX's Einsum, which no quantizer puts into 8 bits, as they would a MatMul.

    These are no weights that were learnt but a transform, and quiet bands would drown in its rounding.
    """
    if torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export():
        return torch.onnx.ops.symbolic(
            "Einsum", (a, b), attrs={"equation": equation}, dtype=a.dtype, shape=shape, version=12
        )
    return torch.einsum(equation, a, b)


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


def _steps(bins: int, bands: Tensor, shape: Tensor) -> dict[str, Tensor]:
    """Constants of the transform in two steps.

    A real signal's spectrum is symmetric, so of the first step's `high` results the first half and one are enough: what
    the others would give stands elsewhere. `folded` are the mel bands in the order in which the powers come out.
    """
    high, wide = _factors(bins)
    half = high // 2 + 1
    rows = -(-len(shape) // wide)  # beyond the window everything is zero
    n1, n2, k1, k2 = (torch.arange(each, dtype=torch.float64) for each in (rows, wide, half, wide))
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
    folded = folded[: half * wide - wide // 2]  # the last half row stands elsewhere, too
    return {
        "padded": F.pad(shape, (0, rows * wide - len(shape))),
        "first": torch.cat([angle.cos(), angle.sin()], dim=1).T.contiguous().float(),
        "cosine": turn.cos().float(),
        "sine": turn.sin().float(),
        "second": torch.cat([torch.cat([real, imaginary], dim=1), torch.cat([-imaginary, real], dim=1)]).float(),
        "folded": folded,
    }
