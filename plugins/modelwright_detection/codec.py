"""Picture -> square uint8 array; boxes and scores -> boxes in its own pixels. Knows numpy and Pillow, no torch.

A picture becomes one sample, or, with tiles, one for the whole of it and one for each tile.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from modelwright.codec import Codec, Collection, Columns, Context, Format, Sample
from modelwright_detection import tiles
from modelwright_detection.boxes import Letterbox, areas, clipped, detections
from modelwright_detection.pictures import SUFFIXES, to_array

PADDING = 114
"""Grey of what a picture does not fill."""


@dataclass(frozen=True)
class DetectionCodec(Codec):
    """Letterboxes pictures and reads boxes.

    Attributes:
        classes: names, in the order of the scores.
        size: side of what the model sees, in pixels.
        nms: the model gives several boxes per object: keep the best of those that overlap.
        iou: overlap above which two boxes of a class are one object.
        least: boxes of a lower score are dropped.
        most: boxes kept in a picture, the best ones.
        confidence: score from which on a box is told and drawn; settled on validation data.
        tile: side of the tiles that larger pictures are cut into, in their own pixels; 0: none.
        overlap: share of a tile's side that it has in common with its neighbour.
    """

    suffixes: ClassVar[tuple[str, ...]] = tuple(sorted(SUFFIXES))
    batch_size: ClassVar[int] = 8
    """Pictures are large."""

    classes: tuple[str, ...]
    size: int
    nms: bool = True
    iou: float = 0.7
    least: float = 0.001
    most: int = 300
    confidence: float = 0.25
    tile: int = 0
    overlap: float = 0.2

    # Before the model ---------------------------------------------------------------------------------------------

    def prepare(self, raws: Sequence[Any]) -> list[Sample]:
        """Pictures (paths, bytes, PIL images, or uint8 arrays H x W [x 1, 3, 4]) as `image`, uint8 3 x size x size.

        The context of a sample says which part of which picture it is: h, w, left and top of the part, height and
        width of the picture. The whole picture comes before its tiles.

        Raises:
            modelwright.errors.DataError: a picture that cannot be read.
        """
        return [sample for row, raw in enumerate(raws) for sample in self._samples(raw, row)]

    def batches(self, raws: Sequence[Any], *, size: int) -> Iterator[tuple[dict[str, np.ndarray], Context]]:
        """As the default, but a picture is opened when it is needed: the tiles of a few would fill the memory."""
        waiting: list[Sample] = []
        for row, raw in enumerate(raws):
            for sample in self._samples(raw, row):
                waiting.append(sample)
                if len(waiting) == size:
                    yield self.collate(waiting)
                    waiting = []
        if waiting:
            yield self.collate(waiting)

    def _samples(self, raw: Any, row: int) -> Iterator[Sample]:
        pixels = to_array(raw)
        height, width = pixels.shape[:2]
        for region in tiles.regions(height, width, tile=self.tile, overlap=self.overlap, size=self.size):
            part = pixels[region.top : region.top + region.height, region.left : region.left + region.width]
            context = {"h": region.height, "w": region.width, "left": region.left, "top": region.top}
            array = np.ascontiguousarray(letterboxed(part, self.size).transpose(2, 0, 1))
            yield Sample({"image": array}, row, {**context, "height": height, "width": width})

    # After the model ----------------------------------------------------------------------------------------------

    def decode(self, outputs: Mapping[str, np.ndarray], context: Context | None) -> Columns:
        """Boxes (batch, n, 4) in pixels of the input and scores (batch, n, classes) as what was found in each picture.

        Without a context, each picture is taken to be as large as the input.

        Returns:
            Lists, one array a picture: `boxes` float32 (k, 4) in the picture's own pixels, `scores` float32 (k,) and
            `labels` int64 (k,), the best first; `height` and `width` of the picture; with tiles also `cut` (k,): the
            edge of a tile runs through the box.
        """
        boxes, scores = (np.asarray(outputs[name], dtype=np.float32) for name in ("boxes", "scores"))
        contexts = [{"h": self.size, "w": self.size}] * len(boxes) if context is None else context.samples
        found = [self._found(*each) for each in zip(boxes, scores, contexts, strict=True)]
        return self._columns(found, [_size(each) for each in contexts])

    def _found(self, boxes: np.ndarray, scores: np.ndarray, context: Mapping[str, Any]) -> tiles.Found:
        box = Letterbox(context["h"], context["w"], self.size)
        region = tiles.Region(context.get("left", 0), context.get("top", 0), context["w"], context["h"])
        rows, sure, labels = detections(
            boxes, scores, suppress=self.nms, overlap=self.iou, least=self.least, most=self.most
        )
        own = box.to_picture(rows)
        seen = areas(own) > 0  # what lies in the padding alone is nowhere in the picture
        own, sure, labels = own[seen], sure[seen], labels[seen].astype(np.int64)
        height, width = _size(context)
        cut = region.cuts(own, height=height, width=width, margin=tiles.MARGIN / box.scale)
        moved = own + np.array([region.left, region.top] * 2, dtype=np.float32)
        return tiles.Found(clipped(moved, height=height, width=width), sure, labels, cut)

    def _columns(self, found: Sequence[tiles.Found], sizes: Sequence[tuple[int, int]]) -> Columns:
        names = ("boxes", "scores", "labels", "cut") if self.tile else ("boxes", "scores", "labels")
        lists = {name: [getattr(each, name) for each in found] for name in names}
        heights, widths = np.array(sizes, np.int64).reshape(-1, 2).T
        return Columns({**lists, "height": heights, "width": widths})

    def merge(self, parts: Sequence[Columns]) -> Columns:
        """What was found in a picture and in its tiles as one."""
        if len(parts) == 1:
            return parts[0]
        names = ("boxes", "scores", "labels", "cut")
        found = tiles.join([tiles.Found(*(part[name][0] for name in names)) for part in parts], most=self.most)
        return self._columns([found], [(parts[0]["height"][0], parts[0]["width"][0])])

    # Files and people ---------------------------------------------------------------------------------------------

    def records(self, predictions: Columns) -> list[dict[str, Any]]:
        """What is at least as sure as `confidence`: how much of what, the picture's size, and each object.

        An object is ``{"label": name, "score": 0..1, "box": [left, top, right, bottom]}``.
        """
        return [self._record(predictions, row, least=self.confidence) for row in range(predictions.rows)]

    def _record(self, predictions: Columns, row: int, *, least: float) -> dict[str, Any]:
        sure = predictions["scores"][row] >= least
        listed = zip(*(predictions[name][row][sure].tolist() for name in ("labels", "scores", "boxes")), strict=True)
        objects = [
            {"label": self.classes[label], "score": round(score, 6), "box": [round(edge, 2) for edge in box]}
            for label, score, box in listed
        ]
        counts = np.bincount(predictions["labels"][row][sure], minlength=len(self.classes)).tolist()
        told = [f"{count} {name}" for name, count in zip(self.classes, counts, strict=True) if count]
        size = {name: int(predictions[name][row]) for name in ("width", "height")}
        return {"found": ", ".join(told) or "nothing", **size, "objects": objects}

    def formats(self) -> Mapping[str, Format | Collection]:
        """`overlay`: pictures with boxes; `coco` and `coco-all`: COCO's JSON."""
        every = f"the same with all boxes from a score of {self.least} on, to be scored"
        return {
            "overlay": Format("each picture with its boxes, as PNG", self._overlay),
            "coco": Collection(
                "COCO's JSON: what is sure enough to be told", partial(self._coco, least=self.confidence)
            ),
            "coco-all": Collection(every, partial(self._coco, least=self.least)),
        }

    def _overlay(self, name: str, raw: Any, prediction: Columns) -> tuple[str, bytes]:
        from modelwright_detection.draw import overlay, png  # fonts: only who draws needs them

        sure = prediction["scores"][0] >= self.confidence
        boxes, scores, labels = (prediction[each][0][sure] for each in ("boxes", "scores", "labels"))
        image = overlay(to_array(raw), boxes, labels, scores=scores, classes=self.classes)
        return f"{Path(name).stem}.png", png(image)

    def _coco(self, predictions: Iterable[tuple[str, Columns]], *, least: float) -> str:
        numbers = {label: number for number, label in enumerate(self.classes, start=1)}
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image, (name, prediction) in enumerate(predictions, start=1):
            record = self._record(prediction, 0, least=least)
            images.append({"id": image, "file_name": name, "width": record["width"], "height": record["height"]})
            for each in record["objects"]:
                left, top, right, bottom = each["box"]
                width, height = round(right - left, 2), round(bottom - top, 2)
                place = {"bbox": [left, top, width, height], "area": round(width * height, 2), "iscrowd": 0}
                about = {"id": len(annotations) + 1, "image_id": image, "category_id": numbers[each["label"]]}
                annotations.append({**about, **place, "score": each["score"]})
        categories = [{"id": number, "name": label} for label, number in numbers.items()]
        content = {"images": images, "categories": categories, "annotations": annotations}
        return json.dumps(content, ensure_ascii=False)


def _size(context: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of the picture that a sample is of, or is a part of."""
    return context.get("height", context["h"]), context.get("width", context["w"])


def letterboxed(pixels: np.ndarray, size: int) -> np.ndarray:
    """A picture scaled into a square (bilinear, antialiased) and centred on grey: uint8, size x size x 3.

    Args:
        pixels: uint8, height x width x 3.
    """
    height, width = pixels.shape[:2]
    box = Letterbox(height, width, size)
    inner_height, inner_width = box.inner
    if (height, width) != box.inner:
        image = Image.fromarray(np.ascontiguousarray(pixels))
        pixels = np.asarray(image.resize((inner_width, inner_height), Image.Resampling.BILINEAR))
    if box.inner == (size, size):
        return pixels
    square = np.full((size, size, 3), PADDING, dtype=np.uint8)
    square[box.top : box.top + inner_height, box.left : box.left + inner_width] = pixels
    return square
