"""Where pictures of a split come from, listed or published, under one shape: labels first, pixels on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from modelwright_image.datasets import LazyPictures, Pictures, PictureSet
from modelwright_image.pictures import Resize, fit, to_array
from modelwright_image.published import Published
from modelwright_image.reading import TINY, Wanted, read
from modelwright_image.sources import Found

if TYPE_CHECKING:
    from modelwright.task import Split

GIB = 2**30


@dataclass(frozen=True)
class Order:
    """How pictures are to be read.

    Attributes:
        split: their split, for messages.
        classes: names, in the order of the labels.
        size, channels: None: as the pictures are.
        resize: how a picture becomes square.
        memory: bytes of decoded pictures that may be kept.
    """

    split: Split
    classes: tuple[str, ...]
    size: int | None
    channels: int | None
    resize: Resize
    memory: float


@dataclass
class Problems:
    """What reading met.

    Attributes:
        bad: pictures that cannot be used, each as (where, reason).
        looked_at: how many were looked at.
        notes: what a user should know.
    """

    bad: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    looked_at: int = 0
    notes: list[str] = field(default_factory=list[str])


class Pool(Protocol):
    """Samples that splits can be cut from.

    Attributes:
        labels: each sample's class.
        classes: every class, in order.
    """

    labels: Sequence[str]
    classes: tuple[str, ...]

    def read(self, rows: np.ndarray, order: Order, problems: Problems) -> PictureSet | None:
        """The given samples as pictures; None: not one of them can be read."""
        ...


class FilePool:
    """Pictures in files."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self.labels: Sequence[str] = [item.label for item in found.items]
        self.classes = tuple(sorted(set(self.labels)))

    def read(self, rows: np.ndarray, order: Order, problems: Problems) -> PictureSet | None:
        """See `Pool.read`."""
        items = [self._found.items[row] for row in rows.tolist()]
        reading = read(items, Wanted(order.size, order.channels, order.resize, order.memory))
        # Entries that name no picture belong to no split in particular: told once.
        missing, self._found.bad = self._found.bad, []
        problems.bad += [*missing, *((items[slot].where, reason) for slot, reason in reading.bad)]
        problems.looked_at += len(items) + len(missing)
        if reading.shape is None:
            return None
        if reading.tiny:
            first = items[reading.tiny[0]].where
            problems.notes.append(
                f"{order.split}: {len(reading.tiny)} pictures have a side under {TINY} pixels (first: {first})"
            )
        items = [items[slot] for slot in reading.kept.tolist()]
        number = {name: label for label, name in enumerate(order.classes)}
        labels = np.array([number[item.label] for item in items], dtype=np.int64)
        if reading.pixels is not None:
            return Pictures(reading.pixels, labels, names=[item.where for item in items], classes=order.classes)
        needed = reading.shape.bytes(len(items)) / GIB
        problems.notes.append(
            f"{order.split}: {needed:.2g} GiB of decoded pictures are more than data.memory leaves; each is decoded "
            "whenever it is needed, which is slower"
        )
        return LazyPictures(
            items,
            labels,
            digests=reading.digests,
            classes=order.classes,
            shape=reading.shape,
            resize=order.resize,
        )


class PublishedPool:
    """Pictures of a published set; `title` is what they are called by: "digits[12]"."""

    def __init__(self, found: Published, *, title: str) -> None:
        self._found = found
        self._title = title
        self.classes = found.classes
        self.labels: Sequence[str] = [found.classes[label] for label in found.labels.tolist()]

    def names(self, rows: np.ndarray) -> list[str]:
        """What the given samples are called."""
        return [f"{self._title}[{row}]" for row in rows.tolist()]

    def read(self, rows: np.ndarray, order: Order, problems: Problems) -> PictureSet | None:
        """See `Pool.read`; published sets are small and always kept in memory."""
        native = self._found.pixels
        size, channels = order.size or native.shape[1], order.channels or native.shape[3]
        if native.shape[1:] == (size, size, channels):
            pixels = native if len(rows) == len(native) else native[rows]
        else:
            pixels = np.empty((len(rows), size, size, channels), np.uint8)
            for place, row in enumerate(rows.tolist()):
                pixels[place] = fit(to_array(native[row], channels=channels), size=size, resize=order.resize)
        problems.looked_at += len(rows)
        return Pictures(pixels, self._found.labels[rows], names=self.names(rows), classes=order.classes)
