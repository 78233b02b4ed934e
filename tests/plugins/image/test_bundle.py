"""Bundles of a classifier: pictures in, labels and drawn pictures out."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modelwright.bundle.codecs import describe, restore
from modelwright.bundle.predicting import answers
from modelwright.bundle.runtime import Bundle
from modelwright.codec import Columns
from modelwright_image.codec import ImageCodec, draw_line

CODEC = ImageCodec(("cat", "dog"), 12, 3)
SAID = Columns({"probabilities": np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)})


class Brightness:
    """A graph that takes a bright picture for a dog."""

    inputs = (type("Input", (), {"name": "image"}),)

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        bright = image.reshape(len(image), -1).mean(axis=1) / 127.5 - 1
        return {"logits": np.stack([-bright, bright], axis=1).astype(np.float32)}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle(tmp_path, CODEC, Brightness(), {})  # type: ignore[arg-type]


def test_the_codec_travels_as_json():
    record = json.loads(json.dumps(describe(CODEC)))
    assert record["codec"] == "modelwright_image.codec:ImageCodec"
    assert restore(record) == CODEC


def test_a_record_names_the_label_and_every_class():
    assert CODEC.records(SAID) == [
        {"label": "dog", "confidence": 0.75, "probabilities": {"cat": 0.25, "dog": 0.75}},
        {"label": "cat", "confidence": 0.5, "probabilities": {"cat": 0.5, "dog": 0.5}},
    ]


def test_pictures_of_a_folder_are_told_and_a_bad_one_is_marked(
    bundle: Bundle, tmp_path: Path, write: Callable[[Path, Mapping[str, bytes]], Path], encode: Callable[..., bytes]
):
    dark, bright = (encode(Image.new("L", (9, 30), grey)) for grey in (10, 240))
    write(tmp_path / "seen", {"a.png": dark, "b/B.PNG": bright, "c.png": b"no picture", "d.txt": b"words"})
    found = list(answers(bundle, [str(tmp_path / "seen")]))
    assert [Path(each.name).name for each in found] == ["a.png", "B.PNG", "c.png"]
    labels = [None if each.row is None else CODEC.records(each.row)[0]["label"] for each in found]
    assert labels == ["cat", "dog", None]
    assert "c.png could not be read: no picture" in found[2].error


def test_an_array_is_one_picture(bundle: Bundle):
    assert bundle.predict(np.full((20, 10), 250, np.uint8))["label"] == "dog"
    assert [each["label"] for each in bundle.predict([np.zeros((5, 5, 3), np.uint8)])] == ["cat"]


@pytest.mark.parametrize("size", [(8, 8), (8, 3), (700, 500)])
def test_an_overlay_is_the_picture_with_a_line_below_it(size: tuple[int, int]):
    width, height = size
    pixels = np.full((height, width, 3), 99, np.uint8)
    name, content = CODEC.formats()["overlay"].write("there/cat.jpeg", pixels, SAID.select([0]))
    assert name == "cat.png"
    drawn = np.asarray(Image.open(io.BytesIO(content)))
    times = -(-256 // max(size))
    assert (drawn[: height * times, drawn.shape[1] // 2] == 99).all()
    below = drawn[height * times :]
    assert below.shape[0] > 10
    assert (below > 200).any()


def test_a_long_label_is_written_whole():
    one, two = (draw_line(np.zeros((8, 8, 3), np.uint8), "a long label" * times) for times in (1, 6))
    assert two.width > one.width == 256
    edge = np.asarray(two)[256:, [0, -1]]
    assert (edge == 0).all()
