"""Small data sets that tests write for themselves: the same pictures and objects in each of the formats."""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from modelwright.config import build_config
from modelwright.data import Datasets
from modelwright_detection.config import DetectionConfig
from modelwright_detection.data import load

CLASSES = ("cat", "dog", "eel")
FORMATS = ("yolo", "coco", "voc")
KINDS = ("set", "set.tar", "set.tar.gz", "set.tar.xz", "set.zip")


class Made(NamedTuple):
    """A picture: width and height, and (class, left, top, right, bottom) of its objects."""

    size: tuple[int, int]
    objects: list[tuple[int, float, float, float, float]]


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The bytes of a picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(number: int, size: tuple[int, int] = (40, 30), kind: str = "PNG") -> bytes:
    """Random pixels; the same for the same number."""
    rng = np.random.default_rng(number)
    return encode(Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)), kind)


def made(counts: Mapping[str, int] | None = None) -> dict[str, dict[str, Made]]:
    """Pictures by split and name, with one to three objects each; class 0 first, so that each split has all."""
    split_of: dict[str, dict[str, Made]] = {}
    number = 0
    for split, count in (counts or {"train": 6, "val": 3, "test": 3}).items():
        split_of[split] = {}
        for _ in range(count):
            width, height = 40 + 2 * (number % 5), 30 + number % 3
            objects = [
                (kind % 3, 2.0 + kind, 3.0, 12.0 + 2 * kind + number % 4, 15.0 + kind) for kind in range(number % 3 + 1)
            ]
            split_of[split][f"p{number:02}"] = Made((width, height), objects)
            number += 1
    return split_of


def yolo(pictures: Mapping[str, Mapping[str, Made]], *, suffix: str = ".png") -> dict[str, bytes]:
    """As YOLO: images/SPLIT, labels/SPLIT and a data.yaml."""
    files: dict[str, bytes] = {}
    lines = ["names: [" + ", ".join(CLASSES) + "]"]
    for split, each in pictures.items():
        lines.append(f"{split}: images/{split}")
        for name, (size, objects) in each.items():
            rows = [yolo_line(size, row) for row in objects]
            files[f"images/{split}/{name}{suffix}"] = picture(int(name[1:]), size)
            files[f"labels/{split}/{name}.txt"] = "\n".join(rows).encode()
    return {"data.yaml": "\n".join(lines).encode(), **files}


def yolo_line(size: tuple[int, int], row: tuple[int, float, float, float, float]) -> str:
    kind, left, top, right, bottom = row
    width, height = size
    shares = (left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height
    return " ".join([str(kind), *(f"{share:.9f}" for share in shares)])


def coco_json(pictures: Mapping[str, Made], *, folder: str = "", **more: object) -> dict:
    """One split as COCO writes it; ids of categories have gaps, as COCO's own have."""
    said = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 7 * n + 1, "name": c} for n, c in enumerate(CLASSES)],
    }
    for number, (name, (size, objects)) in enumerate(pictures.items(), start=100):
        said["images"].append({"id": number, "file_name": f"{folder}{name}.png", "width": size[0], "height": size[1]})
        for kind, left, top, right, bottom in objects:
            box = [left, top, right - left, bottom - top]
            number_of = len(said["annotations"]) + 1
            said["annotations"].append(
                {"id": number_of, "image_id": number, "category_id": 7 * kind + 1, "bbox": box, "iscrowd": 0}
            )
    return {**said, **more}


def coco(pictures: Mapping[str, Mapping[str, Made]]) -> dict[str, bytes]:
    """As COCO: annotations/instances_SPLIT2017.json and SPLIT2017/ with the pictures."""
    files: dict[str, bytes] = {}
    for split, each in pictures.items():
        files[f"annotations/instances_{split}2017.json"] = json.dumps(coco_json(each)).encode()
        files |= {f"{split}2017/{name}.png": picture(int(name[1:]), size) for name, (size, _) in each.items()}
    return files


def voc_xml(name: str, size: tuple[int, int], objects: list, *, difficult: int = 0) -> bytes:
    """A picture's XML."""
    boxes = "".join(
        f"<object><name>{CLASSES[kind]}</name><difficult>{difficult}</difficult><bndbox><xmin>{left}</xmin>"
        f"<ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        for kind, left, top, right, bottom in objects
    )
    return (
        f"<annotation><filename>{name}.png</filename><size><width>{size[0]}</width><height>{size[1]}</height>"
        f"<depth>3</depth></size>{boxes}</annotation>"
    ).encode()


def voc(pictures: Mapping[str, Mapping[str, Made]]) -> dict[str, bytes]:
    """As VOC: Annotations, JPEGImages and ImageSets/Main."""
    files: dict[str, bytes] = {}
    for split, each in pictures.items():
        files[f"ImageSets/Main/{split}.txt"] = "\n".join(each).encode()
        for name, (size, objects) in each.items():
            files[f"Annotations/{name}.xml"] = voc_xml(name, size, objects)
            files[f"JPEGImages/{name}.png"] = picture(int(name[1:]), size)
    return files


def files_of(name: str, pictures: Mapping[str, Mapping[str, Made]]) -> dict[str, bytes]:
    """The pictures in the format of that name."""
    return {"yolo": yolo, "coco": coco, "voc": voc}[name](pictures)


def write(path: Path, files: Mapping[str, bytes]) -> Path:
    """Files in a folder, or, by its suffix, in an archive."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    elif ".tar" in path.name:
        packed = {".tar": "w", ".gz": "w:gz", ".xz": "w:xz"}[path.suffix]
        with tarfile.open(path, packed) as tar:  # type: ignore[call-overload]
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    else:
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    return path


def config(name: str, path: object = None, **settings: object) -> DetectionConfig:
    """Settings of small pictures; `settings` are of the section data, or of another one as `augment__flip`."""
    nested = {key.replace("__", ".") if "__" in key else f"data.{key}": value for key, value in settings.items()}
    where = None if path is None else [str(each) for each in path] if isinstance(path, list) else str(path)
    return build_config(DetectionConfig, layers=[{"data.name": name, "data.path": where, "data.size": 32, **nested}])


def loaded(name: str, path: object = None, *, known=None, seed: int = 0, **settings: object) -> Datasets:
    """The splits of such settings."""
    return load(config(name, path, **settings), seed=seed, known=known)


def names(dataset) -> list[str]:
    """What the pictures of a split are called, without folders and endings."""
    return [re.split(r"[/:\\]", dataset.name_of(row))[-1].rpartition(".")[0] for row in range(len(dataset))]
