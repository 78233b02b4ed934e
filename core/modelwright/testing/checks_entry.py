"""Checks of what a plugin registers: cheap to import, well named, settings that hold. Knows no model."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

import yaml

from modelwright.config import build_config, to_yaml
from modelwright.errors import ConfigError
from modelwright.plugins import TASK_NAME
from modelwright.testing.kit import Failed
from modelwright.testing.subject import Subject


def check_entry_imports_no_torch(subject: Subject) -> None:
    """Importing the module that offers the task imports no torch: listing tasks must stay quick."""
    build = subject.entry.build
    while isinstance(build, functools.partial):
        build = build.func
    module = build.__module__
    code = f"import sys, {module}; print('torch' in sys.modules)"
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # a path that this process added counts too
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=found, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"the interpreter ended with {done.returncode}"])[-1]
        raise Failed(f"importing {module} alone fails: {last}")
    if done.stdout.split()[-1:] == ["True"]:
        raise Failed(f"importing {module} imports torch: import it inside `build`")


def check_name_is_valid(subject: Subject) -> None:
    """The task's name is lowercase words joined by hyphens, and its summary is one line."""
    if not TASK_NAME.fullmatch(subject.entry.name):
        raise Failed(f"'{subject.entry.name}' is not lowercase words joined by hyphens")
    if not subject.entry.summary.strip() or "\n" in subject.entry.summary:
        raise Failed("the summary must be one line of text")


def check_defaults_round_trip(subject: Subject) -> None:
    """The default settings can be made, written as YAML and read back unchanged."""
    defaults = build_config(subject.entry.config)
    again = build_config(subject.entry.config, layers=[yaml.safe_load(to_yaml(defaults))])
    if again != defaults:
        raise Failed("the defaults, written as YAML and read back, are other settings")


def check_unknown_setting_is_refused(subject: Subject) -> None:
    """A misspelt setting is refused and the nearest known one named, at the top and under `data` and `model`."""
    for layer, meant in (({"sead": 1}, "seed"), ({"data": {"pathh": "x"}}, "path"), ({"model": {"nme": "x"}}, "name")):
        try:
            build_config(subject.entry.config, layers=[layer])
        except ConfigError as error:
            if meant in str(error):
                continue
        raise Failed(
            f"{layer} is not refused with '{meant}' named: derive the settings from TaskConfig, DataConfig, ModelConfig"
        )
