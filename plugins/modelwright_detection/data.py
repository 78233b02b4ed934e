"""Settings -> the three splits, cut where the data have none, and checked. Knows no file formats and no models."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from modelwright.data import Dataset, Datasets, Facts, Split
from modelwright.errors import ConfigError, DataError
from modelwright.listings import some
from modelwright_detection import scenes
from modelwright_detection.checks import Problems, Twins, counts_of, split_notes
from modelwright_detection.config import AugmentConfig, DetectionConfig, DetectionData
from modelwright_detection.cutting import SPLITS, with_cuts
from modelwright_detection.datasets import Kept, Pictures, TrainPictures
from modelwright_detection.entries import Found
from modelwright_detection.labels import Scene
from modelwright_detection.pictures import shrink
from modelwright_detection.reading import Order, Reading, read
from modelwright_detection.sources import find

__all__ = ["Known", "Pictures", "TrainPictures", "find_facts", "load"]

GIB = 2**30
SIZE = 640
"""Side of what the model sees where the settings give none."""
SCENE_SIZE = 160
"""The same for the embedded scenes."""
FLIP = 0.5
"""Probability of mirroring where the settings give none; for the embedded scenes 0."""


@dataclass(frozen=True)
class Known:
    """What a run knows already of its training pictures (its facts).

    Attributes:
        classes: names, in the order of the labels.
        size: side of what the model sees.
    """

    classes: tuple[str, ...]
    size: int

    @staticmethod
    def of(facts: Facts) -> Known | None:
        """What the facts of a run say; None: nothing yet."""
        return Known(tuple(facts.values["classes"]), int(facts.values["size"])) if facts.values else None


def load(config: DetectionConfig, *, seed: int, known: Known | None = None) -> Datasets:
    """The splits that the settings describe: train is a `TrainPictures`, the others are `Pictures`.

    Splits of the data are kept; where there is no valid or test split, a share of the training pictures is cut off, a
    pure function of the data and `seed`.

    Args:
        seed: of the cuts, and of the embedded scenes.
        known: None for a new run: every split is read and checked at once, so that a broken label does not show after
            hours of training. With it, each split is read when first asked for, and what is noticed then joins the
            notes.

    Raises:
        ConfigError: `data.path` is missing or names too many places.
        DataError: pictures or labels are missing, broken or contradictory (with `known`, some only when a split is
            asked for).
    """
    data = config.data
    embedded = data.name == "scenes"
    size = known.size if known else data.size or (SCENE_SIZE if embedded else SIZE)
    flip = config.augment.flip if config.augment.flip is not None else 0.0 if embedded else FLIP
    maker = _Maker(config.augment.model_copy(update={"flip": flip}), size, limit=data.memory * GIB)
    if embedded:
        if data.split is not None:
            raise ConfigError("data.split does not go with data.name=scenes, which has splits: leave it out")
        return _embedded(data, maker, seed=seed, known=known)
    notes: list[str] = []
    layout = find(data, notes=notes)
    if "train" not in layout:
        raise DataError(f"the data have no train split, only {', '.join(layout)}: name one in the data or data.split")
    cuts = with_cuts(layout, {"test": data.test, "valid": data.valid}, seed=seed, notes=notes)
    reader = _Reader(data, {split: cuts[split] for split in SPLITS if split in cuts}, maker, notes=notes, known=known)
    if known is None:
        made = reader.all()
        return Datasets(made["train"], made.get("valid"), made.get("test"), notes=notes)
    makers = {split: functools.partial(reader.one, split) for split in cuts}
    return Datasets(makers["train"], makers.get("valid"), makers.get("test"), notes=notes)


def find_facts(dataset: Dataset) -> Facts:
    """What model and codec need to know of the training pictures.

    values: classes (names), size (side of what the model sees), most (objects in one picture, at most), counts
    (objects of each class), pictures.

    Args:
        dataset: as `load` gives it.
    """
    if not isinstance(dataset, (Pictures, TrainPictures)):
        raise TypeError(f"a {type(dataset).__name__} is none of this plugin's datasets")
    return Facts(
        {
            "classes": list(dataset.classes),
            "size": int(dataset.size),
            "most": max(len(scene.objects) for scene in dataset.scenes),
            "counts": counts_of(dataset.scenes, dataset.classes).tolist(),
            "pictures": len(dataset),
        }
    )


class _Maker:
    """Makes datasets, and keeps decoded pictures as long as there is memory for them.

    Args:
        augment: changes for training, all of them given.
        size: side of what the model sees.
        limit: bytes of decoded pictures, over all splits.
    """

    def __init__(self, augment: AugmentConfig, size: int, *, limit: float) -> None:
        self.size = size
        self._augment = augment
        self._limit = limit

    def kept(self) -> Kept:
        """For the pictures of another split."""
        return Kept(self._limit)

    def fitted(self, split: Split, pixels: np.ndarray) -> np.ndarray:
        """A picture as it is kept: for training in the size that it is used in."""
        return shrink(pixels, self.size) if split == "train" else pixels

    def make(self, split: Split, reading: Reading, classes: tuple[str, ...]) -> Pictures | TrainPictures:
        """A split."""
        self._limit = reading.kept.left
        if split != "train":
            return Pictures(reading.scenes, classes=classes, size=self.size, kept=reading.kept)
        plain = Pictures(reading.scenes, classes=classes, size=self.size)
        return TrainPictures(plain, self._augment, kept=reading.kept)


# The embedded scenes ------------------------------------------------------------------------------------------------


def _embedded(data: DetectionData, maker: _Maker, *, seed: int, known: Known | None) -> Datasets:
    """Each split is composed when first asked for: there is nothing in it to be checked beforehand."""
    valid, test = round(data.scenes * data.valid), round(data.scenes * data.test)
    counts: dict[Split, int] = {"train": data.scenes - valid - test, "valid": valid, "test": test}
    if counts["train"] < 1:
        raise ConfigError(
            f"data.valid={data.valid:g} and data.test={data.test:g} leave nothing to train on: lower them"
        )
    notes: list[str] = []

    def make(split: Split) -> Pictures | TrainPictures:
        kept = maker.kept()
        made: list[Scene] = []
        for scene, pixels in scenes.compose_all(counts[split], split, seed=seed, size=maker.size):
            kept.add(len(made), maker.fitted(split, pixels))
            made.append(scene)
        reading = Reading(made, kept.close(range(len(made))))
        classes = known.classes if known else scenes.CLASSES
        notes.extend(split_notes(split, made, classes, reading.odd))
        return maker.make(split, reading, classes)

    makers = {split: functools.partial(make, split) for split in SPLITS if counts[split]}
    return Datasets(makers["train"], makers.get("valid"), makers.get("test"), notes=notes)


# Files --------------------------------------------------------------------------------------------------------------


class _Reader:
    """Reads splits, the training split first: it decides on the classes."""

    def __init__(
        self,
        data: DetectionData,
        layout: Mapping[Split, Callable[[], Found]],
        maker: _Maker,
        *,
        notes: list[str],
        known: Known | None,
    ) -> None:
        self._data = data
        self._layout = layout
        self._maker = maker
        self._notes = notes
        self._classes = known.classes if known else None
        self._twins = Twins()

    def all(self) -> dict[Split, Pictures | TrainPictures]:
        """Every split; one error names what is bad in all of them."""
        problems = Problems()
        readings: dict[Split, Reading] = {split: self._read(split, problems) for split in self._layout}
        self._judge(problems)
        return {split: self._checked(split, reading) for split, reading in readings.items()}

    def one(self, split: Split) -> Pictures | TrainPictures:
        """One split."""
        problems = Problems()
        reading = self._read(split, problems)
        self._judge(problems)
        return self._checked(split, reading)

    def _read(self, split: Split, problems: Problems) -> Reading:
        found = self._layout[split]()
        classes = self._classes = self._classes or found.classes
        if not found.entries and not found.bad:
            raise DataError(f"the {split} split has no picture: check data.path")
        if not found.bad and not any(entry.marks and len(entry.marks.labels) for entry in found.entries):
            raise DataError(
                f"the {split} split has {len(found.entries)} pictures and not one labelled object; labels belong in "
                f"{found.wanted}: add them, or take the split out"
            )
        order = Order(_numbers(found, classes, split), functools.partial(self._maker.fitted, split))
        return read(found, order, self._maker.kept(), problems)

    def _judge(self, problems: Problems) -> None:
        """Stops at what is bad, or counts it, as `data.on_bad` says."""
        if not problems.bad:
            return
        if self._data.on_bad == "error":
            raise DataError(f"{problems.told()}; mend them, or set data.on_bad=skip to leave them out")
        self._notes.append(f"{problems.told()}; they are left out")

    def _checked(self, split: Split, reading: Reading) -> Pictures | TrainPictures:
        classes = self._classes or ()
        objects = sum(len(scene.objects) for scene in reading.scenes)
        if not objects:
            raise DataError(f"the {split} split has no object that can be used: check data.path and its labels")
        made = self._maker.make(split, reading, classes)
        names = [scene.name for scene in reading.scenes]
        self._notes += split_notes(split, reading.scenes, classes, reading.odd)
        self._notes += self._twins.add(split, reading.prints, names)
        if len(reading.kept) < len(made):
            left = len(made) - len(reading.kept)
            self._notes.append(
                f"{split}: {left:,} of {len(made):,} pictures do not fit into data.memory={self._data.memory:g}; they "
                "are decoded whenever they are needed, which is slower"
            )
        return made


def _numbers(found: Found, classes: tuple[str, ...], split: Split) -> np.ndarray:
    """What each label of a split becomes; -1: it does not occur, and its class is not known."""
    number = np.array([classes.index(name) if name in classes else -1 for name in found.classes], dtype=np.int64)
    used = {label for entry in found.entries if entry.marks for label in np.unique(entry.marks.labels).tolist()}
    if unknown := [found.classes[label] for label in sorted(used) if number[label] < 0]:
        raise DataError(
            f"the {split} split has classes that the training pictures have not ({some(unknown)}): name classes alike "
            f"in all splits; known are {some(classes)}"
        )
    return number
