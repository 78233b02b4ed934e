"""YOLO, COCO and VOC, in folders and archives, say the same of the same pictures."""

from __future__ import annotations

import numpy as np
import pytest
from tests.plugins.detection.data_made import CLASSES, FORMATS, KINDS, coco, files_of, loaded, made, names, voc, write

from modelwright.data import Key
from modelwright_detection.pictures import to_array

SPLITS = {"train": "train", "valid": "val", "test": "test"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMATS)
def test_the_same_objects_from_every_format_and_container(tmp_path, name, kind):
    pictures = made()
    files = files_of(name, pictures)
    found = loaded(name, write(tmp_path / kind, files))
    for split, written in SPLITS.items():
        data = found[split]
        assert data.classes == CLASSES
        assert names(data) == list(pictures[written])
        for row, (size, objects) in enumerate(pictures[written].values()):
            truth = data.objects(row)
            assert truth.labels.tolist() == [each[0] for each in objects]
            np.testing.assert_allclose(truth.boxes, [each[1:] for each in objects], atol=1e-4)
            assert (truth.boxes.dtype, truth.labels.dtype, truth.crowd.dtype) == (np.float32, np.int64, bool)
            assert not truth.crowd.any()
            pixels = data.picture(row)
            assert pixels.shape == (size[1], size[0], 3)
            file = next(data for file, data in files.items() if file.endswith(f"{names(found[split])[row]}.png"))
            assert np.array_equal(pixels, to_array(file))
    raw, targets = found["valid"][Key(0, 0, 1, 1)]
    assert raw is not None
    assert set(targets) == {"boxes", "labels", "crowd"}


@pytest.mark.parametrize("name", FORMATS)
def test_the_notes_are_a_table(tmp_path, name):
    notes = loaded(name, write(tmp_path / "set", files_of(name, made()))).notes
    assert notes == [
        "train: 6 pictures, 12 objects (cat 6, dog 4, eel 2); 0 pictures have none",
        "valid: 3 pictures, 6 objects (cat 3, dog 2, eel 1); 0 pictures have none",
        "test: 3 pictures, 6 objects (cat 3, dog 2, eel 1); 0 pictures have none",
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_a_folder_around_everything_and_files_of_the_system(tmp_path, name):
    files = {f"top/{file}": data for file, data in files_of(name, made()).items()}
    files |= {"__MACOSX/top/._p00.png": b"x", "top/.DS_Store": b"x"}
    for kind in ("set.zip", "set"):
        found = loaded(name, write(tmp_path / kind, files))
        assert [len(found[split]) for split in SPLITS] == [6, 3, 3]


@pytest.mark.parametrize("name", ["coco", "voc"])
def test_one_archive_for_each_split(tmp_path, name):
    pictures = made()
    folder = tmp_path / "sets"
    folder.mkdir()
    for split, each in pictures.items():
        files = {"coco": coco, "voc": voc}[name]({split: each})
        write(folder / f"{split}.zip", files)
    one = loaded(name, folder)
    listed = loaded(name, [folder / f"{split}.zip" for split in ("test", "train", "val")])
    for split, written in SPLITS.items():
        assert names(one[split]) == names(listed[split]) == list(pictures[written])


@pytest.mark.parametrize("name", FORMATS)
def test_the_only_archive_of_a_folder_is_meant(tmp_path, name):
    (tmp_path / "sets").mkdir()
    write(tmp_path / "sets" / "all.tar.gz", files_of(name, made()))
    (tmp_path / "sets" / "README.md").write_text("about")
    assert len(loaded(name, tmp_path / "sets")["train"]) == 6
