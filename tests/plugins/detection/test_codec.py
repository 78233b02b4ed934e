"""The codec: pictures in any form and size, boxes back in their own pixels, formats, tiles."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.plugins.detection.boxes_made import random_boxes

from modelwright.bundle.codecs import describe, restore
from modelwright.codec import Columns, merged
from modelwright.errors import DataError
from modelwright_detection.boxes import Letterbox
from modelwright_detection.codec import PADDING, DetectionCodec, letterboxed

CODEC = DetectionCodec(("cat", "dog"), 64, nms=False, confidence=0.5)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def outputs(boxes, scores):
    """What a network would say: for each picture boxes of the input and scores by class."""
    return {"boxes": np.array(boxes, np.float32), "scores": np.array(scores, np.float32)}


# Before the model -----------------------------------------------------------------------------------------------------


def test_a_picture_in_any_form_gives_the_same_sample(tmp_path):
    pixels = noise(30, 50)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    forms = [pixels, Image.fromarray(pixels), data, str(tmp_path / "a.png"), tmp_path / "a.png"]
    samples = CODEC.prepare(forms)
    assert [sample.row for sample in samples] == list(range(5))
    for sample in samples:
        assert sample.arrays["image"].shape == (3, 64, 64)
        assert sample.arrays["image"].dtype == np.uint8
        np.testing.assert_array_equal(sample.arrays["image"], samples[0].arrays["image"])
        assert (sample.context["h"], sample.context["w"]) == (30, 50)


def test_a_grey_picture_becomes_three_channels():
    (sample,) = CODEC.prepare([np.full((20, 20), 200, np.uint8)])
    assert (sample.arrays["image"] == 200).all()


@pytest.mark.parametrize("raw", [b"", b"no picture", "nowhere.png", np.zeros((2, 2)), 3])
def test_what_is_no_picture_is_said_in_a_line(raw):
    with pytest.raises(DataError) as raised:
        CODEC.prepare([raw])
    assert "\n" not in str(raised.value)


def test_the_letterbox_is_grey_around_the_picture_and_leaves_one_that_fits_alone():
    wide = letterboxed(np.zeros((10, 20, 3), np.uint8), 40)
    np.testing.assert_array_equal(wide[:10], PADDING)
    np.testing.assert_array_equal(wide[30:], PADDING)
    assert (wide[10:30] == 0).all()
    pixels = noise(40, 40)
    np.testing.assert_array_equal(letterboxed(pixels, 40), pixels)


# After the model ------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.integers(8, 200), st.integers(8, 200), st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_boxes_come_back_in_the_pixels_of_the_picture(height, width, seed, count):
    rng = np.random.default_rng(seed)
    own = random_boxes(rng, count, side=1.0) * np.array([width, height] * 2, np.float32)
    own = own[((own[:, 2:] - own[:, :2]) > 0.5).all(axis=1)]
    scores = np.zeros((1, len(own), 2))
    scores[0, :, 1] = np.linspace(0.9, 0.6, len(own))
    _, context = CODEC.collate(CODEC.prepare([noise(height, width)]))
    said = CODEC.decode(outputs([Letterbox(height, width, 64).to_input(own)], scores), context)
    np.testing.assert_allclose(said["boxes"][0], own, atol=1e-3)
    assert said["labels"][0].tolist() == [1] * len(own)
    assert (said["height"][0], said["width"][0]) == (height, width)
    assert said["boxes"][0].dtype == said["scores"][0].dtype == np.float32
    assert said["labels"][0].dtype == np.int64


def test_boxes_in_the_padding_alone_are_dropped():
    _, context = CODEC.collate(CODEC.prepare([noise(32, 64)]))
    said = CODEC.decode(outputs([[[0, 0, 64, 10], [0, 10, 64, 30]]], [[[0.9, 0], [0.8, 0]]]), context)
    np.testing.assert_array_equal(said["boxes"][0], [[0, 0, 64, 14]])


def test_without_a_context_pictures_are_as_large_as_the_input():
    said = CODEC.decode(outputs([[[1, 2, 30, 40]]], [[[0.9, 0]]]), None)
    np.testing.assert_array_equal(said["boxes"][0], [[1, 2, 30, 40]])
    assert said["width"].tolist() == [64]


def test_overlapping_boxes_are_thinned_out_where_the_model_gives_several():
    boxes, scores = [[[1, 1, 30, 30], [2, 1, 30, 30], [2, 1, 30, 30]]], [[[0.9, 0], [0.8, 0], [0, 0.3]]]
    thinned = DetectionCodec(("cat", "dog"), 64).decode(outputs(boxes, scores), None)
    assert thinned["labels"][0].tolist() == [0, 1]
    assert CODEC.decode(outputs(boxes, scores), None)["labels"][0].tolist() == [0, 0, 1]


def test_no_more_boxes_than_asked_and_none_that_is_too_unsure():
    codec = DetectionCodec(("cat",), 64, nms=False, least=0.1, most=2)
    boxes = [[[place, 0, place + 9, 9] for place in (0, 10, 20, 30)]]
    said = codec.decode(outputs(boxes, [[[0.05], [0.3], [0.2], [0.4]]]), None)
    np.testing.assert_allclose(said["scores"][0], [0.4, 0.3])


def test_nothing_found_is_a_row_too():
    said = CODEC.decode(outputs(np.zeros((2, 3, 4)), np.zeros((2, 3, 2))), None)
    assert [each.shape for each in said["boxes"]] == [(0, 4), (0, 4)]
    assert CODEC.records(said)[0] == {"found": "nothing", "width": 64, "height": 64, "objects": []}


# Files and people -----------------------------------------------------------------------------------------------------


@pytest.fixture
def said():
    boxes, scores = [[[8, 8, 32, 40], [40, 40, 60, 60], [0, 0, 5, 5]]], [[[0.9, 0], [0, 0.75], [0.2, 0]]]
    return CODEC.decode(outputs(boxes, scores), None)


def test_records_tell_what_is_sure_enough(said):
    (record,) = CODEC.records(said)
    assert record["found"] == "1 cat, 1 dog"
    assert record["objects"] == [
        {"label": "cat", "score": 0.9, "box": [8.0, 8.0, 32.0, 40.0]},
        {"label": "dog", "score": 0.75, "box": [40.0, 40.0, 60.0, 60.0]},
    ]
    json.dumps(record)


def test_coco_json_of_all_pictures_can_be_read_by_others(said):
    found = json.loads(CODEC.formats()["coco"].write([("some/where/pet.jpg", said), ("other.jpg", said)]))
    assert found["images"] == [
        {"id": 1, "file_name": "some/where/pet.jpg", "width": 64, "height": 64},
        {"id": 2, "file_name": "other.jpg", "width": 64, "height": 64},
    ]
    assert found["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert [each["bbox"] for each in found["annotations"]] == [[8, 8, 24, 32], [40, 40, 20, 20]] * 2
    assert [each["category_id"] for each in found["annotations"]] == [1, 2, 1, 2]
    assert [each["id"] for each in found["annotations"]] == [1, 2, 3, 4]
    assert len(json.loads(CODEC.formats()["coco-all"].write([("pet.jpg", said)]))["annotations"]) == 3
    coco = pytest.importorskip("faster_coco_eval").COCO(found)
    assert len(coco.getAnnIds(imgIds=[2])) == 2


def test_overlay_is_a_picture_with_boxes_on_it(said):
    pixels = np.zeros((64, 64, 3), np.uint8)
    name, content = CODEC.formats()["overlay"].write("pet.jpg", pixels, said)
    image = np.asarray(Image.open(io.BytesIO(content)))
    assert name == "pet.png"
    assert image.any()


def test_a_bundle_can_make_the_codec_again():
    assert restore(describe(CODEC), plugins=[Point()]) == CODEC


class Point:
    value = "modelwright_detection"


def test_the_codec_needs_no_torch():
    code = "import sys, modelwright_detection.codec, modelwright_detection.draw; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# Tiles ----------------------------------------------------------------------------------------------------------------

TILED = DetectionCodec(("cat", "dog"), 64, nms=False, tile=64, overlap=0.25)


def bright_spots(arrays):
    """A network that finds white things: one box around all white pixels of each input."""
    boxes = np.zeros((len(arrays["image"]), 1, 4), np.float32)
    scores = np.zeros((len(arrays["image"]), 1, 2), np.float32)
    for row, image in enumerate(arrays["image"]):
        down, across = np.nonzero(image[0] > 250)
        if len(down) > 4:
            boxes[row, 0] = across.min(), down.min(), across.max() + 1, down.max() + 1
            scores[row, 0, 1] = 0.9
    return {"boxes": boxes, "scores": scores}


def test_a_small_thing_in_a_large_picture_is_found_in_its_tile_and_told_once():
    pixels = np.zeros((300, 500, 3), np.uint8)
    pixels[150:156, 230:238] = 255  # two pixels across, in the whole picture as the network sees it
    samples = TILED.prepare([pixels, noise(20, 20)])
    assert samples[0].context["w"] == 500
    assert [sample.row for sample in samples].count(1) == 1
    arrays, context = TILED.collate(samples)
    said = TILED.decode(bright_spots(arrays), context).with_ids(context.rows)
    joined = merged(TILED, said)
    assert joined.rows == 2
    np.testing.assert_allclose(joined["boxes"][0], [[230, 150, 238, 156]])
    assert (joined["height"].tolist(), joined["width"].tolist()) == ([300, 20], [500, 20])


def test_batches_open_pictures_one_by_one_and_are_no_larger_than_asked():
    pictures = [noise(300, 300, seed) for seed in range(2)]
    every = TILED.prepare(pictures)
    batches = list(TILED.batches(pictures, size=7))
    assert [len(context.rows) for _, context in batches][:-1] == [7] * (len(batches) - 1)
    np.testing.assert_array_equal(
        np.concatenate([arrays["image"] for arrays, _ in batches]), [sample.arrays["image"] for sample in every]
    )
    opened = iter([noise(300, 300), "nowhere.png"])
    first = next(TILED.batches(Lazy(opened), size=4))
    assert len(first[1].rows) == 4


class Lazy:
    def __init__(self, things):
        self.things = things

    def __iter__(self):
        return self.things


def test_a_picture_that_needs_no_tiles_is_merged_to_itself():
    one = Columns({"boxes": [np.zeros((0, 4))], "scores": [np.zeros(0)]})
    assert TILED.merge([one]) is one
