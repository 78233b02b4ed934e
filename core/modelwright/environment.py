"""Where a run happens: versions and machine, for environment.json. Imports nothing heavy."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from modelwright import __version__


def describe(*, task: str, command: str, device: str, threads: int, ranks: int) -> dict[str, Any]:
    """JSON values: task, command, versions of what modelwright stands on, machine, time."""
    return {
        "modelwright": __version__,
        "task": task,
        "command": command,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "ranks": ranks,
        "device": device,
        "packages": versions(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Installed versions of the distribution's own requirements, extras included."""
    found: dict[str, str] = {}
    for requirement in metadata.requires("modelwright") or []:
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return dict(sorted(found.items()))


def processor() -> str:
    """The processor's name, as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
