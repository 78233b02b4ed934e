"""Datasets give what a key asks for: in memory or not, here or in another process, with any number of workers."""

from __future__ import annotations

import functools
import pickle

import numpy as np
import pytest
import torch
from tests.plugins.detection.data_made import CLASSES, FORMATS, files_of, loaded, made, voc, write

from modelwright.data import Key
from modelwright.errors import DataError
from modelwright_detection import datasets
from modelwright_detection.config import AugmentConfig
from modelwright_detection.datasets import Kept, Pictures, TrainPictures
from modelwright_detection.labels import Objects, Scene


def picture_of(index):
    return np.random.default_rng(index).integers(0, 256, (20 + index, 30, 3), dtype=np.uint8)


def scene(index):
    objects = Objects.of([[1, 2, 11, 12], [3, 4, 28, 18]], [0, 2], [False, True])
    return Scene(f"p{index}", functools.partial(picture_of, index), objects, (30, 20 + index))


def pictures(count=5):
    return Pictures([scene(index) for index in range(count)], classes=CLASSES, size=64)


def same(one, other):
    return np.array_equal(one.raw, other.raw) and all(
        np.array_equal(one.targets[name], other.targets[name]) for name in ("boxes", "labels", "crowd")
    )


def test_pictures_as_they_are():
    data = pictures()
    raw, targets = data[Key(7, 3, 9, 2)]
    assert len(data) == 5
    assert np.array_equal(raw, picture_of(2))
    assert targets["boxes"].tolist() == [[1, 2, 11, 12], [3, 4, 28, 18]]
    assert (targets["labels"].tolist(), targets["crowd"].tolist()) == ([0, 2], [False, True])
    assert (data.name_of(2), data.classes, data.size) == ("p2", CLASSES, 64)


def test_training_pictures_are_changed_only_when_asked_for():
    plain = pictures()
    data = TrainPictures(plain, AugmentConfig(flip=0.5))
    raw, targets = data[Key(0, 0, 100, 2)]
    assert raw.shape == (64, 64, 3)
    assert targets["boxes"].shape == (len(targets["labels"]), 4)
    assert np.array_equal(data.picture(2), picture_of(2))
    assert (data.name_of(2), len(data), data.objects(1)) == ("p2", 5, plain.objects(1))
    assert same(data[Key(0, 0, 100, 2)], data[Key(0, 0, 100, 2)])
    assert not same(data[Key(0, 0, 100, 2)], data[Key(0, 1, 100, 2)])


def test_scaled_pictures_carry_their_boxes():
    pixels, objects = TrainPictures(pictures(), AugmentConfig()).scaled(1)
    assert pixels.shape == (45, 64, 3)  # of 21 x 30
    ratio = np.float32([64 / 30, 45 / 21] * 2)
    np.testing.assert_allclose(objects.boxes, np.float32([[1, 2, 11, 12], [3, 4, 28, 18]]) * ratio, rtol=1e-6)
    assert objects.crowd.tolist() == [False, True]


def test_what_is_kept_comes_back(monkeypatch):
    monkeypatch.setattr(datasets, "CHUNK", 5000)  # two pictures to a chunk
    kept = Kept(9000)
    held = [kept.add(slot, picture_of(slot)) for slot in range(6)]
    assert held == [True] * 4 + [False] * 2
    assert kept.full
    kept = pickle.loads(pickle.dumps(kept.close([5, 3, 1, 2])))
    assert kept.get(0) is None
    assert [np.array_equal(kept.get(row), picture_of(slot)) for row, slot in ((1, 3), (2, 1), (3, 2))] == [True] * 3
    assert len(kept) == 3
    assert len(Kept(0).close([])) == 0


def test_a_picture_larger_than_a_chunk(monkeypatch):
    monkeypatch.setattr(datasets, "CHUNK", 100)
    kept = Kept(1e9)
    assert all(kept.add(slot, picture_of(slot)) for slot in range(3))
    assert np.array_equal(kept.close(range(3)).get(1), picture_of(1))


@pytest.mark.parametrize("kind", ["set", "set.tar.gz", "set.zip"])
@pytest.mark.parametrize("name", FORMATS)
def test_memory_changes_nothing(tmp_path, name, kind):
    path = write(tmp_path / kind, files_of(name, made()))
    here, there = loaded(name, path), loaded(name, path, memory=0)
    some = loaded(name, path, memory=1e-5)
    assert sum("pictures do not fit into data.memory=0; they" in note for note in there.notes) == 3
    assert any("of 6 pictures do not fit into data.memory=1e-05; they" in note for note in some.notes)
    for split in ("train", "valid", "test"):
        for key in (Key(1, 0, 99, 0), Key(1, 98, 99, 2)):
            assert same(here[split][key], there[split][key])
            assert same(here[split][key], some[split][key])
            assert same(here[split][key], pickle.loads(pickle.dumps(there[split]))[key])


def test_workers_give_the_same_pictures(tmp_path):
    data = loaded("voc", write(tmp_path / "set.tar.gz", voc(made())), memory=0)["train"]
    keys = [Key(0, 1, 9, index) for index in range(6)]
    loader = torch.utils.data.DataLoader(data, batch_size=None, sampler=keys, num_workers=2, collate_fn=list)  # type: ignore[arg-type]
    for key, (raw, targets) in zip(keys, loader, strict=True):
        assert same(data[key], type(data[key])(raw, targets))


def test_a_picture_that_goes_away_is_named(tmp_path):
    path = write(tmp_path / "set", voc(made()))
    data = loaded("voc", path, memory=0)["valid"]
    (path / "JPEGImages" / "p07.png").unlink()
    with pytest.raises(DataError, match=r"p07.png was changed while it was in use: no such file"):
        data[Key(0, 0, 1, 1)]
