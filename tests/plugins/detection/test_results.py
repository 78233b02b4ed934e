"""Codec, metrics and figures through the engine's evaluator, whole and in tiles, with a detector of white things."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("faster_coco_eval")
import torch

from modelwright.codec import Columns
from modelwright.config import TaskConfig
from modelwright.evaluation.evaluator import evaluate
from modelwright.task import Batch, Evaluated, Example, Input, Objective, Task
from modelwright_detection import figures, metrics
from modelwright_detection.boxes import Letterbox
from modelwright_detection.codec import DetectionCodec

SIZE, SIDE = 96, 600


class Spots:
    """Black pictures with three white squares, so small that there is nothing to see in the whole picture."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def boxes(self, index):
        rng = np.random.default_rng(index)
        small = 30 + 90 * rng.permutation(36)[:3]
        left, top = 30 + 90 * (small // 90 % 6), 30 + 90 * (small // 540 % 6)
        return np.stack([left, top, left + 6, top + 6], axis=1).astype(np.float32)

    def picture(self, index):
        pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
        for left, top, right, bottom in self.boxes(index).astype(int):
            pixels[top:bottom, left:right] = 255
        return pixels

    def name_of(self, index):
        return f"spots[{index}]"

    def __getitem__(self, key):
        return Example(self.picture(key.index), {"boxes": self.boxes(key.index)})


class SpotTask(Task):
    inputs = (Input("image", (3, SIZE, SIZE), "uint8"),)
    objective = Objective("map_50", "max")

    def __init__(self, *, tile):
        super().__init__(TaskConfig())
        self.codec = DetectionCodec(("spot",), SIZE, nms=False, tile=tile, confidence=0.5)

    def datasets(self):
        raise NotImplementedError

    def model(self):
        raise NotImplementedError

    def loss(self, criterion, outputs, batch, progress):
        raise NotImplementedError

    def collate(self, examples, ids):
        arrays, context = self.codec.collate(self.codec.prepare([example.raw for example in examples]))
        own = [Letterbox(SIDE, SIDE, SIZE).to_input(example.targets["boxes"]) for example in examples]
        boxes = torch.from_numpy(np.stack(own))[torch.from_numpy(context.rows)]
        return Batch((torch.from_numpy(arrays["image"]),), {"boxes": boxes}, ids[context.rows], context)

    def truths(self, batch):
        boxes = batch.targets["boxes"].numpy()
        labels, sizes = np.zeros(boxes.shape[:2], np.int64), np.full((len(boxes), 2), SIDE)
        return Columns(metrics.truth_columns(boxes, labels, labels > 0, sizes, side=SIZE), batch.ids)

    def measure(self, predictions, truths):
        return metrics.measure(predictions, truths)

    def metrics(self, measured):
        return metrics.scores(measured, classes=["spot"], confidence=0.5)

    def perfect(self, truths):
        return metrics.perfect(truths)


def white_things(images):
    """A box around each patch that is white all through."""
    boxes, scores = torch.zeros(len(images), 40, 4), torch.zeros(len(images), 40, 1)
    for row, image in enumerate(images.numpy()):
        free = image[0] > 200
        for place in range(40):
            down, across = np.nonzero(free)
            if len(down) == 0:
                break
            top, left = int(down[0]), int(across[0])
            bottom, right = top, left
            while bottom < SIZE and free[bottom, left]:
                bottom += 1
            while right < SIZE and free[top, right]:
                right += 1
            free[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1] = False
            boxes[row, place] = torch.tensor([left, top, right, bottom], dtype=torch.float32)
            scores[row, place] = 0.9
    return {"boxes": boxes, "scores": scores}


def score(tile):
    return evaluate(SpotTask(tile=tile), white_things, Spots(4), batch_size=2, resamples=20)


def test_small_things_in_large_pictures_are_found_in_tiles():
    whole, tiled = score(0), score(96)
    assert tiled.samples == whole.samples == 4
    assert whole.metrics["map_50"].value < 0.2
    assert tiled.metrics["map_50"].value > 0.9
    assert tiled.metrics["recall"].value > 0.9
    assert tiled.metrics["precision"].value > 0.9  # what two tiles see is told once
    for interval in tiled.metrics.values():
        assert np.isnan(interval.value) or interval.low - 1e-9 <= interval.value <= interval.high + 1e-9


def test_the_report_of_such_an_evaluation_can_be_drawn():
    found = score(96)
    evaluated = Evaluated("test", Spots(4), found.predictions, found.truths, found.measured, lambda *arrays: {})
    assert "samples" in [figure.name for figure in figures.draw(evaluated, classes=["spot"], confidence=0.5)]


def test_the_task_says_what_is_perfect():
    task, found = SpotTask(tile=0), score(0)
    best = task.metrics(task.measure(task.perfect(found.truths), found.truths))
    assert best["map"] == pytest.approx(1)
