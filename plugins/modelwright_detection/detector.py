"""What every detector of this plugin offers, whatever library it is of. Knows torch, no settings and no library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from modelwright.task import Batch, Losses, Progress

BOXES, SCORES = "boxes", "scores"
"""What is served of a detector's outputs."""


class DetectionLoss(nn.Module, ABC):
    """A training loss of a detector; its state belongs to the checkpoint."""

    @abstractmethod
    def forward(self, outputs: Mapping[str, Tensor], batch: Batch, progress: Progress) -> Losses:
        """The loss of what a detector said of a batch.

        Args:
            batch: targets `boxes` (B, M, 4) in pixels of the input, `labels` (B, M) with -1 as padding and `crowd`
                (B, M), objects that are not trained on.
        """


class Detector(nn.Module, ABC):
    """Raw pictures -> boxes and scores.

    Attributes:
        network: the library's own.
        needs_nms: its boxes are many for each object and want non-maximum suppression.
        frozen: only the head is trained.
    """

    network: nn.Module
    needs_nms: bool

    def __init__(self, network: nn.Module, *, needs_nms: bool) -> None:
        super().__init__()
        self.network = network
        self.needs_nms = needs_nms
        self.frozen = False

    @abstractmethod
    def forward(self, image: Tensor, **hints: Tensor) -> dict[str, Tensor]:
        """Everything that is said of pictures; the same names in training and evaluation.

        Args:
            image: B x 3 x S x S, uint8 or float in 0..255.
            hints: what `hints` gives for a training batch; empty otherwise.

        Returns:
            `boxes` (B, N, 4) xyxy in pixels of the input and `scores` (B, N, classes) in 0..1, neither with a gradient
            in training, and what the loss needs.
        """

    @abstractmethod
    def answer(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes and scores alone, without the work that only the loss needs."""

    @abstractmethod
    def criterion(self) -> DetectionLoss:
        """Its training loss."""

    @abstractmethod
    def head(self) -> Iterable[nn.Module]:
        """The modules that stay trainable when the rest is frozen."""

    def served(self) -> Served:
        """What is evaluated and exported."""
        return Served(self)

    def freeze(self) -> None:
        """Leaves only the head to train; the batch norms below it keep their statistics."""
        fixed = {id(p) for p in self.network.parameters() if not p.requires_grad}
        self.frozen = True
        self.network.requires_grad_(False)
        for module in self.head():
            for parameter in module.parameters():
                parameter.requires_grad_(id(parameter) not in fixed)
        self.train(self.training)

    def train(self, mode: bool = True) -> Detector:
        """As of any module, but frozen batch norms stay as they are served."""
        super().train(mode)
        if self.frozen:
            trained = {id(part) for module in self.head() for part in module.modules()}
            for module in self.network.modules():
                if isinstance(module, _BatchNorm) and id(module) not in trained:
                    module.eval()
        return self


class Served(nn.Module):
    """A detector as it is evaluated, timed and exported: boxes and scores, never in one tensor (int8 has one scale)."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Boxes (B, N, 4) in pixels of the input and scores (B, N, classes)."""
        boxes, scores = self.detector.answer(image)
        return {BOXES: boxes, SCORES: scores}


def trained_on(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (B, M, 4), labels (B, M) and which of them are trained on (B, M): neither padding nor crowds."""
    targets = cast("Mapping[str, Any]", batch.targets)
    boxes, labels, crowd = (cast("Tensor", targets[name]) for name in ("boxes", "labels", "crowd"))
    return boxes.float(), labels, (labels >= 0) & ~crowd.bool()


def centre_size(boxes: Tensor) -> Tensor:
    """Boxes xyxy as centre and size (cxcywh)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def corners(boxes: Tensor) -> Tensor:
    """Boxes cxcywh as corners (xyxy)."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)
