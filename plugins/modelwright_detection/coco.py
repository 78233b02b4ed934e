"""Reads COCO data: a JSON of images, annotations and categories, and pictures somewhere near it. Opens no picture."""

from __future__ import annotations

import functools
import json
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from modelwright.data import Split
from modelwright.errors import DataError
from modelwright.listings import split_in
from modelwright_detection.entries import Entry, Found, Layout, Marks, Problem, Tree, by_name, splits_of
from modelwright_detection.pictures import is_picture

LISTS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class Source:
    """A JSON and where its pictures are looked for. `listing`: its name in `tree`."""

    tree: Tree
    listing: str
    pictures: Tree

    @property
    def where(self) -> str:
        """The JSON as people call it."""
        return self.tree.store.where(self.listing)


def find(tree: Tree, *, notes: list[str]) -> Layout:
    """The splits in a folder or archive: one JSON each, told by its own name or its folder's; a single one is train.

    Args:
        notes: receives which JSON files are ignored.

    Raises:
        DataError: there is no JSON, or several that no split tells apart; on reading: it is no COCO.
    """
    names = tree.near((".json",), depth=3)
    if not names:
        raise DataError(f"{tree.store.path} holds no JSON: set data.path to a COCO file, or to a folder with one")
    if len(names) == 1:
        return _layout([(split_of(names[0]) or "train", Source(tree, names[0], tree))])
    chosen: dict[Split, list[str]] = {}
    for name in names:
        if (split := split_of(name)) is not None:
            chosen.setdefault(split, []).append(name)
    for split, several in chosen.items():
        if len(several) > 1:  # beside captions and keypoints, COCO's own instances
            chosen[split] = [name for name in several if _usual(name)] or several
        if len(chosen[split]) > 1:
            raise DataError(
                f"{tree.store.path} holds several JSON files for {split} ({', '.join(chosen[split][:3])}): list one "
                "each for train, valid and test in data.path"
            )
    if not chosen and len(usual := [name for name in names if _usual(name)]) == 1:
        chosen = {"train": usual}
    if not chosen:
        raise DataError(
            f"{tree.store.path} holds {len(names)} JSON files ({', '.join(names[:3])}) and none names its split: list "
            "one each for train, valid and test in data.path"
        )
    used = {several[0] for several in chosen.values()}
    if ignored := [name for name in names if name not in used]:
        notes.append(f"{tree.store.path}: {len(ignored)} other JSON files are ignored ({', '.join(ignored[:3])})")
    return _layout([(split, Source(tree, several[0], tree)) for split, several in chosen.items()])


def listed(sources: Sequence[tuple[Path, Source]]) -> Layout:
    """The splits of JSON files that were named one by one, by their names or, where these do not tell, their places.

    Raises:
        ConfigError: more than three that do not tell their split.
    """
    splits = splits_of([None if len(sources) == 1 else split_of(path.as_posix()) for path, _ in sources])
    return _layout([(split, source) for split, (_, source) in zip(splits, sources, strict=True)])


def split_of(name: str) -> Split | None:
    """The split that a JSON's name speaks of, or else the folder it lies in."""
    own = split_in(Path(posixpath.basename(name)))
    folder = posixpath.basename(posixpath.dirname(name))
    return own or (split_in(Path(folder)) if folder else None)


def _usual(name: str) -> bool:
    """Whether it is called as COCO and the usual exporters call it."""
    base = posixpath.basename(name).lower()
    return base.startswith(("instances", "_annotations"))


def _layout(sources: Sequence[tuple[Split, Source]]) -> Layout:
    made: Layout = {}
    for split, source in sources:
        reader: Callable[[], Found] = functools.partial(_read, source, split)
        made[split] = reader
    return made


# Reading ------------------------------------------------------------------------------------------------------------


def _read(source: Source, split: Split) -> Found:
    where = source.where
    said = parse(source.tree.one(source.listing), where=where)
    classes, number_of = _classes(said["categories"], where)
    bad: list[Problem] = []
    images: dict[Any, dict[str, Any]] = {}
    for place, image in enumerate(said["images"], start=1):
        if not isinstance(image, dict) or "id" not in image or not isinstance(image.get("file_name"), str):
            bad.append((f"{where} image {place}", "it has no id or no file_name"))
        elif _key(image["id"]) in images:
            bad.append((f"{where} image {place}", f"its id {image['id']} is that of another"))
        else:
            images[_key(image["id"])] = cast("dict[str, Any]", image)
    objects = _objects(said["annotations"], where, set(images), number_of, bad)
    wanted = "annotations of " + where
    found = Found(classes, bad=bad, wanted=wanted)
    places = _Places(source, split)
    seen: dict[str, Any] = {}
    for key, image in images.items():
        name = places.find(image["file_name"])
        if not isinstance(name, tuple):
            bad.append((f"{where} image {image['id']} ({image['file_name']})", name))
        elif name[0] in seen:
            bad.append((f"{where} image {image['id']} ({image['file_name']})", f"it is image {seen[name[0]]} already"))
        else:
            seen[name[0]] = image["id"]
            marks = Marks.of(*objects.boxes(key), source=f"{where} annotation", **objects.others(key))
            found.entries.append(Entry(source.pictures.store, name[0], marks, _size(image)))
    found.entries = by_name(found.entries)
    return found


def parse(text: bytes | str, *, where: str) -> dict[str, list[Any]]:
    """The three lists of a COCO file.

    Raises:
        DataError: it is no JSON, or no COCO.
    """
    if isinstance(text, str):
        raise DataError(f"{where} could not be read: {text}; check data.path")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON ({' '.join(str(error).split())}): export it again") from error
    lists = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
    if lacking := [name for name in LISTS if not isinstance(lists.get(name), list)]:
        hint = ", as files of images without labels have none" if lacking == ["annotations"] else ""
        raise DataError(
            f"{where} is no COCO file: it has no list of {' and '.join(lacking)}{hint}; give one with images, "
            "annotations and categories"
        )
    return {name: cast("list[Any]", lists[name]) for name in LISTS}


def _classes(categories: Sequence[Any], where: str) -> tuple[tuple[str, ...], dict[Any, int]]:
    """Names in the order of their ids, and the number that each id becomes."""
    try:
        named = {_key(each["id"]): str(each["name"]).strip() for each in categories}
    except (TypeError, KeyError) as error:
        raise DataError(f"{where}: a category has no id or no name: give each both") from error
    if not named:
        raise DataError(f"{where} has no categories: list the classes there")
    if len(named) < len(categories) or len(set(named.values())) < len(named):
        raise DataError(f"{where}: two categories have one id or one name: give each its own")
    ids = sorted(named, key=lambda key: (isinstance(key, str), key))
    return tuple(named[key] for key in ids), {key: number for number, key in enumerate(ids)}


def _key(value: Any) -> Any:
    """An id to look up: numbers as they are, anything else as text."""
    return value if isinstance(value, int) else str(value)


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) and width > 0 < height else None


class _Objects:
    """Annotations by image."""

    def __init__(self) -> None:
        self._rows: dict[Any, list[tuple[float, float, float, float, int, bool, int]]] = {}

    def add(self, key: Any, row: tuple[float, float, float, float, int, bool, int]) -> None:
        self._rows.setdefault(key, []).append(row)

    def boxes(self, key: Any) -> tuple[np.ndarray, list[int]]:
        """Left, top, right, bottom and class of each object of an image."""
        rows = self._rows.get(key, [])
        table = np.array([row[:4] for row in rows], dtype=np.float64).reshape(-1, 4)
        table[:, 2:] += table[:, :2]
        return table, [row[4] for row in rows]

    def others(self, key: Any) -> dict[str, Any]:
        """Whether each is a crowd, and its id."""
        rows = self._rows.get(key, [])
        return {"crowd": [row[5] for row in rows], "numbers": [row[6] for row in rows]}


def _objects(
    annotations: Sequence[Any], where: str, images: set[Any], number_of: Mapping[Any, int], bad: list[Problem]
) -> _Objects:
    """The annotations that name an image and a category; the others join `bad`."""
    found = _Objects()
    for place, each in enumerate(annotations, start=1):
        if not isinstance(each, dict):
            bad.append((f"{where} annotation {place}", "it is no object"))
            continue
        mark = cast("dict[str, Any]", each)
        number = mark["id"] if isinstance(mark.get("id"), int) else place
        image, kind = _key(mark.get("image_id")), _key(mark.get("category_id"))
        box: Any = mark.get("bbox")
        reason = None
        if image not in images:
            reason = f"no image has the id {mark.get('image_id')}"
        elif kind not in number_of:
            reason = f"no category has the id {mark.get('category_id')}"
        elif not isinstance(box, list) or len(cast("list[Any]", box)) != 4 or not all(map(_is_number, box)):
            reason = "its bbox is not four numbers: left, top, width, height"
        if reason is not None:
            bad.append((f"{where} annotation {number}", reason))
            continue
        left, top, width, height = (float(side) for side in box)
        found.add(image, (left, top, width, height, number_of[kind], mark.get("iscrowd") in (1, True), number))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class _Places:
    """Finds the pictures that a JSON names: relative to it, to its root, or anywhere below by the end of their path."""

    def __init__(self, source: Source, split: Split) -> None:
        self._tree = source.pictures
        same = source.tree.store is source.pictures.store
        self._bases = (posixpath.dirname(source.listing), "") if same else ("",)
        self._split = split
        self._ends: dict[str, list[str]] | None = None

    def find(self, file_name: str) -> tuple[str] | str:
        """The picture's name in its store; or the reason why there is none."""
        path = posixpath.normpath(file_name.replace("\\", "/"))
        if self._ends is None:
            self._ends = {}
            for name in filter(is_picture, self._tree.under()):
                self._ends.setdefault(posixpath.basename(name), []).append(name)
            self._all = {name for names in self._ends.values() for name in names}
        for base in self._bases:
            name = posixpath.normpath(posixpath.join(base, path))
            if name in self._all or (name.startswith((".", "/")) and self._tree.is_file(name)):
                return (name,)
        ends = self._ends.get(posixpath.basename(path), [])
        fitting = [name for name in ends if name.endswith(f"/{path}")] or ends
        if len(fitting) > 1:  # one folder of pictures a split is common
            fitting = [name for name in fitting if split_of(name) == self._split] or fitting
        if not fitting:
            return "no such picture"
        return (fitting[0],) if len(fitting) == 1 else f"several pictures have this name ({', '.join(fitting[:2])})"
