"""Boxes with labels on a picture. Knows numpy and Pillow; knows neither models nor files."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SMALLEST = 480
"""Pixels of the longer side that a picture is enlarged to before anything is drawn on it."""
# Okabe and Ito's colours: told apart by the colour-blind. Without black, which pictures are full of.
PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")


def color_of(label: int) -> str:
    """A colour for a class, the same for the same number; beyond the first few, hues that lie far apart.

    >>> color_of(0), color_of(7)
    ('#e69f00', '#f5483d')
    """
    if label < len(PALETTE):
        return PALETTE[label]
    hue = (label - len(PALETTE)) * 0.618034 % 1 + 0.01  # the golden ratio never comes near the same hue soon
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, 0.75, 0.96)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def overlay(
    pixels: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    *,
    classes: Sequence[str],
    scores: np.ndarray | None = None,
) -> Image.Image:
    """A picture with boxes and, at each, its class and score; a small one is enlarged, so that this can be read.

    The surest box is drawn last, over the others. A label stands above its box, or, where the picture ends, inside.

    Args:
        pixels: uint8, height x width x 3.
        boxes: (n, 4), in its pixels.
        labels: int, (n,).
        classes: names by label.
        scores: (n,); None: names alone.
    """
    image = Image.fromarray(np.ascontiguousarray(pixels))
    times = -(-SMALLEST // max(image.size))
    if times > 1:
        image = image.resize((image.width * times, image.height * times), Image.Resampling.BICUBIC)
    longest = max(image.size)
    font = ImageFont.load_default(float(max(11, longest // 55)))
    line = max(2, longest // 350)
    draw = ImageDraw.Draw(image)
    order = range(len(boxes)) if scores is None else np.argsort(scores, kind="stable").tolist()
    for row in order:
        left, top, right, bottom = (float(edge) * times for edge in boxes[row])
        color = color_of(int(labels[row]))
        right, bottom = max(left, right - 1), max(top, bottom - 1)
        # On a dark line that is a little wider, so that it is seen on any ground.
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="black", width=line + 2)
        draw.rectangle((left, top, right, bottom), outline=color, width=line)
        text = classes[int(labels[row])] + ("" if scores is None else f": {float(scores[row]):.2f}")
        _label(draw, (left, top), text, font=font, color=color, limits=image.size)
    return image


def _label(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    *,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    color: str,
    limits: tuple[int, int],
) -> None:
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text))
    width, height = right - left + 4, bottom - top + 4
    x = max(0, min(round(corner[0]), limits[0] - width))
    y = round(corner[1]) - height
    y = y if y >= 0 else round(corner[1])
    draw.rectangle((x, y, x + width, y + height), fill=color)
    draw.text((x + 2 - left, y + 2 - top), text, fill=_readable(color), font=font)


def _readable(color: str) -> str:
    """Black or white, whichever is read more easily on a colour."""
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"


def png(image: Image.Image) -> bytes:
    """A picture as the content of a file."""
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()
