"""Utterances as datasets: as they are, or changed for training. Knows no layouts, no tokens and no models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modelwright.data import Example, Key
from modelwright_speech.augment import Augmenter

CHUNK = 1 << 24
"""Samples that lie together in memory: workers share each chunk, and none is ever moved."""


@dataclass(frozen=True)
class Clip:
    """An utterance that has been heard once.

    Attributes:
        name: the sound as a person would look it up.
        text: what is said, normalised.
        speaker: "": not known.
        seconds: how long it is.
        open: gives its samples: float32, (samples,).
    """

    name: str
    text: str
    speaker: str
    seconds: float
    open: Callable[[], np.ndarray]


@dataclass
class Budget:
    """Memory for decoded sound, over all splits.

    Attributes:
        left: bytes that are free.
        full: a sound did not fit.
    """

    left: float
    full: bool = False


class Kept:
    """Decoded sound in memory, as much as fits.

    Args:
        budget: what there is for this and others.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._chunks: list[Tensor] = []
        self._used = 0
        self._places: dict[int, tuple[int, int, int]] = {}

    def add(self, index: int, samples: np.ndarray) -> bool:
        """Keeps a sound, float32 (samples,); False: it does not fit any more."""
        if self._budget.full or samples.nbytes > self._budget.left:
            self._budget.full = True
            return False
        if not self._chunks or self._used + len(samples) > len(self._chunks[-1]):
            self._trim()
            self._chunks.append(torch.empty(max(CHUNK, len(samples)), dtype=torch.float32))
            self._used = 0
        end = self._used + len(samples)
        self._chunks[-1].numpy()[self._used : end] = samples
        self._places[index] = (len(self._chunks) - 1, self._used, end)
        self._used = end
        self._budget.left -= samples.nbytes
        return True

    def close(self, slots: Sequence[int]) -> Kept:
        """Itself, when no more sounds come.

        Args:
            slots: the numbers that sounds were kept under, in the order that they are asked for in: the first becomes
                0.
        """
        self._places = {index: self._places[slot] for index, slot in enumerate(slots) if slot in self._places}
        self._trim()
        return self

    def _trim(self) -> None:
        if self._chunks:  # what the last chunk has too much is given back
            self._chunks[-1] = self._chunks[-1][: self._used].clone()

    def get(self, index: int) -> np.ndarray | None:
        """A sound; None: it is not kept. It cannot be written to."""
        place = self._places.get(index)
        if place is None:
            return None
        chunk, start, end = place
        samples = self._chunks[chunk][start:end].numpy()
        samples.flags.writeable = False
        return samples

    def __len__(self) -> int:
        return len(self._places)


class Clips:
    """Utterances as they are.

    Args:
        clips: the utterances.
        rate: samples per second.
        kept: those in memory.
    """

    def __init__(self, clips: Sequence[Clip], *, rate: int, kept: Kept | None = None) -> None:
        self.clips = list(clips)
        self.rate = rate
        self.durations = np.array([clip.seconds for clip in self.clips], dtype=np.float64)
        self._kept = kept or Kept(Budget(0))

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: Key) -> Example:
        """The sound, float32 (samples,) at `rate`; targets text (normalised) and speaker ("": not known)."""
        return self._example(key.index, self.samples(key.index))

    def _example(self, index: int, samples: np.ndarray) -> Example:
        clip = self.clips[index]
        return Example(samples, {"text": clip.text, "speaker": clip.speaker})

    def samples(self, index: int) -> np.ndarray:
        """A sound as it is: float32, (samples,)."""
        kept = self._kept.get(index)
        return self.clips[index].open() if kept is None else kept

    @property
    def kept(self) -> int:
        """How many are in memory."""
        return len(self._kept)

    @property
    def texts(self) -> list[str]:
        """What is said in each, normalised."""
        return [clip.text for clip in self.clips]

    def name_of(self, index: int) -> str:
        """Where the sound came from: a file, or "spoken/train[12]"."""
        return self.clips[index].name


class TrainClips(Clips):
    """Utterances changed for training; the same key gives the same change.

    Args:
        plain: the utterances as they are.
        augmenter: what changes them.
    """

    def __init__(self, plain: Clips, augmenter: Augmenter) -> None:
        super().__init__(plain.clips, rate=plain.rate)
        self.plain = plain
        self.augmenter = augmenter

    def __getitem__(self, key: Key) -> Example:
        """The sound, changed: float32 (samples,) at `rate`; targets text (normalised) and speaker ("": not known)."""
        return self._example(key.index, self.augmenter(self.plain.samples(key.index), key))

    def samples(self, index: int) -> np.ndarray:
        """A sound as it is: float32, (samples,)."""
        return self.plain.samples(index)

    @property
    def kept(self) -> int:
        """How many are in memory."""
        return self.plain.kept
