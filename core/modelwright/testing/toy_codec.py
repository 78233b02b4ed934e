"""The codec of the toy task. Knows numpy only, as the codec of every task: a bundle is served without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from modelwright.codec import Codec, Columns, Context, Sample
from modelwright.errors import DataError


@dataclass(frozen=True)
class ToyCodec(Codec):
    """Points as they are; logits as probabilities."""

    suffixes: ClassVar[tuple[str, ...]] = (".csv",)

    def prepare(self, raws: Sequence[Any]) -> list[Sample]:
        """Points (x, y) as float32.

        Raises:
            DataError: something else than two numbers.
        """
        samples: list[Sample] = []
        for row, raw in enumerate(raws):
            try:
                point = np.asarray(raw, dtype=np.float32).reshape(2)
            except (TypeError, ValueError) as error:
                raise DataError(f"{raw!r} is no point: give two numbers") from error
            samples.append(Sample({"point": point}, row))
        return samples

    def decode(self, outputs: Mapping[str, np.ndarray], context: Context | None) -> Columns:
        """One column `probabilities`, (samples, 3)."""
        shifted = np.exp(outputs["logits"] - outputs["logits"].max(axis=1, keepdims=True))
        return Columns({"probabilities": shifted / shifted.sum(axis=1, keepdims=True)})

    def read(self, path: Path) -> Iterator[tuple[str, Any]]:
        """One point a line: ``0.5,-0.25``."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read: {error}; give a file of points, x,y in each line") from error
        for number, line in enumerate(lines, start=1):
            yield f"{path}:{number}", line.split(",")
