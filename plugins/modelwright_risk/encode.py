"""Raw cells as tokens: a few numbers for each feature. Knows columns and what training rows were like; no network.

Preparation is part of the graph: quantile edges and special codes are buffers, so what was trained is what is served.
Numeric cells become the piecewise-linear code of Gorishniy, Rubachev, Babenko: On Embeddings for Numerical Features in
Tabular Deep Learning, NeurIPS 2022, https://arxiv.org/abs/2203.05556; its mean, which is the value's empirical
distribution function, is part of it as one more weight on all bins.

Tokens are a linear function of these codes. Integrated gradients along the straight path between two codes are
therefore those along the straight path between two tokens, which `explain` relies on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modelwright.data import Facts
from modelwright_risk.schema import Feature, Schema

STEEP = 1e30
"""Slope of a code that is a step; what it gives is cut to 0..1."""
NEXT_TO_ZERO = 1e-20
"""Distance to 0 that a slope still makes a step of; the next float would be too near."""


class Numbers(nn.Module):
    """Numeric cells -> a token for each feature.

    A feature's code holds a part for each bin: 0 below, 1 above, linear within. A bin of no width (values that occur
    often have several equal quantiles) is a step. NaN and special codes give 0 for each bin and a flag of their own,
    except that a feature that was never missing in training is taken as its median where it is missing now.

    Args:
        features: the numeric ones.
        quantiles: float32 (features, bins + 1), ascending edges of the bins.
        shares: float32 (features, bins), shares of training rows in the bins.
        missing: shares of training rows without a value.
        width: numbers in a token.
        steps: whether the code only tells in which bin a value is.
    """

    fill: Tensor
    flags: Tensor
    edges: Tensor
    slopes: Tensor
    signs: Tensor
    usual: Tensor
    usual_flags: Tensor

    def __init__(
        self,
        features: Sequence[Feature],
        *,
        quantiles: np.ndarray,
        shares: np.ndarray,
        missing: Sequence[float],
        width: int,
        steps: bool,
    ) -> None:
        super().__init__()
        count, bins = len(features), quantiles.shape[1] - 1
        absent = np.asarray(missing, dtype=np.float32)
        own = max((len(each.special) for each in features), default=0)
        flagged = own > 0 or bool((absent > 0).any())
        # Missing is -inf from here on, where that means something; inf, which no cell may be, fills up.
        fill = np.where(absent > 0, -np.inf, quantiles[:, bins // 2]).astype(np.float32)
        flags = np.full((count, (1 + own) * flagged), np.inf, dtype=np.float32)
        usual_flags = np.zeros_like(flags)
        for row, each in enumerate(features):
            if flagged:
                flags[row, 0] = -np.inf
                usual_flags[row, 0] = absent[row]
            if each.special:
                flags[row, 1 : 1 + len(each.special)] = each.special
                rest = max(0.0, 1 - float(shares[row].sum()) - float(absent[row]))
                usual_flags[row, 1 : 1 + len(each.special)] = rest / len(each.special)
        edges, slopes = boundaries(quantiles) if steps else ramps(quantiles)
        usual = usual_steps(shares) if steps else usual_ramps(quantiles, shares)
        for name, value in (
            ("fill", fill[:, None]),
            ("flags", flags[:, :, None]),
            ("edges", edges[:, :, None]),
            ("slopes", slopes[:, :, None]),
            ("signs", np.array([each.monotone for each in features], dtype=np.float32)[:, None, None]),
            ("usual", usual[:, :, None]),
            ("usual_flags", usual_flags[:, :, None]),
        ):
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32)))
        self.width = width
        self.special, self.constrained = own > 0, bool(self.signs.any())
        bound = (edges.shape[1] + 1 + flags.shape[1]) ** -0.5
        self.weight = nn.Parameter(torch.empty(count, width, edges.shape[1]).uniform_(-bound, bound))
        self.trend = nn.Parameter(torch.empty(count, width, 1).uniform_(-bound, bound))
        # A special code that training rows never show says nothing.
        self.flag_weight = nn.Parameter(torch.zeros(count, width, flags.shape[1])) if flagged else None

    def forward(self, numbers: Tensor) -> Tensor:
        """Cells (batch, features) as tokens (batch, features x width)."""
        # Rows go last: each operation then runs along them, whatever the number of bins.
        x = numbers.t()
        x = torch.where(torch.isnan(x), self.fill, x)
        flagged = x[:, None, :] == self.flags if self.flag_weight is not None else None
        if flagged is not None and self.special:
            x = torch.where(flagged.any(dim=1), -torch.inf, x)
        codes = ((x[:, None, :] - self.edges) * self.slopes).clamp(0.0, 1.0)
        tokens = self._project(codes, flagged)
        return tokens.reshape(-1, numbers.shape[0]).t()

    def average(self) -> Tensor:
        """The token of the average code of training rows, (features x width)."""
        return self._project(self.usual, self.usual_flags).flatten()

    def bins(self) -> Tensor:
        """What each bin of the code adds to the token, (features, width, bins)."""
        weight = self.weight + self.trend / self.weight.shape[2]
        if self.constrained:
            weight = torch.where(self.signs == 0, weight, self.signs * weight.abs())
        return weight

    def _project(self, codes: Tensor, flagged: Tensor | None) -> Tensor:
        tokens = self.bins() @ codes
        if self.flag_weight is not None and flagged is not None:
            tokens = tokens + self.flag_weight @ flagged.to(tokens.dtype)
        return tokens


def ramps(quantiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower edges and slopes of the bins' parts of the code, each (features, bins).

    A bin of no width after one that has some is a step up to its value (at least e), so that the value differs from
    smaller ones; otherwise a step beyond it (more than e), so that it differs from larger ones.
    """
    lower, width = quantiles[:, :-1], np.diff(quantiles, axis=1)
    before = np.concatenate([np.zeros_like(width[:, :1]), width[:, :-1]], axis=1)
    with np.errstate(divide="ignore", over="ignore"):
        slopes = np.where(width > 0, np.minimum(1 / width, STEEP), STEEP)
    edges = np.where((width == 0) & (before > 0), just_below(lower), lower)
    return edges.astype(np.float32), slopes.astype(np.float32)


def boundaries(quantiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges between bins and slopes of steps there, each (features, bins - 1).

    A value on an edge is in the bin above, as where shares are counted.
    """
    edges = just_below(quantiles[:, 1:-1])
    return edges.astype(np.float32), np.full(edges.shape, STEEP, dtype=np.float32)


def just_below(values: np.ndarray) -> np.ndarray:
    """The next smaller numbers that differ enough to be told apart."""
    return np.minimum(np.nextafter(values, np.float32(-np.inf)), values - np.float32(NEXT_TO_ZERO))


def usual_ramps(quantiles: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The average code of training rows, (features, bins): within a bin, they are taken to be spread evenly."""
    beyond = _beyond(shares)
    return np.where(np.diff(quantiles, axis=1) > 0, beyond + shares / 2, beyond)


def usual_steps(shares: np.ndarray) -> np.ndarray:
    """The average of steps between bins, (features, bins - 1)."""
    return _beyond(shares)[:, :-1]


def _beyond(shares: np.ndarray) -> np.ndarray:
    """Shares of rows in later bins."""
    return np.cumsum(shares[:, ::-1], axis=1)[:, ::-1] - shares


class Categories(nn.Module):
    """Codes of categories -> a token for each feature, learnt; codes that training rows never show get the average.

    Args:
        shares: of each code among training rows, by feature.
        width: numbers in a token.
    """

    offsets: Tensor
    owner: Tensor
    known: Tensor
    usual: Tensor

    def __init__(self, shares: Sequence[Sequence[float]], *, width: int) -> None:
        super().__init__()
        sizes = [len(each) for each in shares]
        rows = torch.tensor([share for each in shares for share in each], dtype=torch.float32)
        usual = torch.zeros(len(sizes), len(rows))
        start = 0
        for feature, each in enumerate(shares):
            own = rows[start : start + len(each)]
            usual[feature, start : start + len(each)] = own / own.sum().clamp_min(torch.finfo(own.dtype).tiny)
            start += len(each)
        self.register_buffer("offsets", torch.tensor([0, *sizes[:-1]]).cumsum(0))
        self.register_buffer("known", (rows > 0).float()[:, None])
        self.register_buffer("usual", usual)
        self.register_buffer("owner", torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)))
        self.width = width
        self.weight = nn.Parameter(torch.randn(len(rows), width) * width**-0.5)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes (batch, features) as tokens (batch, features x width)."""
        return nn.functional.embedding(codes + self.offsets, self.table()).flatten(1)

    def table(self) -> Tensor:
        """The tokens of all codes of all features, below each other."""
        average = (self.usual @ self.weight)[self.owner]
        return torch.where(self.known > 0, self.weight, average)

    def average(self) -> Tensor:
        """The average token of training rows, (features x width)."""
        return (self.usual @ self.weight).flatten()


class Encoder(nn.Module):
    """Inputs of the model -> tokens.

    Tokens are in the order of `Schema.ordered`.

    Args:
        schema: the features.
        facts: `missing`, `categories`; arrays `quantiles`, `shares`.
        width: numbers in the token of a numeric feature.
        category_width: in that of a categorical one.
        steps: see `Numbers`.
    """

    def __init__(self, schema: Schema, facts: Facts, *, width: int, category_width: int, steps: bool = False) -> None:
        super().__init__()
        numeric, categorical = schema.numeric, schema.categorical
        self.numbers = self.categories = None
        if numeric:
            missing: Mapping[str, Any] = facts.values["missing"]
            self.numbers = Numbers(
                numeric,
                quantiles=facts.arrays["quantiles"].astype(np.float32),
                shares=facts.arrays["shares"].astype(np.float32),
                missing=[float(missing.get(each.name, 0.0)) for each in numeric],
                width=width,
                steps=steps,
            )
        if categorical:
            shares = [facts.values["categories"][each.name] for each in categorical]
            self.categories = Categories(shares, width=category_width)
        self.sizes = [len(numeric) * width, len(categorical) * category_width]

    def kinds(self) -> Tensor:
        """Kinds of the tokens' numbers, see `monotone`: 1 where they only rise as a feature moves towards risk."""
        kinds = torch.zeros(sum(self.sizes))
        if self.numbers is not None:
            kinds[: self.sizes[0]] = self.numbers.signs.abs().flatten().repeat_interleave(self.numbers.width)
        return kinds

    def forward(self, first: Tensor, second: Tensor | None = None) -> Tensor:
        """`numbers` and `codes`, or the one that there is, as tokens side by side: (batch, size)."""
        if self.categories is None:
            assert self.numbers is not None
            return self.numbers(first)
        if self.numbers is None:
            return self.categories(first)
        assert second is not None
        return torch.cat([self.numbers(first), self.categories(second)], dim=1)

    def average(self) -> Tensor:
        """The tokens of the average training row, (size)."""
        return torch.cat([each.average() for each in (self.numbers, self.categories) if each is not None])

    def per_feature(self, values: Tensor) -> Tensor:
        """Sums (batch, size) over the numbers of each token: (batch, features)."""
        numbers, categories = values.split(self.sizes, dim=1)
        parts = [
            part.unflatten(1, (-1, each.width)).sum(dim=2)
            for part, each in ((numbers, self.numbers), (categories, self.categories))
            if each is not None
        ]
        return torch.cat(parts, dim=1)
