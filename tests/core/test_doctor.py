"""modelwright.doctor: what it says of sets of versions, of imports, plugins and devices."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from modelwright.bundle.runtime import Graph
from modelwright.config import TaskConfig
from modelwright.doctor import Finding, Probe, diagnose, installed_versions, run_probe, tagged_version
from modelwright.hookspecs import ExporterEntry, ObserverEntry, TaskEntry
from modelwright.plugins import Catalog, PluginFailure, Provider, discover
from tests.core.installed import install


def works(modules):
    return Probe({}, threads=2)


def check(versions, *, probe=works, python=(3, 12), catalog=None) -> list[Finding]:
    return diagnose(python=python, versions=versions, probe=probe, catalog=catalog or Catalog())


def broken(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.status == "broken"]


@pytest.mark.parametrize(
    "versions",
    [
        {"torch": "2.14.1+cu130", "torchvision": "0.29.1+cu130", "torchaudio": "2.11.0+cu130"},
        {"torch": "2.14.0", "torchvision": "0.29.0"},
        {"torch": "2.12.1+cu130", "torchvision": "0.27.1+cu130", "torchaudio": "2.11.0+cu130"},
        {"torch": "2.11.0+cpu", "torchvision": "0.26.0+cpu"},
        # A tag that is missing says nothing: the index's own builds have none in their metadata.
        {"torch": "2.14.1+cu130", "torchvision": "0.29.1"},
        {"torch": "2.14.1"},
    ],
)
def test_a_set_that_fits_is_fine(versions):
    findings = check(versions)
    assert broken(findings) == []
    assert all(f"{name} {version}" in findings[1].detail for name, version in versions.items())


@pytest.mark.parametrize(
    ("versions", "what", "said", "asked"),
    [
        # Built for CUDA 13.2 against 13.0. The first was seen to fail at import.
        ({"torch": "2.15.0+cu132", "torchaudio": "2.11.0+cu130"}, "torch", "CUDA 13.2", "torchaudio>=2.11,<2.11.1"),
        ({"torch": "2.14.1+cu130", "torchaudio": "2.11.1+cu132"}, "torchaudio", "2.11.0 does", "<2.11.1"),
        ({"torch": "2.14.1+cu130", "torchvision": "0.29.2+cu132"}, "torchvision", "0.29.1 does", "<0.29.2"),
        ({"torch": "2.13.0+cpu", "torchvision": "0.28.0"}, "torch", "CPU-only build lacks", "torch>=2.14,<2.15"),
        ({"torch": "2.10.0"}, "torch", "tested with 2.11, 2.12, 2.14", "torch>=2.14,<2.15"),
        ({"torch": "2.12.1", "torchvision": "0.29.1"}, "torchvision", "0.27 does", "torchvision>=0.29"),
        ({"torch": "2.14.1", "torchaudio": "2.10.0"}, "torchaudio", "2.11.0 does", "torchaudio>=2.11"),
        ({"torch": "2.14.1+cu130", "torchaudio": "2.11.0+cpu"}, "torchaudio", "is built for cpu", "--force-reinstall"),
        ({}, "torch", "not installed", "pip install"),
    ],
)
def test_a_set_that_does_not_fit_is_named_with_the_command_that_mends_it(versions, what, said, asked):
    (found,) = broken(check(versions))
    assert found.what == what
    assert said in found.detail
    assert found.mend is not None
    assert found.mend.startswith("pip install")
    assert asked in found.mend


def test_the_command_asks_only_for_what_is_installed():
    (found,) = broken(check({"torch": "2.13.0+cpu"}))
    assert found.mend == 'pip install "torch>=2.14,<2.15"'


def test_every_member_that_does_not_fit_is_a_finding_of_its_own():
    found = broken(check({"torch": "2.12.1", "torchvision": "0.29.1", "torchaudio": "2.10.0"}))
    assert [finding.what for finding in found] == ["torchvision", "torchaudio"]


def test_a_failing_import_is_told_with_its_last_line():
    def probe(modules):
        return Probe({"torchvision": "RuntimeError: operator torchvision::nms does not exist"})

    (found,) = broken(check({"torch": "2.14.1", "torchvision": "0.29.1"}, probe=probe))
    assert found.detail == "import torchvision fails: RuntimeError: operator torchvision::nms does not exist"
    assert found.mend == 'pip install --force-reinstall "torch>=2.14,<2.15" "torchvision>=0.29,<0.29.2"'


@pytest.mark.parametrize(
    ("python", "status"), [((3, 10), "broken"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "broken")]
)
def test_python(python, status):
    findings = check({"torch": "2.14.1"}, python=python)
    assert findings[0].status == status
    assert (findings[0].mend is None) == (status == "ok")


# The child process ----------------------------------------------------------------------------------------------------


def test_the_probe_reports_imports_that_work_and_such_that_fail():
    probed = run_probe(["json", "modelwright_that_is_not_there"])
    assert probed.errors == {
        "modelwright_that_is_not_there": "ModuleNotFoundError: No module named 'modelwright_that_is_not_there'"
    }


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "modelwright_deadly.py").write_text(
        "import os, sys\nprint('the last words', file=sys.stderr, flush=True)\nos._exit(3)\n", encoding="utf-8"
    )
    (tmp_path / "modelwright_endless.py").write_text("import time\ntime.sleep(60)\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.usefixtures("deadly")
def test_an_import_that_takes_the_interpreter_down_is_a_finding():
    probed = run_probe(["modelwright_deadly"])
    assert probed.errors == {"modelwright_deadly": "the interpreter ended with 3: the last words"}


@pytest.mark.usefixtures("deadly")
def test_an_import_that_never_ends_is_a_finding():
    probed = run_probe(["modelwright_endless"], timeout=0.5)
    assert probed.errors == {"modelwright_endless": "no answer within 0.5 s"}


def test_versions_carry_the_tag_of_the_build(tmp_path: Path):
    (tmp_path / "version.py").write_text(
        "from x import y\n__version__ = '2.14.1+cu130'\ncuda = '13.0'\n", encoding="utf-8"
    )
    assert tagged_version(tmp_path / "version.py") == "2.14.1+cu130"
    assert tagged_version(tmp_path / "absent.py") is None


def test_this_installation_is_whole():
    versions = installed_versions()
    assert "torch" in versions
    assert broken(check(versions, probe=run_probe, python=sys.version_info[:2])) == []


# Plugins and devices --------------------------------------------------------------------------------------------------


def entry(name: str, *requires: str) -> TaskEntry:
    return TaskEntry(name, "a task", config=TaskConfig, build=lambda config: None, extra="zoo", requires=requires)


def test_plugins_are_listed_with_their_tasks_and_what_they_miss():
    zoo = Provider("zoo", "modelwright-zoo", "1.2")
    catalog = Catalog(
        tasks={"lion-taming": entry("lion-taming"), "flea-circus": entry("flea-circus", "json", "no_fleas_here")},
        providers={"lion-taming": zoo, "flea-circus": zoo},
        plugins=[zoo],
        offers={zoo: {"modelwright_tasks": ("lion-taming", "flea-circus"), "modelwright_observers": ()}},
    )
    listed, missing = (f for f in check({"torch": "2.14.1"}, catalog=catalog) if f.what == "plugin zoo")
    offered = "modelwright_tasks (lion-taming, flea-circus), modelwright_observers (nothing)"
    assert listed.detail == f"modelwright-zoo 1.2: {offered}"
    assert missing.status == "warning"
    assert "no_fleas_here" in missing.detail
    assert missing.mend == 'pip install "modelwright-zoo[zoo]"'


def test_a_plugin_that_failed_is_broken_and_told_with_its_reason():
    failure = PluginFailure("lame", "modelwright-lame", "ImportError: no legs", "0.3")
    (found,) = broken(check({"torch": "2.14.1"}, catalog=Catalog(failures=[failure])))
    assert found.detail == "modelwright-lame 0.3 could not be loaded: ImportError: no legs"
    assert found.mend == failure.mend


WHOLE = """
from modelwright.config import TaskConfig
from modelwright.hookspecs import ObserverEntry, TaskEntry, hookimpl

@hookimpl
def modelwright_tasks():
    yield TaskEntry("seal-juggling", "keeps balls up", config=TaskConfig, build=lambda config: None)

@hookimpl
def modelwright_observers():
    yield ObserverEntry("applause", "claps", build=lambda folder: lambda event: None)
"""
LAME = """
from modelwright.hookspecs import hookimpl

@hookimpl
def modelwright_tasks():
    yield "seal-juggling"
"""


def test_what_is_installed_is_listed_with_version_hooks_and_reasons(tmp_path, monkeypatch):
    install(tmp_path / "site", "seals", WHOLE, version="2.5")
    install(tmp_path / "site", "lame", LAME, version="0.3")
    monkeypatch.syspath_prepend(tmp_path / "site")
    found = {finding.what: finding for finding in check({"torch": "2.14.1"}, catalog=discover())}
    assert found["plugin seals"] == Finding(
        "ok",
        "plugin seals",
        "modelwright-seals 2.5: modelwright_tasks (seal-juggling), modelwright_observers (applause)",
    )
    assert found["observers"].detail == "applause, tensorboard"
    assert found["compressors"].detail == "distill, prune, quantize"
    assert found["plugin lame"].status == "broken"
    assert found["plugin lame"].detail == (
        "modelwright-lame 0.3 could not be loaded: modelwright_tasks must yield TaskEntry records, not str"
    )
    assert "pip install --upgrade modelwright-lame" in (found["plugin lame"].mend or "")


def test_two_plugins_with_one_task_name_are_both_named():
    catalog = Catalog(conflicts={"toy": (Provider("a", "modelwright-a"), Provider("b", "modelwright-b"))})
    (found,) = broken(check({"torch": "2.14.1"}, catalog=catalog))
    assert found.what == "task toy"
    assert found.detail == "is offered by modelwright-a and modelwright-b"
    assert found.mend == "pip uninstall modelwright-a or modelwright-b"


def test_observers_are_listed_with_what_they_miss():
    def build(folder):
        raise NotImplementedError

    claque = {"applause": ObserverEntry("applause", "claps", build=build, requires=("json", "no_hands_here"))}
    listed, missing = (
        f for f in check({"torch": "2.14.1"}, catalog=Catalog(observers=claque)) if f.what == "observers"
    )
    assert (listed.status, listed.detail) == ("ok", "applause")
    assert (missing.status, missing.mend) == ("warning", "pip install no_hands_here")


def test_a_runtime_that_an_extra_brings_is_named_and_no_fault():
    def runtime(name, **further):
        return ExporterEntry(name, "runs", write=lambda export, target: "", open=Graph, **further)

    entries = [
        runtime("here", requires=("json",)),
        runtime("extra", requires=("no_beads_here",), extra="beads"),
        runtime("lame", requires=("no_legs_here",)),
    ]
    catalog = Catalog(
        exporters={each.name: each for each in entries},
        offers={Provider("abacus", "modelwright-abacus"): {"modelwright_exporters": ("here", "extra", "lame")}},
    )
    listed, extra, lame = (f for f in check({"torch": "2.14.1"}, catalog=catalog) if f.what == "runtimes")
    assert (listed.status, listed.detail) == ("ok", "here")
    assert (extra.status, extra.mend) == ("ok", None)
    assert extra.detail == 'extra is not installed; to have it: pip install "modelwright-abacus[beads]"'
    assert (lame.status, lame.mend) == ("warning", "pip install no_legs_here")


def test_devices():
    def probe(modules):
        return Probe({}, gpus=[("Some GPU", 80 * 2**30)], threads=3)

    cpu, gpu = check({"torch": "2.14.1"}, probe=probe)[-2:]
    assert "cores, torch uses 3 threads" in cpu.detail
    assert gpu == Finding("ok", "GPU", "Some GPU, 80 GiB")
    assert check({"torch": "2.14.1"})[-1].detail == "none: models train on the CPU"


def test_a_gpu_that_torch_cannot_use_is_a_warning():
    def probe(modules):
        return Probe({}, warning="The NVIDIA driver on your system is too old")

    found = check({"torch": "2.14.1"}, probe=probe)[-1]
    assert found.status == "warning"
    assert "too old" in found.detail
    assert found.mend is not None
