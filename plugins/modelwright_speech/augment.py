"""Changes to training sound: speed, room, noise, gain. Knows numpy, soxr and the settings; no text, no models.

Everything drawn comes from the key, so an utterance is changed alike in any batch, worker and run.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import soxr

from modelwright.data import Key
from modelwright.errors import DataError
from modelwright.listings import some
from modelwright.training.randomness import generator
from modelwright_speech.config import AugmentConfig
from modelwright_speech.sounds import SUFFIXES, to_samples

STEP = 0.01
"""Speeds are multiples of it: the resampler has filters for few ratios only to prepare."""
ROOMS = (0.1, 0.6)
"""Seconds in which a synthetic room's echo falls by 60 dB, from, to."""
DIRECT = (0.0, 12.0)
"""dB by which the direct sound is louder than a synthetic room's echo, from, to."""
LONGEST_ROOM = 1.0
"""Seconds of a room's response that are used."""
COLOURS = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Exponents of made noise: power falls with the frequency to this power; 0 white, 1 pink, 2 brown."""
MADE = 1 << 18
"""Samples of made noise, of which each sound gets a stretch: to make it anew would take longer than all else."""
LONGEST_NOISE = 60.0
"""Seconds of each noise recording that are used."""


class Augmenter:
    """Changes a sound as its key says.

    Args:
        settings: what to do; folders of noises and rooms are read at once.
        rate: samples per second.

    Raises:
        DataError: a folder that is not there, holds no sound, or one that cannot be read.
    """

    def __init__(self, settings: AugmentConfig, rate: int) -> None:
        self.settings = settings
        self.rate = rate
        self._noises: list[np.ndarray] = []
        self._rooms: list[np.ndarray] = []
        if settings.noise and settings.noise_path:
            self._noises = _folder(settings.noise_path, rate, LONGEST_NOISE, key="augment.noise_path")
        if settings.room and settings.room_path:
            found = _folder(settings.room_path, rate, None, key="augment.room_path")
            self._rooms = [_response(sound, rate) for sound in found]

    def __call__(self, samples: np.ndarray, key: Key) -> np.ndarray:
        """The sound that `key` asks for, changed: speed, room, noise, gain.

        Args:
            samples: float32, (samples,); not written to.

        Returns:
            float32; of another length where the speed is changed. Its peak is at most 1, or what it was.
        """
        settings = self.settings
        # All drawn at once, and each change from a generator of its own: none depends on whether another is made.
        speed, room, noise, gain, between = generator(key.seed, key.epoch, key.index, "augment").random(5).tolist()
        peak = max(1.0, float(np.abs(samples).max(initial=0.0)))
        if settings.speed:
            samples = faster(samples, 1 + settings.speed * (2 * speed - 1), self.rate)
        if room < settings.room:
            samples = self._in_room(samples, generator(key.seed, key.epoch, key.index, "room"))
        if noise < settings.noise:
            low, high = sorted(settings.snr)
            own = generator(key.seed, key.epoch, key.index, "noise")
            samples = self._with_noise(samples, low + (high - low) * between, own)
        if settings.gain:
            samples = samples * np.float32(10 ** (settings.gain * (2 * gain - 1) / 20))
        loudest = float(np.abs(samples).max(initial=0.0))
        return samples * np.float32(peak / loudest) if loudest > peak else np.ascontiguousarray(samples)

    def _in_room(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self._rooms:
            return reverberated(samples, self._rooms[int(rng.integers(len(self._rooms)))])
        return reverberated(samples, synthetic_room(rng, self.rate))

    def _with_noise(self, samples: np.ndarray, snr: float, rng: np.random.Generator) -> np.ndarray:
        if self._noises:
            noise = self._noises[int(rng.integers(len(self._noises)))]
        else:
            noise = _made(COLOURS[int(rng.integers(len(COLOURS)))])
        return mixed(samples, _stretch(noise, len(samples), rng), snr)


# What changes --------------------------------------------------------------------------------------------------------


def faster(samples: np.ndarray, factor: float, rate: int) -> np.ndarray:
    """Played faster by a factor near 1, in steps of `STEP`; pitch rises with it (Ko et al., Interspeech 2015)."""
    steps = round(factor / STEP)
    if steps == round(1 / STEP) or not len(samples):
        return samples
    return soxr.resample(samples, steps, round(1 / STEP), quality="LQ")


def mixed(samples: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Sound with noise that is `snr` dB softer; without, where either is silent."""
    powers = [float(np.dot(each, each)) for each in (samples, noise)]
    if not all(powers):
        return samples
    return samples + noise * np.float32(np.sqrt(powers[0] / powers[1] / 10 ** (snr / 10)))


def coloured(rng: np.random.Generator, size: int, exponent: float) -> np.ndarray:
    """Noise whose power falls with the frequency to the power of `exponent`: float32, (size,)."""
    length = fast_size(size)
    spectrum = rng.standard_normal(2 * (length // 2 + 1), dtype=np.float32).view(np.complex64)
    # Flat below 50 Hz (at 16 kHz): else what nobody hears would have most of the power.
    frequencies = np.maximum(np.arange(len(spectrum), dtype=np.float32), length / 320)
    shape = frequencies ** np.float32(-exponent / 2)
    shape[0] = 0
    noise = np.fft.irfft(spectrum * shape, length)[:size].astype(np.float32)
    return noise / np.float32(np.abs(noise).max(initial=1e-9))


@functools.cache
def _made(exponent: float) -> np.ndarray:
    noise = coloured(generator("noise", round(4 * exponent)), MADE, exponent)
    noise.flags.writeable = False
    return noise


def synthetic_room(rng: np.random.Generator, rate: int) -> np.ndarray:
    """The response of a room: the direct sound, then noise that decays exponentially (Polack 1988)."""
    seconds = float(rng.uniform(*ROOMS))
    times = np.arange(1, round(seconds * rate), dtype=np.float32) / rate
    echo = rng.standard_normal(len(times), dtype=np.float32) * np.exp(times * np.float32(-3 * np.log(10) / seconds))
    energy = max(float(np.dot(echo, echo)), 1e-12)
    echo *= np.float32(np.sqrt(10 ** (-float(rng.uniform(*DIRECT)) / 10) / energy))
    return np.concatenate([np.ones(1, np.float32), echo])


def reverberated(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Sound in a room: as long as before, of the same energy, and not later."""
    if not len(samples):
        return samples
    length = fast_size(len(samples) + len(response) - 1)
    spectrum = np.fft.rfft(samples, length) * np.fft.rfft(response, length)
    heard = np.fft.irfft(spectrum, length)[: len(samples)].astype(np.float32)
    energies = [float(np.dot(each, each)) for each in (samples, heard)]
    return heard * np.float32(np.sqrt(energies[0] / energies[1])) if all(energies) else samples


def fast_size(size: int) -> int:
    """The least length of the form 2^n, 3 2^n or 5 2^n that is not below `size`: its Fourier transform is quick."""
    power = 1 << max(size - 1, 1).bit_length()
    return min(each for each in (power, power * 3 // 4, power * 5 // 8) if each >= size)


def _stretch(noise: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A stretch of a recording from a place of chance on; a short one is repeated."""
    start = int(rng.integers(len(noise)))
    return np.resize(np.roll(noise, -start) if size > len(noise) - start else noise[start:], size)


# Recordings ----------------------------------------------------------------------------------------------------------


def _folder(path: str, rate: int, longest: float | None, *, key: str) -> list[np.ndarray]:
    """The sounds of a folder, by name."""
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"{root} is no folder: check {key}")
    names = sorted(Path(folder) / name for folder, _, names in os.walk(root) for name in names)
    files = [name for name in names if name.suffix.lower() in SUFFIXES and not name.name.startswith(".")]
    if not files:
        raise DataError(f"{root} holds no sound ({some(SUFFIXES)}): check {key}")
    sounds = [to_samples(file, rate, duration=longest) for file in files]
    if silent := [str(file) for file, sound in zip(files, sounds, strict=True) if not np.any(sound)]:
        raise DataError(f"{some(silent)} in {key} is silent: take it out")
    return sounds


def _response(sound: np.ndarray, rate: int) -> np.ndarray:
    """A room's response from its direct sound on, which is made 1: an echo must not come later than the text says."""
    start = int(np.abs(sound).argmax())
    return sound[start : start + round(LONGEST_ROOM * rate)] / sound[start]
