"""Random boxes that tests of results share: on quarters of a pixel, so that overlaps are exact in any order of sums."""

from __future__ import annotations

import numpy as np

from modelwright.codec import Columns


def random_boxes(rng, count, *, side=200.0, largest=None):
    """float32, (count, 4), inside a square; of all sizes."""
    corner = rng.random((count, 2)) * side * 0.8
    extent = 2 + rng.random((count, 2)) ** 2 * (largest or side * 0.6)
    return (np.round(np.concatenate([corner, np.minimum(corner + extent, side)], axis=1) * 4) / 4).astype(np.float32)


def random_truths(rng, pictures, classes, *, most=6, crowds=0.15):
    """Truths of some pictures, a few of them empty, one class in `classes` absent."""
    boxes, labels, crowd = [], [], []
    for _ in range(pictures):
        count = int(rng.integers(0, most + 1)) if rng.random() > 0.15 else 0
        boxes.append(random_boxes(rng, count))
        labels.append(rng.integers(0, max(classes - 1, 1), count))
        crowd.append(rng.random(count) < crowds)
    return Columns({"boxes": boxes, "labels": labels, "crowd": crowd})


def random_predictions(rng, truths, classes, *, ties=False):
    """The truths, moved a little, some left out or mislabelled, and others beside them; a picture without any."""
    boxes, scores, labels = [], [], []
    for row in range(truths.rows):
        true, names = truths["boxes"][row], truths["labels"][row]
        again = rng.integers(0, 3, len(true))
        moved = np.repeat(true, again, axis=0)
        moved = moved + np.round(rng.normal(size=moved.shape) * rng.choice([0.5, 2, 6]) * 4) / 4
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        said = np.where(rng.random(len(moved)) < 0.8, np.repeat(names, again), rng.integers(0, classes, len(moved)))
        others = int(rng.integers(0, 5))
        moved = np.concatenate([moved, random_boxes(rng, others)])
        said = np.concatenate([said, rng.integers(0, classes, others)])
        if rng.random() < 0.1:
            moved, said = moved[:0], said[:0]
        sure = rng.random(len(said))
        boxes.append(moved.astype(np.float32))
        scores.append((np.round(sure * 4) / 4 if ties else sure).astype(np.float32))
        labels.append(said.astype(np.int64))
    return Columns({"boxes": boxes, "scores": scores, "labels": labels}, truths.ids)
