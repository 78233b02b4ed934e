"""The run folder: what lies where, and reading and writing it. Knows neither torch nor training.

::

    runs/digits/
        config.yaml         the full settings; `modelwright train TASK -c` repeats the run from it
        environment.json    task, command, versions, machine
        facts.json, facts.safetensors     what model and codec know of the training data
        metrics.jsonl       one line per event
        checkpoints/        see training/checkpoint.py
        tensorboard/
        results.json        metrics with intervals
        figures/, report.html
"""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from modelwright.config import TaskConfig, build_config, read_yaml, to_yaml
from modelwright.data import Facts
from modelwright.errors import RunError
from modelwright.files import write_json, write_text
from modelwright.hookspecs import TaskEntry
from modelwright.plugins import Catalog

CONFIG, ENVIRONMENT, RESULTS = "config.yaml", "environment.json", "results.json"


def create(folder: Path, *, overwrite: bool) -> Path | None:
    """Makes an empty run folder. A run that it replaces is put aside until `settle`.

    Returns:
        Where the replaced run lies meanwhile.

    Raises:
        RunError: something is there already (and `overwrite` is not set, or it is no run), or it cannot be made.
    """
    aside = None
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            if not overwrite:
                raise RunError(f"{folder} exists already; choose another --out, or add --overwrite")
            if not (folder / CONFIG).is_file():
                raise RunError(f"{folder} is no run folder and is not overwritten; choose another --out")
            if Path.cwd().is_relative_to(folder.resolve()):
                raise RunError(f"{folder} is the folder you are in; choose another --out, or go elsewhere first")
            aside = folder.with_name(f".{folder.name}.replaced")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made: {error.strerror}; choose another --out") from error
    return aside


def settle(folder: Path, aside: Path | None) -> None:
    """Ends what `create` began: a run that got as far as a checkpoint stays, and what it replaced goes.

    A run that failed before leaves nothing behind, and what it was to replace comes back.
    """
    if not (folder / "checkpoints").exists():
        shutil.rmtree(folder, ignore_errors=True)
        if aside is not None:
            aside.rename(folder)
    elif aside is not None:
        shutil.rmtree(aside, ignore_errors=True)


def default_folder(task: str) -> Path:
    """``runs/<task>-<time>``, free."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = Path("runs") / f"{task}-{stamp}"
    number = 2
    while folder.exists():
        folder = Path("runs") / f"{task}-{stamp}-{number}"
        number += 1
    return folder


def write_config(folder: Path, config: TaskConfig, *, task: str) -> None:
    """Writes the full settings."""
    head = f"{task}; repeat with: modelwright train {task} -c {CONFIG}"
    write_text(folder / CONFIG, to_yaml(config, head=head))


def read_task(folder: Path) -> str:
    """The name of the task that a run is of.

    Raises:
        RunError: it is no run folder.
    """
    if not folder.is_dir():
        raise RunError(f"there is no run folder {folder}; train makes one: modelwright train TASK --out {folder}")
    try:
        return str(json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))["task"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder} is no run folder: its {ENVIRONMENT} is missing or damaged") from error


def read_config(folder: Path, catalog: Catalog) -> tuple[str, TaskEntry, TaskConfig]:
    """A run's task and settings.

    Raises:
        RunError: it is no run folder.
        PluginError: its task is not installed.
        ConfigError: its settings are damaged.
    """
    task = read_task(folder)
    entry = catalog.task(task)
    return task, entry, build_config(entry.config, layers=[read_yaml(folder / CONFIG)])


def write_facts(folder: Path, facts: Facts) -> None:
    """Stores what is known of the training data."""
    # safetensors writes memory as it lies: a transposed array would come back in another order.
    arrays = {name: np.asarray(array, order="C") for name, array in facts.arrays.items()}
    save_file(arrays, folder / "facts.safetensors")
    write_json(folder / "facts.json", facts.values)


def read_facts(folder: Path) -> Facts | None:
    """What is known of the training data; None when training has not come that far.

    Raises:
        RunError: the files are damaged.
    """
    if not (folder / "facts.json").exists():
        return None
    try:
        values = cast("dict[str, Any]", json.loads((folder / "facts.json").read_text(encoding="utf-8")))
        return Facts(values, load_file(folder / "facts.safetensors"))
    except (OSError, ValueError, SafetensorError) as error:
        raise RunError(f"the facts in {folder} are damaged: {error}; train again") from error


def read_results(folder: Path) -> dict[str, Any]:
    """What is in results.json; empty when there is none yet.

    Raises:
        RunError: the file is damaged.
    """
    path = folder / RESULTS
    if not path.exists():
        return {}
    try:
        return cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}; make it again: modelwright evaluate {folder}") from error
