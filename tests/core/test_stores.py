"""Files in folders and archives are listed and read alike; what is damaged or doctored is named."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from modelwright.errors import DataError
from modelwright.stores import Folder, open_store

KINDS = ["folder", "set.tar", "set.tar.gz", "set.tgz", "set.tar.xz", "set.tar.bz2", "set.zip"]
FILES = {
    f"{kind}/{n:02}.bin": np.random.default_rng(100 * k + n).bytes(400)
    for k, kind in enumerate(("cat", "dog"))
    for n in range(10)
}


def pack(path: Path, files: Mapping[str, bytes]) -> Path:
    """Files in a folder, or, by its suffix, in an archive."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    elif path.suffix:
        packed = {".tar": "w", ".gz": "w:gz", ".tgz": "w:gz", ".xz": "w:xz", ".bz2": "w:bz2"}[path.suffix]
        with tarfile.open(path, packed) as tar:  # type: ignore[call-overload]
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    else:
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    return path


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_cut_off_archive(tmp_path: Path, kind: str) -> None:
    path = pack(tmp_path / kind, FILES)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="is damaged or no archive") as error:
        open_store(path).names()
    assert "\n" not in str(error.value)


def test_an_archive_that_breaks_off_after_it_was_listed(tmp_path: Path) -> None:
    for kind in ("set.tar", "set.tar.xz"):
        path = pack(tmp_path / kind, FILES)
        store = open_store(path)
        names = [name for name in store.names() if not name.endswith("/")]
        path.write_bytes(path.read_bytes()[:3000])
        if kind == "set.tar":
            assert "cut off: the archive ends within it" in dict(store.stream(names)).values()
        else:
            with pytest.raises(DataError, match="is damaged or no archive"):
                list(store.stream(names))


@pytest.mark.parametrize("kind", KINDS)
def test_stores_give_back_what_is_in_them_in_any_order(tmp_path: Path, kind: str) -> None:
    store = open_store(pack(tmp_path / kind, FILES))
    names = [name for name in store.names() if not name.endswith("/")]
    assert dict(store.stream(names)) == FILES
    store.ready()
    assert {name: store.read(name) for name in sorted(FILES, reverse=True)} == FILES
    assert all(store.where(name).endswith(name) for name in names)


def test_an_archive_under_a_false_name_is_read_by_its_content(tmp_path: Path) -> None:
    path = pack(tmp_path / "set.tar.xz", FILES).rename(tmp_path / "set.tar")
    store = open_store(path)
    store.names()
    store.ready()
    assert store.read("cat/03.bin") == FILES["cat/03.bin"]


def test_files_that_a_store_cannot_read(tmp_path: Path) -> None:
    path = pack(tmp_path / "set.zip", {"cat/1.bin": b"a" * 5000, "dog/1.bin": b"b" * 5000})
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("dog/1.bin").header_offset + 30 + len("dog/1.bin")
    data = bytearray(path.read_bytes())
    data[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    store = open_store(path)
    found = dict(store.stream([name for name in store.names() if not name.endswith("/")]))
    assert found == {"cat/1.bin": b"a" * 5000, "dog/1.bin": "damaged in the archive"}
    folder = open_store(pack(tmp_path / "set", {"cat/1.bin": b"x"}))
    assert dict(folder.stream(["cat/2.bin"])) == {"cat/2.bin": "no such file or directory"}


def test_an_encrypted_member_says_so(tmp_path: Path) -> None:
    path = pack(tmp_path / "set.zip", {"cat/1.bin": b"x"})
    data = bytearray(path.read_bytes())
    for mark, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + flag] |= 1
    path.write_bytes(data)
    store = open_store(path)
    assert "cannot be unpacked" in str(dict(store.stream(store.names()))["cat/1.bin"])


def test_links_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        for name in ("cat/1.bin", "dog/1.bin"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
        link = tarfile.TarInfo("dog/2.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert sorted(open_store(tmp_path / "set.tar").names()) == ["cat/1.bin", "dog/1.bin"]


@pytest.mark.parametrize("name", ["../x/1.bin", "/x/1.bin", "x/../../1.bin", "C:/x/1.bin", "..\\x\\1.bin"])
@pytest.mark.parametrize("kind", ["set.zip", "set.tar"])
def test_members_outside_of_an_archive_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    path = pack(tmp_path / kind, {"cat/1.bin": b"", name: b""})
    with pytest.raises(DataError, match="has a member outside of itself"):
        open_store(path).names()


def test_a_store_goes_to_another_process(tmp_path: Path) -> None:
    for kind in KINDS:
        store = open_store(pack(tmp_path / kind, FILES))
        store.names()
        store.read("cat/01.bin")
        again = pickle.loads(pickle.dumps(store))
        assert again.read("dog/09.bin") == FILES["dog/09.bin"]


def test_a_temporary_file_goes_with_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    store = open_store(pack(tmp_path / "set.tar.gz", FILES))
    store.names()
    store.ready()
    assert len(list(scratch.iterdir())) == 1
    del store
    assert list(scratch.iterdir()) == []


def test_a_folder_follows_links_and_passes_over_what_is_hidden(tmp_path: Path) -> None:
    path = pack(tmp_path / "set", {"a/1.bin": b"1", ".git/config": b""})
    pack(tmp_path / "elsewhere", {"2.bin": b"2"})
    try:
        (path / "b").symlink_to(tmp_path / "elsewhere")
        (path / "a" / "up").symlink_to(path)
    except OSError:
        pytest.skip("no links here")
    files = [name for name in Folder(path).names() if not name.endswith("/")]
    assert sorted(files) == ["a/1.bin", "b/2.bin"]


def test_what_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file.doc").write_bytes(b"")
    with pytest.raises(DataError, match="neither a folder nor an archive"):
        open_store(tmp_path / "file.doc")
    with pytest.raises(DataError, match=r"does not exist: check data\.path"):
        open_store(tmp_path / "nowhere")
