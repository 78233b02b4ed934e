"""Detectors and batches that tests of models share."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

from modelwright.data import Facts
from modelwright.task import Batch, Progress
from modelwright_detection.config import DetectionConfig
from modelwright_detection.model import build, hints

CLASSES = ["ball", "cup", "pen"]
SIDE = 96


def need_ultralytics():
    """Skips where it is not installed. pytest.importorskip would import it, with all that this changes."""
    if importlib.util.find_spec("ultralytics") is None:
        pytest.skip("ultralytics is not installed", allow_module_level=True)


def settings(name, **model):
    return DetectionConfig.model_validate({"model": {"name": name, **model}})


def make(name, *, side=SIDE, most=5, seed=0, **model):
    torch.manual_seed(seed)
    return build(settings(name, **model), Facts({"classes": CLASSES, "size": side, "most": most}))


def stirred(model, *, side=SIDE, seed=0):
    """The model with statistics of its own layers and smaller biases: fresh ones say the same of every place."""
    norms = [each for each in model.modules() if isinstance(each, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0
        model.train()(pictures(4, side=side, seed=seed))
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
        for module in model.head():
            for layer in module.modules():
                if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None:
                    layer.bias.mul_(0.2)
    return model


def pictures(count=3, *, side=SIDE, seed=0):
    return torch.randint(
        0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def batch(name="yolo26n", *, count=3, side=SIDE, seed=0):
    """Pictures with 4, 2 and no objects, in turn; one of them is a crowd."""
    rng = np.random.default_rng(seed)
    boxes = np.zeros((count, 4, 4), np.float32)
    labels, crowd = np.full((count, 4), -1), np.zeros((count, 4), bool)
    for index in range(count):
        for row in range((4, 2, 0)[index % 3]):
            corner, extent = rng.random(2) * side * 0.5, 8 + rng.random(2) * side * 0.4
            boxes[index, row] = [*corner, *(corner + extent)]
            labels[index, row] = rng.integers(len(CLASSES))
    crowd[0, 3] = True
    targets = {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.from_numpy(labels),
        "crowd": torch.from_numpy(crowd),
        "size": torch.full((count, 2), side),
    }
    made = Batch((pictures(count, side=side, seed=seed),), targets, np.arange(count))
    made.hints = dict(hints(settings(name), made))
    return made


def rows(given, index):
    """Some pictures of a batch."""
    return Batch(
        (given.inputs[0][index],),
        {key: value[index] for key, value in given.targets.items()},
        given.ids[index],
        hints={key: value[index] for key, value in given.hints.items()},
    )


def at(epoch=0, epochs=2):
    return Progress(epoch * 10, epochs * 10, epoch, epochs)
