"""Reads manifests: JSON lines or CSV: path, text, perhaps speaker, offset, duration, split. Opens no sound.

Paths are relative to the manifest, absolute, or names of members of an archive or folder that is given beside it.
"""

from __future__ import annotations

import csv
import io
import json
import math
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from modelwright.data import Split
from modelwright.errors import ConfigError, DataError
from modelwright.listings import some
from modelwright.stores import Folder, Store, archive_suffix, open_store
from modelwright_speech.utterances import Found, Layout, Tree, Utterance, joined, split_called, splits_of

SUFFIXES = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".manifest")
"""Endings of manifests."""
PATH = ("path", "audio_filepath", "audio", "audio_path", "wav", "file", "filename", "file_name", "filepath")
TEXT = ("text", "transcript", "transcription", "sentence")
SPEAKER = ("speaker", "speaker_id", "spk_id", "spk", "client_id")
OFFSET = ("offset", "start")
DURATION = ("duration", "seconds")
SPLIT = ("split", "set", "subset", "partition")


@dataclass(frozen=True)
class Row:
    """A line of a manifest.

    Attributes:
        line: counted from 1, a header included.
        cells: by column; empty where it cannot be read.
        reason: why it cannot be.
    """

    line: int
    cells: Mapping[str, str]
    reason: str = ""

    def get(self, names: Sequence[str]) -> str:
        """The first of `names` that has a value; "": none has."""
        return next((value for name in names if (value := self.cells.get(name, "").strip())), "")


# Finding -------------------------------------------------------------------------------------------------------------


def find(paths: Sequence[Path], *, notes: list[str]) -> Layout:
    """The utterances that manifests list.

    Args:
        paths: manifests (one with a column of splits, or one per split), and folders or archives that the sound lies
            in; or a folder or an archive with both.
        notes: receives what a user should know.

    Raises:
        ConfigError: no manifest among `paths`, or more than there are splits.
        DataError: a manifest that is no text, or lacks a column.
    """
    listings = [path for path in paths if path.is_file() and path.suffix.lower() in SUFFIXES]
    places = [path for path in paths if path not in listings]
    if listings:
        trees = [Tree(open_store(path)) for path in places]
        sources = [(path.name, _bytes(path), str(path), [Folder(path.parent), *trees]) for path in listings]
    else:
        sources = [source for path in places for source in _inside(path)]
    named: list[Split | None] = [split_called(Path(name).stem) for name, *_ in sources]
    splits: list[Split] = splits_of(named) if len(sources) > 1 else [named[0] or "train"]
    made = [
        _listed(data, where, around, split, several=len(sources) > 1)
        for (_, data, where, around), split in zip(sources, splits, strict=True)
    ]
    return joined(made)


def _inside(path: Path) -> list[tuple[str, bytes, str, list[Folder | Tree]]]:
    """The manifests of a folder or an archive, the nearest ones; archives beside them may hold the sound."""
    tree = Tree(open_store(path))
    found = [name for name in tree.with_suffix(*SUFFIXES) if name.count("/") <= 2]
    nearest = [name for name in found if name.count("/") == min(each.count("/") for each in found)]
    if not nearest:
        raise ConfigError(f"{path} has no manifest ({', '.join(SUFFIXES)}): list it in data.path, beside its sound")
    beside = [Tree(open_store(path / name)) for name in tree.files if isinstance(tree.store, Folder) and _packed(name)]
    sources: list[tuple[str, bytes, str, list[Folder | Tree]]] = []
    for name, data in tree.texts(nearest):
        if isinstance(data, str):
            raise DataError(f"{tree.store.where(name)} could not be read ({data}): check data.path")
        near: list[Folder | Tree] = [_Below(tree, posixpath.dirname(name)), *beside]
        sources.append((posixpath.basename(name), data, tree.store.where(name), near))
    return sorted(sources, key=lambda source: source[0])


def _packed(name: str) -> bool:
    return bool(archive_suffix(Path(name)))


class _Below(Tree):
    """A tree in which paths may also be relative to the folder that a manifest lies in."""

    def __init__(self, tree: Tree, folder: str) -> None:
        self.__dict__.update(tree.__dict__)
        self._folder = folder

    def resolve(self, name: str) -> str | None:
        beside = posixpath.normpath(posixpath.join(self._folder, name))
        return beside if beside in self else super().resolve(name)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} could not be read ({error.strerror}): check data.path") from error


def _listed(data: bytes, where: str, around: Sequence[Folder | Tree], split: Split, *, several: bool) -> Layout:
    made: Layout = {}
    for row in rows(data, where=where):
        source = f"{where} line {row.line}"
        mine: Split = split
        if (named := row.get(SPLIT)) and not several:
            called = split_called(named)
            if called is None:
                raise DataError(f"{source}: '{named}' is no split; write train, valid (dev) or test")
            mine = called
        found = made.setdefault(mine, Found(wanted=f"the column text of {where}"))
        entry = _entry(row, source, around)
        if isinstance(entry, str):
            found.bad.append((source, entry))
        else:
            found.utterances.append(entry)
    if not made:
        raise DataError(f"{where} lists nothing: give one line per utterance, with its path and its text")
    return made


def _entry(row: Row, source: str, around: Sequence[Folder | Tree]) -> Utterance | str:
    """The utterance of a line, or why there is none."""
    if row.reason:
        return row.reason
    path = row.get(PATH).replace("\\", "/")
    if not path:
        return "no path"
    numbers: list[float | None] = []
    for names in (OFFSET, DURATION):
        cell = row.get(names)
        try:
            number = float(cell) if cell else None
        except ValueError:
            return f"{names[0]} '{cell}' is no number"
        if number is not None and not (math.isfinite(number) and number >= 0):
            return f"{names[0]} {cell} is no length of time in seconds"
        numbers.append(number)
    offset, duration = numbers
    place = _place(path, around)
    if place is None:
        return f"{path} is not there"
    text = row.get(TEXT) or None
    return Utterance(*place, text, row.get(SPEAKER) or None, offset or 0.0, duration, source)


def _place(path: str, around: Sequence[Folder | Tree]) -> tuple[Store, str] | None:
    """The store and the name of a path; None: it is nowhere."""
    plain = posixpath.normpath(path)
    for place in around:
        if isinstance(place, Folder):
            if (place.path / plain).is_file():
                return place, plain
        elif (name := place.resolve(plain)) is not None:
            return place.store, name
    return None


# Lines --------------------------------------------------------------------------------------------------------------


def rows(data: bytes, *, where: str, quoted: bool = True) -> Iterator[Row]:
    """The lines of a manifest; empty ones are passed over.

    Args:
        quoted: whether cells of a CSV may stand in quotation marks.

    Raises:
        DataError: it is no text in UTF-8, or a CSV without a column of paths or texts.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is no UTF-8 text: save it as JSON lines or CSV in UTF-8") from error
    start = text.lstrip()[:1]
    if start == "[":
        return _array(text, where)
    return _lines(text) if start == "{" else _table(text, where, quoted=quoted)


def _lines(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield _object(number, json.loads(line))
            except json.JSONDecodeError as error:
                yield Row(number, {}, f"no JSON ({error.msg})")


def _array(text: str, where: str) -> Iterator[Row]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} line {error.lineno} is no JSON ({error.msg}): write one object per line") from error
    for number, value in enumerate(values, 1):
        yield _object(number, value)


def _object(number: int, value: Any) -> Row:
    if not isinstance(value, dict):
        return Row(number, {}, "no JSON object")
    cells = {key.lower(): _cell(each) for key, each in cast("dict[str, Any]", value).items()}
    return Row(number, cells)


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def _table(text: str, where: str, *, quoted: bool) -> Iterator[Row]:
    head = text.partition("\n")[0]
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), quoting=quoting)
    header = [cell.strip().lower() for cell in next(reader, [])]
    for names in (PATH, TEXT):
        if not any(name in header for name in names):
            has = some(header) or "nothing"
            raise DataError(f"{where} has no column {names[0]} (it has {has}): name it {' or '.join(names[:4])}")
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield Row(reader.line_num, dict(zip(header, cells, strict=False)))
    except csv.Error as error:
        raise DataError(f"{where} line {reader.line_num} is no CSV ({error}): save it anew") from error
