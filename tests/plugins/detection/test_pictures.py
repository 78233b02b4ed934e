"""Any picture becomes upright uint8 RGB pixels; what cannot is named with its reason."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.plugins.detection.data_made import encode, picture, write

from modelwright.errors import DataError
from modelwright.stores import open_store
from modelwright_detection.pictures import Unreadable, decode, is_picture, read_picture, shrink, to_array


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "I"])
def test_every_mode_becomes_rgb(mode):
    pixels = to_array(Image.new(mode, (10, 8)))
    assert (pixels.shape, pixels.dtype) == ((8, 10, 3), np.uint8)


def test_depth_transparency_and_animation():
    deep = Image.fromarray(np.full((8, 10), 32768, np.uint16))
    assert (to_array(encode(deep)) == 128).all()
    assert (to_array(encode(Image.new("RGBA", (10, 8), (200, 0, 0, 0)))) == 255).all()
    red, blue = (Image.new("RGB", (10, 8), colour) for colour in ("red", "blue"))
    assert to_array(encode(red, "GIF", save_all=True, append_images=[blue]))[0, 0].tolist() == [255, 0, 0]


def test_exif_rotation_is_undone_once():
    image = Image.new("RGB", (20, 10))
    image.paste("white", (0, 0, 20, 2))  # a white top edge
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise: the top edge is the right edge then
    data = encode(image, "JPEG", exif=exif, quality=95)
    pixels = to_array(data)
    assert pixels.shape == (20, 10, 3)
    assert pixels[:, -1].mean() > 200 > 50 > pixels[:, 0].mean()
    assert np.array_equal(to_array(decode(data)), pixels)
    large = encode(image.resize((640, 320)), "JPEG", exif=exif)
    assert decode(large, check_only=True).info["size"] == decode(large).info["size"] == (320, 640)


def test_paths_bytes_images_and_arrays_agree(tmp_path):
    data = picture(1)
    (tmp_path / "a.png").write_bytes(data)
    image = Image.open(tmp_path / "a.png")
    expected = np.asarray(image)
    for raw in (tmp_path / "a.png", str(tmp_path / "a.png"), data, bytearray(data), image, expected):
        assert np.array_equal(to_array(raw), expected)
    grey = expected[..., 0]
    assert np.array_equal(to_array(grey), np.repeat(grey[..., None], 3, axis=2))
    assert np.array_equal(to_array(grey[..., None]), to_array(grey))
    assert np.array_equal(to_array(np.dstack([expected, np.full_like(grey, 255)])), expected)
    assert to_array(expected) is expected


@pytest.mark.parametrize(
    "array", [np.zeros((8, 8)), np.zeros((8, 8, 2), np.uint8), np.zeros(8, np.uint8), np.zeros((0, 8, 3), np.uint8)]
)
def test_an_array_that_is_no_picture(array):
    with pytest.raises(DataError, match="is no picture: give uint8"):
        to_array(array)


def huge_png(width, height):
    """A header that claims any size; a few bytes."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b""))]
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty", "the file is empty"),
        ("text", "no picture in a format that Pillow reads"),
        ("half", "damaged or cut off"),
        ("long", "20,000 x 5 pixels, the limit is below 20,000 a side"),
        ("square", "more than 178,000,000 pixels; cut it into tiles"),
        ("bomb", "13,363 x 13,363 pixels, the limit is"),
        ("float", "floating-point pixels"),
        ("missing", "no such file"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_cannot_be_read_is_named_with_its_reason(tmp_path, name, reason):
    path = tmp_path / f"{name}.png"
    data = {
        "empty": b"",
        "text": b"not a picture",
        "half": picture(1, (64, 64))[:6000],
        "long": huge_png(20_000, 5),
        "square": huge_png(20_000, 20_000),
        "bomb": huge_png(13_363, 13_363),
        "float": encode(Image.new("F", (10, 8), 0.5), "TIFF"),
    }.get(name)
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DataError, match=reason) as error:
        to_array(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_pictures_of_no_kind_and_no_size():
    with pytest.raises(DataError, match="a dict is no path, PIL image, bytes or array"):
        to_array({})
    with pytest.raises(DataError, match="it is 0 x 5 pixels"):
        to_array(Image.new("L", (0, 5)))


def test_a_mode_that_cannot_become_rgb(monkeypatch):
    image = Image.new("CMYK", (5, 5))

    def refuse(self, mode):
        raise ValueError("conversion not supported")

    monkeypatch.setattr(Image.Image, "convert", refuse)
    with pytest.raises(DataError, match="pixels of mode CMYK cannot become RGB"):
        to_array(image)


def test_a_damaged_jpeg_is_found_by_checking_alone():
    whole = picture(1, (64, 64), "JPEG")
    decode(whole, check_only=True)
    with pytest.raises(Unreadable, match="damaged or cut off"):
        decode(whole[:1500], check_only=True)


def test_a_picture_that_changes_while_it_is_in_use(tmp_path):
    store = open_store(write(tmp_path / "set", {"a.png": picture(1), "b.png": b""}))
    assert read_picture(store, "a.png").shape == (30, 40, 3)
    for name, reason in (("b.png", "the file is empty"), ("c.png", "no such file or directory")):
        with pytest.raises(DataError, match=rf"{name} was changed while it was in use: {reason}"):
            read_picture(store, name)


def test_endings():
    assert [is_picture(name) for name in ("a.JPG", "b/c.webp", "d.txt", "jpg", "e.png/f")] == [
        True,
        True,
        False,
        False,
        False,
    ]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(8, 40))
def test_shrinking_keeps_the_shape(height, width, longest):
    pixels = shrink(np.full((height, width, 3), 77, np.uint8), longest)
    assert max(pixels.shape[:2]) == longest
    assert abs(pixels.shape[0] * width - pixels.shape[1] * height) <= max(height, width)
    assert (pixels == 77).all()


def test_a_picture_of_the_right_size_is_left_alone():
    pixels = np.zeros((20, 32, 3), np.uint8)
    assert shrink(pixels, 32) is pixels
