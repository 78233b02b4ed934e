"""CSVs that list samples: which columns, which splits, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelwright.errors import DataError
from modelwright.listings import read_labels, read_splits, some, split_in, split_named, split_rows


def test_words_that_mean_a_split() -> None:
    assert [split_named(word) for word in ("Train", " val ", "validation", "testing", "dev")] == [
        "train", "valid", "valid", "test", None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("images-train.tar.gz", "train"),
        ("instances_val2017.json", "valid"),
        ("TEST", "test"),
        ("train_and_test.zip", None),
        ("trainings.zip", None),
    ],
)
def test_the_split_in_a_name(name: str, split: str | None) -> None:
    assert split_in(Path("train") / name) == split


def test_labels_with_their_lines() -> None:
    rows = list(read_labels(b"label;file;set\n\ncat;a.png;val\n", where="x.csv"))
    assert [tuple(row) for row in rows] == [(3, "a.png", "cat", "valid")]


def test_splits_of_samples(tmp_path: Path) -> None:
    listing = tmp_path / "split.csv"
    listing.write_text("file,split\n./a.png,train\nb\\\\c.png,test\nd.png,val\n".replace("\\\\", "\\"))
    assert read_splits(listing) == {"a.png": "train", "b/c.png": "test", "d.png": "valid"}
    notes: list[str] = []
    samples = [("x/b/c.png", "b/c.png"), ("a.png",)]
    assert split_rows(listing, samples, what="pictures", notes=notes) == ["test", "train"]
    assert notes == [f"{listing}: 1 rows name none of the pictures and are ignored (d.png)"]
    with pytest.raises(DataError, match=r"gives no split to 1 of 1 pictures \(e.png\): add them"):
        split_rows(listing, [("e.png",)], what="pictures", notes=notes)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("path,part\na,train\n", "has no column split"),
        ("path,split\na,today\n", "line 2: 'today' is no split"),
        ("path,split\na,train\na,test\n", "line 3: a is in train already; a sample has one split"),
    ],
)
def test_splits_that_are_none(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(DataError, match=reason):
        read_splits(tmp_path / "split.csv")


def test_some_names() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcd")) == "a, b, c, ..."
