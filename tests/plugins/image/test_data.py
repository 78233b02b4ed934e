"""Settings become three checked splits; batches are the pictures asked for; what is wrong is found before training."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, reject
from hypothesis import strategies as st
from PIL import Image

from modelwright.errors import DataError
from modelwright.task import Datasets, Key, Keys
from modelwright_image.config import ImageData
from modelwright_image.data import Known, LazyPictures, Pictures, PictureSet, cut, load
from modelwright_image.pictures import fit, to_array

Write = Callable[[Path, Mapping[str, bytes]], Path]
Picture = Callable[..., bytes]


def own(path: Path, *, known: Known | None = None, seed: int = 0, **settings: Any) -> Datasets:
    return load(ImageData(name="folder", path=str(path), **settings), seed=seed, known=known)


def pixels_of(pictures: PictureSet) -> np.ndarray:
    return np.stack([pictures.picture(row) for row in range(len(pictures))])


def names_of(pictures: Any) -> list[str]:
    return [Path(pictures.name_of(row)).name for row in range(len(pictures))]


# Pictures as a dataset ----------------------------------------------------------------------------------------------


def test_digits_by_default() -> None:
    found = load(ImageData(), seed=0)
    train, valid, test = found["train"], found["valid"], found["test"]
    assert isinstance(train, Pictures)
    assert (len(train), len(valid), len(test)) == (1258, 180, 359)
    assert (train.size, train.channels, train.classes) == (8, 1, tuple("0123456789"))
    seen = {pictures.name_of(row) for pictures in (train, valid, test) for row in range(len(pictures))}  # type: ignore[attr-defined]
    assert seen == {f"digits[{row}]" for row in range(1797)}
    assert np.bincount(test.labels).min() >= 34  # type: ignore[attr-defined]


def test_a_batch_is_the_pictures_asked_for() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 9, 9, 3), dtype=np.uint8)
    pictures = Pictures(pixels, np.arange(20) % 4, names=[f"p{row}" for row in range(20)], classes="abcd")
    rows = np.array([7, 3, 3, 19])
    batch = pictures.__getitems__(Keys(0, 0, 1, rows))
    (inputs,) = batch.inputs
    assert inputs.shape == (4, 3, 9, 9)
    assert inputs.dtype == torch.uint8
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(inputs.permute(0, 2, 3, 1).numpy(), pixels[rows])
    assert batch.targets["label"].tolist() == [3, 3, 3, 3]
    assert batch.targets["label"].dtype == torch.int64
    assert batch.ids.tolist() == rows.tolist()
    assert batch.context is None
    raw, targets = pictures[Key(0, 0, 1, 7)]
    assert np.array_equal(raw, pixels[7])
    assert targets == {"label": 3}
    assert pictures.to(torch.device("cpu")) is pictures


def test_pictures_survive_pickling(tmp_path: Path, write: Write, pets: dict[str, bytes]) -> None:
    for memory in (1.0, 0.0):
        train = own(write(tmp_path / f"{memory}.tar.xz", pets), memory=memory)["train"]
        again = pickle.loads(pickle.dumps(train))
        assert type(again) is type(train)
        assert np.array_equal(pixels_of(again), pixels_of(train))  # type: ignore[arg-type]


def test_stats_are_those_of_all_pixels(tmp_path: Path, write: Write, pets: dict[str, bytes]) -> None:
    path = write(tmp_path / "set", pets)
    for memory in (1.0, 0.0):
        train = own(path, memory=memory)["train"]
        mean, deviation = train.stats()  # type: ignore[attr-defined]
        pixels = pixels_of(train).reshape(-1, 3)  # type: ignore[arg-type]
        assert np.allclose(mean, pixels.mean(0))
        assert np.allclose(deviation, pixels.std(0))


@pytest.mark.parametrize("kind", ["set", "set.tar", "set.tar.gz", "set.zip"])
def test_decoding_when_needed_gives_the_same_pictures(
    tmp_path: Path, write: Write, pets: dict[str, bytes], kind: str
) -> None:
    path = write(tmp_path / kind, pets)
    here, lazy = own(path, size=10)["train"], own(path, size=10, memory=0)
    assert isinstance(lazy["train"], LazyPictures)
    assert not hasattr(lazy["train"], "__getitems__")
    assert np.array_equal(pixels_of(lazy["train"]), pixels_of(here))  # type: ignore[arg-type]
    assert names_of(lazy["train"]) == names_of(here)
    assert np.array_equal(lazy["train"].labels, here.labels)  # type: ignore[attr-defined]
    assert sum("more than data.memory leaves" in note for note in lazy.notes) == 3


def test_a_temporary_file_goes_with_its_pictures(
    tmp_path: Path, write: Write, pets: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    found = own(write(tmp_path / "set.tar.gz", pets), memory=0)
    assert len(list(scratch.iterdir())) == 1
    del found
    assert list(scratch.iterdir()) == []


def test_memory_is_shared_by_the_splits(tmp_path: Path, write: Write, pets: dict[str, bytes]) -> None:
    found = own(write(tmp_path / "set", pets), memory=15 * 12 * 12 * 3 / 2**30, valid=0)
    assert isinstance(found["train"], LazyPictures)
    assert isinstance(found["test"], Pictures)


# Size and colour ----------------------------------------------------------------------------------------------------


def test_pictures_of_one_size_keep_it_and_grey_stays_grey(tmp_path: Path, write: Write, picture: Picture) -> None:
    files = {f"{kind}/{n}.png": picture(n + 50 * len(kind), mode="L") for kind in ("a", "bb") for n in range(5)}
    train = own(write(tmp_path / "set", files))["train"]
    assert (train.size, train.channels) == (12, 1)  # type: ignore[attr-defined]


@pytest.mark.parametrize("memory", [1.0, 0.0])
@pytest.mark.parametrize("place", ["cat/00.png", "dog/09.png"])
def test_one_picture_of_another_size_and_colour_changes_all(
    tmp_path: Path, write: Write, picture: Picture, memory: float, place: str
) -> None:
    files = {f"{kind}/{n:02}.png": picture(n + 50 * len(kind), mode="L") for kind in ("cat", "dog") for n in range(10)}
    files[place] = picture(1, size=(30, 20))
    found = own(write(tmp_path / "set", files), memory=memory, valid=0, test=0)
    train = found["train"]
    assert (train.size, train.channels) == (224, 3)  # type: ignore[attr-defined]
    for row, name in enumerate(sorted(files)):
        expected = fit(to_array(files[name], channels=3), size=224, resize="crop")
        assert np.array_equal(train.picture(row), expected)  # type: ignore[attr-defined]


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_the_size_and_way_asked_for(tmp_path: Path, write: Write, picture: Picture, resize: str) -> None:
    files = {f"{kind}/{n}.png": picture(n, size=(20, 30 + n)) for kind in ("a", "b") for n in range(2)}
    train = own(write(tmp_path / "set", files), size=16, resize=resize, valid=0, test=0)["train"]
    expected = fit(to_array(files["a/1.png"], channels=3), size=16, resize=resize)  # type: ignore[arg-type]
    assert np.array_equal(train.picture(1), expected)  # type: ignore[attr-defined]


def test_a_first_picture_too_large_for_memory_does_not_decide(tmp_path: Path, write: Write, picture: Picture) -> None:
    files = {"a/0.png": picture(0, size=(900, 900)), "a/1.png": picture(1), "b/1.png": picture(2)}
    train = own(write(tmp_path / "set", files), valid=0, test=0, memory=3 * 224 * 224 * 3 / 2**30)["train"]
    assert isinstance(train, Pictures)
    assert train.size == 224


def test_the_training_pictures_decide_for_the_others(tmp_path: Path, write: Write, picture: Picture) -> None:
    files = {f"train/{kind}/{n}.png": picture(n, mode="L") for kind in "ab" for n in range(3)}
    files |= {f"test/{kind}/{n}.png": picture(n, size=(40, 40)) for kind in "ab" for n in range(3)}
    test = own(write(tmp_path / "set", files), valid=0)["test"]
    assert (test.size, test.channels) == (12, 1)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["digits"])
def test_a_published_set_at_another_size(name: str) -> None:
    train = load(ImageData(name="digits", size=16), seed=0, known=None)["train"]
    small = load(ImageData(), seed=0)["train"]
    assert np.array_equal(train.picture(5), fit(small.picture(5), size=16, resize="crop"))  # type: ignore[attr-defined]


# Splits -------------------------------------------------------------------------------------------------------------


def test_cuts_depend_on_the_seed_alone(tmp_path: Path, write: Write, pets: dict[str, bytes]) -> None:
    folder, archive = write(tmp_path / "set", pets), write(tmp_path / "set.tar.xz", dict(reversed(pets.items())))
    for split in ("train", "valid", "test"):
        same = [names_of(own(path)[split]) for path in (folder, archive, folder)]
        assert same[0] == same[1] == same[2]
    assert names_of(own(folder)["test"]) != names_of(own(folder, seed=1)["test"])


def test_own_splits_are_kept(tmp_path: Path, write: Write, pets: dict[str, bytes]) -> None:
    files = {f"{('train', 'test')[row % 5 == 0]}/{name}": data for row, (name, data) in enumerate(pets.items())}
    found = own(write(tmp_path / "set", files), valid=0.25)
    assert [len(found[split]) for split in ("train", "valid", "test")] == [12, 4, 4]
    assert found.notes == ["splits cut from the training pictures, stratified, by seed 0: train 12, valid 4"]
    whole = own(tmp_path / "set", valid=0)
    assert not whole.has("valid")
    assert whole.notes == []


def test_digits_divided_by_a_csv(tmp_path: Path) -> None:
    listing = tmp_path / "split.csv"
    rows = [("train", "val", "test")[row % 3] for row in range(1797)]
    listing.write_text("\n".join(["row,split", *(f"{row},{split}" for row, split in enumerate(rows))]))
    found = load(ImageData(split=str(listing)), seed=0)
    assert found["test"].name_of(0) == "digits[2]"  # type: ignore[attr-defined]
    assert [len(found[split]) for split in ("train", "valid", "test")] == [599, 599, 599]


@given(
    st.lists(st.integers(3, 30), min_size=2, max_size=6),
    st.floats(0.05, 0.4),
    st.floats(0.05, 0.4),
    st.integers(0, 2**40),
)
def test_a_cut_is_a_partition(counts: list[int], test: float, valid: float, seed: int) -> None:
    labels = [name for name, count in zip("abcdef", counts, strict=False) for _ in range(count)]
    try:
        rows = cut(labels, {"test": test, "valid": valid}, seed=seed)
    except DataError:  # small classes, large shares
        reject()
    assert list(rows) == ["train", "valid", "test"]
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(len(labels)))
    again = cut(labels, {"test": test, "valid": valid}, seed=seed)
    assert all(np.array_equal(rows[split], again[split]) for split in rows)
    share = np.array(
        [[np.sum(np.array(labels)[part] == name) for name in sorted(set(labels))] for part in rows.values()]
    )
    expected = np.outer(share.sum(1), counts) / len(labels)
    assert np.abs(share - expected).max() <= 2


def test_cuts_that_cannot_be_made() -> None:
    with pytest.raises(DataError, match=r"too few pictures to cut test and valid from: b has fewer than 3"):
        cut(["a"] * 10 + ["b"] * 2, {"test": 0.2, "valid": 0.1}, seed=0)
    with pytest.raises(DataError, match="b has 3 pictures, too few to cut valid from after the other split"):
        cut(["a"] * 5 + [name for name in "bcdef" for _ in range(3)], {"test": 0.4, "valid": 0.1}, seed=29)
    with pytest.raises(DataError, match=r"nothing is left to train on: data.test=0.9"):
        cut(["a"] * 10 + ["b"] * 10, {"test": 0.9, "valid": 0.5}, seed=0)


def test_a_published_split_is_not_divided_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelwright_image.data.published", lambda config: {"train": None, "test": None})
    with pytest.raises(DataError, match=r"data\.split does not go with mnist"):
        load(ImageData(name="mnist", split=str(tmp_path / "x.csv")), seed=0)


# What is known already ----------------------------------------------------------------------------------------------


def test_with_facts_a_split_needs_no_other(tmp_path: Path, write: Write, pets: dict[str, bytes]) -> None:
    write(tmp_path / "test.zip", pets)
    (tmp_path / "train.zip").write_bytes(b"nothing to read")
    found = own(tmp_path, known=Known(("cat", "dog", "eel"), 16, 1))
    test = found["test"]
    assert (len(test), test.size, test.channels, test.classes) == (20, 16, 1, ("cat", "dog", "eel"))  # type: ignore[attr-defined]
    assert found.notes == ["test: no picture of eel"]
    with pytest.raises(DataError, match="damaged or no archive"):
        found["train"]


def test_without_facts_every_split_is_checked_at_once(tmp_path: Path, write: Write, pets: dict[str, bytes]) -> None:
    files = {f"{split}/{name}": data for split in ("train", "val", "test") for name, data in pets.items()}
    write(tmp_path / "set", {**files, "train/cat/03.png": b"", "test/dog/04.png": pets["dog/04.png"][:200]})
    with pytest.raises(
        DataError, match=r"^2 of 60 pictures cannot be used: .*03.png: the file is empty; .*04.png: dam"
    ):
        own(tmp_path / "set")


# Bad pictures -------------------------------------------------------------------------------------------------------


@pytest.fixture
def spoilt(pets: dict[str, bytes]) -> dict[str, bytes]:
    """Two empty files, a cut one and a text."""
    bad = {"cat/00.png": b"", "cat/05.png": b"", "dog/02.png": pets["dog/02.png"][:200], "dog/09.png": b"hello"}
    return {**pets, **bad}


@pytest.mark.parametrize("memory", [1.0, 0.0])
@pytest.mark.parametrize("kind", ["set", "set.tar.xz", "set.zip"])
def test_bad_pictures_stop_or_are_left_out(
    tmp_path: Path, write: Write, spoilt: dict[str, bytes], kind: str, memory: float
) -> None:
    path = write(tmp_path / kind, spoilt)
    with pytest.raises(DataError, match=r"^4 of 20 pictures cannot be used: ") as error:
        own(path, memory=memory)
    text = str(error.value)
    assert "cat/00.png: the file is empty; " in text.replace("\\", "/")
    assert text.endswith("; set data.on_bad=skip to leave them out")
    assert "\n" not in text
    found = own(path, memory=memory, on_bad="skip", test=0, valid=0)
    assert any(note.startswith("4 of 20 pictures cannot be used and are left out: ") for note in found.notes)
    train = found["train"]
    assert names_of(train) == [f"0{n}.png" for n in (1, 2, 3, 4, 6, 7, 8, 9, 0, 1, 3, 4, 5, 6, 7, 8)]
    assert np.array_equal(train.picture(8), to_array(spoilt["dog/00.png"], channels=3))  # type: ignore[attr-defined]
    assert train.labels.tolist() == [0] * 8 + [1] * 8  # type: ignore[attr-defined]


def test_only_ten_bad_pictures_are_named(tmp_path: Path, write: Write, pets: dict[str, bytes]) -> None:
    path = write(tmp_path / "set", {name: b"" if name.startswith("cat") else data for name, data in pets.items()})
    write(path, {f"dog/0{n}.png": b"" for n in range(3)})
    with pytest.raises(DataError, match=r"^13 of 20 pictures .*; and 3 more; set data") as error:
        own(path)
    assert str(error.value).count("the file is empty") == 10


def test_bad_rows_of_a_csv_count_too(tmp_path: Path, write: Write, pets: dict[str, bytes]) -> None:
    rows = [f"{name},{name[:3]}" for name in pets]
    write(tmp_path, {**pets, "x.csv": "\n".join(["path,label", "cat/88.png,cat", *rows]).encode()})
    config = ImageData(name="csv", path=str(tmp_path / "x.csv"))
    with pytest.raises(
        DataError, match=r"^1 of 21 pictures cannot be used: .*x.csv line 2 \(cat/88.png\): no such file;"
    ):
        load(config, seed=0)
    found = load(config.model_copy(update={"on_bad": "skip"}), seed=0)
    assert sum(len(found[split]) for split in ("train", "valid", "test")) == 20


@pytest.mark.parametrize("memory", [1.0, 0.0])
def test_floating_point_pictures_are_bad(
    tmp_path: Path, write: Write, pets: dict[str, bytes], encode: Picture, memory: float
) -> None:
    odd = encode(Image.new("F", (12, 12), 0.5), "TIFF")
    with pytest.raises(DataError, match=r"^1 of 21 pictures .*odd.tif: floating-point"):
        own(write(tmp_path / "set", {**pets, "cat/odd.tif": odd}), memory=memory)


@pytest.mark.parametrize("on_bad", ["error", "skip"])
def test_nothing_but_bad_pictures(tmp_path: Path, write: Write, on_bad: str) -> None:
    path = write(tmp_path / "set", {f"{kind}/{n}.png": b"" for kind in "ab" for n in range(3)})
    reason = "^6 of 6 pictures cannot be used" if on_bad == "error" else "^not one picture of the train split can be"
    with pytest.raises(DataError, match=reason):
        own(path, on_bad=on_bad, valid=0, test=0)


def test_a_class_that_loses_all_its_pictures(tmp_path: Path, write: Write, pets: dict[str, bytes]) -> None:
    files = {name: b"" if name.startswith("cat") else data for name, data in pets.items()}
    with pytest.raises(DataError, match="no training picture of cat: add some"):
        own(write(tmp_path / "set", files), on_bad="skip", valid=0, test=0)


# Classes and notes --------------------------------------------------------------------------------------------------


def test_classes_that_do_not_fit(tmp_path: Path, write: Write, pets: dict[str, bytes], picture: Picture) -> None:
    one = write(tmp_path / "one", {name: data for name, data in pets.items() if name.startswith("cat")})
    with pytest.raises(DataError, match=r"all pictures are of one class \(cat\)"):
        own(one)
    files = {f"train/{name}": data for name, data in pets.items()} | {"test/eel/1.png": picture(9)}
    with pytest.raises(DataError, match=r"the test split has classes that the training pictures have not \(eel\)"):
        own(write(tmp_path / "more", files))
    files = {f"train/{name}": data for name, data in pets.items()} | {"test/cat/1.png": picture(9)}
    assert "test: no picture of dog" in own(write(tmp_path / "less", files)).notes
    with pytest.raises(DataError, match="the data have no train split, only test"):
        own(write(tmp_path / "none", {f"test/{name}": data for name, data in pets.items()}))


def test_equal_pictures_in_two_splits_and_under_two_labels(
    tmp_path: Path, write: Write, pets: dict[str, bytes]
) -> None:
    files = {f"train/{name}": data for name, data in pets.items()}
    files |= {"test/cat/a.png": pets["cat/03.png"], "test/dog/b.png": pets["dog/04.png"]}
    files["train/dog/twin.png"] = pets["cat/03.png"]
    for memory in (1.0, 0.0):
        path = write(tmp_path / "set", files)
        notes = own(path, valid=0, memory=memory).notes
        clash, twins = [note.replace(f"{path}/", "") for note in notes if " = " in note]
        assert clash == ("train: 1 pictures are equal to one of another class (train/dog/twin.png = train/cat/03.png)")
        assert twins == (
            "2 pictures of test are in train too, which flatters the score "
            "(test/cat/a.png = train/cat/03.png, test/dog/b.png = train/dog/04.png)"
        )


@pytest.mark.parametrize("memory", [1.0, 0.0])
def test_tiny_pictures_and_uneven_classes_are_told(
    tmp_path: Path, write: Write, picture: Picture, memory: float
) -> None:
    files = {f"a/{n}.png": picture(n) for n in range(20)} | {
        "b/1.png": picture(99),
        "b/2.png": picture(77, size=(5, 9)),
    }
    notes = own(write(tmp_path / "set", files), valid=0, test=0, memory=memory, size=8).notes
    assert any("1 pictures have a side under 8 pixels (first: " in note and "2.png" in note for note in notes)
    assert any("20 pictures of a, 2 of b; consider loss.class_weights=balanced" in note for note in notes)


# Real data ----------------------------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_cifar_test_pictures_straight_from_their_archive(real_data: Callable[[str], Path]) -> None:
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    found = own(real_data("cifar10_jpeg"), known=Known(tuple(names.split()), 32, 3))
    test = found["test"]
    assert isinstance(test, Pictures)
    assert test.pixels.shape == (10_000, 32, 32, 3)
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert np.allclose(test.stats()[0] / 255, [0.494, 0.486, 0.450], atol=0.003)
    assert found.notes == []


@pytest.mark.real_data
def test_fashion_mnist_from_its_four_files(real_data: Callable[[str], Path]) -> None:
    folder = real_data("fashion_mnist")
    before = sorted(folder.iterdir())
    found = load(ImageData(name="fashion_mnist", path=str(folder), download=False), seed=0)
    assert [len(found[split]) for split in ("train", "valid", "test")] == [54_000, 6_000, 10_000]
    assert found["train"].classes[9] == "Ankle boot"  # type: ignore[attr-defined]
    assert np.bincount(found["valid"].labels).tolist() == [600] * 10  # type: ignore[attr-defined]
    assert sorted(folder.iterdir()) == before
