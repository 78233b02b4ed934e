"""Picture -> uint8 array of the model's size; logits -> class probabilities. Knows numpy and Pillow, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from modelwright.codec import Codec, Columns, Context, Sample
from modelwright_image.pictures import fit, to_array


@dataclass(frozen=True)
class ImageCodec(Codec):
    """Makes pictures square, of one size and one number of channels.

    Attributes:
        classes: names, in the order of the logits.
        size: height and width in pixels.
        channels: 1 (grey) or 3 (RGB).
        resize: how a picture becomes square.
    """

    classes: tuple[str, ...]
    size: int
    channels: int
    resize: Literal["crop", "pad", "squash"] = "crop"

    def prepare(self, raws: Sequence[Any]) -> list[Sample]:
        """Pictures (PIL images, paths, or arrays H x W [x C] of uint8) as uint8 arrays C x size x size.

        Raises:
            modelwright.errors.DataError: a picture that cannot be read.
        """
        samples: list[Sample] = []
        for row, raw in enumerate(raws):
            pixels = fit(to_array(raw, channels=self.channels), size=self.size, resize=self.resize)
            samples.append(Sample({"image": np.ascontiguousarray(pixels.transpose(2, 0, 1))}, row))
        return samples

    def decode(self, outputs: Mapping[str, np.ndarray], context: Context | None) -> Columns:
        """Logits (batch, classes) as a column `probabilities` of the same shape, float32; its rows sum to 1."""
        logits = np.asarray(outputs["logits"], dtype=np.float32)
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return Columns({"probabilities": shifted / shifted.sum(axis=1, keepdims=True)})
