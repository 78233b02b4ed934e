"""Distributions of outsiders, built and installed beside this environment. Knows wheels and paths, no plugin."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any


class Outside:
    """A folder of installed distributions beside those of this environment.

    Args:
        folder: must not exist yet; what is built lies beside it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def build_and_install(self, project: Path) -> None:
        """Builds a project's wheel with its own build backend and unpacks it, as an installer does; no network."""
        source = self.folder.parent / f"source-of-{project.name}"
        shutil.copytree(project, source, ignore=shutil.ignore_patterns("__pycache__"))
        dist = self.folder.parent / f"wheel-of-{project.name}"
        command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(dist)]
        built = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
        assert built.returncode == 0, built.stderr
        (wheel,) = dist.glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(self.folder)

    def install(self, *, name: str, code: str) -> None:
        """Puts a distribution of one module there."""
        module = f"modelwright_{name}"
        (self.folder / f"{module}.py").write_text(code, encoding="utf-8")
        about = self.folder / f"{module}-1.2.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: modelwright-{name}\nVersion: 1.2\n", "utf-8")
        (about / "entry_points.txt").write_text(f"[modelwright]\n{name} = {module}\n", "utf-8")

    def uninstall(self, distribution: str) -> None:
        """Removes every file that the distribution's own record lists, as an uninstaller does."""
        (record,) = self.folder.glob(f"{distribution.replace('-', '_')}-*.dist-info/RECORD")
        listed = [self.folder / line.split(",")[0] for line in record.read_text(encoding="utf-8").splitlines()]
        for file in listed:
            file.unlink()
        for package in {self.folder / file.relative_to(self.folder).parts[0] for file in listed}:
            shutil.rmtree(package)  # what is left are folders and compiled modules

    def python(
        self, *arguments: str | Path, cwd: Path | None = None, environ: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`python ARGUMENTS`, with the distributions on the path."""
        path = os.pathsep.join([str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "400", **(environ or {})}
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)

    def run(self, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """`modelwright ARGUMENTS`; its output on one long line each."""
        return self.python("-m", "modelwright", *arguments, cwd=cwd)

    def error_of(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        """The one line on stderr of a command that fails by a user's error."""
        failed = self.run(*arguments, cwd=cwd)
        assert failed.returncode == 1
        (line,) = failed.stderr.strip().splitlines()
        return line

    def tasks(self) -> dict[str, Any]:
        """What `modelwright tasks --json` says."""
        told = self.run("tasks", "--json")
        assert told.returncode == 0, told.stderr
        return json.loads(told.stdout)
