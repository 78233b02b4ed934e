"""Published sets are found where they lie, in any of their layouts, and what is missing is named."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision import datasets

from modelwright.errors import ConfigError, DataError
from modelwright_image.config import ImageData
from modelwright_image.published import IDX, cache_folder, published


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("MODELWRIGHT_CACHE", str(folder))
    return folder


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def mnist_files(count: int = 20) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8)
    return dict(zip(IDX, [idx(pixels), idx(labels), idx(pixels[:10]), idx(labels[:10])], strict=True))


def test_digits_are_embedded() -> None:
    given = published(ImageData())
    assert list(given) == ["train"]
    digits = given["train"]()
    assert digits.pixels.shape == (1797, 8, 8, 1)
    assert digits.pixels.dtype == np.uint8
    assert (digits.pixels.min(), digits.pixels.max()) == (0, 255)
    assert digits.classes == tuple("0123456789")
    assert np.bincount(digits.labels).min() > 170


@pytest.mark.parametrize("inner", ["", "raw", "MNIST/raw"])
@pytest.mark.parametrize("packed", [True, False])
def test_mnist_in_each_layout_is_read_and_left_alone(tmp_path: Path, inner: str, packed: bool, cache: Path) -> None:
    folder = tmp_path / "data" / inner
    folder.mkdir(parents=True)
    files = mnist_files()
    for name, data in files.items():
        (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(data) if packed else data)
    before = sorted(tmp_path.rglob("*"))
    given = published(ImageData(name="mnist", path=str(tmp_path / "data"), download=False))
    train, test = given["train"](), given["test"]()
    assert train.pixels.shape == (20, 28, 28, 1)
    assert test.pixels.shape == (10, 28, 28, 1)
    assert train.pixels.tobytes() == files[IDX[0]][16:]
    assert train.labels[:3].tolist() == [0, 1, 2]
    assert train.classes == tuple("0123456789")
    assert sorted(tmp_path.rglob("*")) == before
    assert not cache.exists()


def test_a_set_in_the_cache_is_found_without_a_path(cache: Path) -> None:
    folder = cache / "fashion_mnist" / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name, data in mnist_files().items():
        (folder / name).write_bytes(data)
    given = published(ImageData(name="fashion_mnist", download=False))
    assert given["train"]().classes[0] == "T-shirt/top"


def test_damaged_and_unfitting_idx_files(tmp_path: Path) -> None:
    files = mnist_files()

    def refused(reason: str, **changed: bytes) -> None:
        for name, data in {**files, **changed}.items():
            (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=reason) as error:
            published(ImageData(name="mnist", path=str(tmp_path)))["train"]()
        assert "\n" not in str(error.value)

    refused("is damaged or no idx file", **{IDX[0]: files[IDX[0]][:5000]})
    refused("is damaged or no idx file", **{IDX[0]: b"<html>"})
    refused("is damaged or no idx file", **{IDX[0]: b""})
    refused("do not belong together", **{IDX[1]: files[IDX[3]]})
    refused("do not belong together", **{IDX[1]: idx(np.full(20, 77, np.uint8))})


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10's files with four pictures each; torchvision is told their digests."""
    folder = tmp_path / "data" / datasets.CIFAR10.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def put(name: str, content: dict[str, Any]) -> list[str]:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data, usedforsecurity=False).hexdigest()]

    def batch() -> dict[str, Any]:
        return {"data": rng.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": [0, 1, 2, 3]}

    names = [f"class{label}" for label in range(10)]
    meta = put("batches.meta", {"label_names": names})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [put(f"data_batch_{k}", batch()) for k in range(1, 6)])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [put("test_batch", batch())])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": meta[1]})
    return folder


@pytest.mark.parametrize("from_root", [True, False])
def test_cifar_by_its_root_or_its_own_folder(cifar: Path, from_root: bool) -> None:
    given = published(ImageData(name="cifar10", path=str(cifar.parent if from_root else cifar), download=False))
    train, test = given["train"](), given["test"]()
    assert train.pixels.shape == (20, 32, 32, 3)
    assert test.pixels.shape == (4, 32, 32, 3)
    assert train.labels.tolist() == [0, 1, 2, 3] * 5
    assert train.classes[1] == "class1"
    first = pickle.loads((cifar / "data_batch_1").read_bytes())["data"][0]
    assert np.array_equal(train.pixels[0].transpose(2, 0, 1).ravel(), first)


def test_a_changed_cifar_is_refused_unread(cifar: Path) -> None:
    (cifar / "test_batch").write_bytes(b"something else")
    with pytest.raises(DataError, match="differs from the published cifar10"):
        published(ImageData(name="cifar10", path=str(cifar)))["test"]()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (
            "cifar10",
            r"unpack https://\S+/cifar-10-python.tar.gz and set data.path to the folder with cifar-10-batches-py",
        ),
        ("cifar100", r"unpack https://\S+/cifar-100-python.tar.gz"),
        ("mnist", "put train-images-idx3-ubyte.gz, .* into a folder and set data.path to it"),
        ("fashion_mnist", r"t10k-labels-idx1-ubyte.gz \(from http://fashion-mnist"),
    ],
)
def test_a_set_that_is_nowhere_says_what_to_put_where(tmp_path: Path, name: str, wanted: str) -> None:
    with pytest.raises(DataError, match=wanted) as error:
        published(ImageData(name=name, download=False))  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match=f"is not in {tmp_path}.*{wanted}"):
        published(ImageData(name=name, path=str(tmp_path), download=False))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=f"nowhere does not exist: .*{wanted}"):
        published(ImageData(name=name, path=str(tmp_path / "nowhere")))  # type: ignore[arg-type]


def fetching(monkeypatch: pytest.MonkeyPatch, fetch: Callable[[Path], None]) -> None:
    """Puts `fetch` in place of torchvision's download."""

    def start(self: object, root: str, download: bool = False, **_: object) -> None:
        assert download
        fetch(Path(root))

    monkeypatch.setattr(datasets.MNIST, "__init__", start)


def test_a_download_goes_to_the_cache_whole(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    def fetch(root: Path) -> None:
        (root / "MNIST" / "raw").mkdir(parents=True)
        for name, data in mnist_files().items():
            (root / "MNIST" / "raw" / name).write_bytes(data)

    fetching(monkeypatch, fetch)
    assert len(published(ImageData(name="mnist"))["train"]().labels) == 20
    assert [entry.name for entry in cache.iterdir()] == ["mnist"]


def test_a_download_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    def fail(root: Path) -> None:
        (root / "half").write_bytes(b"")
        raise RuntimeError("Error downloading\nno route to host")

    fetching(monkeypatch, fail)
    with pytest.raises(DataError, match=r"could not be downloaded \(Error downloading no route to host\): put train"):
        published(ImageData(name="mnist"))
    assert list(cache.iterdir()) == []
    fetching(monkeypatch, lambda root: None)
    with pytest.raises(DataError, match="is incomplete: delete that folder"):
        published(ImageData(name="mnist"))


def test_a_published_set_has_one_place() -> None:
    with pytest.raises(ConfigError, match=r"give data\.path one place"):
        published(ImageData(name="mnist", path=["a", "b"]))


def test_the_cache_folder_of_each_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("MODELWRIGHT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    for platform, ending in (("linux", "xdg/modelwright"), ("darwin", "Caches/modelwright"), ("win32", "local")):
        monkeypatch.setattr("modelwright_image.published.sys.platform", platform)
        assert ending in cache_folder().as_posix()
