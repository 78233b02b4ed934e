"""Settings of object detection. Knows no torch."""

from __future__ import annotations

import importlib.util
from typing import Annotated, Literal

from pydantic import Field, field_validator

from modelwright.config import DataConfig, EvaluateConfig, ModelConfig, Settings, TaskConfig, TrainConfig


class DetectionData(DataConfig):
    """Pictures and the boxes of what is in them."""

    name: Literal["scenes", "yolo", "coco", "voc"] = "scenes"
    """scenes (embedded: handwritten digits on clutter), or your own: yolo (data.yaml), coco (JSON), voc (XML)."""
    size: Annotated[int, Field(ge=32, le=4096, multiple_of=32)] | None = None
    """Side of the square the model sees; pictures are scaled to fit and padded. Empty: 640, for scenes 160."""
    valid: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the training pictures kept for validation where the data have no such split; 0: none."""
    test: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share kept for the test where the data have no such split; 0: none."""
    scenes: Annotated[int, Field(ge=10, le=1_000_000)] = 1000
    """How many scenes data.name=scenes composes, over all splits."""
    memory: Annotated[float, Field(ge=0)] = 4.0
    """GiB of decoded pictures that may stay in memory; the others are decoded as they are needed."""


class DetectionModel(ModelConfig):
    """The network."""

    name: str = "yolo26n"
    """yolo26n, yolo26s, yolo26m, yolo11n, ... (AGPL-3.0); rt-detr, rt-detr-r18, d-fine, d-fine-s, ssdlite320; auto:
    yolo11n where ultralytics is installed, ssdlite320 where it is not."""
    end_to_end: bool = True
    """yolo26: one box per object straight from the network; false: many, thinned out by non-maximum suppression."""
    queries: Annotated[int, Field(ge=1)] = 300
    """rt-detr, d-fine: objects that a picture can have at most."""

    @field_validator("name")
    @classmethod
    def _installed(cls, name: str) -> str:
        """In place of `auto` what it stands for here: a run is to say what it was."""
        if name != "auto":
            return name
        return "ssdlite320" if importlib.util.find_spec("ultralytics") is None else "yolo11n"


class LossConfig(Settings):
    """Gains of the training loss's parts, by what each model's authors call them."""

    box: Annotated[float, Field(ge=0)] = 7.5
    """YOLO: overlap of the boxes."""
    cls: Annotated[float, Field(ge=0)] = 0.5
    """YOLO: classes."""
    dfl: Annotated[float, Field(ge=0)] = 1.5
    """YOLO: distribution of the distances to the box's sides."""
    vfl: Annotated[float, Field(ge=0)] = 1.0
    """rt-detr, d-fine: classes (varifocal)."""
    l1: Annotated[float, Field(ge=0)] = 5.0
    """rt-detr, d-fine: distance of the boxes."""
    giou: Annotated[float, Field(ge=0)] = 2.0
    """rt-detr, d-fine: overlap of the boxes."""


class AugmentConfig(Settings):
    """Changes made to training pictures; 0: off. A pure function of seed, epoch and picture."""

    mosaic: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Probability that a picture is joined with three others into one (Bochkovskiy et al. 2020)."""
    close_mosaic: Annotated[int, Field(ge=0)] = 10
    """The last so many epochs go without mosaic."""
    flip: Annotated[float, Field(ge=0, le=1)] | None = None
    """Probability of mirroring left and right; empty: 0.5, for scenes 0 (a mirrored digit is none)."""
    flip_vertical: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability of mirroring top and bottom."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Zoom by a factor in [1 - scale, 1 + scale]."""
    shift: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Shift by up to this share of the side."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.015
    """Turn the hue by up to this share of the colour circle."""
    saturation: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Change the saturation by a factor in [1 - saturation, 1 + saturation]."""
    value: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Change the brightness by a factor in [1 - value, 1 + value]."""


class DetectionTrain(TrainConfig):
    """Training."""

    batch_size: Annotated[int, Field(ge=1)] = 16
    """Pictures of one optimizer step, over all ranks and micro-batches."""


class DetectionEvaluate(EvaluateConfig):
    """Evaluation, and what a bundle answers with."""

    batch_size: Annotated[int, Field(ge=1)] = 16
    """Pictures of one batch."""
    least: Annotated[float, Field(ge=0, lt=1)] = 0.001
    """Boxes of a lower score are dropped before anything is measured."""
    iou: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Non-maximum suppression: of two boxes of a class that overlap more than this, the better one is kept."""
    most: Annotated[int, Field(ge=1)] = 300
    """Boxes kept in a picture, the best ones."""
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    """Score from which on a box is shown to people; empty: the best F1 on the validation split."""
    tile: Annotated[int, Field(ge=32)] | None = None
    """Side in pixels of overlapping tiles that larger pictures are cut into; empty: pictures are seen as a whole."""
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of a tile's side that it has in common with its neighbour."""


class DetectionConfig(TaskConfig):
    """All settings of object-detection."""

    data: DetectionData = DetectionData()
    model: DetectionModel = DetectionModel()
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    train: DetectionTrain = DetectionTrain()
    evaluate: DetectionEvaluate = DetectionEvaluate()
