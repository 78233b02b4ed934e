"""Detectors by name. Knows the settings and which library each name belongs to; imports a library when it is asked for.

What a detector here gets is the raw picture (0..255), so that what was trained is what is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from modelwright.data import Facts
from modelwright.errors import ConfigError, did_you_mean
from modelwright.task import Batch
from modelwright.weights import load_matching, load_torch, read_weights
from modelwright_detection import ultra
from modelwright_detection.config import DetectionConfig, DetectionModel

if TYPE_CHECKING:
    from modelwright_detection.detector import Detector

SETS = ("rt-detr", "rt-detr-r18", "d-fine", "d-fine-s")
"""Detectors of transformers: a set of objects at once, by attention."""
SSD = "ssdlite320"
NAMES = (*ultra.NAMES, *SETS, SSD)
ENOUGH = 0.5
"""Share of a network's tensors that weights to start from must fit."""
MULTIPLE = 32
"""Sides of pictures are multiples of the coarsest stride."""


def build(config: DetectionConfig, facts: Facts) -> Detector:
    """The detector that the settings under `model` name, with fresh weights.

    Args:
        facts: `classes` (their names), `size` (side of the pictures in pixels) and `most` (objects in one picture).

    Raises:
        ConfigError: an unknown name, a size the network cannot take, frozen without weights to start from.
        PluginError: the library that it belongs to is not installed.
    """
    settings = config.model
    check_name(settings.name)
    classes, size = len(facts.values["classes"]), int(facts.values["size"])
    if size % MULTIPLE or size < MULTIPLE:
        near = max(MULTIPLE, round(size / MULTIPLE) * MULTIPLE)
        raise ConfigError(f"{settings.name} takes pictures of a multiple of {MULTIPLE} pixels: set data.size={near}")
    if settings.freeze and not settings.pretrained:
        raise ConfigError("model.freeze trains only the head and needs model.pretrained: a local file, folder or run")
    model = _make(config, classes=classes, size=size, most=int(facts.values.get("most", 1)))
    if settings.freeze:
        model.freeze()
    return model


def check_name(name: str) -> None:
    """Looks whether there is such a detector, without importing any library.

    Raises:
        ConfigError: there is none.
    """
    if name not in NAMES:
        near = did_you_mean(name, NAMES)
        raise ConfigError(f"model.name: there is no detector '{name}'{near}; known are {', '.join(NAMES)}")


def _make(config: DetectionConfig, *, classes: int, size: int, most: int) -> Detector:
    settings = config.model
    if settings.name in ultra.NAMES:
        from modelwright_detection.ultra_model import Yolo

        return Yolo(settings.name, classes=classes, end_to_end=settings.end_to_end, gains=config.loss)
    if settings.name == SSD:
        from modelwright_detection.ssd import Ssd

        return Ssd(classes=classes, size=size)
    from modelwright_detection.sets import SetDetector

    if settings.queries < most:
        raise ConfigError(
            f"model.queries={settings.queries}: a training picture holds {most} objects, and {settings.name} can find "
            f"no more than there are queries: set model.queries={most} or more"
        )
    return SetDetector(settings.name, classes=classes, size=size, queries=settings.queries, gains=config.loss)


def load_pretrained(model: Detector, source: str) -> str:
    """Puts weights into a detector, all but those of the classes where these are others in number.

    Args:
        source: a local file, a folder that holds one, or a run.

    Returns:
        One line: how many tensors were taken over.

    Raises:
        ConfigError: they cannot be read, or too little fits.
        PluginError: it is a checkpoint of ultralytics, which is not installed.
    """
    weights = read_pretrained(source)
    return f"{source}: {load_matching(model.network, weights, source=source, least=ENOUGH)}"


def read_pretrained(source: str) -> dict[str, Tensor]:
    """The tensors of a local file (a checkpoint of ultralytics too), of a folder that holds one, or of a run.

    Raises:
        ConfigError: they cannot be read.
        PluginError: it is a checkpoint of ultralytics, which is not installed.
    """

    def load(path: Path) -> Any:
        return ultra.read_checkpoint(path) if ultra.is_checkpoint(path) else load_torch(path)

    return read_weights(source, load=load)


def hints(config: DetectionConfig, batch: Batch) -> Mapping[str, Tensor]:
    """What the network is told in training beside the picture: rt-detr and d-fine learn to mend spoilt boxes."""
    if config.model.name not in SETS:
        return {}
    targets = batch.targets
    return {"boxes": targets["boxes"], "labels": torch.where(targets["crowd"], -1, targets["labels"])}


def wants_suppression(settings: DetectionModel) -> bool:
    """Whether a detector says several boxes of each object, so that the best of those that overlap is to be kept."""
    if settings.name in SETS:
        return False
    return not (settings.name.startswith("yolo26") and settings.end_to_end)


def licence(name: str) -> str:
    """What is to be known of a detector's licence before a bundle of it is passed on."""
    if name not in ultra.NAMES:
        return ""
    return (
        f"{name} is a network of Ultralytics, licensed under AGPL-3.0: whoever passes this bundle on, or lets others "
        "use it over a network, owes them the source of what it is part of, or needs an Enterprise License of "
        "Ultralytics. Networks without this: rt-detr, d-fine, ssdlite320."
    )
