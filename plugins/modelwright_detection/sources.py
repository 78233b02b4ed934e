"""Finds pictures and labels where the settings say, in any of the formats, on disk or in archives. Opens no picture."""

from __future__ import annotations

import functools
import posixpath
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelwright.data import Split
from modelwright.errors import ConfigError, DataError
from modelwright.listings import split_in, split_rows
from modelwright.stores import Folder, archive_suffix, open_store
from modelwright_detection import coco, voc, yolo
from modelwright_detection.entries import Entry, Found, Layout, Tree, splits_of

if TYPE_CHECKING:
    from modelwright_detection.config import DetectionData


def find(data: DetectionData, *, notes: list[str]) -> Layout:
    """The splits at `data.path`, as `data.split` names them where it is given.

    Args:
        notes: receives what a user should know (files ignored, pictures in no split).

    Raises:
        ConfigError: `data.path` is missing, or names more places than there are splits.
        DataError: nothing there, nothing of the format, a damaged archive, a CSV that does not fit.
    """
    if not data.path:
        raise ConfigError(f"data.name={data.name} needs data.path: a folder, an archive, or a file of the format")
    paths = [Path(path).expanduser() for path in ([data.path] if isinstance(data.path, str) else data.path)]
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist: check data.path")
    finders = {"yolo": _yolo, "coco": _coco, "voc": _voc}
    layout = finders[data.name](_entered(paths), notes)
    return _as_listed(layout, Path(data.split).expanduser(), notes=notes) if data.split else layout


def _entered(paths: Sequence[Path]) -> list[Path]:
    """The only archive of a single folder, or its archives where each names its split; else `paths` themselves."""
    if len(paths) != 1 or not paths[0].is_dir():
        return list(paths)
    entries = sorted(entry for entry in paths[0].iterdir() if not entry.name.startswith("."))
    archives = [entry for entry in entries if archive_suffix(entry)]
    named = {split_in(entry) for entry in archives}
    per_split = None not in named and len(named) == len(archives)
    if any(entry.is_dir() for entry in entries) or not (len(archives) == 1 or per_split) or not archives:
        return list(paths)
    return archives


def _yolo(paths: Sequence[Path], notes: list[str]) -> Layout:
    if len(paths) != 1:
        raise ConfigError(f"data.path lists {len(paths)} places: a data.yaml names the splits, give that or its folder")
    if paths[0].suffix.lower() in (".yaml", ".yml"):
        return yolo.find(Tree(Folder(paths[0].parent)), paths[0].name)
    return yolo.find(Tree(open_store(paths[0])), None)


def _coco(paths: Sequence[Path], notes: list[str]) -> Layout:
    listings = [path for path in paths if path.suffix.lower() == ".json"]
    others = [path for path in paths if path not in listings]
    if listings:
        if len(others) > 1:
            raise ConfigError(f"data.path lists {len(others)} places of pictures beside JSON files: give one")
        pictures = Tree(open_store(others[0])) if others else None
        sources: list[tuple[Path, coco.Source]] = []
        for path in listings:
            tree = Tree(Folder(path.parent))
            sources.append((path, coco.Source(tree, path.name, pictures or _around(tree, path))))
        return coco.listed(sources)
    if len(paths) == 1:
        return coco.find(Tree(open_store(paths[0])), notes=notes)
    return _by_place(paths, functools.partial(coco.find, notes=notes))


def _around(tree: Tree, path: Path) -> Tree:
    """Where the pictures of a JSON lie: beside it, or beside its folder where that is called annotations."""
    return Tree(Folder(path.parent.parent)) if path.parent.name.lower() == "annotations" else tree


def _voc(paths: Sequence[Path], notes: list[str]) -> Layout:
    if len(paths) == 1:
        return voc.find(Tree(open_store(paths[0])), notes=notes)
    return _by_place(paths, functools.partial(voc.find, notes=notes, whole=True))


def _by_place(paths: Sequence[Path], find_in: Callable[[Tree], Layout]) -> Layout:
    """One place for each split."""
    made: Layout = {}
    for split, path in zip(splits_of([split_in(path) for path in paths]), paths, strict=True):
        made[split] = functools.cache(functools.partial(_single, path, find_in))
    return made


def _single(path: Path, find_in: Callable[[Tree], Layout]) -> Found:
    layout = find_in(Tree(open_store(path)))
    if len(layout) > 1:
        raise DataError(f"{path} holds several splits ({', '.join(layout)}): list one place for each, or give it alone")
    return next(iter(layout.values()))()


# Splits named by a CSV ----------------------------------------------------------------------------------------------


def _as_listed(layout: Layout, path: Path, *, notes: list[str]) -> Layout:
    """The pictures of all splits, divided anew as the CSV at `path` says.

    Raises:
        DataError: a picture that the CSV does not name, or none at all.
    """
    whole = joined([read() for read in layout.values()])
    usual = Counter(posixpath.basename(entry.name) for entry in whole.entries)
    splits = split_rows(path, [spellings(entry, usual) for entry in whole.entries], what="pictures", notes=notes)
    divided: dict[Split, Found] = {split: replace(whole, entries=[], bad=[]) for split in dict.fromkeys(splits)}
    for entry, split in zip(whole.entries, splits, strict=True):
        divided[split].entries.append(entry)
    if divided:
        next(iter(divided.values())).bad.extend(whole.bad)
    return {split: functools.partial(divided.__getitem__, split) for split in divided}


def spellings(entry: Entry, usual: Counter[str]) -> list[str]:
    """How a CSV may write a picture: in its place, with the place's name before it, in full, or just its file name."""
    base = posixpath.basename(entry.name)
    return [entry.name, f"{entry.store.path.name}/{entry.name}", entry.where, *([base] if usual[base] == 1 else [])]


def joined(parts: Sequence[Found]) -> Found:
    """Several splits as one, with the classes of all; a picture that two of them name is taken once."""
    classes = tuple(dict.fromkeys(name for part in parts for name in part.classes))
    whole = Found(classes, wanted=parts[0].wanted)
    seen: set[tuple[int, str]] = set()
    for part in parts:
        number = np.array([classes.index(name) for name in part.classes], dtype=np.int64)
        for entry in part.entries:
            if (place := (id(entry.store), entry.name)) in seen:
                continue
            seen.add(place)
            marks = entry.marks and replace(entry.marks, labels=number[entry.marks.labels])
            whole.entries.append(replace(entry, marks=marks))
        whole.bad += part.bad
    return whole
