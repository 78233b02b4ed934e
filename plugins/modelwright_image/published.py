"""Published sets by name: digits (embedded), CIFAR and MNIST (local, or downloaded into a cache). Cuts no splits."""

from __future__ import annotations

import gzip
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelwright.errors import ConfigError, DataError

if TYPE_CHECKING:
    from modelwright.task import Split
    from modelwright_image.config import ImageData

IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(frozen=True)
class Published:
    """A split of a published set.

    Attributes:
        pixels: uint8, N x height x width x channels.
        labels: int64, (N,).
        classes: names, in the order of the labels.
    """

    pixels: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


def published(data: ImageData) -> dict[Split, Callable[[], Published]]:
    """The splits that the set was published with, each read when called; a set without splits is all train.

    Raises:
        ConfigError: `data.path` lists several places.
        DataError: the set is neither at `data.path` nor in the cache, and cannot be downloaded.
    """
    if data.name == "digits":
        return {"train": _digits}
    if isinstance(data.path, list) and len(data.path) != 1:
        raise ConfigError(f"data.name={data.name} reads one folder: give data.path one place")
    path = data.path[0] if isinstance(data.path, list) else data.path
    read = _cifar if data.name.startswith("cifar") else _mnist
    root = _locate(data.name, Path(path).expanduser() if path else None, download=data.download)
    return {"train": lambda: read(data.name, root, train=True), "test": lambda: read(data.name, root, train=False)}


def cache_folder() -> Path:
    """Where downloads go: $MODELWRIGHT_CACHE, or `modelwright` in the system's cache folder."""
    if chosen := os.environ.get("MODELWRIGHT_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "modelwright" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "modelwright"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelwright"


def _digits() -> Published:
    """8 x 8 handwritten digits of 17 grey levels (Alpaydin and Kaynak 1998), scaled to 0..255."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return Published(pixels[..., None], bunch.target.astype(np.int64), tuple(str(name) for name in bunch.target_names))


def _torchvision(name: str) -> Any:
    from torchvision import datasets

    kinds = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
    return getattr(datasets, kinds[name])


def _locate(name: str, path: Path | None, *, download: bool) -> Path:
    """The folder that holds the set's files."""
    cached = cache_folder() / name
    places = [cached] if path is None else [path, cached]
    for place in places:
        if (found := _holds(name, place)) is not None:
            return found
    if path is not None and not path.exists():
        raise DataError(f"{path} does not exist: {_wants(name)}")
    if not download:
        raise DataError(f"{name} is not in {path or cached}: {_wants(name)}, or allow data.download=true")
    _download(name, cached)
    found = _holds(name, cached)
    if found is None:
        raise DataError(f"{name} was downloaded to {cached} but is incomplete: delete that folder and try again")
    return found


def _holds(name: str, path: Path) -> Path | None:
    """The folder in or at `path` with the set's files; None: they are not there."""
    kind = _torchvision(name)
    if name.startswith("cifar"):
        files = [file for file, _ in (*kind.train_list, *kind.test_list)] + [kind.meta["filename"]]
        places = (path, path / kind.base_folder)
        return next((place for place in places if all((place / file).is_file() for file in files)), None)
    places = (path, path / "raw", path / kind.__name__ / "raw")
    return next((place for place in places if all(_idx(place, file) for file in IDX)), None)


def _idx(place: Path, file: str) -> Path | None:
    return next((found for found in (place / file, place / f"{file}.gz") if found.is_file()), None)


def _wants(name: str) -> str:
    """What to put where, by hand."""
    if name.startswith("cifar"):
        kind = _torchvision(name)
        return f"unpack {kind.url} and set data.path to the folder with {kind.base_folder}"
    files = ", ".join(f"{file}.gz" for file in IDX)
    return f"put {files} (from {_torchvision(name).mirrors[-1]}) into a folder and set data.path to it"


def _download(name: str, target: Path) -> None:
    """Fetches the set through torchvision, which checks its digests; beside `target` first: it is whole or absent."""
    partial = ""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = tempfile.mkdtemp(dir=target.parent, prefix=f"{name}-")
        _torchvision(name)(partial, download=True)
        with suppress(OSError):  # another process was quicker
            Path(partial).rename(target)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{name} could not be downloaded ({reason}): {_wants(name)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _cifar(name: str, folder: Path, *, train: bool) -> Published:
    kind = _torchvision(name)

    class Here(kind):
        base_folder = folder.name

    try:
        found: Any = Here(folder.parent, train=train)
    except (RuntimeError, OSError, EOFError) as error:  # torchvision compares the digests before it unpickles
        raise DataError(f"{folder} is damaged (it differs from the published {name}): {_wants(name)}") from error
    return Published(found.data, np.asarray(found.targets, dtype=np.int64), tuple(found.classes))


def _mnist(name: str, folder: Path, *, train: bool) -> Published:
    from torchvision.datasets.mnist import read_image_file, read_label_file

    images, labels = IDX[:2] if train else IDX[2:]
    with tempfile.TemporaryDirectory() as scratch:
        try:
            pixels = read_image_file(_plain(folder, images, Path(scratch))).numpy()
            targets = read_label_file(_plain(folder, labels, Path(scratch))).numpy()
        except (OSError, EOFError, ValueError, TypeError, KeyError, AssertionError, RuntimeError) as error:
            raise DataError(f"{folder}: {images} or {labels} is damaged or no idx file: {_wants(name)}") from error
    classes = tuple(kind.split(" - ")[0] for kind in _torchvision(name).classes)
    if len(pixels) != len(targets) or (len(targets) and targets.max() >= len(classes)):
        raise DataError(f"{folder}: {images} and {labels} do not belong together: {_wants(name)}")
    return Published(pixels[..., None], targets, classes)


def _plain(folder: Path, file: str, scratch: Path) -> str:
    """An idx file's path, unpacked into `scratch` where it is packed: torchvision reads plain files only."""
    found = _idx(folder, file)
    if found is None or found.suffix != ".gz":
        return str(folder / file)
    with gzip.open(found, "rb") as source, (scratch / file).open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    return str(scratch / file)
