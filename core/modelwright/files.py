"""Replaces a file in one step. Knows nothing of what is in it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from modelwright.errors import RunError


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` aside and rename it to `path`: a reader finds the old file or the new one, never half of one.

    Raises:
        RunError: the folder is missing or not writable, or the disk is full.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise RunError(f"{path} could not be written: {error.strerror}; what was there is kept") from error
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """The same for text, as UTF-8; what cannot be encoded (bytes of a file name that were no text) is escaped."""
    write_bytes(path, content.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """The same for JSON values, indented for reading."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
