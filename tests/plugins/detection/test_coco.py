"""COCO files, where their pictures are found, and what is wrong in them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.plugins.detection.data_made import Made, coco, coco_json, loaded, made, names, picture, write

from modelwright.errors import ConfigError, DataError

ONE = {"p00": Made((40, 30), [(0, 1, 2, 11, 12), (2, 5, 5, 20, 25)]), "p01": Made((40, 30), [(1, 3, 3, 9, 9)])}
PICTURES = {f"{name}.png": picture(int(name[1:]), size) for name, (size, _) in ONE.items()}


def one(path, said, *, pictures=PICTURES, listing="labels.json", **settings):
    """A single JSON that is all training data."""
    data = said if isinstance(said, bytes) else json.dumps(said).encode()
    return loaded("coco", write(path, {**pictures, listing: data}), **{"valid": 0, "test": 0, **settings})


@pytest.mark.parametrize(
    ("listing", "folder", "file_name"),
    [
        ("labels.json", "", ""),
        ("labels.json", "images/", ""),
        ("annotations/labels.json", "images/a/", ""),
        ("train/_annotations.coco.json", "train/", ""),
        ("result.json", "images/", "images/"),
        ("annotations/x.json", "data/", "../data/"),
        ("x.json", "deep/er/", "er\\"),
        ("x.json", "here/", "/mnt/elsewhere/here/"),
    ],
)
@pytest.mark.parametrize("kind", ["set", "set.zip"])
def test_pictures_are_found_wherever_they_lie(tmp_path, kind, listing, folder, file_name):
    pictures = {folder + name: data for name, data in PICTURES.items()}
    train = one(tmp_path / kind, coco_json(ONE, folder=file_name), pictures=pictures, listing=listing)["train"]
    assert names(train) == ["p00", "p01"]
    np.testing.assert_allclose(train.objects(0).boxes, [[1, 2, 11, 12], [5, 5, 20, 25]])


def test_a_json_by_itself_and_with_its_pictures(tmp_path):
    write(tmp_path / "set", {"annotations/x.json": json.dumps(coco_json(ONE)).encode()})
    write(tmp_path / "set" / "pictures", PICTURES)
    archive = write(tmp_path / "pictures.tar.gz", PICTURES)
    listing = tmp_path / "set" / "annotations" / "x.json"
    for path in (listing, [listing, archive], [tmp_path / "set" / "pictures", listing]):
        assert names(loaded("coco", path, valid=0, test=0)["train"]) == ["p00", "p01"]
    with pytest.raises(ConfigError, match="lists 2 places of pictures beside JSON files: give one"):
        loaded("coco", [listing, archive, tmp_path / "set"])


def test_several_json_by_name_and_by_place(tmp_path):
    folder = write(tmp_path / "set", PICTURES)
    first, second = ({name: ONE[name]} for name in ONE)
    for name, part in (
        ("a", first),
        ("b", second),
        ("my_val", second),
        ("my_train", first),
        ("c", first),
        ("d", first),
    ):
        (folder / f"{name}.json").write_text(json.dumps(coco_json(part)))
    by_place = loaded("coco", [folder / "a.json", folder / "b.json"], valid=0)
    assert (names(by_place["train"]), names(by_place["test"])) == (["p00"], ["p01"])
    by_name = loaded("coco", [folder / "my_val.json", folder / "my_train.json"], test=0)
    assert (names(by_name["train"]), names(by_name["valid"])) == (["p00"], ["p01"])
    with pytest.raises(ConfigError, match="lists 4 places: give one, or one each"):
        loaded("coco", [folder / f"{name}.json" for name in "abcd"])


def test_other_json_beside_coco(tmp_path):
    files = coco(made())
    files |= {"annotations/captions_train2017.json": b"{}", "annotations/person_keypoints_val2017.json": b"{}"}
    files |= {"package.json": b"{}"}
    found = loaded("coco", write(tmp_path / "set.zip", files))
    assert [len(found[split]) for split in ("train", "valid", "test")] == [6, 3, 3]
    assert "3 other JSON files are ignored (package.json, annotations/captions_train2017.json, " in found.notes[0]


def test_json_files_that_no_split_tells_apart(tmp_path):
    said = json.dumps(coco_json(ONE)).encode()
    with pytest.raises(DataError, match=r"holds several JSON files for train \(a_train.json, b_train.json\): list one"):
        loaded("coco", write(tmp_path / "one", {**PICTURES, "a_train.json": said, "b_train.json": said}))
    with pytest.raises(DataError, match=r"holds 2 JSON files \(a.json, b.json\) and none names its split"):
        loaded("coco", write(tmp_path / "two", {**PICTURES, "a.json": said, "b.json": said}))
    with pytest.raises(DataError, match=r"holds no JSON: set data\.path to a COCO file"):
        loaded("coco", write(tmp_path / "none", PICTURES))
    usual = write(tmp_path / "usual", {**PICTURES, "info.json": b"{}", "instances_default.json": said})
    assert len(loaded("coco", usual, valid=0, test=0)["train"]) == 2
    with pytest.raises(DataError, match="holds several splits"):
        loaded("coco", [write(tmp_path / "three", coco(made())), tmp_path / "usual"])


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"{'images': 1}", "is no JSON"),
        (b"\xff\xfe\xfd", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"[1, 2]", "is no COCO file: it has no list of images and annotations and categories"),
        (b'{"type": "FeatureCollection"}', "is no COCO file: it has no list of images and annotations"),
        (
            {"images": [], "categories": []},
            "it has no list of annotations, as files of images without labels have none",
        ),
        ({"images": {}, "annotations": [], "categories": []}, "it has no list of images"),
        (coco_json(ONE, categories=[]), "has no categories: list the classes there"),
        (coco_json(ONE, categories=[{"id": 1}]), "a category has no id or no name"),
        (coco_json(ONE, categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]), "one id or one name"),
        (coco_json(ONE, categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]), "one id or one name"),
        (coco_json(ONE, images=[], annotations=[]), "the train split has no picture"),
        (coco_json(ONE, annotations=[]), "has 2 pictures and not one labelled object; labels belong in annotations of"),
    ],
)
def test_json_that_is_no_coco(tmp_path, said, reason):
    with pytest.raises(DataError, match=reason) as error:
        one(tmp_path / "set", said)
    assert "\n" not in str(error.value)


def test_a_json_that_cannot_be_read(tmp_path):
    path = write(tmp_path / "set.zip", {"x.json": json.dumps(coco_json(ONE)).encode(), **PICTURES})
    data = bytearray(path.read_bytes())
    data[45:50] = b"\xff" * 5
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.json could not be read: damaged"):
        loaded("coco", path)


def changed(list_name, place, **values):
    """The COCO data with one record changed; a value None takes its key away."""
    said = json.loads(json.dumps(coco_json(ONE)))
    record = {**said[list_name][place], **values}
    said[list_name][place] = {key: value for key, value in record.items() if value is not None}
    return said


@pytest.mark.parametrize(
    ("said", "where", "reason"),
    [
        (changed("annotations", 0, image_id=5), "annotation 1", "no image has the id 5"),
        (changed("annotations", 1, category_id=2), "annotation 2", "no category has the id 2"),
        (changed("annotations", 1, bbox=None), "annotation 2", "its bbox is not four numbers"),
        (changed("annotations", 1, bbox=[1, 2, 3]), "annotation 2", "its bbox is not four numbers"),
        (changed("annotations", 1, bbox=[1, 2, "3", 4]), "annotation 2", "its bbox is not four numbers"),
        (changed("annotations", 1, bbox=[1, 2, True, 4]), "annotation 2", "its bbox is not four numbers"),
        (changed("annotations", 1, bbox=[1, 2, 0, 4]), "annotation 2", r"its box has no area \(0 x 4 pixels\)"),
        (changed("annotations", 1, bbox=[1, 2, float("nan"), 4]), "annotation 2", "not of finite numbers"),
        (changed("annotations", 1, bbox=[1, 2, 1e308, 1e308], id="x"), "annotation 2", "mostly outside of the picture"),
        ({**coco_json(ONE), "annotations": [*coco_json(ONE)["annotations"], 7]}, "annotation 4", "it is no object"),
        (changed("images", 1, file_name="p77.png"), r"image 101 \(p77.png\)", "no such picture"),
        (changed("images", 1, file_name=None), "image 2", "it has no id or no file_name"),
        (changed("images", 1, id=100), "image 2", "its id 100 is that of another"),
        (changed("images", 1, file_name="p00.png"), r"image 101 \(p00.png\)", "it is image 100 already"),
        (changed("images", 1, width=30, height=40), "p01.png", "its labels are for 30 x 40 pixels, it has 40 x 30"),
    ],
)
def test_records_that_cannot_be_used(tmp_path, said, where, reason):
    with pytest.raises(DataError, match=rf"{where}: .*{reason}") as error:
        one(tmp_path / "set", said)
    assert "\n" not in str(error.value)
    found = one(tmp_path / "set", said, on_bad="skip")
    assert "cannot be used: " in found.notes[0]
    assert len(found["train"].objects(0)) >= 1


def test_crowds_and_sizes_that_are_not_given(tmp_path):
    said = changed("annotations", 1, iscrowd=1)
    for image in said["images"]:
        del image["width"]
    found = one(tmp_path / "set", said)
    assert found["train"].objects(0).crowd.tolist() == [False, True]
    assert "3 objects (cat 1, dog 1, eel 1), 1 of them crowds or difficult; 0 pictures have none" in found.notes[0]


def test_a_picture_whose_name_several_have(tmp_path):
    pictures = {f"{folder}/{name}": data for folder in ("a", "b") for name, data in PICTURES.items()}
    with pytest.raises(DataError, match=r"image 100 \(p00.png\): several pictures have this name \(a/p00.png, b/p00"):
        one(tmp_path / "set", coco_json(ONE), pictures=pictures)
    files = {f"{split}/p00.png": picture(number) for number, split in enumerate(("train", "val"))}
    for split in ("train", "val"):
        files[f"annotations/{split}.json"] = json.dumps(coco_json({"p00": ONE["p00"]})).encode()
    found = loaded("coco", write(tmp_path / "more", files), test=0)
    assert np.array_equal(found["valid"].picture(0).shape, (30, 40, 3))
    assert "/val/" in found["valid"].name_of(0)


def test_classes_that_training_has_not(tmp_path):
    files = coco(made({"train": 2, "val": 3}))
    said = json.loads(files["annotations/instances_train2017.json"])
    said["categories"] = said["categories"][:2]
    files["annotations/instances_train2017.json"] = json.dumps(said).encode()
    with pytest.raises(DataError, match=r"the valid split has classes that the training pictures have not \(eel\)"):
        loaded("coco", write(tmp_path / "set", files), test=0)
