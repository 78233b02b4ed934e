"""Finds utterances where the settings say, in any of the layouts, on disk or in archives. Opens no sound."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from modelwright.data import Split
from modelwright.errors import ConfigError, DataError
from modelwright.listings import split_rows
from modelwright.stores import archive_suffix, open_store
from modelwright_speech import common_voice, folder, librispeech, manifest, speech_commands
from modelwright_speech.utterances import Found, Layout, Tree, Utterance, joined, split_called

if TYPE_CHECKING:
    from modelwright_speech.config import SpeechData

FINDERS: Mapping[str, Callable[..., Layout]] = {
    "librispeech": librispeech.find,
    "common-voice": common_voice.find,
    "speech-commands": speech_commands.find,
    "folder": folder.find,
}


def find(data: SpeechData, *, notes: list[str]) -> Layout:
    """The splits at `data.path`, as `data.split` names them where it is given.

    Args:
        notes: receives what a user should know (files ignored, utterances in no split).

    Raises:
        ConfigError: `data.path` is missing, or names more places than there are splits.
        DataError: nothing there, nothing of the layout, a damaged archive, a CSV that does not fit.
    """
    if not data.path:
        raise ConfigError(f"data.name={data.name} needs data.path: a folder, an archive, or a manifest")
    paths = [Path(path).expanduser() for path in ([data.path] if isinstance(data.path, str) else data.path)]
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist: check data.path")
    if data.name == "manifest":
        layout = manifest.find(paths, notes=notes)
    else:
        made: list[Layout] = []
        places = [each for given in paths for each in _entered(given)]
        for path in places:
            # A name says something where it tells places apart.
            usual = split_called(path.name[: -len(archive_suffix(path)) or None]) if len(places) > 1 else None
            made.append(FINDERS[data.name](Tree(open_store(path)), split=usual, notes=notes))
        layout = joined(made)
    return _as_listed(layout, Path(data.split).expanduser(), notes=notes) if data.split else layout


def _entered(path: Path) -> list[Path]:
    """The archives of a folder in which there is nothing else, as they are downloaded; else `path` itself."""
    if not path.is_dir():
        return [path]
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    archives = [entry for entry in entries if archive_suffix(entry)]
    return archives if archives and not any(entry.is_dir() for entry in entries) else [path]


def _as_listed(layout: Layout, path: Path, *, notes: list[str]) -> Layout:
    """The utterances of all splits, divided anew as the CSV at `path` says.

    Raises:
        DataError: an utterance that the CSV does not name.
    """
    whole = [utterance for found in layout.values() for utterance in found.utterances]
    usual = Counter(posixpath.basename(utterance.name) for utterance in whole)
    splits = split_rows(path, [spellings(each, usual) for each in whole], what="utterances", notes=notes)
    wanted = next(iter(layout.values())).wanted
    divided: dict[Split, Found] = {split: Found(wanted=wanted) for split in dict.fromkeys(splits)}
    for utterance, split in zip(whole, splits, strict=True):
        divided[split].utterances.append(utterance)
    for found in divided.values():
        found.bad += [problem for each in layout.values() for problem in each.bad]
        break
    return joined([divided])


def spellings(utterance: Utterance, usual: Counter[str]) -> list[str]:
    """How a CSV may write a sound: in its place, with the place's name before it, in full, or just its file name."""
    base = posixpath.basename(utterance.name)
    place = f"{utterance.store.path.name}/{utterance.name}"
    full = utterance.store.where(utterance.name)
    return [utterance.name, place, full, *([base] if usual[base] == 1 else [])]
