"""Pascal VOC in its usual layouts, and what is wrong in it; the real BCCD set."""

from __future__ import annotations

import numpy as np
import pytest
from tests.plugins.detection.data_made import loaded, made, names, picture, voc, voc_xml, write

from modelwright.errors import DataError

OBJECTS = [(0, 1, 2, 11, 12), (1, 5, 5, 20, 25)]


def flat(count=4, *, folder="", suffixes=(".png", ".JPG", ".jpg", ".PNG")):
    """XML files beside their pictures."""
    files = {}
    for number in range(count):
        suffix = suffixes[number % len(suffixes)]
        kind = "JPEG" if "J" in suffix.upper() else "PNG"
        files[f"{folder}p{number:02}{suffix}"] = picture(number, kind=kind)
        files[f"{folder}p{number:02}.xml"] = voc_xml("whatever", (40, 30), OBJECTS)
    return files


@pytest.mark.parametrize("kind", ["set", "set.tar.xz", "set.zip"])
def test_xml_beside_pictures_of_any_ending(tmp_path, kind):
    train = loaded("voc", write(tmp_path / kind, flat()), valid=0, test=0)["train"]
    assert names(train) == ["p00", "p01", "p02", "p03"]
    assert train.classes == ("cat", "dog")
    np.testing.assert_array_equal(train.objects(3).boxes, [row[1:] for row in OBJECTS])


@pytest.mark.parametrize("folders", [("Train/", "TEST/"), ("a/train/xml/", "a/test/xml/")])
def test_splits_by_folder(tmp_path, folders):
    files = flat(3, folder=folders[0]) | {
        name.replace("p0", "q0"): data for name, data in flat(3, folder=folders[1]).items()
    }
    for kind in ("set", "set.zip"):
        found = loaded("voc", write(tmp_path / kind, files), valid=0)
        assert (len(found["train"]), names(found["test"])) == (3, ["q00", "q01", "q02"])


def test_pictures_in_a_folder_beside_the_xml_ones_and_masks(tmp_path):
    files = {f"Annotations/{name}": data for name, data in flat().items() if name.endswith(".xml")}
    files |= {f"images/{name}": data for name, data in flat().items() if not name.endswith(".xml")}
    files |= {f"SegmentationClass/p{number:02}.png": b"" for number in range(4)}
    files |= {f"thumbs/small/p{number:02}.png": b"" for number in range(4)}
    problem = r"^4 of 16 .*thumbs/small/p00.png: no XML has its name"
    with pytest.raises(DataError, match=problem):
        loaded("voc", write(tmp_path / "set", files), valid=0, test=0)
    assert len(loaded("voc", tmp_path / "set", valid=0, test=0, on_bad="skip")["train"]) == 4


def test_lists_of_splits(tmp_path):
    files = voc(made())
    files |= {f"ImageSets/Main/cat_{split}.txt": b"p00 1\np01 -1\n" for split in ("train", "val")}
    files |= {"ImageSets/Main/trainval.txt": b"p00\np06\n"}
    files["ImageSets/Main/val.txt"] = b"p06  1\r\np07\r\n"
    found = loaded("voc", write(tmp_path / "set", files))
    assert [names(found[split]) for split in ("valid", "test")] == [["p06", "p07"], ["p09", "p10", "p11"]]
    assert "1 pictures are in no list of ImageSets and left out (JPEGImages/p08.png)" in found.notes[0]


def test_trainval_where_there_is_no_train(tmp_path):
    files = voc(made({"trainval": 5, "test": 2}))
    found = loaded("voc", write(tmp_path / "set", files), valid=0.2)
    assert [len(found[split]) for split in ("train", "valid", "test")] == [4, 1, 2]


def test_two_years_side_by_side(tmp_path):
    files = {f"VOC2007/{name}": data for name, data in voc(made({"train": 3, "test": 2})).items()}
    files |= {f"VOC2012/{name}": data for name, data in voc(made({"train": 2, "val": 2})).items()}
    found = loaded("voc", write(tmp_path / "VOCdevkit", files))
    assert [len(found[split]) for split in ("train", "valid", "test")] == [5, 2, 2]


def test_lines_that_name_nothing_and_names_listed_twice(tmp_path):
    files = voc(made())
    files["ImageSets/Main/train.txt"] += b"\np77\np00\n"
    with pytest.raises(
        DataError, match=r"^2 of 38 .*train.txt line 7: neither a picture nor an XML is named p77; "
    ) as error:
        loaded("voc", write(tmp_path / "set", files))
    assert "train.txt line 8: p00 is listed already in " in str(error.value)
    assert len(loaded("voc", tmp_path / "set", on_bad="skip")["train"]) == 6


def test_a_list_that_cannot_be_read(tmp_path):
    path = write(tmp_path / "set.zip", voc(made()))
    data = bytearray(path.read_bytes())
    place = data.index(b"train.txt") + 12
    data[place : place + 5] = b"\xff" * 5
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"train\.txt could not be read: damaged"):
        loaded("voc", path)


def test_difficult_objects_are_crowds(tmp_path):
    files = flat(2) | {"p01.xml": voc_xml("p01", (40, 30), OBJECTS, difficult=1)}
    train = loaded("voc", write(tmp_path / "set", files), valid=0, test=0)["train"]
    assert [train.objects(row).crowd.tolist() for row in range(2)] == [[False, False], [True, True]]


XML = voc_xml("p01", (40, 30), OBJECTS).decode()


@pytest.mark.parametrize(
    ("text", "where", "reason"),
    [
        ("", "p01.xml", "it is no XML"),
        ("<annotation><object>", "p01.xml", "it is no XML"),
        ("<html></html>", "p01.xml", "it is no annotation of VOC: it begins with <html>"),
        (XML.replace("<xmin>5</xmin>", ""), "p01.xml object 2", "its bndbox has no xmin, ymin, xmax, ymax in numbers"),
        (XML.replace("<xmin>5<", "<xmin>left<"), "p01.xml object 2", "its bndbox has no xmin"),
        (XML.replace("dog", " "), "p01.xml object 2", "it has no name"),
        (XML.replace("<xmax>20<", "<xmax>5<"), "p01.xml object 2", r"its box has no area \(0 x 20 pixels\)"),
        (XML.replace("<xmax>20<", "<xmax>nan<"), "p01.xml object 2", "its box is not of finite numbers"),
        (XML.replace("<width>40", "<width>50"), "p01.JPG", "its labels are for 50 x 30 pixels, it has 40 x 30"),
    ],
)
def test_xml_that_cannot_be_used(tmp_path, text, where, reason):
    files = flat() | {"p01.xml": text.encode()}
    with pytest.raises(DataError, match=rf"^1 of 1\d .*{where}: {reason}") as error:
        loaded("voc", write(tmp_path / "set", files), valid=0, test=0)
    assert "\n" not in str(error.value)
    found = loaded("voc", write(tmp_path / "set", files), valid=0, test=0, on_bad="skip")
    assert len(found["train"]) >= 3


@pytest.mark.parametrize("size", ["<width>0</width><height>0</height>", "<width>x</width>", "<width>1e999</width>", ""])
def test_sizes_that_say_nothing(tmp_path, size):
    files = flat() | {"p01.xml": XML.replace("<width>40</width><height>30</height>", size).encode()}
    assert len(loaded("voc", write(tmp_path / "set", files), valid=0, test=0)["train"]) == 4


def test_pictures_and_xml_that_lack_the_other(tmp_path):
    files = flat()
    del files["p01.JPG"], files["p02.xml"]
    files["p03.jpg"] = files["p03.PNG"]
    with pytest.raises(DataError, match=r"^3 of 6 ") as error:
        loaded("voc", write(tmp_path / "set", files), valid=0, test=0)
    assert "p01.xml: no picture has its name; " in str(error.value)
    assert "p03.xml: several pictures have its name (p03.PNG, p03.jpg)" in str(error.value)
    assert "p02.jpg: no XML has its name" in str(error.value)
    with pytest.raises(DataError, match=r"holds no XML files: check data\.path"):
        loaded("voc", write(tmp_path / "bare", {"a.png": picture(1)}))
    with pytest.raises(DataError, match=r"holds no pictures: check data\.path"):
        loaded("voc", write(tmp_path / "blind", {"a.xml": XML.encode()}))


def test_an_xml_that_an_archive_cannot_give(tmp_path):
    files = flat() | {"p01.xml": (XML + " " * 500).encode()}
    path = write(tmp_path / "set.zip", files)
    data = bytearray(path.read_bytes())
    place = data.index(b"p01.xml") + 12
    data[place : place + 5] = b"\xff" * 5
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"^1 of \d+ .*p01.xml: damaged in the archive"):
        loaded("voc", path, valid=0, test=0)


@pytest.mark.real_data
def test_bccd_as_it_was_published(real_data, tmp_path):
    folder = real_data("bccd")
    before = sorted(folder.iterdir())
    with pytest.raises(DataError, match=r"^2 of 5,252 pictures and objects cannot be used: ") as error:
        loaded("voc", folder, size=320)
    for place in ("00338.xml object 13", "00343.xml object 4"):
        assert f"Annotations/BloodImage_{place}: its box has no area (0 x 0 pixels)" in str(error.value)
    found = loaded("voc", folder / "BCCD.tar.gz", size=320, on_bad="skip")
    assert [len(found[split]) for split in ("train", "valid", "test")] == [205, 87, 72]
    assert found["test"].classes == ("Platelets", "RBC", "WBC")
    assert found.notes[1:] == [
        "train: 205 pictures, 2,804 objects (Platelets 209, RBC 2,381, WBC 214); 0 pictures have none",
        "valid: 87 pictures, 1,137 objects (Platelets 83, RBC 967, WBC 87); 0 pictures have none",
        "test: 72 pictures, 945 objects (Platelets 69, RBC 805, WBC 71); 0 pictures have none",
    ]
    assert found["test"].picture(71).shape == (480, 640, 3)
    assert sorted(folder.iterdir()) == before
