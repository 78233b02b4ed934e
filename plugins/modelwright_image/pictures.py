"""Any picture -> uint8 pixels, upright, grey or RGB, square. Knows numpy and Pillow; knows no torch and no data set."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from modelwright.errors import DataError

Resize: TypeAlias = Literal["crop", "pad", "squash"]

GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"})
LIMIT_SIDE = 20_000
"""Pixels a side above which a picture is refused: a small file can claim to be huge (a decompression bomb)."""
LIMIT_PIXELS = 180_000_000
"""Pixels above which a picture is refused."""


class Unreadable(ValueError):
    """A picture that cannot be used. Its text is the reason alone: who asks knows the file's name."""


def decode(data: bytes, *, check_only: bool = False) -> Image.Image:
    """The picture in an encoded file, fully decoded and upright; the first frame of an animation.

    Args:
        data: the file's bytes.
        check_only: decode only as much as finds damage; a JPEG then comes out smaller. Its `info["size"]` keeps
            the upright width and height.

    Raises:
        Unreadable: empty, no picture, damaged, or too large.
    """
    if not data:
        raise Unreadable("the file is empty")
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise Unreadable(f"more than {LIMIT_PIXELS:,} pixels") from error
    except Exception as error:  # Pillow's readers raise whatever their parsing trips over
        raise Unreadable("no picture in a format that Pillow reads") from error
    return _upright(image, check_only=check_only)


def _upright(image: Image.Image, *, check_only: bool = False) -> Image.Image:
    """`image`, loaded and turned as its EXIF orientation says."""
    width, height = image.size
    if width > LIMIT_SIDE or height > LIMIT_SIDE or width * height > LIMIT_PIXELS:
        raise Unreadable(f"{width:,} x {height:,} pixels; the limit is {LIMIT_SIDE:,} a side, {LIMIT_PIXELS:,} in all")
    if not width or not height:
        raise Unreadable(f"it is {width} x {height} pixels")
    try:
        if check_only:
            image.draft(None, (1, 1))  # only JPEG heeds it: an eighth of the size
        image.load()
        orientation = image.getexif().get(0x0112, 1)
        if orientation in range(2, 9):
            image = ImageOps.exif_transpose(image)
    except Exception as error:  # Pillow's readers raise whatever their parsing trips over
        raise Unreadable(f"damaged or cut off ({' '.join(str(error).split())})") from error
    if check_only:
        image.info["size"] = (height, width) if orientation in range(5, 9) else (width, height)
    return image


def is_grey(image: Image.Image) -> bool:
    """Whether the picture is stored without colour (8 or 16 bits, with or without transparency)."""
    return image.mode in GREY_MODES


def to_array(raw: Any, *, channels: int) -> np.ndarray:
    """A picture as uint8 pixels, height x width x `channels`.

    16-bit grey is scaled to 8 bits, transparency is laid over white, EXIF rotation is undone, of an animation
    the first frame counts.

    Args:
        raw: a PIL image, a path, a file's bytes, or an array of uint8: H x W, or H x W x 1, 3 (RGB) or 4 (RGBA).
        channels: 1 (grey) or 3 (RGB).

    Raises:
        DataError: no file, no picture, damaged or too large; an array of another shape or dtype.
    """
    if isinstance(raw, np.ndarray):
        return _from_pixels(raw, channels=channels)
    where = str(raw) if isinstance(raw, (str, Path)) else "the picture"
    try:
        return flatten(_open(raw), channels=channels)
    except Unreadable as error:
        raise DataError(f"{where} could not be read: {error}; give another picture") from error


def _open(raw: Any) -> Image.Image:
    if isinstance(raw, Image.Image):
        return _upright(raw)
    if isinstance(raw, (bytes, bytearray, memoryview)):
        return decode(bytes(raw))
    if not isinstance(raw, (str, Path)):
        raise Unreadable(f"a {type(raw).__name__} is no path, PIL image, bytes or array")
    try:
        return decode(Path(raw).expanduser().read_bytes())
    except OSError as error:
        raise Unreadable((error.strerror or str(error)).lower()) from error


def flatten(image: Image.Image, *, channels: int) -> np.ndarray:
    """An upright PIL image as uint8 pixels, height x width x `channels`.

    Raises:
        Unreadable: pixels that cannot be put on a scale of 0 to 255.
    """
    mode = "L" if channels == 1 else "RGB"
    if image.mode.startswith("I"):
        deep = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        image = Image.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode == "F":
        raise Unreadable("floating-point pixels have no fixed range; save it with 8 or 16 bits")
    elif image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    if image.mode != mode:
        try:
            image = image.convert(mode)
        except ValueError as error:
            raise Unreadable(f"pixels of mode {image.mode} cannot become {mode}") from error
    pixels = np.asarray(image)
    return pixels[:, :, None] if channels == 1 else pixels


def _from_pixels(pixels: np.ndarray, *, channels: int) -> np.ndarray:
    shape = pixels.shape
    fits = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))
    if not fits or pixels.dtype != np.uint8 or 0 in shape:
        raise DataError(
            f"an array of {pixels.dtype} and shape {shape} is no picture: give uint8, height x width or "
            "height x width x 1, 3 or 4"
        )
    if len(shape) == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] == channels:
        return pixels
    return flatten(_as_image(pixels), channels=channels)


def _as_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def fit(pixels: np.ndarray, *, size: int, resize: Resize) -> np.ndarray:
    """Pixels as a square of `size` x `size` x C; antialiased bilinear. The same array where it has that size already.

    Args:
        pixels: uint8, height x width x C with C 1 or 3.
        resize: "crop" keeps the middle of the longer side, "pad" fills the shorter side with black, "squash" stretches.
    """
    height, width, channels = pixels.shape
    if height == width == size:
        return pixels
    image = _as_image(pixels)
    if resize == "pad":
        scale = size / max(height, width)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        canvas = Image.new(image.mode, (size, size))
        corner = ((size - inner[0]) // 2, (size - inner[1]) // 2)
        canvas.paste(image.resize(inner, Image.Resampling.BILINEAR), corner)
        image = canvas
    else:
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side) if resize == "crop" else None
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(image).reshape(size, size, channels)
