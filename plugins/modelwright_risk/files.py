"""Where tables lie: files, folders, archives, one for each split or several one after another. Reads no table."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import re
import tarfile
import zipfile
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from modelwright.errors import DataError

if TYPE_CHECKING:
    from modelwright.data import Split

TEXT = (".csv", ".tsv", ".tab", ".txt", ".data", ".dat")
PARQUET = (".parquet", ".pq")
PACKED: Mapping[str, Callable[[Path], Any]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2")
GUESS = 6
"""Bytes of text that a byte of .xz or .bz2, which do not say, is taken for."""
SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Piece:
    """A file with rows, on disk or in an archive.

    Attributes:
        label: what a person would call it.
        path: of the file or of the archive.
        member: its name in the archive.
        kind: what is in it.
    """

    label: str
    path: Path
    member: str | None = None
    kind: Literal["text", "parquet"] = field(default="text")

    @contextlib.contextmanager
    def open(self) -> Generator[IO[bytes]]:
        """Its bytes, unpacked.

        Raises:
            DataError: it cannot be read.
        """
        with contextlib.ExitStack() as stack:
            try:
                yield self._opened(stack)
            except (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError) as error:
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                raise DataError(f"{self.label} could not be read ({reason}): check the file") from error

    def _opened(self, stack: contextlib.ExitStack) -> IO[bytes]:
        if self.member is None:
            opener = PACKED.get(self.path.suffix.lower())
            return stack.enter_context(opener(self.path) if opener else self.path.open("rb"))
        if self.path.suffix.lower() == ".zip":
            archive = stack.enter_context(zipfile.ZipFile(self.path))
            stream = stack.enter_context(archive.open(self.member))
        else:
            tar = stack.enter_context(contextlib.closing(tarfile.open(self.path)))  # noqa: SIM115 - the stack closes it
            found = tar.extractfile(self.member)
            if found is None:
                raise tarfile.TarError("it is no file")
            stream = stack.enter_context(found)
        # Parquet is read from its end; not every stream can go there.
        return io.BytesIO(stream.read()) if self.kind == "parquet" else stream

    def size(self) -> int:
        """Bytes of it, unpacked; of some formats a guess."""
        packed = self.path.stat().st_size
        suffix = self.path.suffix.lower()
        if self.member is not None:
            if suffix == ".zip":
                with zipfile.ZipFile(self.path) as archive:
                    return archive.getinfo(self.member).file_size
            with tarfile.open(self.path) as tar:
                return tar.getmember(self.member).size
        if suffix == ".gz":
            with self.path.open("rb") as file:
                file.seek(-4, io.SEEK_END)
                return max(int.from_bytes(file.read(4), "little"), packed)  # modulo 4 GiB, says the format
        return packed * GUESS if suffix in PACKED else packed


def split_named(name: str) -> Split | None:
    """The split that a word means ("val" -> "valid"); None if it means none."""
    return SPLITS.get(name.strip().lower())


def split_in(name: str) -> Split | None:
    """The split that a file's name speaks of: "train" of loans-train.csv.gz."""
    found: set[Split] = {
        split for word in re.split(r"[^a-z]+", Path(name).name.lower()) if (split := split_named(word))
    }
    return found.pop() if len(found) == 1 else None


def find(paths: str | Sequence[str], *, beside: str | None = None) -> dict[Split | None, list[Piece]]:
    """The files at `data.path`: under the split that each one's name speaks of, or all under None.

    Files are divided only where every one names a split ("train.csv", "test.csv"); otherwise they are parts of one
    table, one after another.

    Args:
        beside: the file of `data.split`, which may lie in the same folder.

    Raises:
        DataError: nothing there, or nothing that is a table.
    """
    listed = [paths] if isinstance(paths, str) else list(paths)
    own = Path(beside).expanduser().resolve() if beside else None
    pieces = [piece for path in listed for piece in _pieces(Path(path).expanduser(), own=own)]
    if not pieces:
        raise DataError(f"{', '.join(listed)} holds no table ({', '.join((*TEXT, *PARQUET))}): check data.path")
    named: list[Split | None] = [split_in(piece.member or piece.path.name) for piece in pieces]
    if None in named or len(pieces) == 1:
        return {None: pieces}
    divided: dict[Split | None, list[Piece]] = {}
    for split, piece in zip(named, pieces, strict=True):
        divided.setdefault(split, []).append(piece)
    return divided


def _pieces(path: Path, *, own: Path | None) -> list[Piece]:
    if not path.exists():
        raise DataError(f"{path} does not exist: check data.path")
    if path.is_dir():
        entries = sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith((".", "_")))
        return [piece for each in entries if each.resolve() != own and _looks(each) for piece in _pieces(each, own=own)]
    if members := _members(path):
        return members
    if path.suffix.lower() in (".xls", ".xlsx", ".xlsm", ".ods"):
        raise DataError(f"{path} is a spreadsheet: save it as CSV (UTF-8)")
    return [Piece(str(path), path, kind=_kind(path.name))]


def _looks(path: Path) -> bool:
    """Whether a file in a folder is meant: by its name a table, or an archive."""
    name = path.name.lower()
    return name.endswith((*TEXT, *PARQUET, ".zip", *TARS)) or (
        path.suffix.lower() in PACKED and Path(path.stem).suffix.lower() in TEXT
    )


def _members(path: Path) -> list[Piece]:
    """The tables in an archive; nothing where it is none."""
    name = path.name.lower()
    try:
        if name.endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        elif name.endswith(TARS):
            with tarfile.open(path) as tar:
                names = [member.name for member in tar.getmembers() if member.isfile()]
        else:
            return []
    except (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise DataError(f"{path} is a damaged archive ({error}): get it again") from error
    meant = sorted(
        each
        for each in names
        if each.lower().endswith((*TEXT, *PARQUET))
        and not any(part.startswith((".", "__MACOSX")) for part in each.split("/"))
    )
    if not meant:
        raise DataError(f"{path} holds no table ({', '.join((*TEXT, *PARQUET))}): check data.path")
    return [Piece(f"{path}/{each}", path, each, _kind(each)) for each in meant]


def _kind(name: str) -> Literal["text", "parquet"]:
    return "parquet" if name.lower().endswith(PARQUET) else "text"
