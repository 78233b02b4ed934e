"""Reads YOLO data: a data.yaml that names folders of pictures, and a text file of boxes for each. Opens no picture."""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import yaml

from modelwright.data import Split
from modelwright.errors import DataError
from modelwright.listings import split_named
from modelwright_detection.entries import Entry, Found, Layout, Marks, Problem, Tree, by_name
from modelwright_detection.pictures import is_picture

NO_LABELS = frozenset({"classes.txt", "labels.txt", "notes.txt", "readme.txt", "readme.dataset.txt", "license.txt"})
"""Text files beside labels that are none."""


@dataclass(frozen=True)
class Listing:
    """What a data.yaml says.

    Attributes:
        where: the file as people call it.
        folder: where it lies in its store.
        root: what it says its paths are relative to.
        classes: names, in the order of the labels.
        splits: the key and the paths of each split.
    """

    where: str
    folder: str
    root: str
    classes: tuple[str, ...]
    splits: Mapping[Split, tuple[str, Sequence[str]]]


def find(tree: Tree, listing: str | None) -> Layout:
    """The splits that a data.yaml names.

    Args:
        listing: its name in `tree`; None: it is looked for.

    Raises:
        DataError: there is none or it does not fit; on reading a split: what it names is missing.
    """
    said = read_listing(tree, listing or _look_for(tree))
    return {split: functools.partial(_split, tree, said, split) for split in said.splits}


def _look_for(tree: Tree) -> str:
    near = tree.near((".yaml", ".yml"))
    best = [name for name in near if posixpath.basename(name).lower() in ("data.yaml", "data.yml", "dataset.yaml")]
    nearest = [name for name in near if name.count("/") == near[0].count("/")] if near else []
    if not (best or len(nearest) == 1):
        held = f"several YAML files ({', '.join(nearest[:3])})" if nearest else "no data.yaml"
        raise DataError(
            f"{tree.store.path} holds {held}: set data.path to a data.yaml with names: and train:, or write one"
        )
    return best[0] if best else nearest[0]


def read_listing(tree: Tree, name: str) -> Listing:
    """What a data.yaml says.

    Raises:
        DataError: it cannot be read, is no YAML, or has no names or no splits.
    """
    where = tree.store.where(name)
    text = tree.one(name)
    if isinstance(text, str):
        raise DataError(f"{where} could not be read: {text}; check data.path")
    try:
        # Everything as text: a class called "no" or "1e3" keeps its name.
        said = yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{where} is no YAML ({' '.join(str(error).split())}): mend it") from error
    if not isinstance(said, dict):
        raise DataError(f"{where} is no data.yaml: it needs names: and train:")
    values = cast("dict[str, Any]", said)
    classes = _classes(values, where)
    splits: dict[Split, tuple[str, Sequence[str]]] = {}
    for key, value in values.items():
        split = split_named(key)
        paths = [value] if isinstance(value, str) else value
        if split is None or not paths or paths == [""]:
            continue
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in cast("list[Any]", paths)):
            raise DataError(f"{where}: {key} is neither a path nor a list of paths: mend it")
        splits[split] = key, cast("list[str]", paths)
    if not splits:
        raise DataError(f"{where} names no pictures: it needs train: with a folder of them")
    root = values.get("path") or ""
    return Listing(where, posixpath.dirname(name), root if isinstance(root, str) else "", classes, splits)


def _classes(values: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The names of the classes: a list, or a mapping from their numbers."""
    names = values.get("names")
    if isinstance(names, dict):
        numbered = cast("dict[str, Any]", names)
        if sorted(numbered) != sorted(map(str, range(len(numbered)))):
            raise DataError(f"{where}: the numbers of names are {', '.join(numbered)}: count them from 0 without gaps")
        names = [numbered[str(number)] for number in range(len(numbered))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{where} has no names: list the classes under names:, in the order of their numbers")
    listed = [str(name).strip() for name in cast("list[Any]", names)]
    if twice := [name for place, name in enumerate(listed) if name in listed[:place]]:
        raise DataError(f"{where}: two classes are named {twice[0]}: give each a name of its own")
    count = values.get("nc", "")
    if str(count).strip() not in ("", str(len(listed))):
        raise DataError(f"{where}: nc is {count}, but names lists {len(listed)}: make them agree")
    return tuple(listed)


def _split(tree: Tree, said: Listing, split: Split) -> Found:
    """The pictures of a split with their label files."""
    key, paths = said.splits[split]
    pictures: dict[str, None] = {}
    labels: set[str] = set()
    bad: list[Problem] = []
    for value in paths:
        place = _resolve(tree, said, key, value)
        if place.lower().endswith(".txt"):
            pictures |= dict.fromkeys(_listed(tree, said, place, bad))
        else:
            pictures |= dict.fromkeys(name for name in tree.under(place) if is_picture(name))
            texts = {name for folder in {place, _labels_of(place)} for name in _texts(tree, folder)}
            labels |= {name for name in texts if posixpath.basename(name).lower() not in NO_LABELS}
    if not pictures and not bad:
        raise DataError(f"{said.where}: {key} names {', '.join(paths)}, where there are no pictures: mend {key} in it")
    label_of: dict[str, str] = {}
    for name in pictures:
        places = [f"{posixpath.splitext(each)[0]}.txt" for each in (_labels_of(name), name)]
        there = next((each for each in places if each in labels or tree.is_file(each)), None)
        if there is not None:
            label_of[name] = there
    bad += [(tree.store.where(name), "no picture has its name") for name in sorted(labels - set(label_of.values()))]
    texts = dict(tree.texts(dict.fromkeys(label_of.values())))
    first = next(iter(pictures), "images/1.jpg")
    found = Found(said.classes, bad=bad, wanted=f"{posixpath.splitext(_labels_of(first))[0]}.txt for {first}")
    for name in pictures:
        if name not in label_of:
            found.entries.append(Entry(tree.store, name, None))
            continue
        label, text = label_of[name], texts[label_of[name]]
        if isinstance(text, str):
            found.bad.append((tree.store.where(label), text))
            continue
        try:
            marks = read_boxes(text, where=tree.store.where(label), classes=len(said.classes), bad=found.bad)
        except ValueError as error:
            found.bad.append((tree.store.where(label), str(error)))
            continue
        found.entries.append(Entry(tree.store, name, marks))
    found.entries = by_name(found.entries)
    return found


def _texts(tree: Tree, folder: str) -> list[str]:
    if not tree.is_folder(folder):
        return []
    return [name for name in tree.under(folder) if name.lower().endswith(".txt")]


def _labels_of(path: str) -> str:
    """A path with its last folder "images" called "labels"; the same path where it has none."""
    parts = path.split("/")
    last = max((place for place, part in enumerate(parts) if part.lower() == "images"), default=None)
    if last is None:
        return path
    return "/".join([*parts[:last], "labels", *parts[last + 1 :]])


def _resolve(tree: Tree, said: Listing, key: str, value: str) -> str:
    """The folder or list that a path of a data.yaml means."""
    plain = value.replace("\\", "/").removesuffix("/")
    climbed = plain
    while climbed.startswith("../"):  # exporters write ../train/images for what lies beside the file
        climbed = climbed[3:]
    for path in dict.fromkeys((plain, climbed)):
        for base in dict.fromkeys((posixpath.join(said.folder, said.root.replace("\\", "/")), said.folder)):
            place = _tidy(posixpath.join(base, path))
            if tree.is_file(place) if place.lower().endswith(".txt") else tree.is_folder(place):
                return place
    raise DataError(f"{said.where}: {key} names {value}, which does not exist: mend {key} (or path) in it")


def _tidy(path: str) -> str:
    plain = posixpath.normpath(path)
    return "" if plain == "." else plain


def _listed(tree: Tree, said: Listing, place: str, bad: list[Problem]) -> list[str]:
    """The pictures that a text file lists, one a line; those that are not there join `bad`."""
    text = tree.one(place)
    where = tree.store.where(place)
    if isinstance(text, str):
        raise DataError(f"{where} could not be read: {text}; check data.path")
    found: list[str] = []
    bases = (posixpath.dirname(place), posixpath.join(said.folder, said.root), said.folder)
    for line, row in enumerate(text.decode("utf-8", "replace").splitlines(), start=1):
        path = row.strip().replace("\\", "/")
        if not path:
            continue
        names = [_tidy(posixpath.join(base, path)) for base in bases]
        name = next((name for name in names if tree.is_file(name)), None)
        if name is None:
            bad.append((f"{where} line {line} ({path})", "no such picture"))
        else:
            found.append(name)
    return found


def read_boxes(data: bytes, *, where: str, classes: int, bad: list[Problem]) -> Marks:
    """The lines of a label file: class, centre and size as shares of the picture's sides; or class and a polygon.

    Args:
        bad: receives the lines that are no box.

    Raises:
        ValueError: it is no text.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("it is no text") from error
    rows: list[tuple[float, ...]] = []
    lines: list[int] = []
    for line, row in enumerate(text.splitlines(), start=1):
        cells = row.split()
        if not cells:
            continue
        try:
            rows.append(_box(cells, classes))
            lines.append(line)
        except ValueError as error:
            bad.append((f"{where} line {line}", str(error)))
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    return Marks.of(table[:, 1:], table[:, 0], source=f"{where} line", numbers=lines, relative=True)


def _box(cells: Sequence[str], classes: int) -> tuple[float, ...]:
    """Class, left, top, right, bottom of a line.

    Raises:
        ValueError: it has too few or odd numbers, or a class that has no name.
    """
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        raise ValueError(f"'{' '.join(cells)[:40]}' are no numbers") from None
    polygon = len(values) >= 7 and len(values) % 2 == 1
    if len(values) != 5 and not polygon:
        raise ValueError(f"it has {len(values)} numbers; a box has 5, a polygon an odd number from 7 on")
    if not all(np.isfinite(values)):
        raise ValueError("a number is not finite")
    if values[0] != int(values[0]) or not 0 <= values[0] < classes:
        raise ValueError(f"class {cells[0]} is not one of the {classes} in names, 0 to {classes - 1}")
    if polygon:
        return values[0], min(values[1::2]), min(values[2::2]), max(values[1::2]), max(values[2::2])
    _, x, y, width, height = values
    return values[0], x - width / 2, y - height / 2, x + width / 2, y + height / 2
