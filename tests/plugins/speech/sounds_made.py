"""Small sounds and data sets that tests write for themselves: the same utterances in each of the layouts."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile

from modelwright.config import build_config
from modelwright.data import Datasets
from modelwright_speech.config import SpeechConfig
from modelwright_speech.data import load

RATE = 16000
KINDS = ("set", "set.tar", "set.tar.gz", "set.tar.xz", "set.zip")


def tone(seconds=1.0, *, number=0, rate=RATE, loud=0.5):
    """A sound that is no other: float32, (samples,)."""
    rng = np.random.default_rng(number)
    times = np.arange(round(seconds * rate)) / rate
    waves = sum(np.sin(2 * np.pi * rng.uniform(100, 2000) * times) for _ in range(3)) / 3
    return (loud * waves).astype(np.float32)


def encoded(samples, rate=RATE, kind="WAV", subtype=None) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def write(path: Path, files: Mapping[str, bytes | str]) -> Path:
    """Files as a folder, or as an archive of the kind that the path ends in."""
    data = {name: each.encode() if isinstance(each, str) else each for name, each in files.items()}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, each in data.items():
                archive.writestr(name, each)
    elif ".tar" in path.name:
        mode = {".tar": "w", ".gz": "w:gz", ".xz": "w:xz"}[path.suffix]
        with tarfile.open(path, mode) as archive:
            for name, each in data.items():
                info = tarfile.TarInfo(name)
                info.size = len(each)
                archive.addfile(info, io.BytesIO(each))
    else:
        for name, each in data.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(each)
    return path


def config(name="manifest", path=None, **settings) -> SpeechConfig:
    """Settings; `settings` with a double underscore for a dot, those of `data` without."""
    nested = {key.replace("__", ".") if "__" in key else f"data.{key}": value for key, value in settings.items()}
    where = None if path is None else [str(each) for each in path] if isinstance(path, list) else str(path)
    return build_config(SpeechConfig, layers=[{"data.name": name, "data.path": where, **nested}])


def loaded(name="manifest", path=None, *, seed=0, known=None, frames_per_second=None, **settings) -> Datasets:
    """The splits of such settings."""
    return load(config(name, path, **settings), seed=seed, known=known, frames_per_second=frames_per_second)


def lines(rows) -> str:
    """JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def manifest(count=12, *, speakers=4, **more) -> dict[str, bytes | str]:
    """A manifest `all.jsonl` and its sounds, in three splits' worth of speakers but without splits."""
    rows = [
        {"path": f"wav/{number}.wav", "text": f"word {'abc'[number % 3]}", "speaker": f"s{number % speakers}", **more}
        for number in range(count)
    ]
    sounds = {row["path"]: encoded(tone(0.5 + 0.05 * number, number=number)) for number, row in enumerate(rows)}
    return {"all.jsonl": lines(rows), **sounds}
