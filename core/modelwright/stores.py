"""Where files lie: a folder, a zip or a tar. Lists and reads them by name. Knows no pictures and no classes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import posixpath
import shutil
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol, cast

from modelwright.errors import DataError

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".zip")
DAMAGED = (OSError, EOFError, lzma.LZMAError, zlib.error, tarfile.TarError, zipfile.BadZipFile, ValueError)


class Store(Protocol):
    """Files under one roof. Names are relative, with forward slashes."""

    path: Path

    def names(self) -> list[str]:
        """Every file, and every folder with a slash at its end; in no particular order.

        Raises:
            DataError: the archive is damaged, or has a member outside of itself.
        """
        ...

    def stream(self, names: Sequence[str]) -> Iterator[tuple[str, bytes | str]]:
        """The named files, each as its bytes or as the reason why it cannot be read; in whatever order is quickest."""
        ...

    def read(self, name: str) -> bytes:
        """One file; in any order.

        Raises:
            OSError: it cannot be read.
        """
        ...

    def ready(self) -> None:
        """Makes `read` quick in any order; called once, before worker processes take copies."""
        ...

    def where(self, name: str) -> str:
        """The file as a person would call it."""
        ...


def archive_suffix(path: Path) -> str:
    """The suffix that makes `path` an archive (".tar.gz"), or an empty string."""
    return next((suffix for suffix in ARCHIVES if path.name.lower().endswith(suffix)), "")


def open_store(path: Path) -> Store:
    """The store at `path`.

    Raises:
        DataError: there is nothing, or neither a folder nor an archive.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist: check data.path")
    if path.is_dir():
        return Folder(path)
    suffix = archive_suffix(path)
    if not suffix:
        raise DataError(f"{path} is neither a folder nor an archive ({', '.join(ARCHIVES)}): check data.path")
    return Zip(path) if suffix == ".zip" else Tar(path)


class Folder:
    """A folder on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """See `Store.names`; links are followed, each folder once."""
        found: list[str] = []
        seen: set[str] = set()
        for folder, inner, files in os.walk(self.path, followlinks=True):
            inner[:] = [name for name in sorted(inner) if not name.startswith(".")]
            real = os.path.realpath(folder)
            if real in seen:  # a link to a folder above would never end
                inner.clear()
                continue
            seen.add(real)
            above = Path(folder).relative_to(self.path).as_posix()
            prefix = "" if above == "." else f"{above}/"
            found += [f"{prefix}{name}/" for name in inner]
            found += [f"{prefix}{name}" for name in files]
        return found

    def stream(self, names: Sequence[str]) -> Iterator[tuple[str, bytes | str]]:
        """See `Store.stream`."""
        for name in names:
            try:
                yield name, self.read(name)
            except OSError as error:
                yield name, (error.strerror or str(error)).lower()

    def read(self, name: str) -> bytes:
        """See `Store.read`."""
        return (self.path / name).read_bytes()

    def ready(self) -> None:
        """See `Store.ready`."""

    def where(self, name: str) -> str:
        """See `Store.where`."""
        return str(self.path / name)


class Zip:
    """A zip archive, read in place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._opened: tuple[int, zipfile.ZipFile] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _archive(self) -> zipfile.ZipFile:
        # A file handle cannot be shared between processes: each opens its own.
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), zipfile.ZipFile(self.path))
        return self._opened[1]

    def names(self) -> list[str]:
        """See `Store.names`."""
        try:
            members = self._archive().infolist()
        except DAMAGED as error:
            raise _damaged(self.path, error) from error
        named = [(_inside(member.filename, self.path), member) for member in members]
        self._members = {name: member for name, member in named if not member.is_dir()}
        return [f"{name}/" for name, member in named if member.is_dir()] + list(self._members)

    def stream(self, names: Sequence[str]) -> Iterator[tuple[str, bytes | str]]:
        """See `Store.stream`."""
        for name in sorted(names, key=lambda name: self._members[name].header_offset):
            try:
                yield name, self.read(name)
            except OSError as error:
                yield name, str(error)

    def read(self, name: str) -> bytes:
        """See `Store.read`."""
        try:
            return self._archive().read(self._members[name])
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise OSError("damaged in the archive") from error
        except (RuntimeError, NotImplementedError) as error:  # a password, or a method that Python has not
            raise OSError(f"cannot be unpacked ({error})") from error

    def ready(self) -> None:
        """See `Store.ready`."""

    def where(self, name: str) -> str:
        """See `Store.where`."""
        return f"{self.path.name}:{name}"


class Tar:
    """A tar archive, compressed or not; one pass from front to back wherever that will do.

    Files in any order need a plain tar: a compressed one is then decompressed into a temporary file, which goes
    when the store does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[str, tuple[int, int]] = {}
        self._plain: Path | None = None
        self._opened: tuple[int, IO[bytes]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def names(self) -> list[str]:
        """See `Store.names`. Links and sparse files are left out."""
        found: list[str] = []
        places: dict[str, tuple[int, int]] = {}
        try:
            with tarfile.open(self.path, "r|*") as tar:
                for member in tar:
                    name = _inside(member.name, self.path)
                    if member.isdir():
                        found.append(f"{name}/")
                    elif member.isreg() and not member.issparse():
                        places[name] = (member.offset_data, member.size)
                    tar.members = []  # it would keep a record of every member  # pyright: ignore[reportAttributeAccessIssue]
        except DAMAGED as error:
            raise _damaged(self.path, error) from error
        self._places = places
        return found + list(places)

    def stream(self, names: Sequence[str]) -> Iterator[tuple[str, bytes | str]]:
        """See `Store.stream`.

        Raises:
            DataError: the compressed stream breaks off.
        """
        try:
            with self._unpacked() as file:
                for name in sorted(names, key=self._places.__getitem__):
                    offset, size = self._places[name]
                    file.seek(offset)
                    data = file.read(size)
                    yield name, data if len(data) == size else "cut off: the archive ends within it"
        except (EOFError, lzma.LZMAError, zlib.error, OSError) as error:
            raise _damaged(self.path, error) from error

    def read(self, name: str) -> bytes:
        """See `Store.read`."""
        if self._opened is None or self._opened[0] != os.getpid():
            self.ready()
            self._opened = (os.getpid(), (self._plain or self.path).open("rb"))
        file = self._opened[1]
        offset, size = self._places[name]
        file.seek(offset)
        return file.read(size)

    def ready(self) -> None:
        """See `Store.ready`."""
        if self._plain is not None:
            return
        with self._unpacked() as source:
            if isinstance(source, io.BufferedReader):
                self._plain = self.path
                return
            handle, name = tempfile.mkstemp(prefix="modelwright-", suffix=".tar")
            self._plain = Path(name)
            weakref.finalize(self, _remove, self._plain, os.getpid())
            with os.fdopen(handle, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)

    def _unpacked(self) -> IO[bytes]:
        with self.path.open("rb") as file:
            head = file.read(6)
        # By content, as tarfile does: names lie.
        if head.startswith(b"\x1f\x8b"):
            return cast("IO[bytes]", gzip.open(self.path, "rb"))
        if head.startswith(b"\xfd7zXZ"):
            return cast("IO[bytes]", lzma.open(self.path, "rb"))
        if head.startswith(b"BZh"):
            return cast("IO[bytes]", bz2.open(self.path, "rb"))
        return self.path.open("rb")

    def where(self, name: str) -> str:
        """See `Store.where`."""
        return f"{self.path.name}:{name}"


def _remove(path: Path, owner: int) -> None:
    if os.getpid() == owner:  # a worker process that ends must not take the file from the others
        with suppress(OSError):
            path.unlink()


def _inside(name: str, path: Path) -> str:
    """A member's name without "./" and a slash at its end.

    Raises:
        DataError: it is absolute or climbs out. Nothing is written by such a name, but it speaks of a doctored archive.
    """
    plain = name.replace("\\", "/")
    if plain.startswith("/") or ".." in plain.split("/") or plain[1:2] == ":":
        raise DataError(f"{path} has a member outside of itself ({name!r}): pack the archive anew")
    return posixpath.normpath(plain)


def _damaged(path: Path, error: BaseException) -> DataError:
    return DataError(f"{path} is damaged or no archive ({' '.join(str(error).split())}): fetch or pack it again")
