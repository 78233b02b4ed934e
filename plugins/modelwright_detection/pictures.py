"""Any picture -> uint8 pixels, upright, RGB. Knows numpy and Pillow; knows no torch, no labels and no data set."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from modelwright.errors import DataError
from modelwright.stores import Store

_USUAL = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
SUFFIXES = frozenset((*_USUAL, ".jpe", ".jfif", ".dib", ".avif", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2"))
"""Files that are taken for pictures; lower case."""
LIMIT_SIDE = 20_000
"""Pixels a side from which on a picture is refused: a small file can claim to be huge (a decompression bomb)."""
LIMIT_PIXELS = 178_000_000
"""Pixels above which a picture is refused; where Pillow itself refuses."""


class Unreadable(ValueError):
    """A picture that cannot be used. Its text is the reason alone: who asks knows the file's name."""


def is_picture(name: str) -> bool:
    """Whether a file's name ends as pictures' do, in whatever case."""
    return Path(name).suffix.lower() in SUFFIXES


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
        raise Unreadable(f"more than {LIMIT_PIXELS:,} pixels; cut it into tiles") from error
    except Exception as error:  # Pillow's readers raise whatever their parsing trips over
        raise Unreadable("no picture in a format that Pillow reads") from error
    return _upright(image, check_only=check_only)


def _upright(image: Image.Image, *, check_only: bool = False) -> Image.Image:
    """`image`, loaded and turned as its EXIF orientation says."""
    width, height = image.size
    if max(width, height) >= LIMIT_SIDE or width * height > LIMIT_PIXELS:
        limits = f"the limit is below {LIMIT_SIDE:,} a side and {LIMIT_PIXELS:,} in all"
        raise Unreadable(f"{width:,} x {height:,} pixels, {limits}; cut it into tiles")
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
    image.info["size"] = (height, width) if orientation in range(5, 9) else (width, height)
    return image


def flatten(image: Image.Image) -> np.ndarray:
    """An upright PIL image as uint8 pixels, height x width x 3.

    16-bit grey is scaled to 8 bits, transparency is laid over white.

    Raises:
        Unreadable: pixels that cannot be put on a scale of 0 to 255.
    """
    if image.mode.startswith("I"):
        deep = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        image = Image.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode == "F":
        raise Unreadable("floating-point pixels have no fixed range; save it with 8 or 16 bits")
    elif image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    if image.mode != "RGB":
        try:
            image = image.convert("RGB")
        except ValueError as error:
            raise Unreadable(f"pixels of mode {image.mode} cannot become RGB") from error
    return np.asarray(image)


def to_array(raw: Any) -> np.ndarray:
    """A picture as uint8 pixels, height x width x 3, RGB, upright.

    Args:
        raw: a path, a file's bytes, a PIL image, or an array of uint8: H x W, or H x W x 1, 3 (RGB) or 4 (RGBA).

    Raises:
        DataError: no file, no picture, damaged or too large; an array of another shape or dtype.
    """
    if isinstance(raw, np.ndarray):
        return _from_pixels(raw)
    where = str(raw) if isinstance(raw, (str, Path)) else "the picture"
    try:
        return flatten(_opened(raw))
    except Unreadable as error:
        raise DataError(f"{where} could not be read: {error}; give another picture") from error


def _opened(raw: Any) -> Image.Image:
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


def _from_pixels(pixels: np.ndarray) -> np.ndarray:
    shape = pixels.shape
    fits = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))
    if not fits or pixels.dtype != np.uint8 or 0 in shape:
        raise DataError(
            f"an array of {pixels.dtype} and shape {shape} is no picture: give uint8, height x width or "
            "height x width x 1, 3 or 4"
        )
    if len(shape) == 3 and shape[2] == 3:
        return pixels
    return flatten(Image.fromarray(pixels if len(shape) == 2 or shape[2] == 4 else pixels[:, :, 0]))


def read_picture(store: Store, name: str) -> np.ndarray:
    """A picture in a store as uint8 pixels, height x width x 3.

    Raises:
        DataError: it cannot be read any more (it was checked before).
    """
    try:
        return flatten(decode(store.read(name)))
    except (OSError, Unreadable) as error:
        reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
        raise DataError(f"{store.where(name)} was changed while it was in use: {reason}") from error


def shrink(pixels: np.ndarray, longest: int) -> np.ndarray:
    """Pixels scaled so that the longer side is `longest`; bilinear. The same array where it is so already."""
    height, width = pixels.shape[:2]
    if max(height, width) == longest:
        return pixels
    scale = longest / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
