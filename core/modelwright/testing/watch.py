"""Watches what this process connects to and writes, by Python's audit events. Knows no task and no check.

What a C library does on its own (libcurl, libsndfile) raises no such events and goes unseen.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CONNECTIONS = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg"}
_CHANGES = {
    # event -> which arguments are paths, and which are folders that these are relative to (-1: none)
    "os.mkdir": ((0,), (2,)),
    "os.remove": ((0,), (1,)),
    "os.rmdir": ((0,), (1,)),
    "os.truncate": ((0,), ()),
    "os.rename": ((0, 1), (2, 3)),
    "os.link": ((1,), (2, 3)),
    "os.symlink": ((1,), (2,)),
    "shutil.rmtree": ((0,), (1,)),
}


class _Watch:
    """What was seen so far, as sentences, and where writing is allowed."""

    def __init__(self, folder: Path) -> None:
        self.seen: list[str] = []
        # Of the known folders around a path the deepest decides: a working folder below /tmp is no temporary one.
        self._known = {_real(os.getcwd()): False, "/dev": True}
        self._known |= dict.fromkeys(map(_real, (tempfile.gettempdir(), folder)), True)
        if sys.pycache_prefix is not None:
            self._known[_real(sys.pycache_prefix)] = True

    def __call__(self, event: str, arguments: Sequence[Any]) -> None:
        if event in _CONNECTIONS:
            if not _on_this_machine(event, arguments):
                self.seen.append(f"it opens a connection ({event}): load local files, and download only on demand")
            return
        for path in _written(event, arguments):
            if not self._allowed(path):
                self.seen.append(f"it writes outside the run folder: {path}")

    def _allowed(self, path: str) -> bool:
        if "__pycache__" in path:
            return True
        around = [folder for folder in self._known if path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)]
        return self._known[max(around, key=len)] if around else False


_watches: list[_Watch] = []


@contextmanager
def watched(folder: Path) -> Generator[list[str]]:
    """Gives a list to which, while the block runs, a sentence is added for each connection and each stray change.

    Args:
        folder: where writing is allowed, besides temporary folders.
    """
    _listen()
    watch = _Watch(folder)
    _watches.append(watch)
    try:
        yield watch.seen
    finally:
        _watches.remove(watch)


@functools.cache
def _listen() -> None:
    """Adds the audit hook. It can never be taken off again, only have nobody to tell."""
    sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    for watch in _watches:
        watch(event, arguments)


def _on_this_machine(event: str, arguments: Sequence[Any]) -> bool:
    """A socket in the file system is no network. Connections to one's own machine over the network are."""
    return not event.startswith("socket.get") and isinstance(arguments[1], (str, bytes))


def _written(event: str, arguments: Sequence[Any]) -> Iterator[str]:
    """The paths that an event changes."""
    if event == "open":
        path, mode, flags = arguments
        writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(flags & _WRITING)
        if writes and isinstance(path, (str, bytes, os.PathLike)):
            yield _real(path)
        return
    paths, folders = _CHANGES.get(event, ((), ()))
    # Names relative to an open folder are what shutil.rmtree removes, which was seen as a whole.
    if any(arguments[place] not in (-1, None) for place in folders if place < len(arguments)):
        return
    for place in paths:
        path = arguments[place]
        if isinstance(path, (str, bytes, os.PathLike)):
            found = _real(path)
            if event != "os.mkdir" or not os.path.isdir(found):  # what is there already is not made
                yield found


_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _real(path: str | bytes | os.PathLike[Any]) -> str:
    """The path with nothing relative and no link before its last name."""
    text = os.path.abspath(os.fsdecode(path))
    return os.path.join(os.path.realpath(os.path.dirname(text)), os.path.basename(text))
