"""data.yaml in all its spellings, label files line by line, and what is wrong in them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.plugins.detection.data_made import Made, loaded, made, names, picture, write, yolo, yolo_line

from modelwright.errors import ConfigError, DataError
from modelwright_detection.yolo import read_boxes

TWO = {"train": 4, "val": 2}


def spelt(tmp_path, listing, files=None, **settings):
    """The splits by another data.yaml."""
    files = yolo(made(TWO)) if files is None else files
    return loaded("yolo", write(tmp_path / "set", {**files, "data.yaml": listing.encode()}), test=0, **settings)


@pytest.mark.parametrize(
    "listing",
    [
        "names: {0: cat, 1: dog, 2: eel}\nnc: 3\ntrain: images/train\nval: images/val\ntest:\n",
        "path: .\nnames: [cat, dog, eel]\ntrain: images/train/\nvalid: [images/val]\n",
        "path: ../where/else\nnames: [cat, dog, eel]\ntrain: ../images/train\nval: ../images/val\ndownload: x.zip\n",
        "names: [cat, dog, eel]\ntrain: ./images/train\nvalidation: images\\val\n",
        "names:\n- cat\n- dog\n- eel\ntrain: train.txt\nval: lists/val.txt\n",
    ],
)
def test_a_data_yaml_in_many_spellings(tmp_path, listing):
    files = yolo(made(TWO))
    files["train.txt"] = b"./images/train/p00.png\nimages/train/p01.png\n\nimages/train/p02.png\nimages/train/p03.png\n"
    files["lists/val.txt"] = b"images/val/p04.png\r\n../images/val/p05.png\r\n"
    found = spelt(tmp_path, listing, files)
    assert names(found["train"]) == ["p00", "p01", "p02", "p03"]
    assert names(found["valid"]) == ["p04", "p05"]
    assert found["train"].classes == ("cat", "dog", "eel")
    assert len(found["train"].objects(2)) == 3


def test_absolute_paths_and_the_file_itself(tmp_path):
    there = write(tmp_path / "there", yolo(made(TWO)))
    listing = tmp_path / "mine.yml"
    listing.write_text(f"path: {there}\nnames: [cat, dog, eel]\ntrain: images/train\nval: {there}/images/val\n")
    found = loaded("yolo", listing, test=0)
    assert names(found["valid"]) == ["p04", "p05"]
    assert found["valid"].objects(0).labels.tolist() == [0, 1]


def test_splits_above_images_and_labels(tmp_path):
    files = {
        name.replace("images/train", "train/images").replace("labels/train", "train/labels"): data
        for name, data in yolo(made({"train": 4})).items()
    }
    files["data.yaml"] = b"names: [cat, dog, eel]\ntrain: ../train\n"
    for kind in ("set", "set.zip"):
        train = loaded("yolo", write(tmp_path / kind, files), valid=0, test=0)["train"]
        assert [len(train.objects(row)) for row in range(4)] == [1, 2, 3, 1]


def test_labels_beside_the_pictures(tmp_path):
    files = {name.split("/")[-1]: data for name, data in yolo(made({"train": 3})).items()}
    files["data.yaml"] = b"names: [cat, dog, eel]\ntrain: .\n"
    train = loaded("yolo", write(tmp_path / "set", files), valid=0, test=0)["train"]
    assert [len(train.objects(row)) for row in range(3)] == [1, 2, 3]


def test_names_stay_texts(tmp_path):
    found = spelt(tmp_path, "names: [no, 1e3, 'eel ']\ntrain: images/train\nval: images/val\n")
    assert found["train"].classes == ("no", "1e3", "eel")


@pytest.mark.parametrize(
    ("listing", "reason"),
    [
        ("names: [a, b, c]\ntrain: images/train\nval: images/later\n", "val names images/later, which does not exist"),
        ("names: [a, b, c]\ntrain: images/train\nval: later.txt\n", "val names later.txt, which does not exist"),
        ("names: [a, b, c]\ntrain: labels/train\n", "train names labels/train, where there are no pictures"),
        ("names: [a, b, c]\nnc: 4\ntrain: images/train\n", "nc is 4, but names lists 3: make them agree"),
        ("names: [a, b, a]\ntrain: images/train\n", "two classes are named a"),
        ("names: {1: a, 2: b}\ntrain: images/train\n", "the numbers of names are 1, 2: count them from 0"),
        ("train: images/train\n", "has no names: list the classes"),
        ("names: []\ntrain: images/train\n", "has no names: list the classes"),
        ("names: [a, b, c]\n", "names no pictures: it needs train:"),
        ("names: [a, b, c]\ntrain: {a: b}\n", "train is neither a path nor a list of paths"),
        ("names: [a, b, c]\nval: images/val\n", "the data have no train split, only valid"),
        ("- a\n- b\n", r"is no data\.yaml: it needs names: and train:"),
        ("names: [a\ntrain: x", "is no YAML"),
    ],
)
def test_a_data_yaml_that_does_not_fit(tmp_path, listing, reason):
    with pytest.raises(DataError, match=reason) as error:
        spelt(tmp_path, listing)
    assert "\n" not in str(error.value)


def test_no_data_yaml_several_and_an_unreadable_one(tmp_path):
    files = yolo(made({"train": 2}))
    listing = files.pop("data.yaml")
    with pytest.raises(DataError, match=r"holds no data\.yaml: set data\.path"):
        loaded("yolo", write(tmp_path / "none", files))
    with pytest.raises(DataError, match=r"holds several YAML files \(a.yaml, b.yaml\)"):
        loaded("yolo", write(tmp_path / "two", {**files, "a.yaml": listing, "b.yaml": listing}))
    assert len(loaded("yolo", write(tmp_path / "one", {**files, "a.yaml": listing}), valid=0, test=0)["train"]) == 2
    damaged = write(tmp_path / "set.zip", {"data.yaml": listing * 50})
    data = bytearray(damaged.read_bytes())
    data[45:50] = b"\xff" * 5
    damaged.write_bytes(data)
    with pytest.raises(DataError, match=r"data\.yaml could not be read: damaged"):
        loaded("yolo", damaged)
    with pytest.raises(ConfigError, match=r"lists 2 places: a data\.yaml names the splits"):
        loaded("yolo", [tmp_path / "none", tmp_path / "two"])


def test_lines_of_a_list_that_name_no_picture(tmp_path):
    files = yolo(made(TWO)) | {"train.txt": b"images/train/p00.png\n\nimages/train/gone.png\n"}
    listing = "names: [cat, dog, eel]\ntrain: train.txt\nval: images/val\n"
    with pytest.raises(DataError, match=r"1 of 10 .*train.txt line 3 \(images/train/gone.png\): no such picture; mend"):
        spelt(tmp_path, listing, files)
    assert names(spelt(tmp_path, listing, files, on_bad="skip")["train"]) == ["p00"]


def test_a_list_that_cannot_be_read(tmp_path):
    files = yolo(made(TWO)) | {
        "train.txt": b"images/train/p00.png\n" * 99,
        "data.yaml": b"names: [a, b, c]\ntrain: train.txt\n",
    }
    path = write(tmp_path / "set.zip", files)
    data = bytearray(path.read_bytes())
    place = data.index(b"train.txt") + 12
    data[place : place + 5] = b"\xff" * 5
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"train\.txt could not be read: damaged"):
        loaded("yolo", path)


def test_images_without_labels_and_labels_without_images(tmp_path):
    files = yolo(made(TWO))
    del files["labels/train/p01.txt"]
    files |= {"labels/train/p02.txt": b"", "labels/train/classes.txt": b"cat\ndog\neel\n"}
    found = loaded("yolo", write(tmp_path / "set", files), test=0)
    assert [len(found["train"].objects(row)) for row in range(4)] == [1, 0, 0, 1]
    assert found.notes[0] == "train: 4 pictures, 2 objects (cat 2, dog 0, eel 0); 2 pictures have none"
    assert found.notes[1] == "train: no object of dog, eel"
    assert found.notes[2].startswith("train: 1 pictures have no label file and count as empty (")
    write(tmp_path / "set", {"labels/val/p99.txt": b"0 0.5 0.5 0.1 0.1"})
    with pytest.raises(DataError, match=r"1 of 14 .*labels/val/p99.txt: no picture has its name; mend them"):
        loaded("yolo", tmp_path / "set", test=0)
    assert len(loaded("yolo", tmp_path / "set", test=0, on_bad="skip")["valid"]) == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("3 0.5 0.5 0.1 0.1", "class 3 is not one of the 3 in names, 0 to 2"),
        ("-1 0.5 0.5 0.1 0.1", "class -1 is not one of the 3"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5 is not one of the 3"),
        ("cat 0.5 0.5 0.1 0.1", "'cat 0.5 0.5 0.1 0.1' are no numbers"),
        ("0 0.5 0.5 0.1", "it has 4 numbers; a box has 5"),
        ("0 0.5 0.5 0.1 0.1 0.9", "it has 6 numbers"),
        ("0 0.5 nan 0.1 0.1", "a number is not finite"),
        ("0 0.5 0.5 0.0 0.1", r"its box has no area \(0 x 3 pixels\)"),
        ("0 0.5 0.5 -0.1 0.1", r"its box has no area \(-4 x 3 pixels\)"),
        ("0 20 15 10 10", "its box lies mostly outside of the picture"),
        ("0 1.5 0.5 0.1 0.1", r"its box lies mostly outside of the picture \(58 13.5 62 16.5 in 40 x 30 pixels\)"),
    ],
)
def test_lines_that_are_no_box(tmp_path, line, reason):
    files = yolo({"train": {"p00": Made((40, 30), [(0, 1, 1, 9, 9), (1, 2, 2, 8, 8)])}})
    files["labels/train/p00.txt"] += f"\n\n{line}\n".encode()
    with pytest.raises(DataError, match=rf"^1 of 4 .*labels/train/p00\.txt line 4: {reason}") as error:
        loaded("yolo", write(tmp_path / "set", files), valid=0, test=0)
    assert str(error.value).endswith("; mend them, or set data.on_bad=skip to leave them out")
    found = loaded("yolo", tmp_path / "set", valid=0, test=0, on_bad="skip")
    assert found["train"].objects(0).labels.tolist() == [0, 1]
    assert found.notes[0].startswith("1 of 4 pictures and objects cannot be used: ")
    assert found.notes[0].endswith("; they are left out")


def test_a_label_file_that_is_no_text(tmp_path):
    files = yolo(made({"train": 3})) | {"labels/train/p01.txt": b"\xff\xfe\x00"}
    with pytest.raises(DataError, match=r"^1 of 7 .*labels/train/p01.txt: it is no text"):
        loaded("yolo", write(tmp_path / "set", files), valid=0, test=0)
    assert names(loaded("yolo", tmp_path / "set", valid=0, test=0, on_bad="skip")["train"]) == ["p00", "p02"]


def test_a_label_file_that_an_archive_cannot_give(tmp_path):
    files = yolo(made({"train": 3}))
    files["labels/train/p01.txt"] += b"\n" * 500
    path = write(tmp_path / "set.zip", files)
    data = bytearray(path.read_bytes())
    place = data.index(b"labels/train/p01.txt") + 30
    data[place : place + 5] = b"\xff" * 5
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"^1 of 7 .*labels/train/p01.txt: damaged in the archive"):
        loaded("yolo", path, valid=0, test=0)


def test_polygons_become_boxes():
    bad = []
    marks = read_boxes(b"\xef\xbb\xbf1 0.1 0.2 0.4 0.9 0.3 0.5\n", where="x.txt", classes=2, bad=bad)
    assert marks.boxes.tolist() == [[0.1, 0.2, 0.4, 0.9]]
    assert (marks.labels.tolist(), marks.relative, marks.where(0), bad) == ([1], True, "x.txt line 1", [])


@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.lists(st.tuples(st.integers(0, 2), *[st.floats(0, 1) for _ in range(4)]), max_size=5),
)
def test_what_is_written_is_read(width, height, rows):
    boxes = [
        (kind, min(a, b) * width, min(c, d) * height, max(a, b) * width, max(c, d) * height)
        for kind, a, b, c, d in rows
    ]
    text = "\n".join(yolo_line((width, height), box) for box in boxes)
    marks = read_boxes(text.encode(), where="x", classes=3, bad=[])
    assert marks.labels.tolist() == [box[0] for box in boxes]
    expected = np.array([box[1:] for box in boxes]).reshape(-1, 4)
    np.testing.assert_allclose(marks.boxes * np.array([width, height] * 2), expected, atol=1e-4)


def test_one_picture_named_by_two_splits(tmp_path):
    listing = "names: [cat, dog, eel]\ntrain: images/train\nval: [images/val, images/train]\n"
    notes = spelt(tmp_path, listing).notes
    assert any(note.startswith("4 pictures of valid are in train too, which flatters the score (") for note in notes)


def test_pictures_of_both_spellings_of_an_ending(tmp_path):
    files = yolo(made({"train": 2}), suffix=".PNG") | {"images/train/p07.jpg": picture(7, kind="JPEG")}
    assert names(loaded("yolo", write(tmp_path / "set", files), valid=0, test=0)["train"]) == ["p00", "p01", "p07"]
