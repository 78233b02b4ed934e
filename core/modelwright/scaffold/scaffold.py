"""Writes a plugin's first version: a project of its own, from templates. Knows names and files; knows no torch.

The templates lie beside this file: ``templates/common`` goes into every project, ``templates/<kind>`` on top of it.
A path in a project is its template's without ``.jinja``, after `PLACES`.
"""

from __future__ import annotations

import importlib.util
import json
import keyword
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, cast

from modelwright import __version__
from modelwright.errors import ConfigError, RunError, did_you_mean
from modelwright.hookspecs import PROJECT
from modelwright.plugins import TASK_NAME, Catalog, discover

KINDS = {
    "classification": "say which shape a picture shows",
    "detection": "find the rectangles in a picture",
    "sequence": "say which letters of a text stand in brackets",
    "tabular": "say from a table's row who will buy",
    "blank": "say which number belongs to a number",
}
"""Kind of task -> what its example does."""
TEMPLATES = Path(__file__).parent / "templates"
PLACES = {"gitignore": ".gitignore", "github": ".github/workflows"}
"""Names that do not begin with a dot in the templates: a file of that name would act on this repository."""
ADVICE = "advice.jinja"
"""What to change first: a kind's part of the README."""
LONGEST = 40
"""Characters of a name: longer ones would break the lines of the code."""
PARTS = ("build", "codec", "config", "data", "dist", "model", "runs", "task", "tests")
"""Names that stand for something else in every project."""


@dataclass(frozen=True)
class Project:
    """A project that was written.

    Attributes:
        folder: where it lies.
        name: of the distribution and of its task.
        kind: one of `KINDS`.
        source: where this modelwright was installed from, if not from a package index; empty otherwise.
    """

    folder: Path
    name: str
    kind: str
    source: str

    @property
    def next_steps(self) -> list[str]:
        """Commands for the author, in order."""
        source = f'MODELWRIGHT="{self.source}" ' if self.source else ""
        return [
            f'cd "{self.folder}"' if " " in str(self.folder) else f"cd {self.folder}",
            "pip install -e .",
            "modelwright tasks",
            f"modelwright check {self.name}",
            f"modelwright train {self.name} --recipe quick",
            f"pip install tox && {source}tox",
        ]


def new_plugin(name: str, *, kind: str = "blank", out: Path | None = None, catalog: Catalog | None = None) -> Project:
    """Writes the project ``out/name``; all of it or nothing.

    Args:
        name: lowercase words joined by hyphens; the package is called the same with underscores.
        kind: one of `KINDS`.
        out: the parent folder; made where it is missing. The current folder when left out.
        catalog: what is installed; looked up when left out.

    Raises:
        ConfigError: an unknown kind, or a name that is not valid or already taken.
        RunError: the folder exists already or cannot be written.
    """
    if kind not in KINDS:
        raise ConfigError(f"there is no kind '{kind}'{did_you_mean(kind, KINDS)}; kinds: {', '.join(KINDS)}")
    check_name(name, discover() if catalog is None else catalog)
    folder = (out or Path()) / name
    if os.path.lexists(folder):
        raise RunError(f"{folder} exists already and is not overwritten; choose another name or another --out")
    _write(folder, dict(_render(name, kind)))
    return Project(folder, name, kind, _source())


def check_name(name: str, catalog: Catalog) -> None:
    """Whether a plugin may be called so.

    Raises:
        ConfigError: the name is not valid, or something that is installed already has it.
    """
    package = name.replace("-", "_")
    if not TASK_NAME.fullmatch(name):
        raise ConfigError(f"'{name}' is no name for a plugin: write lowercase words joined by hyphens, such as my-task")
    if len(name) > LONGEST:
        raise ConfigError(f"'{name}' has {len(name)} characters; choose a name of at most {LONGEST}")
    if keyword.iskeyword(package):
        raise ConfigError(f"'{name}' is a word of Python's own and cannot be imported; choose another name")
    if name in PARTS:
        raise ConfigError(f"'{name}' is what a part of every plugin is called; choose a name that says what it does")
    if package in sys.stdlib_module_names:
        raise ConfigError(f"'{name}' would hide the module {package} of Python's standard library; choose another name")
    if name in catalog.tasks or name in catalog.conflicts:
        provider = catalog.providers[name] if name in catalog.tasks else catalog.conflicts[name][0]
        raise ConfigError(f"task '{name}' is already offered by {provider}; choose another name")
    if importlib.util.find_spec(package) is not None:
        raise ConfigError(f"'{name}' would hide the installed module {package}; choose another name")
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return
    raise ConfigError(f"'{name}' would replace {found.name} {found.version}, which is installed; choose another name")


def _render(name: str, kind: str) -> Iterator[tuple[str, str]]:
    """Path in the project and text of each file."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # no page: code and settings
    )
    package = name.replace("-", "_")
    words = {
        "name": name,
        "package": package,
        "prefix": "".join(word.capitalize() for word in name.split("-")),
        "summary": KINDS[kind],
        "requirement": _requirement(__version__),
        "advice": templates.get_template(f"{kind}/{ADVICE}").render().strip(),
    }
    for part in ("common", kind):
        for path in sorted((TEMPLATES / part).rglob("*.jinja")):
            if path.name == ADVICE:
                continue
            inside = path.relative_to(TEMPLATES / part).with_suffix("")
            first = PLACES.get(inside.parts[0], inside.parts[0]).replace("package", package)
            text = templates.get_template(path.relative_to(TEMPLATES).as_posix()).render(words)
            yield PurePosixPath(first, *inside.parts[1:]).as_posix(), text


def _write(folder: Path, files: dict[str, str]) -> None:
    """Writes aside and renames: whatever goes wrong, nothing is left behind.

    Raises:
        RunError: it cannot be written.
    """
    missing = [parent for parent in folder.absolute().parents if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as aside:
            for path, text in files.items():
                file = Path(aside, folder.name, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8", newline="\n")
            Path(aside, folder.name).rename(folder)
    except BaseException as error:  # Ctrl-C too
        if missing:
            shutil.rmtree(missing[-1], ignore_errors=True)
        if isinstance(error, OSError):
            raise RunError(f"{folder} cannot be written: {error.strerror}; choose another --out") from error
        raise


def _requirement(version: str) -> str:
    """This version of modelwright or a later one, below the next that may break plugins.

    >>> _requirement("0.3.1"), _requirement("1.3.1")
    ('modelwright>=0.3,<0.4', 'modelwright>=1.3,<2')
    """
    major, minor = (int(part) for part in version.split(".")[:2])
    return f"{PROJECT}>={major}.{minor},<{f'0.{minor + 1}' if major == 0 else major + 1}"


def _source() -> str:
    """Where pip got this modelwright from (PEP 610): a path or a repository, or nothing for a package index."""
    try:
        told = distribution(PROJECT).read_text("direct_url.json")
    except PackageNotFoundError:
        return ""
    origin = cast("dict[str, Any]", json.loads(told or "{}"))
    url = str(origin.get("url", ""))
    if version_control := origin.get("vcs_info"):
        return f"{version_control['vcs']}+{url}@{version_control['commit_id']}"
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    return url2pathname(urlsplit(url).path) if url.startswith("file:") else url
