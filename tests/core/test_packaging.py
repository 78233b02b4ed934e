"""pyproject.toml, constraints.txt and the wheel: what is declared, what is imported and what is packed agree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from modelwright.doctor import KNOWN_SETS, PYTHONS, REQUIREMENTS

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
PACKAGES = [ROOT / folder for folder in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
PLUGINS = [package for package in PACKAGES if package.parent.name == "plugins"]
DISTRIBUTIONS = {
    "espeakng_loader": "espeakng-loader",
    "PIL": "pillow",
    "faster_coco_eval": "faster-coco-eval",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Module -> distribution, where the names differ."""


def requirements(lines: list[str]) -> dict[str, Requirement]:
    parsed = [Requirement(line) for line in lines]
    return {found.name: found for found in parsed if found.name != PROJECT["name"]}


BASE = requirements(PROJECT["dependencies"])
EXTRAS = {extra: requirements(lines) for extra, lines in PROJECT["optional-dependencies"].items()}
EXTRAS["detection"] |= EXTRAS["detection-permissive"]
FURTHER = {"modelwright_risk": "lightgbm", "modelwright_speech": "speech-demo"}
"""Plugins with a part that has an extra of its own: a teacher, the voices of the embedded data."""
GROUPS = {group: requirements(lines) for group, lines in PYPROJECT["dependency-groups"].items()}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_constraints_are_names_and_versions_of_the_direct_dependencies():
    direct = set(BASE).union(*EXTRAS.values(), *GROUPS.values())
    assert set(constraints()) == direct


def test_each_constraint_lies_in_its_range():
    tested = constraints()
    for named in [BASE, *EXTRAS.values(), *GROUPS.values()]:
        for name, requirement in named.items():
            assert requirement.specifier.contains(tested[name]), f"{name}=={tested[name]} is not in {requirement}"


@pytest.mark.parametrize("file", ["pyproject.toml", "tox.ini", "constraints.txt", ".ci/run"])
def test_no_address_and_no_path_of_a_machine(file):
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#!"))
    assert not re.search(r"\b(?:https?|file|git\+\w+)://|index[-_]url|find[-_]links|@ ", text)
    assert not re.search(r"(?<![\w.)}\"])/(?:root|home|opt|usr|tmp|work|mnt|Users)/", text)


# Sets of torch --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("torch", "2.13.0"),
        ("torch", "2.13.0+cpu"),
        ("torch", "2.15.0"),
        ("torchvision", "0.28.0"),
        ("torchvision", "0.29.2"),
        ("torchvision", "0.29.2+cu132"),
        ("torchvision", "0.30.0"),
        ("torchaudio", "2.11.1"),
        ("torchaudio", "2.11.1+cu132"),
    ],
)
def test_no_range_reaches_a_version_of_a_broken_set(name, version):
    reaching = [named for named in [BASE, *EXTRAS.values()] if name in named]
    assert reaching
    assert not any(named[name].specifier.contains(version) for named in reaching)


def test_the_ranges_hold_what_the_doctor_takes_for_whole():
    for torch, others in KNOWN_SETS.items():
        assert BASE["torch"].specifier.contains(f"{torch}.1")
        for version in others["torchvision"]:
            assert EXTRAS["image"]["torchvision"].specifier.contains(version)
        for version in others["torchaudio"]:
            assert EXTRAS["speech"]["torchaudio"].specifier.contains(version)
    tested = constraints()
    for name, quoted in REQUIREMENTS.items():
        if name in tested:
            assert Requirement(quoted.strip('"')).specifier.contains(tested[name])


def test_pictures_need_no_sound():
    assert "torchaudio" not in {**BASE, **EXTRAS["image"]}


def test_the_supported_pythons_agree():
    (lowest, highest) = PYTHONS
    assert PROJECT["requires-python"] == f">={lowest[0]}.{lowest[1]},<{highest[0]}.{highest[1] + 1}"
    for minor in range(lowest[1], highest[1] + 1):
        assert f"Programming Language :: Python :: 3.{minor}" in PROJECT["classifiers"]


# Plugins --------------------------------------------------------------------------------------------------------------


def test_every_plugin_has_an_entry_point_and_an_extra_that_all_names():
    points = PROJECT["entry-points"]["modelwright"]
    assert sorted(points.values()) == sorted(package.name for package in PLUGINS)
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert set(points) <= set(EXTRAS)
    assert set(points) <= Requirement(everything).extras


def imported(package: Path) -> dict[str, str]:
    """Third-party module -> one file that imports it."""
    found: dict[str, str] = {}
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in names:
                found[name.partition(".")[0]] = str(path.relative_to(ROOT))
    own = {package.name for package in PACKAGES}
    return {name: file for name, file in found.items() if name not in own | set(sys.stdlib_module_names)}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_what_is_imported_is_declared(package):
    extra = {point: module for module, point in PROJECT["entry-points"]["modelwright"].items()}.get(package.name)
    # The core's part for tests of plugins is the only one that needs an extra.
    declared = {**BASE, **EXTRAS[extra or "testing"], **EXTRAS.get(FURTHER.get(package.name, ""), {})}
    undeclared = {name: f for name, f in imported(package).items() if DISTRIBUTIONS.get(name, name) not in declared}
    assert undeclared == {}


# The wheel ------------------------------------------------------------------------------------------------------------


def test_the_wheel_holds_every_file_of_every_package(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    for package in PACKAGES:
        files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        missing = [name for path in files if (name := path.relative_to(package.parent).as_posix()) not in packed]
        assert missing == []
    assert any(name.endswith("licenses/LICENSE") for name in packed)
    assert {name.partition("/")[0] for name in packed if ".dist-info" not in name} == {p.name for p in PACKAGES}
