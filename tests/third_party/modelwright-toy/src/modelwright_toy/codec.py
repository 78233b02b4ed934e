"""Records of a harbour as arrays, arrays as forecasts. Knows numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modelwright import Codec, Columns, Context, Sample

PAST, AHEAD = 48, 12


@dataclass(frozen=True)
class TideCodec(Codec):
    """A raw thing is a mapping: `level`, the last 48 hours in metres, and `pressure`, the next 12 in hPa."""

    def prepare(self, raws: Sequence[Mapping[str, Sequence[float]]]) -> list[Sample]:
        """Both as float32.

        Raises:
            ValueError: a record of another length.
        """
        samples: list[Sample] = []
        for row, raw in enumerate(raws):
            arrays = {name: np.asarray(raw[name], dtype=np.float32) for name in ("level", "pressure")}
            found = (len(arrays["level"]), len(arrays["pressure"]))
            if found != (PAST, AHEAD):
                raise ValueError(f"record {row} has {found[0]} levels and {found[1]} pressures, not {PAST} and {AHEAD}")
            samples.append(Sample(arrays, row))
        return samples

    def decode(self, outputs: Mapping[str, np.ndarray], context: Context | None) -> Columns:
        """`forecast`: metres, (records, 12)."""
        return Columns({"forecast": outputs["forecast"]})
