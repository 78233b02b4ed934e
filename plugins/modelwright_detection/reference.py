"""COCO's averages from faster-coco-eval, what torchmetrics scores with too. Knows columns; counts nothing itself.

It is asked directly: torchmetrics takes ten seconds to import, and scores each class anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelwright.codec import Columns
from modelwright_detection.boxes import areas
from modelwright_detection.matching import SIZES, THRESHOLDS


def scores(predictions: Columns, truths: Columns, *, classes: Sequence[str], most: tuple[int, ...]) -> dict[str, float]:
    """The averages by name, those of classes as "map/<class>"; not a number where there are no objects to find.

    Args:
        predictions, truths: as `metrics.measure` takes them; equal scores are counted in the order of the pictures.
        classes: names by label.
        most: detections of a class in a picture, ascending, for which recall is given; the last counts for the rest.
    """
    from faster_coco_eval import COCOeval_faster

    files = {"images": [{"id": row} for row in range(truths.rows)], "categories": _categories(len(classes))}
    true = _opened(files, truths, iscrowd=truths["crowd"])
    said = _opened(files, predictions, score=predictions["scores"])
    found: Any = COCOeval_faster(true, said, iouType="bbox", print_function=_silent)
    found.params.iouThrs, found.params.maxDets = THRESHOLDS, list(most)
    found.evaluate()
    found.accumulate()
    # -1 stands for classes without objects. (overlaps, recalls, classes, sizes, most) and the same without recalls.
    precision, recall = (np.where(found.eval[name] < 0, np.nan, found.eval[name]) for name in ("precision", "recall"))
    precision = precision[..., -1]
    values: dict[str, np.ndarray] = {
        "map": precision[..., 0],
        "map_50": precision[THRESHOLDS == 0.5, ..., 0],
        "map_75": precision[THRESHOLDS == 0.75, ..., 0],
        **{f"map_{size}": precision[..., place] for place, size in enumerate(SIZES) if place},
        **{f"mar_{count}": recall[..., 0, place] for place, count in enumerate(most)},
        **{f"mar_{size}": recall[..., place, -1] for place, size in enumerate(SIZES) if place},
        **{f"map/{name}": precision[:, :, label, 0] for label, name in enumerate(classes)},
    }
    return {name: float(np.nanmean(value)) if np.isfinite(value).any() else np.nan for name, value in values.items()}


def _categories(count: int) -> list[dict[str, Any]]:
    return [{"id": label, "name": str(label)} for label in range(count)]


def _opened(files: Mapping[str, Any], columns: Columns, **further: Any) -> Any:
    """Columns as an opened COCO file; `further` are fields of an annotation, one array a picture."""
    from faster_coco_eval import COCO

    ((field, values),) = further.items()
    annotations: list[dict[str, Any]] = []
    for row, (boxes, labels, value) in enumerate(zip(columns["boxes"], columns["labels"], values, strict=True)):
        exact = np.asarray(boxes, np.float64)
        places = np.concatenate([exact[:, :2], exact[:, 2:] - exact[:, :2]], axis=1).tolist()
        listed = zip(places, areas(exact).tolist(), labels.tolist(), value.tolist(), strict=True)
        annotations += [
            {"image_id": row, "category_id": label, "bbox": place, "area": area, "iscrowd": 0, field: each}
            for place, area, label, each in listed
        ]
    numbered = [{"id": number, **annotation} for number, annotation in enumerate(annotations, start=1)]
    opened = COCO(print_function=_silent)
    opened.dataset = {**files, "annotations": numbered}
    opened.createIndex()
    return opened


def _silent(*_: object) -> None:
    """In place of a log."""
