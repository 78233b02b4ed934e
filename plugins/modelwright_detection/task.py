"""Object detection as the engine asks for it. Knows the contract and the parts of this plugin, no trainer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from modelwright.codec import Columns
from modelwright.task import (
    Batch,
    Datasets,
    Evaluated,
    Example,
    Facts,
    Figure,
    Input,
    Losses,
    Objective,
    Progress,
    Schedule,
    Task,
)
from modelwright_detection import data, figures, metrics, ultra_train
from modelwright_detection.boxes import Letterbox
from modelwright_detection.codec import PADDING, DetectionCodec
from modelwright_detection.config import DetectionConfig
from modelwright_detection.detector import DetectionLoss, Detector
from modelwright_detection.distilling import distill_loss
from modelwright_detection.model import build, check_name, hints, licence, load_pretrained, wants_suppression

CONFIDENCE = 0.25
"""Score from which on a box is told, until that is settled on validation data."""


class DetectionTask(Task):
    """Finds objects in pictures.

    Raises:
        ConfigError: there is no such detector.
    """

    def __init__(self, config: DetectionConfig) -> None:
        super().__init__(config)
        check_name(config.model.name)
        self.settings = config

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Raw pictures, 3 x size x size."""
        size = self.facts.values["size"]
        return (Input("image", (3, size, size), "uint8"),)

    @property
    def objective(self) -> Objective:
        """COCO's mean average precision decides."""
        return Objective("map", "max")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the scores."""
        return tuple(self.facts.values["classes"])

    @property
    def codec(self) -> DetectionCodec:
        """Letterboxes pictures; boxes come back in their own pixels."""
        settings = self.settings.evaluate
        settled = self.facts.values.get("settled", {})
        confidence = settings.confidence if settings.confidence is not None else settled.get("confidence", CONFIDENCE)
        return DetectionCodec(
            self.classes,
            self.facts.values["size"],
            nms=wants_suppression(self.settings.model),
            iou=settings.iou,
            least=settings.least,
            # A picture may hold more than is usual: none of its objects is to be missed for that.
            most=max(settings.most, self.facts.values["most"]),
            confidence=confidence,
            tile=settings.tile or 0,
            overlap=settings.overlap,
        )

    @property
    def licence(self) -> str:
        """What the detector's library asks for."""
        return licence(self.settings.model.name)

    # Data -------------------------------------------------------------------------------------------------------

    def datasets(self) -> Datasets:
        """The splits that the settings under `data` name; with facts at hand, brought to their classes and size."""
        return data.load(self.settings, seed=self.settings.seed, known=data.Known.of(self.facts))

    def find_facts(self, datasets: Datasets) -> Facts:
        """Classes, size, and how many objects there are."""
        return data.find_facts(datasets["train"])

    def empty(self) -> Example:
        """A grey picture without objects."""
        size = self.facts.values["size"]
        nothing = {"boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64), "crowd": np.zeros(0, bool)}
        return Example(np.full((size, size, 3), PADDING, np.uint8), nothing)

    def collate(self, examples: Sequence[Example], ids: np.ndarray) -> Batch:
        """Letterboxed pictures, and what is in them.

        Targets: `boxes` (B, M, 4) in pixels of the letterbox, `labels` (B, M) with -1 where there is none, `crowd`
        (B, M), and `size` (B, 2), height and width of each picture.
        """
        arrays, context = self.codec.collate(self.codec.prepare([example.raw for example in examples]))
        side = int(self.facts.values["size"])
        most = max([1, *(len(example.targets["labels"]) for example in examples)])
        boxes = np.zeros((len(examples), most, 4), np.float32)
        labels, crowd = np.full((len(examples), most), -1, np.int64), np.zeros((len(examples), most), bool)
        size = np.zeros((len(examples), 2), np.int64)
        for row, example in enumerate(examples):
            own = example.targets
            count = len(own["labels"])
            size[row] = _size(context.samples, context.rows, row)
            boxes[row, :count] = Letterbox(int(size[row, 0]), int(size[row, 1]), side).to_input(own["boxes"])
            labels[row, :count], crowd[row, :count] = own["labels"], own["crowd"]
        rows = context.rows
        targets = {
            name: torch.from_numpy(values[rows])
            for name, values in (("boxes", boxes), ("labels", labels), ("crowd", crowd), ("size", size))
        }
        batch = Batch((torch.from_numpy(arrays["image"]),), targets, ids[rows], context)
        batch.hints = dict(hints(self.settings, batch))
        return batch

    # Model and loss -----------------------------------------------------------------------------------------------

    def model(self) -> Detector:
        """The detector that the settings under `model` name.

        Raises:
            ConfigError: it does not fit the pictures.
            PluginError: its library is not installed.
        """
        return build(self.settings, self.facts)

    def initialize(self, model: nn.Module) -> str | None:
        """Starts from `model.pretrained`, where that is given.

        Raises:
            ConfigError: the weights cannot be had, or too little of them fits.
        """
        source = self.settings.model.pretrained
        return None if source is None else load_pretrained(cast("Detector", model), str(source))

    def served(self, model: nn.Module) -> nn.Module:
        """Boxes and scores alone."""
        return model.served() if isinstance(model, Detector) else model

    def criterion(self, model: nn.Module) -> DetectionLoss:
        """The detector's own loss."""
        return cast("Detector", model).criterion()

    def loss(
        self, criterion: nn.Module | None, outputs: Mapping[str, Tensor], batch: Batch, progress: Progress
    ) -> Losses:
        """What the authors of the detector train it with."""
        assert criterion is not None
        return criterion(outputs, batch, progress)

    def distill_loss(
        self,
        outputs: Mapping[str, Tensor],
        teacher: Mapping[str, Tensor],
        batch: Batch,
        progress: Progress,
        *,
        temperature: float,
    ) -> Losses | None:
        """For the YOLO detectors: classes and distances at each place, see `distilling`; None for the others."""
        return distill_loss(outputs, teacher, temperature=temperature)

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Biases stand apart: the schedule `ultralytics` warms them up in their own way."""
        return ultra_train.groups(model)

    def schedules(self) -> Mapping[str, Schedule]:
        """`ultralytics`: as its trainer's, step by step."""
        optimizer = self.settings.train.optimizer
        return {
            "ultralytics": ultra_train.schedule(
                momentum=optimizer.momentum, bias_lr=ultra_train.bias_lr(optimizer.name)
            )
        }

    # Truth and metrics ----------------------------------------------------------------------------------------------

    def truths(self, batch: Batch) -> Columns:
        """Lists `boxes` in the picture's own pixels, `labels` and `crowd`."""
        arrays = [cast("Tensor", batch.targets[name]).cpu().numpy() for name in ("boxes", "labels", "crowd", "size")]
        return Columns(metrics.truth_columns(*arrays, side=int(self.facts.values["size"])), batch.ids)

    def measure(self, predictions: Columns, truths: Columns) -> Columns:
        """Matches what was said with what is true."""
        return metrics.measure(predictions, truths, most=max(metrics.MOST, int(self.facts.values["most"])))

    def metrics(self, measured: Columns) -> dict[str, float]:
        """Mean average precision and the other scores of `modelwright_detection.metrics.scores`."""
        settled: Mapping[str, Any] = self.facts.values.get("settled", {})
        return metrics.scores(measured, classes=self.classes, confidence=settled.get("confidence"))

    def perfect(self, truths: Columns) -> Columns:
        """Each object, without doubt."""
        return metrics.perfect(truths)

    # Capabilities -------------------------------------------------------------------------------------------------

    def settle(self, evaluated: Evaluated) -> Mapping[str, Any]:
        """The confidence with the best F1."""
        given = self.settings.evaluate.confidence
        if given is not None:
            return {"confidence": given}
        return {"confidence": metrics.best_confidence(evaluated.measured, classes=self.classes, default=CONFIDENCE)}

    def figures(self, evaluated: Evaluated) -> Iterator[Figure]:
        """Curves, confusion, the hardest pictures, see `modelwright_detection.figures`."""
        return figures.draw(evaluated, classes=self.classes, confidence=self.codec.confidence)


def _size(samples: Sequence[Mapping[str, Any]], rows: np.ndarray, row: int) -> tuple[int, int]:
    """Height and width of the picture that a row is of."""
    context = samples[int(np.flatnonzero(rows == row)[0])]
    return int(context["height"]), int(context["width"])
