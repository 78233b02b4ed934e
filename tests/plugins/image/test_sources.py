"""Pictures and classes are found in folders, CSVs and archives of every layout, and what is odd is said."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from modelwright.errors import ConfigError, DataError
from modelwright.stores import open_store
from modelwright_image.config import ImageData
from modelwright_image.sources import find

Write = Callable[[Path, Mapping[str, bytes]], Path]
KINDS = ["folder", "set.tar", "set.tar.gz", "set.tgz", "set.tar.xz", "set.zip"]


def layout(path: object, **settings: Any) -> tuple[dict[str, list[tuple[str, str]]], list[str]]:
    """Split -> (label, short name) of each picture, and the notes."""
    notes: list[str] = []
    config = ImageData(name=settings.pop("name", "folder"), path=path, **settings)  # type: ignore[arg-type]
    found = {split: listed() for split, listed in find(config, notes=notes).items()}
    return {split: [(item.label, item.short) for item in part.items] for split, part in found.items()}, notes


def test_the_same_pictures_in_every_container(tmp_path: Path, write: Write, pets: dict[str, bytes]) -> None:
    seen = [layout(str(write(tmp_path / kind, pets))) for kind in KINDS]
    expected = {"train": sorted((name.split("/")[0], name) for name in pets)}
    assert all(found == (expected, []) for found in seen)


@pytest.mark.parametrize("around", ["", "set/", "./", "a/b/"])
@pytest.mark.parametrize("kind", ["folder", "set.tar.xz", "set.zip"])
def test_split_folders_with_anything_around_them(
    tmp_path: Path, write: Write, picture: Callable[..., bytes], kind: str, around: str
) -> None:
    names = ["train/cat/1.png", "train/dog/1.png", "val/cat/2.png", "val/dog/2.png", "Test/cat/3.png", "Test/dog/3.png"]
    found, notes = layout(str(write(tmp_path / kind, {around + name: b"x" for name in names})))
    assert {split: len(items) for split, items in found.items()} == {"train": 2, "valid": 2, "test": 2}
    assert found["valid"] == [("cat", "cat/2.png"), ("dog", "dog/2.png")]
    assert notes == []


def test_one_archive_per_split_in_a_folder_or_a_list(tmp_path: Path, write: Write, pets: dict[str, bytes]) -> None:
    for split in ("train", "test"):
        write(tmp_path / f"{split}.tar.xz", {f"{split}/{name}": data for name, data in pets.items()})
    one = layout(str(tmp_path))[0]
    assert set(one) == {"train", "test"}
    assert one["train"] == sorted((name.split("/")[0], name) for name in pets)
    assert layout([str(tmp_path / "test.tar.xz"), str(tmp_path / "train.tar.xz")])[0] == one


def test_a_list_without_split_names_goes_by_place(tmp_path: Path, write: Write, pets: dict[str, bytes]) -> None:
    paths = [str(write(tmp_path / name, pets)) for name in ("a.zip", "b.tar", "c")]
    assert list(layout(paths)[0]) == ["train", "valid", "test"]
    assert list(layout(paths[:2])[0]) == ["train", "test"]
    assert list(layout(paths[:1])[0]) == ["train"]
    with pytest.raises(ConfigError, match=r"lists 4 places: give one"):
        layout([*paths, paths[0]])


def test_splits_of_their_own_are_listed_only_when_asked_for(
    tmp_path: Path, write: Write, pets: dict[str, bytes]
) -> None:
    write(tmp_path / "test.zip", pets)
    (tmp_path / "train.zip").write_bytes(b"not read")
    found = find(ImageData(name="folder", path=str(tmp_path)), notes=[])
    assert len(found["test"]().items) == len(pets)
    with pytest.raises(DataError, match="damaged or no archive"):
        found["train"]()


def test_the_only_archive_in_a_folder_is_meant(tmp_path: Path, write: Write, pets: dict[str, bytes]) -> None:
    write(tmp_path / "pictures.tgz", pets)
    (tmp_path / "README.md").write_text("about")
    assert len(layout(str(tmp_path))[0]["train"]) == len(pets)


def test_what_is_no_picture_is_ignored_and_told(tmp_path: Path, write: Write, pets: dict[str, bytes]) -> None:
    extra = {"README.md": b"", "cat/Thumbs.db": b"", "cat/.DS_Store": b"", ".git/x.png": b"", "__MACOSX/cat/1.png": b""}
    path = write(tmp_path / "set", {**pets, **extra, "cover.png": b"x"})
    (path / "bird").mkdir()
    found, notes = layout(str(path))
    assert len(found["train"]) == len(pets)
    assert [note.partition(": ")[2] for note in notes] == [
        "2 files that are no pictures are ignored (README.md, cat/Thumbs.db)",
        "1 pictures in no class folder are left out (cover.png)",
        "class folders without a picture are left out (bird)",
    ]


def test_pictures_deeper_than_their_class(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "set", {"cat/a/1.png": b"", "cat/b/2.png": b"", "dog/3.png": b""})
    assert [label for label, _ in layout(str(path))[0]["train"]] == ["cat", "cat", "dog"]


def test_a_linked_class_folder_is_followed_and_a_loop_ends(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "set", {"cat/1.png": b""})
    write(tmp_path / "elsewhere", {"2.png": b""})
    try:
        (path / "dog").symlink_to(tmp_path / "elsewhere")
        (path / "cat" / "up").symlink_to(path)
    except OSError:
        pytest.skip("no links here")
    assert layout(str(path))[0]["train"] == [("cat", "cat/1.png"), ("dog", "dog/2.png")]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"notes.txt": b""}, "holds no pictures"),
        ({"1.png": b"", "2.png": b""}, "its pictures lie in no class folders"),
        ({"train/1.png": b"", "test/2.png": b""}, "its pictures lie in no class folders"),
    ],
)
def test_no_pictures_and_no_classes(tmp_path: Path, write: Write, files: dict[str, bytes], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        layout(str(write(tmp_path / "set", files)))


def test_an_empty_folder_no_folder_and_no_archive(tmp_path: Path) -> None:
    (tmp_path / "file.doc").write_bytes(b"")
    with pytest.raises(DataError, match="holds no pictures"):
        layout(str(tmp_path))
    with pytest.raises(DataError, match=r"nowhere does not exist: check data\.path"):
        layout(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="neither a folder nor an archive"):
        layout(str(tmp_path / "file.doc"))
    with pytest.raises(ConfigError, match=r"data\.name=folder needs data\.path"):
        layout(None)
    with pytest.raises(DataError, match="does not exist"):
        open_store(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["../x/1.png", "/x/1.png", "x/../../1.png", "C:/x/1.png", "..\\x\\1.png"])
@pytest.mark.parametrize("kind", ["set.zip", "set.tar"])
def test_members_outside_of_an_archive_are_refused(tmp_path: Path, write: Write, kind: str, name: str) -> None:
    path = write(tmp_path / kind, {"cat/1.png": b"", name: b""})
    with pytest.raises(DataError, match="has a member outside of itself"):
        layout(str(path))


def test_links_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        for name in ("cat/1.png", "dog/1.png"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
        link = tarfile.TarInfo("dog/2.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert len(layout(str(tmp_path / "set.tar"))[0]["train"]) == 2


# CSV ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "path,label\ncat/00.png,c\ndog/00.png,d\n",
        "Filename;Class\r\ncat/00.png;c\r\ndog/00.png;d\r\n",
        "\ufeffimage\ttarget\n./cat/00.png\tc\n\ndog\\00.png\td\n",
        'id,category,file\n1,c,"cat/00.png"\n2, d ,dog/00.png\n',
    ],
)
def test_a_csv_of_paths_and_labels(tmp_path: Path, write: Write, pets: dict[str, bytes], text: str) -> None:
    write(tmp_path, pets)
    (tmp_path / "labels.csv").write_bytes(text.encode())
    for path in (tmp_path / "labels.csv", tmp_path):
        found, _ = layout(str(path), name="csv")
        assert [label for label, _ in found["train"]] == ["c", "d"]


def test_a_csv_with_splits(tmp_path: Path, write: Write, pets: dict[str, bytes]) -> None:
    rows = [f"{name},{name[:3]},{('train', 'VAL', 'test')[row % 3]}" for row, name in enumerate(pets)]
    write(tmp_path, {**pets, "x.csv": "\n".join(["file,label,split", *rows]).encode()})
    found, _ = layout(str(tmp_path / "x.csv"), name="csv")
    assert {split: len(items) for split, items in found.items()} == {"train": 7, "valid": 7, "test": 6}


@pytest.mark.parametrize("kind", ["set.tar.xz", "set.zip"])
def test_a_csv_in_an_archive_and_one_beside_it(tmp_path: Path, write: Write, pets: dict[str, bytes], kind: str) -> None:
    text = "\n".join(["path,label", *(f"{name},{name[:3]}" for name in pets)]).encode()
    inside = write(tmp_path / kind, {"set/labels.csv": text, **{f"set/{name}": data for name, data in pets.items()}})
    found, _ = layout(str(inside), name="csv")
    assert len(found["train"]) == len(pets)
    beside = write(tmp_path / f"plain-{kind}", pets)
    write(tmp_path, {"labels.csv": text})
    assert layout([str(beside), str(tmp_path / "labels.csv")], name="csv")[0] == found


def test_one_csv_per_split(tmp_path: Path, write: Write, pets: dict[str, bytes]) -> None:
    rows = [f"{name},{name[:3]}" for name in pets]
    lists = {
        "train.csv": "\n".join(["path,label", *rows[::2]]).encode(),
        "test.csv": "\n".join(["path,label", *rows[1::2]]).encode(),
    }
    write(tmp_path, {**pets, **lists})
    found, _ = layout(str(tmp_path), name="csv")
    assert {split: len(items) for split, items in found.items()} == {"train": 10, "test": 10}


def test_rows_that_name_no_picture_are_told_with_their_line(
    tmp_path: Path, write: Write, pets: dict[str, bytes]
) -> None:
    text = b"path,label\ncat/00.png,cat\ncat/99.png,cat\ncat/00.png,dog\ndog/01.png,\ndog/02.png,dog\n"
    path = write(tmp_path, {**pets, "x.csv": text}) / "x.csv"
    found = find(ImageData(name="csv", path=str(path)), notes=[])["train"]()
    assert [item.short for item in found.items] == ["cat/00.png", "dog/02.png"]
    assert found.bad == [
        (f"{path} line 3 (cat/99.png)", "no such file"),
        (f"{path} line 4 (cat/00.png)", "listed already in line 2"),
        (f"{path} line 5 (dog/01.png)", "no label"),
    ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "has no column path"),
        (b"path,colour\n", r"has no column label \(it has path, colour\): name it label or class"),
        (b"path,label,split\na.png,cat,later\n", "line 2: 'later' is no split"),
        (b"path,label\n\xff\xfe,cat\n", "is no UTF-8 text"),
        (b"path,label\n" + b"a" * 140_000 + b",cat\n", "line 2 is no CSV"),
    ],
)
def test_a_csv_that_is_none(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "x.csv").write_bytes(data)
    with pytest.raises(DataError, match=reason):
        layout(str(tmp_path / "x.csv"), name="csv")


def test_an_archive_needs_exactly_one_csv(tmp_path: Path, write: Write, pets: dict[str, bytes]) -> None:
    with pytest.raises(DataError, match="holds 0 CSV files"):
        layout(str(write(tmp_path / "set.zip", pets)), name="csv")


def test_a_csv_that_an_archive_cannot_give(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "set.zip", {"x.csv": b"path,label\n" * 500})
    data = bytearray(path.read_bytes())
    data[35:40] = b"\xff" * 5
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.csv could not be read: damaged"):
        layout(str(path), name="csv")


# data.split ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelt", ["{}", "./{}", "set/{}"])
def test_a_csv_of_splits_divides_anew(tmp_path: Path, write: Write, pets: dict[str, bytes], spelt: str) -> None:
    path = write(tmp_path / "set", pets)
    rows = [f"{spelt.format(name)},{('train', 'val', 'test')[row % 3]}" for row, name in enumerate(pets)]
    (tmp_path / "split.csv").write_text("\n".join(["path,split", *rows, "cat/77.png,test"]))
    found, notes = layout(str(path), split=str(tmp_path / "split.csv"))
    assert {split: len(items) for split, items in found.items()} == {"train": 7, "valid": 7, "test": 6}
    assert "1 rows name none of the pictures and are ignored (cat/77.png)" in notes[0]


def test_a_csv_of_splits_that_does_not_fit(tmp_path: Path, write: Write, pets: dict[str, bytes]) -> None:
    path = str(write(tmp_path / "set", pets))
    listing = tmp_path / "split.csv"

    def refused(text: str, reason: str) -> None:
        listing.write_text(text)
        with pytest.raises(DataError, match=reason):
            layout(path, split=str(listing))

    refused("path,split\ncat/00.png,train\n", r"gives no split to 19 of 20 pictures \(cat/01.png, ")
    refused("path,split\na,train\na,test\n", "line 3: a is in train already")
    refused("path,part\na,train\n", "has no column split")
    refused("path,split\na,today\n", "'today' is no split")
    listing.unlink()
    with pytest.raises(DataError, match=r"could not be read \(No such file or directory\): check data.split"):
        layout(path, split=str(listing))
