"""Sound out of files, bytes and arrays: one channel, one rate, float32. Knows soundfile and soxr; no torch, no text.

Files are read and resampled in blocks, so that an hour's recording takes little more memory than its samples do.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import soundfile
import soxr

from modelwright.errors import DataError

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".oga", ".aif", ".aiff", ".au", ".caf", ".sph", ".w64")
"""Endings of sound files."""
BLOCK = 1 << 18
"""Frames that are decoded at once."""
CUT_OFF = 0.05
"""Seconds by which a sound may be shorter than its file or its manifest says."""

Raw: TypeAlias = Any
"""A path, the bytes of a file, (array, rate), or an array at the wanted rate; arrays: (n,) or (n, channels)."""


def to_samples(
    raw: Raw, rate: int, *, where: str | None = None, offset: float = 0.0, duration: float | None = None
) -> np.ndarray:
    """A sound as models hear it: the mean of its channels, resampled once.

    Args:
        raw: a path, the bytes of a file, (array, rate), or an array at `rate`; arrays are (n,) or (n, channels), floats
            in [-1, 1] or integers of any width.
        rate: samples per second of the result.
        where: what messages call it; by default the path.
        offset: seconds at its start that are left out.
        duration: seconds that are read; None: to its end.

    Returns:
        float32, (samples,); in [-1, 1] but for what resampling overshoots.

    Raises:
        DataError: it cannot be read, is cut off, or holds no sound.
    """
    where = where or name_of(raw)
    with _source(raw, rate, where) as source:
        start, frames = source.part(offset, duration)
        if not frames:
            beyond = f" after {offset:g} s" if offset else ""
            raise DataError(f"{where} holds no sound{beyond} (0 samples): record it again, or leave it out")
        made = np.empty(-(-frames * rate // source.rate) + 16, np.float32)
        filled = 0
        for block in _resampled(source.blocks(start, frames), source.rate, rate):
            if filled + len(block) > len(made):  # pragma: no cover - a resampler that gives more than it should
                made = np.concatenate([made, np.empty(len(block), np.float32)])
            made[filled : filled + len(block)] = block
            filled += len(block)
    samples = made[:filled]
    if not np.isfinite(np.abs(samples).max(initial=0.0)):
        raise DataError(f"{where} has samples that are no numbers (NaN or infinite): convert it again, or leave it out")
    return samples


def blocks(raw: Raw, rate: int, seconds: float, *, where: str | None = None) -> Iterator[np.ndarray]:
    """A sound piece by piece, which together are what `to_samples` gives; memory does not grow with its length.

    Args:
        raw: as for `to_samples`.
        rate: samples per second of the result.
        seconds: of each piece; the last is shorter.

    Raises:
        DataError: it cannot be read, is cut off, or holds no sound.
    """
    where = where or name_of(raw)
    size = max(round(seconds * rate), 1)
    with _source(raw, rate, where) as source:
        _, frames = source.part(0.0, None)
        if not frames:
            raise DataError(f"{where} holds no sound (0 samples): record it again, or leave it out")
        waiting: list[np.ndarray] = []
        count = 0
        for block in _resampled(source.blocks(0, frames), source.rate, rate):
            waiting.append(block)
            count += len(block)
            if count >= size:
                joined = np.concatenate(waiting)
                whole = count // size * size
                yield from np.split(joined[:whole], whole // size)
                waiting, count = [joined[whole:]], count - whole
        if count:
            yield np.concatenate(waiting)


def seconds_of(raw: Raw, rate: int, *, where: str | None = None) -> float:
    """How long a sound is by its header, in seconds; nothing is decoded.

    Raises:
        DataError: it cannot be read.
    """
    with _source(raw, rate, where or name_of(raw)) as source:
        return source.frames / source.rate


def name_of(raw: Raw) -> str:
    """What a message calls it."""
    return os.fspath(cast("str", raw)) if isinstance(raw, (str, os.PathLike)) else "the sound"


# Where samples come from --------------------------------------------------------------------------------------------


class _Array:
    """Samples in memory."""

    def __init__(self, array: np.ndarray, rate: int, where: str) -> None:
        if array.ndim not in (1, 2) or array.dtype.kind not in "fiu":
            raise DataError(
                f"{where}: an array of {array.dtype} with shape {array.shape} is no sound; give (samples,) or "
                "(samples, channels) of floats or integers"
            )
        if array.ndim == 2 and array.shape[1] > 32 >= array.shape[0]:
            raise DataError(f"{where}: an array of shape {array.shape} has channels first; turn it round: array.T")
        if rate <= 0:
            raise DataError(f"{where}: {rate} is no rate; give samples per second")
        self._array = array
        self.rate = rate
        self.frames = len(array)

    def part(self, offset: float, duration: float | None) -> tuple[int, int]:
        return _part(offset, duration, self.rate, self.frames)

    def blocks(self, start: int, frames: int) -> Iterator[np.ndarray]:
        for first in range(start, start + frames, BLOCK):
            yield _mono(_floats(self._array[first : min(first + BLOCK, start + frames)]))


class _File:
    """Samples of an open file."""

    def __init__(self, file: Any, where: str) -> None:
        self._file = file
        self._where = where
        self.rate = int(file.samplerate)
        self.frames = int(file.frames)

    def part(self, offset: float, duration: float | None) -> tuple[int, int]:
        return _part(offset, duration, self.rate, self.frames)

    def blocks(self, start: int, frames: int) -> Iterator[np.ndarray]:
        got = 0
        try:
            if start:
                self._file.seek(start)
            while got < frames:
                block = self._file.read(min(BLOCK, frames - got), dtype="float32", always_2d=True)
                if not len(block):
                    break
                got += len(block)
                yield _mono(block)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise DataError(f"{self._where} is damaged ({_reason(error)}): fetch or convert it again") from error
        if got < frames - CUT_OFF * self.rate:
            raise DataError(
                f"{self._where} is cut off: it ends after {got / self.rate:.2f} of {frames / self.rate:.2f} s; "
                "fetch it again"
            )


def _part(offset: float, duration: float | None, rate: int, frames: int) -> tuple[int, int]:
    """First frame and number of frames of a piece, as far as there are some."""
    start = min(round(offset * rate), frames)
    left = frames - start
    # Durations are rounded: what little is left after one belongs to it, lest the last word lose its end.
    if duration is None or (duration + CUT_OFF) * rate >= left:
        return start, left
    return start, round(duration * rate)


@contextmanager
def _source(raw: Raw, rate: int, where: str) -> Generator[_Array | _File]:
    if isinstance(raw, tuple):
        array, own = cast("tuple[Any, Any]", raw)
        yield _Array(np.asarray(array), int(own), where)
    elif isinstance(raw, (str, os.PathLike, bytes, bytearray, memoryview)):
        with _opened(cast("Any", raw), where) as file:
            yield _File(file, where)
    else:
        yield _Array(np.asarray(raw), rate, where)


@contextmanager
def _opened(raw: str | os.PathLike[str] | bytes, where: str) -> Generator[soundfile.SoundFile]:
    with ExitStack() as stack:
        try:
            if isinstance(raw, (str, os.PathLike)):
                handle = stack.enter_context(Path(raw).open("rb"))
            else:
                handle = io.BytesIO(raw)
            _check_head(handle, where)
            file = stack.enter_context(soundfile.SoundFile(handle))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise DataError(f"{where} cannot be read ({reason}): check the path") from error
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise DataError(
                f"{where} is no sound that can be read ({_reason(error)}): convert it to wav, flac, ogg, opus or mp3"
            ) from error
        yield file


def _check_head(file: Any, where: str) -> None:
    """Finds what libsndfile passes over in silence: nothing at all, and a wav that ends before its header says.

    Raises:
        DataError: it does.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if not size:
        raise DataError(f"{where} is empty (0 bytes): fetch it again, or leave it out")
    head = file.read(12)
    if head[:4] == b"RIFF" and (size < 44 or head[8:] == b"WAVE"):
        while len(chunk := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", chunk)
            left = size - file.tell()
            if name == b"data":
                # What is written while it is recorded promises nothing (0), or as much as there can be.
                if left < length < 0x7FFF0000:
                    raise DataError(f"{where} is cut off: its header promises {length:,} bytes, {left:,} are there")
                break
            if length > left:
                raise DataError(f"{where} is cut off in its header: fetch it again")
            file.seek(length + length % 2, io.SEEK_CUR)
        else:
            raise DataError(f"{where} is cut off in its header: fetch it again")
    file.seek(0)


def _reason(error: Exception) -> str:
    text = " ".join(str(getattr(error, "error_string", None) or error).split()).rstrip(".").lower()
    # libsndfile says that of an mp3 of which no frame is left.
    return "no sound in it" if text.startswith("file does not exist") else text


# Samples -------------------------------------------------------------------------------------------------------------


def _floats(array: np.ndarray) -> np.ndarray:
    """float32 in [-1, 1]; of integers their whole range is."""
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    half = 2.0 ** (8 * array.dtype.itemsize - 1)
    middle = half if array.dtype.kind == "u" else 0.0
    return ((array.astype(np.float64) - middle) / half).astype(np.float32)


def _mono(block: np.ndarray) -> np.ndarray:
    """The mean of the channels."""
    if block.ndim == 1:
        return block
    return block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)


def _resampled(pieces: Iterator[np.ndarray], own: int, rate: int) -> Iterator[np.ndarray]:
    """Pieces at `rate`; the same samples however the sound is cut into pieces."""
    if own == rate:
        yield from pieces
        return
    stream = soxr.ResampleStream(own, rate, 1, dtype="float32")
    for piece in pieces:
        yield stream.resample_chunk(np.ascontiguousarray(piece))
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
