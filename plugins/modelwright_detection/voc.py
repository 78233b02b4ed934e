"""Reads Pascal VOC data: an XML of boxes for each picture; splits listed in ImageSets, or folders. Opens no picture."""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from modelwright.data import Split
from modelwright.errors import DataError
from modelwright.listings import some, split_named
from modelwright_detection.entries import Entry, Found, Layout, Marks, Problem, Tree, by_name
from modelwright_detection.pictures import is_picture

_LIST = re.compile(r"(?P<root>(.*/)?)ImageSets/(Main/)?(?P<split>train|val|valid|test|trainval)\.txt", re.IGNORECASE)
_PICTURES = ("jpegimages", "images", "imgs", "image")
"""Folders that pictures lie in, beside one of XML files."""


def find(tree: Tree, *, notes: list[str], whole: bool = False) -> Layout:
    """The splits in a folder or archive: those of ImageSets/Main, else by folder names, else all are train.

    Args:
        notes: receives what a user should know: pictures in no split.
        whole: everything there is one split, whatever lists and folders say.

    Raises:
        DataError: there is no XML or no picture.
    """
    files = tree.under()
    place = _Files(tree, files)
    if not place.xmls:
        raise DataError(f"{tree.store.path} holds no XML files: check data.path; VOC has one for each picture")
    if not place.pictures:
        raise DataError(f"{tree.store.path} holds no pictures: check data.path")
    bad: dict[Split, list[Problem]] = {}
    if not whole and (lists := [match for name in files if (match := _LIST.fullmatch(name))]):
        pairs = _by_lists(place, lists, bad, notes)
    else:
        pairs = {}
        for pair in place.pairs():
            split = None if whole else _split_of(pair.name)
            pairs.setdefault(split or "train", []).append(pair)
    return {
        split: functools.partial(_read, tree, pairs.get(split, []), bad.get(split, []))
        for split in dict.fromkeys((*pairs, *bad))
    }


class Pair(NamedTuple):
    """An XML and its picture; None: there is none. `several`: pictures of its name, none of which fits best."""

    xml: str | None
    picture: str | None
    several: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What there is of the two."""
        return self.xml or self.picture or ""


class _Files:
    """XML files and pictures, matched by name: Annotations/7.xml with JPEGImages/7.JPG, or 7.xml with 7.jpg."""

    def __init__(self, tree: Tree, files: Sequence[str]) -> None:
        self.tree = tree
        self.xmls = [name for name in files if name.lower().endswith(".xml")]
        # VOC's masks of segmentation have the names of the pictures.
        self.pictures = [name for name in files if is_picture(name) and "/Segmentation" not in f"/{name}"]
        self.by_stem: dict[str, list[str]] = {}
        for name in self.pictures:
            self.by_stem.setdefault(_stem(name), []).append(name)

    def picture_of(self, xml: str) -> list[str]:
        """The pictures that fit best; more than one: none fits better than the others."""
        named = self.by_stem.get(_stem(xml), [])
        best = max((self._fits(xml, name) for name in named), default=None)
        return [name for name in named if self._fits(xml, name) == best]

    @staticmethod
    def _fits(xml: str, picture: str) -> tuple[int, bool]:
        """How close they lie: folders in common, counting a folder of pictures beside one of XML files as common."""
        one, other = posixpath.dirname(xml).split("/"), posixpath.dirname(picture).split("/")
        common = next(
            (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
        )
        beside = one == other or any(part.lower() in _PICTURES for part in other[common : common + 1])
        return common, beside

    def pairs(self) -> list[Pair]:
        """Every XML with its picture, and every picture without an XML."""
        pairs: list[Pair] = []
        used: set[str] = set()
        for xml in self.xmls:
            fitting = self.picture_of(xml)
            used.update(fitting)
            pairs.append(Pair(xml, fitting[0]) if len(fitting) == 1 else Pair(xml, None, tuple(fitting)))
        return [*pairs, *(Pair(None, picture) for picture in self.pictures if picture not in used)]


def _stem(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name))[0]


def _split_of(name: str) -> Split | None:
    """The split that a folder on the way speaks of."""
    return next((split for part in name.split("/")[:-1] if (split := split_named(part))), None)


def _by_lists(
    files: _Files, lists: Iterable[re.Match[str]], bad: dict[Split, list[Problem]], notes: list[str]
) -> dict[Split, list[Pair]]:
    """Pairs by the lists of splits; a line that names neither XML nor picture, or one listed already, joins `bad`."""
    named: dict[str, dict[str, str]] = {}
    for match in lists:
        named.setdefault(match["root"], {})[match["split"].lower()] = match.string
    pairs: dict[Split, list[Pair]] = {}
    everything = files.pairs()
    taken: set[Pair] = set()
    for root, names in named.items():
        if "train" in names:
            names.pop("trainval", None)  # it holds the same again
        pair_of = {_stem(pair.name): pair for pair in everything if pair.name.startswith(root)}
        listed: dict[str, str] = {}
        for word, name in names.items():
            split = split_named(word) or "train"
            for place, line in _lines(files.tree, name):
                stem = line if line in pair_of else _stem(line)
                if stem not in pair_of:
                    bad.setdefault(split, []).append((place, f"neither a picture nor an XML is named {line}"))
                elif stem in listed:
                    bad.setdefault(split, []).append((place, f"{line} is listed already in {listed[stem]}"))
                else:
                    listed[stem] = place
                    pairs.setdefault(split, []).append(pair_of[stem])
                    taken.add(pair_of[stem])
    left = [pair.picture or pair.name for pair in everything if pair not in taken]
    if left:
        path = files.tree.store.path
        notes.append(f"{path}: {len(left)} pictures are in no list of ImageSets and left out ({some(left)})")
    return pairs


def _lines(tree: Tree, name: str) -> Iterator[tuple[str, str]]:
    """Each line of a list: where it stands, and its first word."""
    where, text = tree.store.where(name), tree.one(name)
    if isinstance(text, str):
        raise DataError(f"{where} could not be read: {text}; check data.path")
    for line, row in enumerate(text.decode("utf-8", "replace").splitlines(), start=1):
        if cells := row.split():
            yield f"{where} line {line}", cells[0]


# Reading ------------------------------------------------------------------------------------------------------------


def _read(tree: Tree, pairs: Sequence[Pair], bad: Sequence[Problem]) -> Found:
    """Pairs with what their XML says; the classes are those that occur, in the order of their names."""
    store = tree.store
    problems = list(bad)
    texts = dict(tree.texts([pair.xml for pair in pairs if pair.xml]))
    spoken: list[tuple[str, str, _Said]] = []
    for xml, picture, several in pairs:
        if xml is None:
            problems.append((store.where(picture or ""), "no XML has its name"))
        elif isinstance(text := texts[xml], str):
            problems.append((store.where(xml), text))
        elif picture is None:
            named = f"several pictures have its name ({some(several)})" if several else "no picture has its name"
            problems.append((store.where(xml), named))
        else:
            try:
                spoken.append((xml, picture, _Said(text, store.where(xml), problems)))
            except ValueError as error:
                problems.append((store.where(xml), str(error)))
    classes = tuple(sorted({name for _, _, said in spoken for name in said.names}))
    number = {name: place for place, name in enumerate(classes)}
    found = Found(classes, bad=problems, wanted="an XML of its name for each picture")
    for xml, picture, said in spoken:
        marks = Marks.of(
            said.boxes,
            [number[name] for name in said.names],
            crowd=said.difficult,
            source=f"{store.where(xml)} object",
            numbers=said.numbers,
        )
        found.entries.append(Entry(store, picture, marks, said.size))
    found.entries = by_name(found.entries)
    return found


class _Said:
    """What an XML says. Corners are taken as they stand: some tools count pixels from 0, some from 1.

    Args:
        bad: receives the objects that have no name or no box.

    Raises:
        ValueError: it is no XML, or not VOC's.
    """

    def __init__(self, text: bytes, where: str, bad: list[Problem]) -> None:
        try:
            root = ElementTree.fromstring(text)
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            raise ValueError(f"it is no XML ({' '.join(str(error).split())})") from error
        if root.tag != "annotation":
            raise ValueError(f"it is no annotation of VOC: it begins with <{root.tag}>")
        self.size = _size(root)
        self.names: list[str] = []
        self.boxes: list[list[float]] = []
        self.difficult: list[bool] = []
        self.numbers: list[int] = []
        for number, each in enumerate(root.findall("object"), start=1):
            name = (each.findtext("name") or "").strip()
            corners = [each.findtext(f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
            try:
                box = [float(corner or "") for corner in corners]
            except ValueError:
                bad.append((f"{where} object {number}", "its bndbox has no xmin, ymin, xmax, ymax in numbers"))
                continue
            if not name:
                bad.append((f"{where} object {number}", "it has no name"))
                continue
            self.names.append(name)
            self.boxes.append(box)
            self.difficult.append((each.findtext("difficult") or "").strip() == "1")
            self.numbers.append(number)


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Width and height that the XML gives; None where it does not."""
    try:
        width, height = (int(float(root.findtext(f"size/{side}") or "0")) for side in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None
