"""Pictures and data sets that tests make for themselves; where the real ones lie."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[3]


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The bytes of a picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(number: int, *, size: tuple[int, int] = (12, 12), mode: str = "RGB") -> bytes:
    """A PNG of random pixels; the same for the same number."""
    rng = np.random.default_rng(number)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    return encode(Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)))


@pytest.fixture(name="encode")
def encode_fixture() -> Callable[..., bytes]:
    return encode


@pytest.fixture(name="picture")
def picture_fixture() -> Callable[..., bytes]:
    return picture


@pytest.fixture
def pets() -> dict[str, bytes]:
    """Two classes of ten pictures, by name."""
    return {f"{kind}/{n:02}.png": picture(100 * k + n) for k, kind in enumerate(("cat", "dog")) for n in range(10)}


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Files in a folder, or, by its suffix, in an archive."""
    if folder.suffix == ".zip":
        with zipfile.ZipFile(folder, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    elif ".tar" in folder.name or folder.suffix in (".tgz", ".txz"):
        packed = "xz" if folder.name.endswith("xz") else "gz" if folder.name.endswith("gz") else "tar"
        with tarfile.open(folder, {"tar": "w", "gz": "w:gz", "xz": "w:xz"}[packed]) as tar:  # type: ignore[call-overload]
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    else:
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    return folder


@pytest.fixture(name="write")
def write_fixture() -> Callable[[Path, Mapping[str, bytes]], Path]:
    return write


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """The folder of a real data set; skips where there is none."""

    def find(name: str) -> Path:
        folder = Path(os.environ.get("MODELWRIGHT_DATA") or ROOT.parent / "shared" / "data") / name
        if not folder.is_dir():
            pytest.skip(f"no {folder}: set MODELWRIGHT_DATA to the folder of real data")
        return folder

    return find
