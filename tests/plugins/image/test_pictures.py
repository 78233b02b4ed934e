"""Any picture becomes upright uint8 pixels, grey or RGB, square; what cannot is named."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from modelwright.errors import DataError
from modelwright_image.pictures import Unreadable, decode, fit, is_grey, to_array

Encode = Callable[..., bytes]


def flat(colour: object, mode: str = "RGB", size: tuple[int, int] = (10, 8)) -> Image.Image:
    return Image.new(mode, size, colour)  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "I"])
def test_every_mode_becomes_the_channels_asked_for(mode: str, channels: int) -> None:
    pixels = to_array(Image.new(mode, (10, 8)), channels=channels)
    assert pixels.shape == (8, 10, channels)
    assert pixels.dtype == np.uint8


def test_transparency_is_laid_over_white(encode: Encode) -> None:
    for image in (flat((200, 0, 0, 0), "RGBA"), flat((0, 0), "LA")):
        assert (to_array(encode(image), channels=3) == 255).all()
    half = to_array(flat((0, 0, 0, 128), "RGBA"), channels=3)
    assert abs(int(half[0, 0, 0]) - 127) <= 1


def test_a_transparent_palette_colour_is_white(encode: Encode) -> None:
    image = flat(0, "P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((0, 0), 1)
    data = encode(image, transparency=0)
    pixels = to_array(data, channels=3)
    assert pixels[0, 0].tolist() == [200, 100, 50]
    assert (pixels[1:] == 255).all()


@pytest.mark.parametrize(("deep", "shallow"), [(0, 0), (65535, 255), (32768, 128), (257, 1), (128, 0)])
def test_16_bit_grey_is_scaled(encode: Encode, deep: int, shallow: int) -> None:
    image = Image.fromarray(np.full((8, 10), deep, np.uint16))
    assert is_grey(decode(encode(image)))
    for raw in (image, encode(image), encode(image, "TIFF"), Image.fromarray(np.full((8, 10), deep, np.int32))):
        assert (to_array(raw, channels=1) == shallow).all()


def test_exif_rotation_is_undone_once(encode: Encode) -> None:
    image = flat("black", size=(20, 10))
    image.paste("white", (0, 0, 20, 2))  # a white top edge
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise: the top edge is the right edge then
    data = encode(image, "JPEG", exif=exif, quality=95)
    pixels = to_array(data, channels=1)
    assert pixels.shape == (20, 10, 1)
    assert pixels[:, -1].mean() > 200 > 50 > pixels[:, 0].mean()
    assert np.array_equal(to_array(decode(data), channels=1), pixels)
    assert np.array_equal(to_array(Image.open(io.BytesIO(data)), channels=1), pixels)


def test_checking_only_tells_the_upright_size(encode: Encode) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    checked = decode(encode(flat("red", size=(64, 48)), "JPEG", exif=exif), check_only=True)
    assert checked.info["size"] == (48, 64)


def test_the_first_frame_of_an_animation_counts(encode: Encode) -> None:
    data = encode(flat("red"), "GIF", save_all=True, append_images=[flat("blue")])
    assert to_array(data, channels=3)[0, 0].tolist() == [255, 0, 0]


def test_paths_and_bytes_and_images_and_arrays_agree(tmp_path: Path, picture: Encode) -> None:
    data = picture(1)
    path = tmp_path / "a.png"
    path.write_bytes(data)
    image = Image.open(path)
    expected = np.asarray(image)
    for raw in (path, str(path), data, bytearray(data), image, expected):
        assert np.array_equal(to_array(raw, channels=3), expected)


def test_arrays_of_every_good_shape() -> None:
    grey = np.arange(80, dtype=np.uint8).reshape(8, 10)
    assert np.array_equal(to_array(grey, channels=1)[..., 0], grey)
    assert np.array_equal(to_array(grey[..., None], channels=3), np.repeat(grey[..., None], 3, axis=2))
    rgba = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    assert np.array_equal(to_array(rgba, channels=1)[..., 0], grey)
    rgb = np.ascontiguousarray(rgba[..., :3])
    assert to_array(rgb, channels=3) is rgb


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8), np.float32),
        np.zeros((8, 8, 2), np.uint8),
        np.zeros((1, 8, 8, 3), np.uint8),
        np.zeros(8, np.uint8),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_an_array_that_is_no_picture(array: np.ndarray) -> None:
    with pytest.raises(DataError, match="is no picture: give uint8"):
        to_array(array, channels=3)


def huge_png(width: int, height: int) -> bytes:
    """A header that claims any size; a few bytes."""
    body = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + body
    data = b"IDAT" + zlib.compress(b"")
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", len(body))
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", len(data) - 4)
        + data
        + struct.pack(">I", zlib.crc32(data))
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty", "the file is empty"),
        ("text", "no picture in a format that Pillow reads"),
        ("half", "damaged or cut off"),
        ("half_jpeg", "damaged or cut off"),
        ("long", "the limit is 20,000 a side"),
        ("bomb", "more than 180,000,000 pixels"),
        ("float", "floating-point pixels"),
        ("lab", "mode LAB"),
        ("missing", "no such file"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_reason(
    tmp_path: Path, encode: Encode, picture: Encode, name: str, reason: str
) -> None:
    path = tmp_path / f"{name}.png"
    data = {
        "empty": b"",
        "text": b"not a picture",
        "half": picture(1, size=(64, 64))[:6000],
        "half_jpeg": encode(Image.open(io.BytesIO(picture(1, size=(64, 64)))), "JPEG")[:1500],
        "long": huge_png(20_001, 5),
        "bomb": huge_png(19_999, 19_999),
        "float": encode(flat(0.5, "F"), "TIFF"),
        "lab": encode(flat(0, "LAB"), "TIFF"),
    }.get(name)
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DataError, match=reason) as error:
        to_array(path, channels=1)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_jpeg_is_found_by_checking_alone(encode: Encode, picture: Encode) -> None:
    whole = encode(Image.open(io.BytesIO(picture(1, size=(64, 64)))), "JPEG")
    decode(whole, check_only=True)
    with pytest.raises(Unreadable, match="damaged or cut off"):
        decode(whole[:1500], check_only=True)


def test_pictures_of_no_kind_and_no_size() -> None:
    with pytest.raises(DataError, match="a dict is no path, PIL image, bytes or array"):
        to_array({}, channels=3)
    with pytest.raises(DataError, match="it is 0 x 5 pixels"):
        to_array(Image.new("L", (0, 5)), channels=1)


def test_fit_leaves_the_right_size_alone() -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    assert fit(pixels, size=16, resize="crop") is pixels


@given(
    st.integers(1, 60), st.integers(1, 60), st.integers(8, 40), st.sampled_from(["crop", "pad", "squash"]),
    st.sampled_from([1, 3]),
)  # fmt: skip
def test_fit_makes_squares_and_keeps_what_is_flat(height: int, width: int, size: int, how: str, channels: int) -> None:
    fitted = fit(np.full((height, width, channels), 77, np.uint8), size=size, resize=how)  # type: ignore[arg-type]
    assert fitted.shape == (size, size, channels)
    assert fitted.dtype == np.uint8
    kept = {77} if how != "pad" or height == width else {0, 77}
    assert set(np.unique(fitted)) <= kept
    assert 77 in fitted


def test_crop_keeps_the_middle_and_pad_keeps_all() -> None:
    pixels = np.zeros((10, 30, 1), np.uint8)
    pixels[:, 10:20] = 200
    pixels[:, :2] = 100
    assert (fit(pixels, size=10, resize="crop") == 200).all()
    padded = fit(pixels, size=30, resize="pad")
    assert np.array_equal(padded[10:20], pixels)
    assert (padded[:10] == 0).all()
    assert (padded[20:] == 0).all()
    assert fit(pixels, size=30, resize="squash")[:, 0].min() > 50


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::2] = 255
    assert abs(fit(stripes, size=16, resize="squash").astype(int) - 127).max() < 20
