"""Picture -> uint8 array of the model's size; logits -> class probabilities. Knows numpy and Pillow, no torch."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from modelwright.codec import Codec, Columns, Context, Format, Sample
from modelwright_image.pictures import fit, to_array
from modelwright_image.sources import SUFFIXES

SMALLEST = 256
"""Pixels of the longer side that a picture is enlarged to before anything is written on it."""


@dataclass(frozen=True)
class ImageCodec(Codec):
    """Makes pictures square, of one size and one number of channels.

    Attributes:
        classes: names, in the order of the logits.
        size: height and width in pixels.
        channels: 1 (grey) or 3 (RGB).
        resize: how a picture becomes square.
    """

    suffixes: ClassVar[tuple[str, ...]] = tuple(sorted(SUFFIXES))

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

    def records(self, predictions: Columns) -> list[dict[str, Any]]:
        """Label, confidence, and every class with its probability, in the classes' order."""
        return [self._record(row) for row in predictions.array("probabilities")]

    def _record(self, probabilities: np.ndarray) -> dict[str, Any]:
        shares = [round(float(each), 6) for each in probabilities]
        best = int(probabilities.argmax())
        return {
            "label": self.classes[best],
            "confidence": shares[best],
            "probabilities": dict(zip(self.classes, shares, strict=True)),
        }

    def formats(self) -> Mapping[str, Format]:
        """`overlay`: each picture with what was said of it."""
        return {"overlay": Format("each picture with label and confidence on it, as PNG", self._overlay)}

    def _overlay(self, name: str, raw: Any, prediction: Columns) -> tuple[str, bytes]:
        (record,) = self.records(prediction)
        image = draw_line(to_array(raw, channels=3), f"{record['label']} {record['confidence']:.1%}")
        content = io.BytesIO()
        image.save(content, "PNG")
        return f"{Path(name).stem}.png", content.getvalue()


def draw_line(pixels: np.ndarray, text: str) -> Image.Image:
    """A picture with a line of text below it; a small one is enlarged, so that the line can be read.

    Args:
        pixels: uint8, height x width x 3.
    """
    image = Image.fromarray(pixels)
    times = -(-SMALLEST // max(image.size))
    if times > 1:
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    font = ImageFont.load_default(max(12, max(image.size) // 20))
    left, top, right, bottom = (round(each) for each in font.getbbox(text))
    edge = max(3, (bottom - top) // 4)
    # Text wider than the picture widens the canvas: half a label is no label.
    canvas = Image.new("RGB", (max(image.width, right - left + 2 * edge), image.height + bottom - top + 2 * edge))
    canvas.paste(image, ((canvas.width - image.width) // 2, 0))
    ImageDraw.Draw(canvas).text((edge - left, image.height + edge - top), text, fill="white", font=font)
    return canvas
