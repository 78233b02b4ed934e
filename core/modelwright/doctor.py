"""Looks at an installation and says what is wrong with it and which command mends it.

Knows which builds of torch, torchvision and torchaudio fit together; imports none of them itself: a child process
tries that, so that a set that crashes at import is a finding and no crash. Prints nothing.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from modelwright.plugins import Catalog, discover, missing_modules

Status: TypeAlias = Literal["ok", "warning", "broken"]

PYTHONS = ((3, 11), (3, 13))
"""The lowest and the highest Python that modelwright supports."""

FAMILY = ("torch", "torchvision", "torchaudio")
"""What is built against each other."""

KNOWN_SETS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "2.11": {"torchvision": ("0.26",), "torchaudio": ("2.11.0",)},
    "2.12": {"torchvision": ("0.27",), "torchaudio": ("2.11.0",)},
    # torchvision 0.29.2 and torchaudio 2.11.1 accept torch 2.14, yet are built for CUDA 13.2.
    "2.14": {"torchvision": ("0.29.0", "0.29.1"), "torchaudio": ("2.11.0",)},
}
"""torch's minor version -> the versions (or minors) of the others that work with it."""

REQUIREMENTS = {
    "torch": '"torch>=2.14,<2.15"',
    "torchvision": '"torchvision>=0.29,<0.29.2"',
    "torchaudio": '"torchaudio>=2.11,<2.11.1"',
}
"""The newest set that works, as pip is asked for it."""

PROBE = """
import importlib, json, sys, warnings
found = {"errors": {}, "gpus": [], "threads": 0, "warning": ""}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        lines = str(error).strip().splitlines() or [""]
        found["errors"][name] = f"{type(error).__name__}: {lines[-1]}"
if "torch" in sys.argv[1:] and "torch" not in found["errors"]:
    import torch
    found["threads"] = torch.get_num_threads()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            seen = torch.cuda.get_device_properties(index)
            found["gpus"].append([seen.name, seen.total_memory])
    if caught and not found["gpus"]:
        found["warning"] = str(caught[0].message).strip().splitlines()[0]
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        status: "ok", "warning" (works, but not all of it or not as well as it could) or "broken".
        what: what was looked at, a word or two.
        detail: what was found, one line.
        mend: the command (or step) that mends it; None where nothing is to be done.
    """

    status: Status
    what: str
    detail: str
    mend: str | None = None


@dataclass(frozen=True)
class Probe:
    """What a child process saw when it imported the torch family.

    Attributes:
        errors: module -> the last line of the error of its import; absent where it worked. All modules joined by
            commas where the child process itself ended.
        gpus: name and memory in bytes of each CUDA device.
        threads: of torch's CPU operators.
        warning: why torch cannot use a GPU that is there; empty otherwise.
    """

    errors: Mapping[str, str]
    gpus: Sequence[tuple[str, int]] = ()
    threads: int = 0
    warning: str = ""


def diagnose(
    *,
    python: tuple[int, int] | None = None,
    versions: Mapping[str, str] | None = None,
    probe: Callable[[Sequence[str]], Probe] | None = None,
    catalog: Catalog | None = None,
) -> list[Finding]:
    """Everything that was looked at, broken or not, in a fixed order.

    Args:
        python: major and minor version; the running one when left out.
        versions: of torch, torchvision and torchaudio, with the build's tag where known ("2.14.1+cu130"), absent
            where not installed; those of the running interpreter when left out.
        probe: imports the given modules and reports; a child process when left out (some seconds).
        catalog: the plugins; those that are installed when left out.
    """
    versions = installed_versions() if versions is None else versions
    modules = [name for name in FAMILY if name in versions]
    probed = (probe or run_probe)(modules)
    return [
        _python(sys.version_info[:2] if python is None else python),
        *_torch_set(versions),
        *_imports(modules, probed, versions),
        *_plugins(discover() if catalog is None else catalog),
        *_devices(probed),
    ]


# What is installed ----------------------------------------------------------------------------------------------------


def installed_versions() -> dict[str, str]:
    """Versions of the torch family, with the build's tag ("+cu130", "+cpu") where its files name one."""
    versions: dict[str, str] = {}
    for name in FAMILY:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            # The package index knows no tags: only the package's own version.py tells what it was built for.
            versions[name] = tagged_version(Path(spec.origin).parent / "version.py") or versions[name]
    return versions


def tagged_version(path: Path) -> str | None:
    """The version that a version.py assigns, read without running it; None if there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)['\"]", text, flags=re.MULTILINE)
    return found.group(1) if found else None


def run_probe(modules: Sequence[str], *, timeout: float = 300.0) -> Probe:
    """Imports `modules` one after the other in a child process; what it saw.

    Args:
        timeout: seconds after which the import counts as failed.
    """
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-c", PROBE, *modules],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Probe({", ".join(modules): f"no answer within {timeout:g} s"})
    try:
        found = cast("dict[str, Any]", json.loads(child.stdout.strip().splitlines()[-1]))
    except (IndexError, ValueError):
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        return Probe({", ".join(modules): f"the interpreter ended with {child.returncode}: {last}"})
    gpus = [(str(name), int(memory)) for name, memory in found["gpus"]]
    return Probe(found["errors"], gpus, found["threads"], found["warning"])


# What is right and what is not ----------------------------------------------------------------------------------------


def _python(python: tuple[int, int]) -> Finding:
    lowest, highest = PYTHONS
    name = ".".join(map(str, python))
    if lowest <= python <= highest:
        return Finding("ok", "Python", name)
    supported = f"{'.'.join(map(str, lowest))} to {'.'.join(map(str, highest))}"
    mend = f"python{'.'.join(map(str, highest))} -m venv .venv, and install modelwright there"
    return Finding("broken", "Python", f"{name} is not supported, {supported} are", mend)


def _torch_set(versions: Mapping[str, str]) -> Iterator[Finding]:
    """What the version numbers alone tell."""
    if "torch" not in versions:
        yield Finding("broken", "torch", "torch is not installed", _install(versions))
        return
    problems = list(_problems(versions))
    yield from problems
    if not problems:
        present = ", ".join(f"{name} {versions[name]}" for name in FAMILY if name in versions)
        yield Finding("ok", "torch", present if len(versions) == 1 else f"{present} fit together")


def _problems(versions: Mapping[str, str]) -> Iterator[Finding]:
    torch = versions["torch"]
    minor = _minor(torch)
    if minor not in KNOWN_SETS:
        reason = {
            "2.13": "its CPU-only build lacks what torchvision needs",
            "2.15": "it is built for CUDA 13.2, what modelwright is tested with for 13.0",
        }.get(minor, f"modelwright is tested with {', '.join(KNOWN_SETS)}")
        yield Finding("broken", "torch", f"torch {torch} is not supported: {reason}", _install(versions))
        return
    for name, fitting in KNOWN_SETS[minor].items():
        if name not in versions:
            continue
        version = versions[name]
        if not any(_plain(version) == one or _plain(version).startswith(f"{one}.") for one in fitting):
            wanted = " or ".join(fitting)
            detail = f"{name} {version} does not fit torch {torch}, {wanted} does"
            yield Finding("broken", name, detail, _install(versions))
        elif _tag(version) and _tag(torch) and _tag(version) != _tag(torch):
            detail = f"{name} {version} is built for {_tag(version)}, torch {torch} for {_tag(torch)}"
            # The numbers are right already: without force pip would keep what is there.
            yield Finding("broken", name, detail, _install(versions, force=True))


def _imports(modules: Sequence[str], probed: Probe, versions: Mapping[str, str]) -> Iterator[Finding]:
    """What an import tells."""
    if not modules:
        return
    for name, error in probed.errors.items():
        yield Finding("broken", "import", f"import {name} fails: {error}", _install(versions, force=True))
    if not probed.errors:
        yield Finding("ok", "import", f"import {', '.join(modules)} works")


def _install(versions: Mapping[str, str], *, force: bool = False) -> str:
    """The command that installs the newest set that works, of what is installed already."""
    wanted = [REQUIREMENTS[name] for name in FAMILY if name == "torch" or name in versions]
    return " ".join(["pip install", *(["--force-reinstall"] if force else []), *wanted])


def _minor(version: str) -> str:
    return ".".join(_plain(version).split(".")[:2])


def _plain(version: str) -> str:
    return version.partition("+")[0]


def _tag(version: str) -> str:
    """What a build is for: "cu130", "cpu", or "" where its version does not tell."""
    return version.partition("+")[2]


def _plugins(catalog: Catalog) -> Iterator[Finding]:
    for provider in catalog.plugins:
        tasks = [name for name, owner in catalog.providers.items() if owner == provider]
        what = f"plugin {provider.plugin}"
        offered = catalog.offers.get(provider, {})
        hooks = ", ".join(f"{hook} ({', '.join(names) or 'nothing'})" for hook, names in offered.items())
        yield Finding("ok", what, f"{provider}: {hooks}")
        for name in tasks:
            if missing := missing_modules(catalog.tasks[name].requires):
                detail = f"{name} cannot be used yet: no module named {', '.join(missing)}"
                yield Finding("warning", what, detail, catalog.install_command(name))
    for name, providers in catalog.conflicts.items():
        both = " and ".join(str(provider) for provider in providers)
        mend = f"pip uninstall {' or '.join(provider.distribution for provider in providers)}"
        yield Finding("broken", f"task {name}", f"is offered by {both}", mend)
    for what, entries in (("observers", catalog.observers), ("compressors", catalog.compressors)):
        if entries:
            yield Finding("ok", what, ", ".join(sorted(entries)))
        for name, entry in sorted(entries.items()):
            if missing := missing_modules(entry.requires):
                detail = f"{name} cannot be used yet: no module named {', '.join(missing)}"
                yield Finding("warning", what, detail, f"pip install {' '.join(missing)}")
    yield from _exporters(catalog)
    for failure in catalog.failures:
        detail = f"{failure.distribution} {failure.version}".rstrip() + f" could not be loaded: {failure.error}"
        yield Finding("broken", f"plugin {failure.plugin}", detail, failure.mend)


def _exporters(catalog: Catalog) -> Iterator[Finding]:
    """Runtimes; one that comes with an extra is nothing that has to be there."""
    missing = {name: missing_modules(entry.requires) for name, entry in sorted(catalog.exporters.items())}
    if present := [name for name in missing if not missing[name]]:
        yield Finding("ok", "runtimes", ", ".join(present))
    for name, modules in missing.items():
        entry, command = catalog.exporters[name], f'pip install "{catalog.pip_name(catalog.exporters[name])}"'
        if modules and entry.extra:
            yield Finding("ok", "runtimes", f"{name} is not installed; to have it: {command}")
        elif modules:
            detail = f"{name} cannot be used yet: no module named {', '.join(modules)}"
            yield Finding("warning", "runtimes", detail, f"pip install {' '.join(modules)}")


def _devices(probed: Probe) -> Iterator[Finding]:
    threads = f", torch uses {probed.threads} threads" if probed.threads else ""
    memory = _memory()
    gib = f", {memory / 2**30:.0f} GiB of memory" if memory else ""
    yield Finding("ok", "CPU", f"{_cores()} cores{threads}{gib}")
    for name, size in probed.gpus:
        yield Finding("ok", "GPU", f"{name}, {size / 2**30:.0f} GiB")
    if probed.warning:
        yield Finding("warning", "GPU", f"cannot be used: {probed.warning}", "update the GPU's driver")
    elif not probed.gpus:
        yield Finding("ok", "GPU", "none: models train on the CPU")


def _cores() -> int:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> int:
    """Bytes of physical memory; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
