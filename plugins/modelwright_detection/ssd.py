"""SSDlite of torchvision as a detector, with its own loss. Knows neither training loops nor files.

Liu et al.: SSD, ECCV 2016, https://arxiv.org/abs/1512.02325; Howard et al.: MobileNetV3, ICCV 2019.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from modelwright.task import Batch, Losses, Progress
from modelwright_detection.detector import DetectionLoss, Detector, centre_size, corners, trained_on


class Ssd(Detector):
    """SSDlite320 with MobileNetV3, 3.4 M parameters. Made for 320 pixels; takes other sizes as well.

    Args:
        size: side of the pictures in pixels, which settles the default boxes.
    """

    defaults: Tensor

    def __init__(self, *, classes: int, size: int) -> None:
        # Both left out would mean: fetch weights.
        network: Any = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes + 1)
        super().__init__(network, needs_nms=True)
        network.eval()
        with torch.no_grad():
            pictures = torch.zeros(1, 3, size, size)
            maps = list(network.backbone(pictures).values())
            (defaults,) = network.anchor_generator(ImageList(pictures, [(size, size)]), maps)
        network.train()
        del network.anchor_generator  # its tensors would stay behind when the model moves
        # Not part of the checkpoint: it follows from the size.
        self.register_buffer("defaults", defaults, persistent=False)

    def forward(self, image: Tensor, **hints: Tensor) -> dict[str, Tensor]:
        """Boxes, scores, and raw: `offsets` (B, N, 4) and `logits` (B, N, 1 + classes), the background first."""
        offsets, logits = self._say(image)
        served = (offsets.detach(), logits.detach()) if self.training else (offsets, logits)
        boxes, scores = self._decode(*served)
        return {"boxes": boxes, "scores": scores, "offsets": offsets, "logits": logits}

    def answer(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes and scores."""
        return self._decode(*self._say(image))

    def criterion(self) -> SsdLoss:
        """The loss of torchvision."""
        return SsdLoss(self.network, self.defaults)

    def head(self) -> Iterable[nn.Module]:
        """What follows the maps."""
        return [cast("Any", self.network).head]

    def _say(self, image: Tensor) -> tuple[Tensor, Tensor]:
        network: Any = self.network
        said = network.head(list(network.backbone(image.float() / 127.5 - 1).values()))
        return said["bbox_regression"], said["cls_logits"]

    def _decode(self, offsets: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        network: Any = self.network
        by_place, _, by_size, _ = network.box_coder.weights
        shift, grow = offsets[..., :2] / by_place, offsets[..., 2:] / by_size
        centre, size = centre_size(self.defaults).split(2, dim=1)
        # Grows by at most what torchvision allows: exp would overflow.
        sizes = grow.clamp(max=network.box_coder.bbox_xform_clip).exp() * size
        return corners(torch.cat([shift * size + centre, sizes], dim=2)), logits.softmax(dim=2)[..., 1:]


class SsdLoss(DetectionLoss):
    """Smooth L1 of the offsets and cross-entropy with three hard negatives for each default box that has an object.

    torchvision divides by the number of such boxes in the batch; that is undone here and the number given as weight,
    so that micro-batches and ranks add up: negatives are chosen picture by picture.
    """

    defaults: Tensor

    def __init__(self, network: Any, defaults: Tensor) -> None:
        super().__init__()
        self._match = network.proposal_matcher
        # All of a network that its loss looks at; the network itself would be copied with the loss.
        self._settings: Any = SimpleNamespace(box_coder=network.box_coder, neg_to_pos_ratio=network.neg_to_pos_ratio)
        self.register_buffer("defaults", defaults, persistent=False)

    def forward(self, outputs: Mapping[str, Tensor], batch: Batch, progress: Progress) -> Losses:
        """The summed loss and the number of default boxes that have an object."""
        boxes, labels, wanted = trained_on(batch)
        targets = [
            {"boxes": some[keep], "labels": names[keep] + 1}
            for some, names, keep in zip(boxes, labels, wanted, strict=True)
        ]
        matched = [self._matched(target["boxes"]) for target in targets]
        said = {"bbox_regression": outputs["offsets"].float(), "cls_logits": outputs["logits"].float()}
        everywhere = [self.defaults] * len(targets)
        found: Mapping[str, Tensor] = SSD.compute_loss(self._settings, targets, said, everywhere, matched)
        count = torch.stack([(each >= 0).sum() for each in matched]).sum()
        parts = {
            "box": found["bbox_regression"] * count.clamp(min=1),
            "cls": found["classification"] * count.clamp(min=1),
        }
        return Losses(parts["box"] + parts["cls"], count, parts)

    def _matched(self, boxes: Tensor) -> Tensor:
        """Which object each default box has; -1: none."""
        if len(boxes) == 0:
            return torch.full((len(self.defaults),), -1, dtype=torch.int64, device=self.defaults.device)
        return self._match(box_iou(boxes, self.defaults))
