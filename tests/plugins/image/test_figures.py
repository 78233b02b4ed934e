"""The report's figures: they can be drawn for few and many classes, grey and coloured pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest

pytest.importorskip("torchvision")

from modelwright.codec import Columns
from modelwright_image.figures import draw, worst_mistakes
from modelwright_image.metrics import measure


class Pictures:
    def __init__(self, channels):
        self.channels = channels

    def __len__(self):
        return 1000

    def picture(self, index):
        return np.full((8, 8, self.channels), index % 256, dtype=np.uint8)

    def name_of(self, index):
        return f"a/long/folder/of/pictures/{index:05d}_$.jpg"


def measured(classes, *, count=60, wrong=True, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    probabilities = rng.random((count, classes)) if wrong else np.zeros((count, classes))
    probabilities[np.arange(count), labels] += 0.4 if wrong else 1
    return Columns(measure(probabilities / probabilities.sum(axis=1, keepdims=True), labels), rng.permutation(count))


@pytest.mark.parametrize(("classes", "channels"), [(2, 1), (10, 3), (120, 3)])
def test_figures_can_be_drawn(classes, channels):
    names = [f"class ${label} with a long name" for label in range(classes)]
    drawn = list(draw(measured(classes), Pictures(channels), classes=names))
    assert [figure.name for figure in drawn] == ["confusion", "classes", "reliability", "mistakes", "samples"]
    for figure in drawn:
        assert len(figure.caption) > 40
        picture = io.BytesIO()
        figure.figure.savefig(picture, format="png", dpi=40)
        assert picture.getvalue().startswith(b"\x89PNG")


def test_a_perfect_model_has_no_mistakes_to_show():
    names = [figure.name for figure in draw(measured(3, wrong=False), Pictures(1), classes=["a", "b", "c"])]
    assert "mistakes" not in names


def test_nothing_measured_nothing_drawn():
    assert list(draw(measured(3, count=0), Pictures(1), classes=["a", "b", "c"])) == []


def test_worst_mistakes_are_wrong_and_the_surest_first():
    columns = measured(5)
    rows = worst_mistakes(columns, most=3)
    confidence = columns.array("confidence")
    wrong = columns.array("label") != columns.array("predicted")
    assert wrong[rows].all()
    assert confidence[rows].tolist() == sorted(confidence[wrong], reverse=True)[:3]


def test_a_mistake_is_shown_with_the_picture_it_is_about():
    columns = measured(5)
    row = worst_mistakes(columns, most=1)[0]
    figure = next(f for f in draw(columns, Pictures(1), classes=list("abcde")) if f.name == "mistakes").figure
    first = figure.axes[0]
    assert first.images[0].get_array()[0, 0] == columns.ids[row] % 256
    assert f"true: {'abcde'[columns.array('label')[row]]}" in first.get_title()
