"""The report's figures: they can be drawn for few and many classes, and show what they say."""

from __future__ import annotations

import io

import numpy as np
import pytest

pytest.importorskip("faster_coco_eval")

from tests.plugins.detection.boxes_made import random_predictions, random_truths

from modelwright.codec import Columns
from modelwright.task import Evaluated
from modelwright_detection import metrics
from modelwright_detection.confusion import outcome
from modelwright_detection.figures import DRAWN, draw, hardest_rows


class Pictures:
    def __init__(self, shape=(200, 200)):
        self.shape = shape

    def __len__(self):
        return 100

    def picture(self, index):
        return np.full((*self.shape, 3), 10 * index % 256, np.uint8)

    def name_of(self, index):
        return f"a/long/folder/of/pictures/{index:05d}_$.jpg"


def evaluated(classes, *, pictures=12, shape=(200, 200), perfect=False, seed=0):
    rng = np.random.default_rng(seed)
    truths = random_truths(rng, pictures, classes)
    predictions = metrics.perfect(truths) if perfect else random_predictions(rng, truths, classes)
    measured = metrics.measure(predictions, truths)
    return Evaluated("valid", Pictures(shape), predictions, truths, measured, lambda *arrays: {})


@pytest.mark.parametrize(("classes", "shape"), [(2, (900, 700)), (120, (200, 400))])
def test_figures_can_be_drawn(classes, shape):
    names = [f"class ${label} with a long name" for label in range(classes)]
    drawn = list(draw(evaluated(classes, shape=shape), classes=names, confidence=0.3))
    assert [each.name for each in drawn] == [
        "precision-recall",
        "confidence",
        "classes",
        "confusion",
        "hardest",
        "samples",
    ]
    for each in drawn:
        assert len(each.caption) > 40
        picture = io.BytesIO()
        each.figure.savefig(picture, format="png", dpi=30)
        assert picture.getvalue().startswith(b"\x89PNG")


def test_a_perfect_detector_has_no_hard_pictures():
    names = [each.name for each in draw(evaluated(3, perfect=True), classes=["a", "b", "c"], confidence=0.5)]
    assert "hardest" not in names


def test_pictures_without_any_object_have_no_curves():
    none = [np.zeros((0, 4), np.float32)] * 2, [np.zeros(0, np.int64)] * 2
    truths = Columns({"boxes": none[0], "labels": none[1], "crowd": [np.zeros(0, bool)] * 2})
    predictions = Columns({"boxes": none[0], "labels": none[1], "scores": [np.zeros(0, np.float32)] * 2})
    found = Evaluated("valid", Pictures(), predictions, truths, metrics.measure(predictions, truths), dict)
    assert [each.name for each in draw(found, classes=["a"], confidence=0.5)] == ["confusion", "samples"]


def test_nothing_measured_nothing_drawn():
    nothing = evaluated(2).measured.select([])
    found = Evaluated("valid", Pictures(), Columns({}), Columns({}), nothing, dict)
    assert list(draw(found, classes=["a", "b"], confidence=0.5)) == []


def test_the_hardest_pictures_have_most_mistakes():
    box = np.array([[0, 0, 9, 9]], np.float32)
    truth = box, np.array([0]), np.array([False])
    right, unsure = (outcome((box, np.array([score]), np.array([0])), truth, confidence=0.5) for score in (0.9, 0.1))
    wrong = outcome((box + 50, np.array([0.9]), np.array([0])), truth, confidence=0.5)
    assert hardest_rows([right, unsure, wrong]) == [2, 1]


def test_a_hard_picture_is_shown_with_its_name_and_its_own_pixels():
    found = evaluated(2)
    figure = next(each for each in draw(found, classes=["a", "b"], confidence=0.3) if each.name == "hardest").figure
    first = figure.axes[0]
    index = int(first.get_title().split("/")[-1].split("_")[0])
    assert first.images[0].get_array()[0, 0, 0] == 10 * index % 256
    assert "missed" in first.get_title() or "false" in first.get_title()


def test_of_hundreds_of_detections_the_surest_are_drawn():
    count = 300
    boxes = np.tile(np.array([[10, 10, 60, 60]], np.float32), (count, 1))
    truths = Columns({"boxes": [boxes[:1]], "labels": [np.zeros(1, np.int64)], "crowd": [np.zeros(1, bool)]})
    scores = np.linspace(0.31, 0.9, count).astype(np.float32)
    said = Columns({"boxes": [boxes], "labels": [np.ones(count, np.int64)], "scores": [scores]})
    found = Evaluated("valid", Pictures(), said, truths, metrics.measure(said, truths), dict)
    figures = {each.name: each.figure for each in draw(found, classes=["a", "b"], confidence=0.3)}
    hardest, (true, told) = figures["hardest"].axes[0], figures["samples"].axes[:2]
    assert (len(hardest.patches), len(true.patches), len(told.patches)) == (DRAWN, 1, DRAWN)
    assert "1 mistaken, 299 false" in hardest.get_title()
    assert told.get_title() == f"said, the {DRAWN} surest of 300"
    assert told.texts[0].get_text() == "b: 0.90"
