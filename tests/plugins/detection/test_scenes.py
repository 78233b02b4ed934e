"""The embedded scenes: the same for the same seed and number, with digits where the boxes say, in no two splits."""

from __future__ import annotations

import numpy as np
import pytest
from tests.plugins.detection.data_made import loaded

from modelwright.errors import ConfigError
from modelwright_detection import scenes
from modelwright_detection.data import Known


def test_a_scene_is_a_function_of_seed_and_number():
    first = [scenes.compose(3, "train", index, size=96) for index in range(6)]
    again = {index: scenes.compose(3, "train", index, size=96) for index in reversed(range(6))}
    for index, (pixels, objects) in enumerate(first):
        assert np.array_equal(pixels, again[index][0])
        assert np.array_equal(objects.boxes, again[index][1].boxes)
    others = [scenes.compose(4, "train", 0, size=96), scenes.compose(3, "test", 0, size=96), first[1]]
    assert all(other[0].shape != first[0][0].shape or (other[0] != first[0][0]).any() for other in others)


@pytest.mark.parametrize("size", [64, 160, 320])
def test_boxes_lie_in_the_picture_and_have_little_in_common(size):
    counts, heights = [], []
    for index in range(60):
        pixels, objects = scenes.compose(0, "valid", index, size=size)
        height, width = pixels.shape[:2]
        assert (pixels.dtype, pixels.shape[2]) == (np.uint8, 3)
        assert 0.5 * size <= min(height, width) <= max(height, width) <= 1.2 * size + 1
        boxes = objects.boxes
        assert ((boxes >= 0) & (boxes <= [width, height, width, height])).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 6).all()
        assert set(objects.labels.tolist()) <= set(range(10))
        counts.append(len(objects))
        heights += (boxes[:, 3] - boxes[:, 1]).tolist()
        for one, box in enumerate(boxes):
            for other in boxes[:one]:
                common = (np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])).clip(0).prod()
                assert common <= 0.15 * min((box[2:] - box[:2]).prod(), (other[2:] - other[:2]).prod())
    assert min(counts) == 0  # a few scenes are empty
    assert max(counts) <= 12
    assert np.mean(counts) > 3
    assert max(heights) > 3 * min(heights)  # of several scales


def test_a_digit_stands_out_in_its_box():
    stands = []
    for index in range(30):
        pixels, objects = scenes.compose(1, "train", index, size=160)
        for x0, y0, x1, y1 in objects.boxes.astype(int):
            grey = pixels[y0:y1, x0:x1].mean(axis=2)
            stands.append(np.percentile(grey, 95) - np.percentile(grey, 5))
    assert np.median(stands) > 60


def test_splits_draw_on_different_digits():
    glyphs = {split: scenes.digits(split)[0] for split in ("train", "valid", "test")}
    assert [len(each) for each in glyphs.values()] == [1258, 180, 359]
    assert all(np.bincount(scenes.digits(split)[1], minlength=10).min() > 10 for split in glyphs)


def test_scenes_as_data():
    found = loaded("scenes", scenes=40, size=64, memory=0)
    assert [len(found[split]) for split in ("train", "valid", "test")] == [28, 4, 8]
    test = found["test"]
    assert (test.classes, test.size, test.name_of(3)) == (tuple("0123456789"), 64, "scenes/test[3]")
    assert found.notes[0].startswith("train: 28 pictures, ")
    kept = loaded("scenes", scenes=40, size=64)["test"]
    for row in range(8):
        assert np.array_equal(kept.picture(row), test.picture(row))
        assert np.array_equal(kept.objects(row).boxes, test.objects(row).boxes)
        assert test.scenes[row].size == test.picture(row).shape[1::-1]


def test_settings_of_scenes():
    assert not loaded("scenes", scenes=20, valid=0).has("valid")
    assert loaded("scenes", scenes=20, size=None)["train"].size == 160
    assert loaded("scenes", scenes=20, known=Known(tuple("abcdefghij"), 96))["test"].size == 96
    with pytest.raises(ConfigError, match=r"data\.split does not go with data\.name=scenes"):
        loaded("scenes", split="x.csv")
    with pytest.raises(ConfigError, match=r"data\.valid=0\.5 and data\.test=0\.5 leave nothing to train on"):
        loaded("scenes", valid=0.5, test=0.5)
