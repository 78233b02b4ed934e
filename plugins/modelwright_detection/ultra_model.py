"""YOLO networks of ultralytics as detectors, with their own losses. Knows neither training loops nor files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from modelwright.task import Batch, Losses, Progress
from modelwright_detection.config import LossConfig
from modelwright_detection.detector import DetectionLoss, Detector, trained_on
from modelwright_detection.ultra import build_network, library


class Yolo(Detector):
    """A YOLO network.

    YOLO26 has two heads: one says many boxes of each object, the other one. Both are trained; one is served.

    Args:
        name: one of `ultra.NAMES`.
        end_to_end: serve the head that says one box of each object, where there is one.
        gains: of the parts of the loss.

    Raises:
        PluginError: ultralytics is not installed.
    """

    def __init__(self, name: str, *, classes: int, end_to_end: bool, gains: LossConfig) -> None:
        network: Any = build_network(name, classes=classes)
        super().__init__(network, needs_nms=True)
        self._gains = gains
        self._strides = tuple(int(stride) for stride in network.stride)
        self._two_heads = getattr(self._last, "one2one_cv2", None) is not None
        self.needs_nms = not (end_to_end and self._two_heads)

    @property
    def _last(self) -> Any:
        """The layer with the heads."""
        return cast("Any", self.network).model[-1]

    def forward(self, image: Tensor, **hints: Tensor) -> dict[str, Tensor]:
        """Boxes, scores, and raw maps: `maps` (B, 4 x bins, N), `logits` (B, classes, N); `one_maps`, `one_logits`."""
        features = self._features(image)
        maps, logits = self._say(features, many=True)
        raw = {"maps": maps, "logits": logits}
        if self._two_heads:
            # In training the second head only watches: its gradient ends here.
            seen = [feature.detach() for feature in features] if self.training else features
            raw["one_maps"], raw["one_logits"] = self._say(seen, many=False)
        served = (maps, logits) if self.needs_nms else (raw["one_maps"], raw["one_logits"])
        if self.training:  # and no gradient comes back from the boxes
            served = (served[0].detach(), served[1].detach())
        boxes, scores = self._decode(*served, features)
        return {"boxes": boxes, "scores": scores, **raw}

    def answer(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes and scores of the head that is served; the other one is not run."""
        features = self._features(image)
        return self._decode(*self._say(features, many=self.needs_nms), features)

    def criterion(self) -> YoloLoss:
        """The loss of ultralytics."""
        head = self._last
        return YoloLoss(
            classes=head.nc, bins=head.reg_max, strides=self._strides, two_heads=self._two_heads, gains=self._gains
        )

    def head(self) -> Iterable[nn.Module]:
        """The last layer: both heads."""
        return [self._last]

    def _features(self, image: Tensor) -> list[Tensor]:
        """What the heads are given: a map for each stride."""
        network: Any = self.network
        x = image.float() / 255
        kept: dict[int, Tensor] = {}
        for layer in network.model[:-1]:
            if isinstance(layer.f, int):
                x = layer(x if layer.f == -1 else kept[layer.f])
            else:
                x = layer([x if source == -1 else kept[source] for source in layer.f])
            if layer.i in network.save:
                kept[layer.i] = x
        return [kept[source] for source in self._last.f]

    def _say(self, features: Sequence[Tensor], *, many: bool) -> tuple[Tensor, Tensor]:
        """Distances (B, 4 x bins, N) and class logits (B, classes, N) of one head."""
        head = self._last
        said = head.forward_head(list(features), **(head.one2many if many else head.one2one))
        return said["boxes"], said["scores"]

    def _decode(self, maps: Tensor, logits: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Boxes (B, N, 4) in pixels and scores (B, N, classes)."""
        centres, strides = places([feature.shape[-2:] for feature in features], self._strides, maps)
        to_start, to_end = self._last.dfl(maps).chunk(2, dim=1)
        boxes = torch.cat([centres - to_start, centres + to_end], dim=1) * strides
        return boxes.transpose(1, 2), logits.sigmoid().transpose(1, 2)


class YoloLoss(DetectionLoss):
    """The loss of ultralytics: overlap, classes and distances, over task-aligned assignments (Feng et al. 2021).

    It is normalised over its batch by the sum of the assigned scores and then multiplied by the number of pictures, so
    micro-batches and ranks add and nothing divides (`weight=None`).

    With two heads their shares move from the first to the second by the epoch. ultralytics counts epochs
    in the loss, and a counter that a resume forgets changes the weights; here the shares follow `progress`, so there is
    nothing to store.

    Args:
        bins: of the distribution of distances; 1: the distance itself.
        strides: pixels between two places of each map, ascending.
    """

    def __init__(self, *, classes: int, bins: int, strides: Sequence[int], two_heads: bool, gains: LossConfig) -> None:
        super().__init__()
        self._classes, self._bins, self._strides, self._two_heads = classes, bins, tuple(strides), two_heads
        self._args = SimpleNamespace(box=gains.box, cls=gains.cls, dfl=gains.dfl, epochs=1)
        self._made: tuple[torch.device, Any] | None = None

    def forward(self, outputs: Mapping[str, Tensor], batch: Batch, progress: Progress) -> Losses:
        """The loss times the number of pictures, and its parts."""
        maps = outputs["maps"]
        loss = self._loss(maps.device)
        height, width = batch.inputs[0].shape[-2:]
        # Of the maps below the heads the loss wants to know the sizes.
        sizes = [maps.new_empty((1, 0, height // stride, width // stride)) for stride in self._strides]
        said: Any = {"boxes": maps, "scores": outputs["logits"], "feats": sizes}
        if self._two_heads:
            self._share(loss, progress)
            one = {"boxes": outputs["one_maps"], "scores": outputs["one_logits"], "feats": sizes}
            said = {"one2many": said, "one2one": one}
        boxes, labels, wanted = trained_on(batch)
        known = torch.cat([labels.clamp(min=0).unsqueeze(2).to(boxes), boxes], dim=2) * wanted.unsqueeze(2)
        nothing = known.new_empty((0, 1))
        given = {"batch_idx": nothing, "cls": nothing, "bboxes": known.new_empty((0, 4)), "known": known}
        parts: Tensor = loss(said, given)[0]
        names = ("box", "cls", "dfl" if self._bins > 1 else "l1")
        return Losses(parts.sum(), None, dict(zip(names, parts.unbind(), strict=True)))

    def _loss(self, device: torch.device) -> Any:
        """The library's loss on a device; made on first use, since it stays where it was made."""
        if self._made is None or self._made[0] != device:
            head = SimpleNamespace(
                nc=self._classes, reg_max=self._bins, stride=torch.tensor(self._strides, dtype=torch.float32).to(device)
            )
            # All that the loss looks at in a network.
            network = SimpleNamespace(
                args=self._args, model=[head], parameters=lambda: iter([torch.empty(0, device=device)])
            )
            known = library()
            one_head = _given_boxes(known.one_head)
            made = known.two_heads(network, loss_fn=one_head) if self._two_heads else one_head(network)
            self._made = device, made
        return self._made[1]

    def _share(self, loss: Any, progress: Progress) -> None:
        """Sets how much each head counts in this epoch."""
        self._args.epochs = progress.epochs
        if progress.epoch == 0:
            loss.updates, loss.o2m = 0, loss.o2m_copy
            loss.o2o = loss.total - loss.o2m
        else:
            loss.updates = progress.epoch - 1
            loss.update()


def _given_boxes(kind: type[Any]) -> type[Any]:
    """A loss that takes boxes as we have them.

    Its own way leads over centres and sizes as shares of the picture and back, which costs time and the last bit.
    """

    class GivenBoxes(kind):
        def loss(self, preds: Any, batch: Any) -> Any:
            self._known = batch["known"]
            return super().loss(preds, batch)

        def preprocess(self, targets: Tensor, batch_size: int, scale_tensor: Tensor) -> Tensor:
            """Classes and corners in pixels, (B, M, 5), zeros as padding."""
            return self._known

    return GivenBoxes


def places(sizes: Sequence[torch.Size], strides: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Where the boxes of a map are counted from: the centres of its cells (2, N), in cells, and the strides (1, N)."""
    centres: list[Tensor] = []
    scales: list[Tensor] = []
    for (height, width), stride in zip(sizes, strides, strict=True):
        y, x = torch.meshgrid(
            torch.arange(height, device=like.device, dtype=like.dtype) + 0.5,
            torch.arange(width, device=like.device, dtype=like.dtype) + 0.5,
            indexing="ij",
        )
        centres.append(torch.stack([x.flatten(), y.flatten()]))
        scales.append(torch.full((1, height * width), float(stride), device=like.device, dtype=like.dtype))
    return torch.cat(centres, dim=1), torch.cat(scales, dim=1)
