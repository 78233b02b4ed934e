"""Further codecs of the toy task. Imports no torch, as a codec must not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from modelwright.codec import Columns, Context
from modelwright.testing.toy_codec import ToyCodec


@dataclass(frozen=True)
class UpsideDown(ToyCodec):
    """Finds the least likely the most likely."""

    def decode(self, outputs: Mapping[str, np.ndarray], context: Context | None) -> Columns:
        return super().decode({"logits": -outputs["logits"]}, context)


@dataclass(frozen=True)
class TwiceCodec(ToyCodec):
    """Makes two samples of each point and averages what is said of them."""

    def prepare(self, raws: Sequence[Any]) -> list[Any]:
        return [replace(sample, row=row) for row, sample in enumerate(super().prepare(raws)) for _ in range(2)]

    def merge(self, parts: Sequence[Columns]) -> Columns:
        mean = np.mean([part.array("probabilities") for part in parts], axis=0)
        return Columns({"probabilities": mean})


@dataclass(frozen=True)
class Forgetful(ToyCodec):
    """Does not say all of its settings."""

    scale: float = 1.0

    def decode(self, outputs: Mapping[str, np.ndarray], context: Context | None) -> Columns:
        return super().decode({"logits": self.scale * outputs["logits"]}, context)

    def settings(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Tempered(ToyCodec):
    """Softens what the model says, as was found best on validation data; says why; takes arrays of points."""

    temperature: float = 0.0

    def decode(self, outputs: Mapping[str, np.ndarray], context: Context | None) -> Columns:
        return super().decode({"logits": outputs["logits"] / (self.temperature or 1.0)}, context)

    def explain(self, outputs: Mapping[str, np.ndarray], context: Context | None) -> Columns:
        why = ["x" if x > y else "y" for x, y in np.abs(outputs["shares"])]
        return Columns({**self.decode(outputs, context), "why": why})

    def many(self, x: Any) -> Sequence[Any] | None:
        return x if isinstance(x, np.ndarray) and x.ndim == 2 else super().many(x)

    def batches(self, raws: Sequence[Any], *, size: int) -> Iterator[tuple[dict[str, np.ndarray], Context]]:
        if not isinstance(raws, np.ndarray):
            yield from super().batches(raws, size=size)
        else:
            yield {"point": raws.astype(np.float32)}, Context(np.arange(len(raws)))
