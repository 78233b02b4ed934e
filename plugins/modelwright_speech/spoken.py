"""The embedded data: commands and digits spoken by espeak-ng. Needs the extra speech-demo; knows no settings, no torch.

What is said is a pure function of (seed, number). espeak-ng carries state from one utterance to the next (even past its
own reset), and seeds its noise with the time of day: so a set is spoken in order by a process of its own, with a fixed
seed, and kept in a folder of the user's cache, with a digest. Validation and test have voices that training does not.

espeak-ng is GPL-3.0; it runs as a process of its own, and nothing of it is part of a bundle.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import soundfile

from modelwright.data import Split
from modelwright.errors import DataError
from modelwright_speech.sounds import to_samples

VERSION = 1
"""Rises when the grammar, the voices or how they are spoken change."""
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ROOMS = ("kitchen", "bedroom", "garden", "office", "hall")
THINGS = ("light", "heater", "radio", "fan", "door")
NAMES = ("anna", "ben", "carol", "david")
VOICES: Mapping[Split, tuple[str, ...]] = {
    "train": (
        "en-us+m1",
        "en-us+f1",
        "en-us+m7",
        "en-us+f4",
        "en-gb-x-rp+m2",
        "en-gb-x-rp+f2",
        "en-gb-x-rp+m8",
        "en-gb-scotland+f5",
        "en-gb-scotland+m4",
        "en-gb-x-gbclan+m1",
        "en-gb-x-gbclan+f1",
        "en-us-nyc+m5",
        "en-us-nyc+f2",
        "en-us+klatt2",
    ),
    "valid": ("en-us+m3", "en-gb-x-gbcwmd+belinda"),
    "test": ("en-gb-x-rp+m6", "en-us+f3", "en-029+rob", "en-gb-x-gbcwmd+linda"),
}
"""Full names: espeak-ng takes a short one for another voice in silence. No variant of a test voice is heard before."""
NUMBERED: Mapping[Split, int] = {"train": 0, "valid": 1 << 40, "test": 2 << 40}
"""Where the numbers of each split's utterances begin."""
RATE = (130, 200)
"""Words per minute."""
PITCH = (25, 75)
"""espeak-ng's own scale, 0 to 99."""
SETS = 8
"""Sets that stay in the cache; those used longest ago go. One of 3,000 utterances takes some 90 MB."""
VOLUME = 60
"""Of 200; at its usual 100 some voices clip."""

FEW = 200
"""Lines that are spoken in about a second."""


@dataclass(frozen=True)
class Line:
    """What is to be said.

    Attributes:
        text: words in lower case.
        voice: espeak-ng's full name.
        rate: words per minute.
        pitch: from 0 to 99.
    """

    text: str
    voice: str
    rate: int
    pitch: int


@dataclass(frozen=True)
class Spoken:
    """A set that has been spoken.

    Attributes:
        lines: what was said.
        samples: of each, int16 at the rate asked for; views of one array.
        folder: where the set is kept.
    """

    lines: list[Line]
    samples: list[np.ndarray]
    folder: Path


# What is said --------------------------------------------------------------------------------------------------------


def plan(counts: Mapping[Split, int], *, seed: int) -> dict[Split, list[Line]]:
    """What each split says; a line depends on `seed`, the split and its number only."""
    return {split: [line(seed, split, index) for index in range(count)] for split, count in counts.items()}


def line(seed: int, split: Split, index: int) -> Line:
    """One line of a split."""
    digest = hashlib.blake2b(f"{VERSION}:{seed}:{NUMBERED[split] + index}".encode(), digest_size=8).digest()
    rng = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
    voices = VOICES[split]
    voice = voices[int(rng.integers(len(voices)))]
    return Line(sentence(rng), voice, int(rng.integers(*RATE)), int(rng.integers(*PITCH)))


def sentence(rng: np.random.Generator) -> str:
    """A command, or some digits."""

    def one(words: Sequence[str]) -> str:
        return words[int(rng.integers(len(words)))]

    def digits(low: int, high: int) -> str:
        return " ".join(one(DIGITS) for _ in range(int(rng.integers(low, high + 1))))

    kind = int(rng.integers(10))
    if kind < 4:
        return digits(2, 6)
    match kind:
        case 4:
            return f"turn {one(('on', 'off'))} the {one(ROOMS)} {one(THINGS)}"
        case 5:
            return f"{one(('open', 'close', 'lock'))} the {one(ROOMS)} {one(('door', 'window', 'blinds'))}"
        case 6:
            return f"call {one(NAMES)} {one(('now', 'later', 'at home'))}"
        case 7:
            return f"set {one(('a timer', 'an alarm'))} for {one(DIGITS[1:])} {one(('minutes', 'hours'))}"
        case 8:
            return f"dial {digits(3, 6)}"
        case _:
            return f"play {one(('some music', 'the news', 'the next song'))} in the {one(ROOMS)}"


# How it is spoken and kept -------------------------------------------------------------------------------------------


def speak(lines: Sequence[Line], rate: int) -> Spoken:
    """The sound of each line; spoken once, then read from the cache.

    Args:
        rate: samples per second.

    Raises:
        DataError: espeak-ng is not installed, or fails.
    """
    wanted = json.dumps([VERSION, rate, [astuple(each) for each in lines]])
    name = f"spoken-{hashlib.blake2b(wanted.encode(), digest_size=12).hexdigest()}"
    few = len(lines) <= FEW
    for root in _roots(few=few):
        if (kept := _kept(root / name)) is not None:
            return _cut(lines, kept, root / name)
    sound, ends = _render(lines, rate)
    for root in _roots(few=few):
        with suppress(OSError):
            _keep(root / name, sound, ends, rate)
            return _cut(lines, (sound, ends), root / name)
    raise DataError("no folder for spoken data can be written: set XDG_CACHE_HOME or TMPDIR to one")


def _cut(lines: Sequence[Line], kept: tuple[np.ndarray, np.ndarray], folder: Path) -> Spoken:
    sound, ends = kept
    return Spoken(list(lines), np.split(sound, ends[:-1]), folder)


def _roots(*, few: bool) -> Iterator[Path]:
    """Where sets are kept: the user's cache, or, where that cannot be written, the folder of temporary files.

    A set of a few lines, spoken again in a second, does not claim a place in the user's home.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "modelwright"
    temporary = Path(tempfile.gettempdir()) / f"modelwright-{getattr(os, 'getuid', lambda: 0)()}"
    yield from (temporary, home) if few else (home, temporary)


def _kept(folder: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """int16 samples and where each line ends; None: they are not there, or not as they were written."""
    try:
        index: dict[str, Any] = json.loads((folder / "index.json").read_text())
        data = (folder / "sound.flac").read_bytes()
    except (OSError, ValueError):
        return None
    if hashlib.sha256(data).hexdigest() != index.get("sha256"):
        return None
    sound, _ = soundfile.read(folder / "sound.flac", dtype="int16")
    ends = np.cumsum(index["samples"])
    if not len(ends) or ends[-1] != len(sound):
        return None
    with suppress(OSError):
        os.utime(folder)
    return sound, ends


def _keep(folder: Path, sound: np.ndarray, ends: np.ndarray, rate: int) -> None:
    """Writes a set aside and renames it; another process may do the same."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".spoken-", dir=folder.parent))
    try:
        soundfile.write(aside / "sound.flac", sound, rate, subtype="PCM_16")
        index = {
            "sha256": hashlib.sha256((aside / "sound.flac").read_bytes()).hexdigest(),
            "samples": np.diff(ends, prepend=0).tolist(),
        }
        (aside / "index.json").write_text(json.dumps(index))
        if folder.exists() and _kept(folder) is None:  # damaged
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # somebody else was quicker: the same set
            aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    with suppress(OSError):  # others may be at it too
        sets = sorted(folder.parent.glob("spoken-*"), key=lambda each: each.stat().st_mtime, reverse=True)
        for old in sets[SETS:]:
            shutil.rmtree(old, ignore_errors=True)


def _render(lines: Sequence[Line], rate: int) -> tuple[np.ndarray, np.ndarray]:
    """int16 samples of all lines, one after the other, and where each ends."""
    if importlib.util.find_spec("espeakng_loader") is None:
        raise DataError(
            "data.name=spoken needs espeak-ng, which is not installed. Install it: "
            'pip install "modelwright[speech-demo]"'
        )
    orders = "\n".join(json.dumps(astuple(each)) for each in lines)
    done = subprocess.run(
        [sys.executable, "-c", "from modelwright_speech.spoken import main; main()"],
        input=orders.encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise DataError(f'espeak-ng failed ({last[0]}): install it anew, pip install "modelwright[speech-demo]"')
    made: list[np.ndarray] = []
    own, rest = np.frombuffer(done.stdout[:4], "<u4").item(), done.stdout[4:]
    for _ in lines:
        size = int(np.frombuffer(rest[:4], "<u4").item())
        heard = np.frombuffer(rest[4 : 4 + size], "<i2")
        rest = memoryview(rest)[4 + size :]
        samples = to_samples((heard, own), rate, where="espeak-ng's sound")
        made.append(np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16))
    return np.concatenate(made), np.cumsum([len(each) for each in made])


# The speaking process ------------------------------------------------------------------------------------------------


def main() -> None:
    """Reads lines as JSON and writes the rate, then each line's bytes with their number; all counts are 4 bytes."""
    orders = [json.loads(each) for each in sys.stdin.buffer.read().splitlines()]
    # What the library prints must not come between the samples.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with out:
        for piece in _spoken(orders):
            out.write(piece)


def _spoken(orders: Sequence[Sequence[Any]]) -> Iterator[bytes]:
    import espeakng_loader

    loader = cast("Any", espeakng_loader)
    library = ctypes.CDLL(loader.get_library_path())
    heard: list[bytes] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    def hear(samples: int | None, count: int, _events: int | None) -> int:
        if samples and count > 0:
            heard.append(ctypes.string_at(samples, 2 * count))
        return 0

    synchronous, dont_exit, rate_of, volume_of, pitch_of, utf8 = 2, 0x8000, 1, 2, 3, 1
    rate = library.espeak_Initialize(synchronous, 0, loader.get_data_path().encode(), dont_exit)
    if rate <= 0:
        raise SystemExit("espeak-ng could not be initialised")
    library.espeak_SetSynthCallback(hear)
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # it seeds its noise with the time of day
    yield np.uint32(rate).astype("<u4").tobytes()
    for text, voice, speed, pitch in orders:
        heard.clear()
        if library.espeak_SetVoiceByName(voice.encode()):
            raise SystemExit(f"espeak-ng has no voice {voice}")
        library.espeak_SetParameter(rate_of, speed, 0)
        library.espeak_SetParameter(volume_of, VOLUME, 0)
        library.espeak_SetParameter(pitch_of, pitch, 0)
        spelt = text.encode() + b"\0"
        if library.espeak_Synth(spelt, ctypes.c_size_t(len(spelt)), 0, 1, 0, utf8, None, None):
            raise SystemExit(f"espeak-ng could not say {text!r}")
        library.espeak_Synchronize()
        data = b"".join(heard)
        yield np.uint32(len(data)).astype("<u4").tobytes()
        yield data
