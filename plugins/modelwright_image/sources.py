"""Finds pictures and their classes: class folders or a CSV, on disk or in archives. Decodes none; knows no torch."""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

from modelwright.errors import ConfigError, DataError
from modelwright.listings import read_labels, some, split_in, split_named, split_rows
from modelwright.stores import Folder, Store, archive_suffix, open_store

if TYPE_CHECKING:
    from modelwright.task import Split
    from modelwright_image.config import ImageData

_USUAL = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
SUFFIXES = frozenset((*_USUAL, ".jpe", ".jfif", ".dib", ".avif", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2"))
"""Files that are taken for pictures."""


class Item(NamedTuple):
    """A picture that has not been opened yet.

    Attributes:
        store: where it lies.
        name: its name there.
        label: its class.
        short: the same picture as "class/file", or as the CSV writes it.
    """

    store: Store
    name: str
    label: str
    short: str

    @property
    def where(self) -> str:
        """The file as a person would call it."""
        return self.store.where(self.name)


@dataclass
class Found:
    """The pictures of a split, in an order that does not depend on where they lie.

    Attributes:
        bad: entries that name no usable picture, each as (where, reason).
    """

    items: list[Item] = field(default_factory=list[Item])
    bad: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


Layout: TypeAlias = "dict[Split, Callable[[], Found]]"
"""Each split the data have, listed when called. Data without splits are one: train."""


def find(data: ImageData, *, notes: list[str]) -> Layout:
    """The splits at `data.path`, as `data.split` names them where it is given.

    Splits in archives or folders of their own are listed only when called; everything else is listed now.

    Args:
        notes: receives what a user should know (files ignored, empty class folders).

    Raises:
        ConfigError: `data.path` is missing, or names more places than there are splits.
        DataError: nothing there, no pictures, no classes, a damaged archive, a CSV that does not fit.
    """
    if not data.path:
        raise ConfigError(f"data.name={data.name} needs data.path: a folder, an archive, or one per split")
    paths = [Path(path).expanduser() for path in ([data.path] if isinstance(data.path, str) else data.path)]
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist: check data.path")
    by_csv = data.name == "csv" or any(path.suffix.lower() == ".csv" for path in paths)
    list_part = _list_csv if by_csv else _list_folders
    layout: Layout = {}
    for split, part in _parts(paths, by_csv=by_csv):
        scan = functools.cache(functools.partial(list_part, part, split, notes))
        if split is not None:
            layout[split] = functools.partial(_joined, scan)
        else:
            layout |= {name: functools.partial(scan().__getitem__, name) for name in scan()}
    return _as_listed(layout, Path(data.split).expanduser(), notes=notes) if data.split else layout


def _joined(scan: Callable[[], dict[Split, Found]]) -> Found:
    return next(iter(scan().values()))


Part: TypeAlias = "tuple[Path, Path | None]"
"""Where pictures lie; for a CSV the CSV (or the folder or archive that holds it) and where its pictures lie."""


def _parts(paths: Sequence[Path], *, by_csv: bool) -> list[tuple[Split | None, Part]]:
    """The places to look in, each with its split where its own name or place in the list tells."""
    if by_csv and len(paths) == 2 and sum(path.suffix.lower() == ".csv" for path in paths) == 1:
        listing, pictures = sorted(paths, key=lambda path: path.suffix.lower() != ".csv")
        return [(None, (listing, pictures))]
    if len(paths) == 1:
        paths = _inside_folder(paths[0], by_csv=by_csv)
    if len(paths) == 1:
        return [(None, (paths[0], None))]
    named: list[Split | None] = [split_in(path) for path in paths]
    if None in named or len(set(named)) < len(named):
        places: dict[int, list[Split | None]] = {2: ["train", "test"], 3: ["train", "valid", "test"]}
        if len(paths) not in places:
            raise ConfigError(f"data.path lists {len(paths)} places: give one, or one each for train, valid and test")
        named = places[len(paths)]
    return [(split, (path, None)) for split, path in zip(named, paths, strict=True)]


def _inside_folder(path: Path, *, by_csv: bool) -> list[Path]:
    """The CSVs or archives in a folder, if it is a folder of these; otherwise `path` itself."""
    if not path.is_dir():
        return [path]
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    listings = [entry for entry in entries if entry.suffix.lower() == ".csv"]
    archives = [entry for entry in entries if archive_suffix(entry)]
    files = listings if by_csv and listings else archives
    per_split = [entry for entry in files if split_in(entry)]
    if len(per_split) > 1 and len({split_in(entry) for entry in per_split}) == len(per_split):
        files = per_split
    elif len(files) != 1:
        return [path]
    holds_folders = any(entry.is_dir() for entry in entries)
    return files if by_csv or not holds_folders else [path]


# Class folders ------------------------------------------------------------------------------------------------------


def _list_folders(part: Part, forced: Split | None, notes: list[str]) -> dict[Split, Found]:
    """Pictures in class folders; every split of the place, or `forced` alone."""
    store = open_store(part[0])
    names = [name for name in store.names() if not _hidden(name)]
    pictures = [name.split("/") for name in names if posixpath.splitext(name)[1].lower() in SUFFIXES]
    others = [name for name in names if not name.endswith("/") and posixpath.splitext(name)[1].lower() not in SUFFIXES]
    if others:
        notes.append(f"{store.path}: {len(others)} files that are no pictures are ignored ({some(others)})")
    if not pictures:
        raise DataError(f"{store.path} holds no pictures ({', '.join(_USUAL)}, ...): check data.path")
    split_level, level = _levels(pictures)
    strays: list[str] = []
    found: dict[Split, list[Item]] = {}
    for parts in pictures:
        split = "train" if split_level is None else split_named(parts[split_level])
        if len(parts) < level + 2 or split is None:
            strays.append("/".join(parts))
            continue
        item = Item(store, "/".join(parts), parts[level], "/".join(parts[level:]))
        found.setdefault(forced or split, []).append(item)
    if not found:
        raise DataError(
            f"{store.path}: its pictures lie in no class folders; make a folder per class, or list files and labels "
            "in a CSV (data.name=csv)"
        )
    if strays:
        notes.append(f"{store.path}: {len(strays)} pictures in no class folder are left out ({some(strays)})")
    filled = {item.label for items in found.values() for item in items}
    folders = [name.split("/")[:-1] for name in names if name.endswith("/")]
    empty = sorted({parts[level] for parts in folders if len(parts) == level + 1} - filled)
    if empty and (split_level is None or level > split_level):
        notes.append(f"{store.path}: class folders without a picture are left out ({some(empty)})")
    return {split: Found(sorted(items, key=lambda item: (item.label, item.short))) for split, items in found.items()}


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _levels(pictures: Sequence[Sequence[str]]) -> tuple[int | None, int]:
    """Which folder level of the names tells the split (None: none does), and which the class.

    Folders around everything (``cifar/train/...``) are passed over.
    """
    split_level, level = None, 0
    while True:
        folders = {parts[level] for parts in pictures if len(parts) > level + 1}
        splits = {split for folder in folders if (split := split_named(folder))}
        all_splits = all(split_named(folder) for folder in folders)
        if split_level is None and splits and (all_splits or ("train" in splits and len(splits) > 1)):
            split_level = level
        elif len(folders) != 1 or not any(len(parts) > level + 2 for parts in pictures):
            return split_level, level
        level += 1


# A CSV --------------------------------------------------------------------------------------------------------------


def _list_csv(part: Part, forced: Split | None, notes: list[str]) -> dict[Split, Found]:
    """Pictures that a CSV lists; every split of it, or `forced` alone."""
    listing, pictures = part
    if listing.suffix.lower() == ".csv":
        label, text = str(listing), listing.read_bytes()
        store = open_store(pictures) if pictures else Folder(listing.parent)
        base = ""
        members = None if isinstance(store, Folder) else set(store.names())
    else:
        store = open_store(listing)
        members = set(store.names())
        inner = sorted(name for name in members if name.lower().endswith(".csv") and not _hidden(name))
        if len(inner) != 1:
            raise DataError(f"{listing} holds {len(inner)} CSV files; data.name=csv needs exactly one: check data.path")
        label, base = store.where(inner[0]), posixpath.dirname(inner[0])
        text = dict(store.stream(inner))[inner[0]]
        if isinstance(text, str):
            raise DataError(f"{label} could not be read: {text}")
    found: dict[Split, Found] = {}
    seen: dict[str, int] = {}
    for row in read_labels(text, where=label):
        split = forced or row.split or "train"
        into = found.setdefault(split, Found())
        name = posixpath.normpath(posixpath.join(base, row.path.replace("\\", "/")))
        there = name in members if members is not None else (store.path / name).is_file()
        if name in seen:
            into.bad.append((f"{label} line {row.line} ({row.path})", f"listed already in line {seen[name]}"))
        elif not there:
            into.bad.append((f"{label} line {row.line} ({row.path})", "no such file"))
        elif not row.label:
            into.bad.append((f"{label} line {row.line} ({row.path})", "no label"))
        else:
            into.items.append(Item(store, name, row.label, row.path))
        seen.setdefault(name, row.line)
    return found


# Splits named by a CSV ----------------------------------------------------------------------------------------------


def _as_listed(layout: Layout, path: Path, *, notes: list[str]) -> Layout:
    """The pictures of all splits, divided anew as the CSV at `path` says.

    Raises:
        DataError: a picture that the CSV does not name, or none at all.
    """
    items = [item for listed in layout.values() for item in listed().items]
    bad = [problem for listed in layout.values() for problem in listed().bad]
    found = split_rows(path, [spellings(item) for item in items], what="pictures", notes=notes)
    divided: dict[Split, Found] = {}
    for item, split in zip(items, found, strict=True):
        divided.setdefault(split, Found()).items.append(item)
    divided[next(iter(divided))].bad.extend(bad)
    return {split: cast("Callable[[], Found]", functools.partial(divided.__getitem__, split)) for split in divided}


def spellings(item: Item) -> tuple[str, ...]:
    """How a CSV may write a picture: in its place, as class/file, with the place's own name before it, in full."""
    return item.name, item.short, f"{item.store.path.name}/{item.name}", item.where
