"""Settings become three checked splits; what is wrong is found before training; what is known needs no other split."""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest
from tests.plugins.detection.data_made import (
    CLASSES,
    FORMATS,
    Made,
    coco,
    coco_json,
    config,
    files_of,
    loaded,
    made,
    names,
    picture,
    voc,
    write,
    yolo,
)

from modelwright.data import Facts, Key
from modelwright.errors import ConfigError, DataError
from modelwright.stores import open_store
from modelwright_detection.data import Known, Pictures, TrainPictures, find_facts, load

SPLITS = ("train", "valid", "test")


def sizes(found):
    return [len(found[split]) if found.has(split) else 0 for split in SPLITS]


# Splits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_splits_that_the_data_lack_are_cut(tmp_path, name):
    path = write(tmp_path / "set", files_of(name, made({"train": 30})))
    found = loaded(name, path)
    assert sizes(found) == [21, 3, 6]
    assert found.notes[0] == (
        "splits cut from the training pictures by seed 0, rare classes in proportion: train 21, valid 3, test 6"
    )
    assert sorted(name for split in SPLITS for name in names(found[split])) == [f"p{n:02}" for n in range(30)]
    assert all((found["test"].objects(row).labels.max(initial=0) < 3) for row in range(6))
    again, other = loaded(name, path), loaded(name, path, seed=1)
    assert names(again["test"]) == names(found["test"]) != names(other["test"])
    assert sizes(loaded(name, path, valid=0, test=0)) == [30, 0, 0]


def test_the_splits_of_the_data_are_kept(tmp_path):
    path = write(tmp_path / "set", yolo(made({"train": 8, "test": 3})))
    assert sizes(loaded("yolo", path, valid=0.25)) == [6, 2, 3]
    assert sizes(loaded("yolo", path, valid=0)) == [8, 0, 3]


@pytest.mark.parametrize("name", FORMATS)
def test_a_csv_divides_anew(tmp_path, name):
    path = write(tmp_path / "set", files_of(name, made()))
    listing = tmp_path / "split.csv"
    store = open_store(path)
    files = sorted(file for file in store.names() if file.endswith(".png"))
    spelt = [files[0], f"set/{files[1]}", store.where(files[2]), files[3].rpartition("/")[2], *files[4:]]
    rows = [f"{file},{('train', 'val', 'test')[row % 3]}" for row, file in enumerate(spelt)]
    listing.write_text("\n".join(["file,split", *rows, "x.png,test"]))
    found = loaded(name, path, split=str(listing))
    assert sizes(found) == [4, 4, 4]
    assert found["test"].classes == CLASSES
    assert "1 rows name none of the pictures and are ignored (x.png)" in found.notes[0]
    total = sum(len(found[split].objects(row)) for split in SPLITS for row in range(4))
    assert total == 24
    listing.write_text("\n".join(["file,split", *rows[1:]]))
    with pytest.raises(DataError, match="gives no split to 1 of 12 pictures"):
        loaded(name, path, split=str(listing))


def test_a_csv_over_classes_that_only_one_split_has(tmp_path):
    pictures = made({"train": 1, "test": 3})  # p00 holds cats only
    path = write(tmp_path / "set", voc(pictures))
    listing = tmp_path / "split.csv"
    listing.write_text("file,split\np00.png,test\np01.png,train\np02.png,train\np03.png,train\n")
    found = loaded("voc", path, split=str(listing), valid=0)
    assert found["train"].classes == CLASSES
    assert found["train"].objects(1).labels.tolist() == [0, 1, 2]
    assert found["test"].objects(0).labels.tolist() == [0]


def test_a_csv_over_splits_that_share_pictures(tmp_path):
    files = yolo(made({"train": 4, "val": 2})) | {
        "data.yaml": b"names: [cat, dog, eel]\ntrain: images/train\nval: [images/val, images/train]\n"
    }
    path = write(tmp_path / "set", files)
    listing = tmp_path / "split.csv"
    listing.write_text("file,split\n" + "\n".join(f"p{n:02}.png,{('train', 'test')[n % 2]}" for n in range(6)))
    found = loaded("yolo", path, split=str(listing), valid=0)
    assert (names(found["train"]), names(found["test"])) == (["p00", "p02", "p04"], ["p01", "p03", "p05"])


# What is known already ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["coco", "voc"])
def test_with_facts_a_split_needs_no_other(tmp_path, name):
    folder = tmp_path / "sets"
    folder.mkdir()
    write(folder / "test.zip", files_of(name, {"test": made()["test"]}))
    (folder / "train.zip").write_bytes(b"nothing to read")
    known = Known(("ape", *reversed(CLASSES)), 64)
    found = loaded(name, folder, known=known, valid=0)
    test = found["test"]
    assert (len(test), test.size, test.classes) == (3, 64, known.classes)
    assert [known.classes[label] for label in test.objects(2).labels] == list(CLASSES)
    assert "test: no object of ape" in found.notes
    with pytest.raises(DataError, match="damaged or no archive"):
        found["train"]


def test_facts_of_the_training_pictures(tmp_path):
    found = loaded("yolo", write(tmp_path / "set", yolo(made())))
    facts = find_facts(found["train"])
    assert facts.values == {
        "classes": list(CLASSES), "size": 32, "most": 3, "counts": [6, 4, 2], "pictures": 6,
    }  # fmt: skip
    assert json.loads(json.dumps(facts.values)) == facts.values
    assert Known.of(facts) == Known(CLASSES, 32)
    assert Known.of(Facts()) is None
    again = loaded("yolo", tmp_path / "set", known=Known.of(facts))
    assert np.array_equal(again["train"][Key(0, 0, 9, 1)].raw, found["train"][Key(0, 0, 9, 1)].raw)
    with pytest.raises(TypeError, match="a list is none of this plugin's datasets"):
        find_facts([])  # type: ignore[arg-type]


def test_the_kinds_of_datasets_and_their_size(tmp_path):
    path = write(tmp_path / "set", yolo(made()))
    found = loaded("yolo", path, size=None)
    assert isinstance(found["train"], TrainPictures)
    assert isinstance(found["valid"], Pictures)
    assert isinstance(found["train"].plain, Pictures)
    assert found["train"].size == 640
    assert found["train"].settings.flip == 0.5
    assert loaded("yolo", path, augment__flip=0.1)["train"].settings.flip == 0.1
    assert loaded("scenes", scenes=10)["train"].settings.flip == 0
    assert config("yolo", path).augment.flip is None


# Bad input: each is found before training, in one line, and counted ---------------------------------------------------


def huge_png(side):
    """A header that claims any size; a few bytes."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b""))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


@pytest.mark.parametrize("memory", [1.0, 0.0])
@pytest.mark.parametrize("kind", ["set", "set.tar.gz", "set.zip"])
@pytest.mark.parametrize("name", FORMATS)
def test_pictures_that_cannot_be_read(tmp_path, name, kind, memory):
    files = files_of(name, made())
    spoilt = {"p01": b"", "p04": huge_png(20_000), "p07": picture(7, (60, 60))[:3000], "p10": b"hello"}
    for file in files:
        stem = file.rpartition("/")[2].removesuffix(".png")
        if file.endswith(".png") and stem in spoilt:
            files[file] = spoilt[stem]
    path = write(tmp_path / kind, files)
    with pytest.raises(DataError, match=r"^4 of \d\d pictures and objects cannot be used: ") as error:
        loaded(name, path, memory=memory)
    text = str(error.value)
    assert "p01.png: the file is empty; " in text
    assert "p04.png: more than 178,000,000 pixels; cut it into tiles; " in text
    assert "p07.png: damaged or cut off" in text
    assert "p10.png: no picture in a format that Pillow reads; mend them, or set data.on_bad=skip" in text
    assert "\n" not in text
    found = loaded(name, path, memory=memory, on_bad="skip")
    assert sizes(found) == [4, 2, 2]
    assert names(found["train"]) == ["p00", "p02", "p03", "p05"]
    assert [len(found["train"].objects(row)) for row in range(4)] == [1, 3, 1, 3]
    assert found["train"].picture(1).shape == (32, 44, 3)
    assert found.notes[0].startswith("4 of ")
    assert found.notes[0].endswith("; they are left out")


@pytest.mark.parametrize("name", FORMATS)
def test_labels_only_in_one_split(tmp_path, name):
    pictures = made()
    pictures["val"] = {name: Made(each.size, []) for name, each in pictures["val"].items()}
    files = files_of(name, pictures)
    if name == "yolo":
        files = {file: data for file, data in files.items() if not file.startswith("labels/val")}
    if name == "voc":
        files = {
            file: data for file, data in files.items() if file not in [f"Annotations/{n}.xml" for n in pictures["val"]]
        }
        with pytest.raises(DataError, match=r"^3 of \d+ .*p06.png: no XML has its name"):
            loaded(name, write(tmp_path / "set", files))
        with pytest.raises(
            DataError, match=r"the valid split has no object that can be used: check data\.path and its"
        ):
            loaded(name, tmp_path / "set", on_bad="skip")
        return
    with pytest.raises(
        DataError, match=r"^the valid split has 3 pictures and not one labelled object; labels belong in"
    ):
        loaded(name, write(tmp_path / "set", files), on_bad="skip")


def test_where_labels_belong_is_told(tmp_path):
    files = {file: data for file, data in yolo(made()).items() if not file.startswith("labels")}
    with pytest.raises(DataError, match=r"labels belong in labels/train/p00.txt for images/train/p00.png: add them"):
        loaded("yolo", write(tmp_path / "set", files))


def test_nothing_is_left(tmp_path):
    files = {file: b"" if file.endswith(".png") else data for file, data in yolo(made()).items()}
    with pytest.raises(DataError, match=r"^12 of "):
        loaded("yolo", write(tmp_path / "set", files))
    with pytest.raises(DataError, match="the train split has no object that can be used"):
        loaded("yolo", tmp_path / "set", on_bad="skip")


def test_all_splits_are_checked_at_once(tmp_path):
    files = coco(made())
    said = json.loads(files["annotations/instances_test2017.json"])
    said["annotations"][0]["bbox"] = [1, 1, 0, 5]
    files["annotations/instances_test2017.json"] = json.dumps(said).encode()
    files["train2017/p03.png"] = b""
    with pytest.raises(
        DataError, match=r"^2 of \d+ .*p03.png: the file is empty; .*test2017.json annotation 1: its box"
    ):
        loaded("coco", write(tmp_path / "set", files))
    known = Known(CLASSES, 32)
    found = loaded("coco", tmp_path / "set", known=known)
    assert len(found["valid"]) == 3
    with pytest.raises(DataError, match=r"^1 of .*annotation 1"):
        found["test"]
    skipping = loaded("coco", tmp_path / "set", known=known, on_bad="skip")
    assert len(skipping["test"]) == 3
    assert skipping.notes[0].startswith("1 of ")


def test_turned_pictures_and_labels_of_the_stored_size(tmp_path):
    from PIL import Image
    from tests.plugins.detection.data_made import encode

    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(Image.new("RGB", (40, 30), "red"), "JPEG", exif=exif)
    said = coco_json({"p00": Made((40, 30), [(0, 1, 1, 9, 9)]), "p01": Made((40, 30), [(1, 1, 1, 9, 9)])})
    files = {"x.json": json.dumps(said).encode(), "p00.png": turned, "p01.png": picture(1)}
    with pytest.raises(DataError, match=r"^1 of 4 .*p00.png: its labels are for 40 x 30 pixels, it has 30 x 40; mend"):
        loaded("coco", write(tmp_path / "set", files), valid=0, test=0)


def test_equal_pictures_in_two_splits(tmp_path):
    files = yolo(made())
    files["images/test/p09.png"] = files["images/train/p04.png"]
    found = loaded("yolo", write(tmp_path / "set", files))
    assert "1 pictures of test are in train too, which flatters the score" in found.notes[-1]
    assert "images/test/p09.png = " in found.notes[-1]


def test_paths_that_do_not_fit(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.name=yolo needs data\.path: a folder, an archive, or a file"):
        loaded("yolo")
    with pytest.raises(DataError, match=r"nowhere does not exist: check data\.path"):
        loaded("voc", tmp_path / "nowhere")
    (tmp_path / "x.doc").write_bytes(b"")
    with pytest.raises(DataError, match="neither a folder nor an archive"):
        loaded("coco", tmp_path / "x.doc")
    cut_off = write(tmp_path / "set.tar.gz", voc(made()))
    cut_off.write_bytes(cut_off.read_bytes()[:2000])
    with pytest.raises(DataError, match="is damaged or no archive"):
        loaded("voc", cut_off)


def test_settings_as_they_are_written():
    with pytest.raises(ConfigError, match=r"unknown setting data\.sise \(did you mean 'size'\?\)"):
        config("yolo", sise=3)
    with pytest.raises(ConfigError, match=r"data\.size: input should be a multiple of 32, got 100"):
        config("yolo", size=100)
    with pytest.raises(ConfigError, match=r"data\.name: input should be 'scenes', 'yolo', 'coco' or 'voc'"):
        config("yoda")


def test_nothing_is_written_into_the_data(tmp_path):
    path = write(tmp_path / "set", yolo(made()))
    before = sorted(str(each) for each in path.rglob("*"))
    found = load(config("yolo", path), seed=0)
    found["train"][Key(0, 0, 1, 0)]
    assert sorted(str(each) for each in path.rglob("*")) == before
