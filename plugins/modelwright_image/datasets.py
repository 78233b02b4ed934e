"""Pictures as a dataset: all decoded in one tensor, or each decoded when asked for. Knows no layouts and no models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from modelwright.task import Batch, Example, Key, Keys
from modelwright_image.pictures import Resize, decode, fit, flatten
from modelwright_image.reading import Shape, digest
from modelwright_image.sources import Item

STATS_SAMPLE = 2000
"""Pictures that mean and deviation are taken from where pictures are not kept in memory."""


class PictureSet(ABC):
    """Pictures of one size with their classes.

    Attributes:
        labels: int64, (N,), an index into `classes`.
        classes: names, in the order of the labels.
        size: height and width of each picture in pixels.
        channels: 1 (grey) or 3 (RGB).
    """

    def __init__(self, labels: np.ndarray, *, classes: Sequence[str], shape: Shape) -> None:
        self.labels = np.asarray(labels, dtype=np.int64)
        self.classes = tuple(classes)
        self.size = shape.size
        self.channels = shape.channels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: Key) -> Example:
        """The picture as height x width x channels of uint8; target `label`."""
        return Example(self.picture(key.index), {"label": int(self.labels[key.index])})

    @abstractmethod
    def picture(self, index: int) -> np.ndarray:
        """One picture: uint8, size x size x channels."""

    @abstractmethod
    def name_of(self, index: int) -> str:
        """Where the picture came from: a file, or "digits[12]"."""

    @abstractmethod
    def stats(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each channel on the scale 0 to 255; float64, (channels,) each."""

    @abstractmethod
    def fingerprints(self) -> list[bytes]:
        """One short digest per picture; equal pictures have equal ones."""


class Pictures(PictureSet):
    """Pictures decoded into one tensor.

    Args:
        pixels: uint8, (N, size, size, channels).
        names: where each came from.
    """

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, *, names: Sequence[str], classes: Sequence[str]) -> None:
        super().__init__(labels, classes=classes, shape=Shape(pixels.shape[1], pixels.shape[3]))
        self.pixels = torch.from_numpy(np.ascontiguousarray(pixels))
        self.names = list(names)
        self._labels = torch.from_numpy(self.labels)

    def __getitems__(self, keys: Keys) -> Batch:
        """A whole batch: (B, channels, size, size) of uint8, channels-last in memory; target `label`, int64 (B,)."""
        rows = torch.from_numpy(np.asarray(keys.indices, dtype=np.int64)).to(self.pixels.device)
        # index_select copies whole rows; indexing with a tensor costs twenty times as much.
        pictures = self.pixels.index_select(0, rows).permute(0, 3, 1, 2)
        return Batch((pictures,), {"label": self._labels.index_select(0, rows)}, np.asarray(keys.indices))

    def to(self, device: torch.device) -> Pictures:
        """Itself, with its tensors on `device`."""
        self.pixels = self.pixels.to(device)
        self._labels = self._labels.to(device)
        return self

    def picture(self, index: int) -> np.ndarray:
        """See `PictureSet.picture`."""
        return self.pixels[index].cpu().numpy()

    def name_of(self, index: int) -> str:
        """See `PictureSet.name_of`."""
        return self.names[index]

    def stats(self) -> tuple[np.ndarray, np.ndarray]:
        """See `PictureSet.stats`; over all pictures."""
        rows = max(1, (1 << 20) // max(1, self.size * self.size * self.channels))
        return _stats(self.pixels.split(rows), self.channels)

    def fingerprints(self) -> list[bytes]:
        """See `PictureSet.fingerprints`; of the decoded pixels."""
        return [digest(picture.reshape(-1).data) for picture in self.pixels.cpu().numpy()]


class LazyPictures(PictureSet):
    """Pictures decoded when asked for.

    Args:
        items: where each lies.
        digests: of each file.
    """

    def __init__(
        self,
        items: Sequence[Item],
        labels: np.ndarray,
        *,
        digests: Sequence[bytes],
        classes: Sequence[str],
        shape: Shape,
        resize: Resize,
    ) -> None:
        super().__init__(labels, classes=classes, shape=shape)
        self.resize: Resize = resize
        self._items = list(items)
        self._digests = list(digests)
        for store in {id(item.store): item.store for item in self._items}.values():
            store.ready()

    def picture(self, index: int) -> np.ndarray:
        """See `PictureSet.picture`."""
        item = self._items[index]
        pixels = flatten(decode(item.store.read(item.name)), channels=self.channels)
        return fit(pixels, size=self.size, resize=self.resize)

    def name_of(self, index: int) -> str:
        """See `PictureSet.name_of`."""
        return self._items[index].where

    def stats(self) -> tuple[np.ndarray, np.ndarray]:
        """See `PictureSet.stats`; over at most `STATS_SAMPLE` pictures, evenly spread."""
        rows = np.unique(np.linspace(0, len(self) - 1, min(len(self), STATS_SAMPLE)).round().astype(np.int64))
        return _stats((torch.from_numpy(self.picture(row).copy()) for row in rows.tolist()), self.channels)

    def fingerprints(self) -> list[bytes]:
        """See `PictureSet.fingerprints`; of the files' bytes."""
        return self._digests


def _stats(chunks: Iterable[Tensor], channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation per channel of uint8 chunks whose last axis is the channel."""
    count = 0
    total = torch.zeros(2, channels, dtype=torch.float64)
    for chunk in chunks:
        # Sums of whole numbers are exact in float64: neither chunks nor threads change the result.
        values = chunk.reshape(-1, channels).to(torch.float64)
        total += torch.stack([values.sum(0), values.square_().sum(0)]).cpu()
        count += len(values)
    mean, square = (total / max(count, 1)).numpy()
    return mean, np.sqrt(np.maximum(square - mean**2, 0.0))
