"""modelwright.testing.watch: what counts as a connection or a stray change, and what does not."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import socket
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from modelwright.testing.watch import watched


@pytest.fixture
def allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working in one folder, allowed to write in another."""
    for name in ("work", "allowed"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    Path("old.txt").write_text("old")
    Path("folder").mkdir()
    return tmp_path / "allowed"


def do(action: Callable[[Path], object], allowed: Path) -> list[str]:
    with watched(allowed) as seen, contextlib.suppress(OSError):
        action(allowed)
    return seen


def connect(address: tuple[str, int] | str, family: int = socket.AF_INET) -> None:
    with socket.socket(family) as line:
        line.settimeout(1)
        line.connect(address)


def write_by_descriptor(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT))


def move_in(allowed: Path) -> None:
    (allowed / "new").write_text("new")
    os.replace(allowed / "new", "new")


@pytest.mark.parametrize(
    "action",
    [
        lambda allowed: Path("new.txt").write_text("new"),
        lambda allowed: Path("old.txt").open("a").close(),
        lambda allowed: Path("old.txt").open("r+b").close(),
        lambda allowed: write_by_descriptor("new.txt"),
        lambda allowed: Path("new").mkdir(),
        lambda allowed: Path("folder").rmdir(),
        lambda allowed: Path("old.txt").unlink(),
        lambda allowed: Path("old.txt").rename("new.txt"),
        lambda allowed: os.truncate("old.txt", 0),
        lambda allowed: os.link("old.txt", "new.txt"),
        lambda allowed: os.symlink("old.txt", "new.txt"),
        lambda allowed: shutil.rmtree("folder"),
        move_in,
        lambda allowed: (allowed.parent / "work" / "new.txt").write_text("new"),
        lambda allowed: (Path.home() / ".modelwright-no-such-folder" / "new.txt").write_text("new"),
    ],
)
def test_what_is_changed_elsewhere_is_told(action, allowed):
    (said, *_) = do(action, allowed)
    assert said.startswith("it writes outside the run folder: /")


def test_a_folder_whose_name_begins_alike_is_another(allowed):
    beside = tempfile.gettempdir() + "-beside"
    assert do(lambda allowed: os.mkdir(f"{beside}/new"), allowed) != []


@pytest.mark.parametrize(
    "action",
    [
        lambda allowed: Path("old.txt").read_text(),
        lambda allowed: os.close(os.open("old.txt", os.O_RDONLY)),
        lambda allowed: Path("folder").mkdir(exist_ok=True),
        lambda allowed: (allowed / "deep" / "deeper").mkdir(parents=True),
        lambda allowed: (allowed / "new.txt").write_text("new"),
        lambda allowed: tempfile.TemporaryFile().close(),
        lambda allowed: Path(tempfile.mkdtemp()).rmdir(),
        lambda allowed: Path(os.devnull).write_text("gone"),
        lambda allowed: connect("no.socket", socket.AF_UNIX),
    ],
)
def test_what_changes_nothing_or_where_it_may_is_not_told(action, allowed):
    assert do(action, allowed) == []


def test_a_temporary_folder_may_be_filled_and_go(allowed):
    def use(allowed: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "deep").mkdir()
            Path(folder, "deep", "file").write_text("new")

    assert do(use, allowed) == []


def test_compiled_python_is_not_told(allowed, monkeypatch):
    Path("just_for_this_test.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(os.getcwd())
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert do(lambda allowed: importlib.import_module("just_for_this_test"), allowed) == []
    assert Path("__pycache__").is_dir()
    sys.modules.pop("just_for_this_test")


def test_compiled_python_that_is_kept_elsewhere_is_not_told(allowed, monkeypatch):
    monkeypatch.setattr(sys, "pycache_prefix", str(allowed.parent / "work" / "compiled"))
    assert do(lambda allowed: Path("compiled").mkdir(), allowed) == []


@pytest.mark.parametrize(
    "action",
    [
        lambda allowed: connect(("127.0.0.1", 9)),
        lambda allowed: socket.create_connection(("localhost", 9), timeout=1),
        lambda allowed: socket.gethostbyname("localhost"),
        lambda allowed: socket.getaddrinfo("localhost", "http"),
        lambda allowed: urllib.request.urlopen("http://127.0.0.1:9/", data=b"posted", timeout=1),
        lambda allowed: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)),
    ],
)
def test_a_connection_is_told(action, allowed):
    (said, *_) = do(action, allowed)
    assert said.startswith("it opens a connection (socket.")


def test_nothing_is_told_afterwards_nor_to_an_outer_watch_twice(allowed):
    with watched(allowed) as outer:
        with watched(allowed) as inner:
            Path("new.txt").write_text("new")
        Path("newer.txt").write_text("new")
    Path("newest.txt").write_text("new")
    assert [len(inner), len(outer)] == [1, 2]
