"""The hooks that plugins implement. Knows no torch; the records are cheap to make.

A plugin is a module named under the entry point group ``modelwright``::

    [project.entry-points.modelwright]
    toy = "modelwright_toy"
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from modelwright.bundle.export import Export
    from modelwright.bundle.runtime import Graph
    from modelwright.compression.context import Made, Stage
    from modelwright.compression.stages import StageConfig
    from modelwright.config import TaskConfig
    from modelwright.events import Observer
    from modelwright.task import Task

PROJECT = "modelwright"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True)
class TaskEntry:
    """A task that a plugin offers.

    Attributes:
        name: lowercase words joined by hyphens; unique among all installed plugins.
        summary: one line, for `modelwright tasks`.
        config: the settings; a subclass of `modelwright.config.TaskConfig`.
        build: settings -> task. Imports torch and everything heavy, here and not earlier.
        extra: the extra of the distribution that installs `requires`.
        requires: modules that `build` will import; looked up without importing them.
        recipes: a folder of YAML files, one per recipe; in its folder `compress` recipes of compression.
    """

    name: str
    summary: str
    config: type[TaskConfig]
    build: Callable[[Any], Task]
    extra: str = ""
    requires: tuple[str, ...] = ()
    recipes: Path | None = None


@dataclass(frozen=True)
class ObserverEntry:
    """Somebody who wants to be told of a run's events (a tracker).

    Attributes:
        name: as it is written under the setting `observers`.
        summary: one line, for `modelwright doctor`.
        build: run folder -> a callable that takes each event and returns nothing.
        requires: modules that `build` will import; looked up without importing them.
    """

    name: str
    summary: str
    build: Callable[[Path], Observer]
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class CompressorEntry:
    """A kind of stage that a compression recipe may name.

    Attributes:
        name: as it is written under `stage`; lowercase words joined by hyphens.
        summary: one line, for `modelwright doctor`.
        config: its settings; a subclass of `modelwright.compression.stages.StageConfig`.
        run: what the stage is given, and its settings -> what it made. Imports torch and everything heavy.
        requires: modules that `run` will import; looked up without importing them.
    """

    name: str
    summary: str
    config: type[StageConfig]
    run: Callable[[Stage, Any], Made]
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExporterEntry:
    """A runtime that graphs are written for.

    Attributes:
        name: as it is written under `runtime`; lowercase words joined by hyphens.
        summary: one line, for `modelwright doctor`.
        write: what is exported, and a file -> the name of what wrote it. Writes the file, and what belongs to it
            beside it; the core compares it with the model. Imports torch and everything heavy.
        open: ``(path, threads=None)`` -> the graph, ready to run: an instance of a class of its own at the top of a
            module, a subclass of `modelwright.bundle.runtime.Graph`. A bundle names that class. Imports no torch.
        graph: the name of the file that is opened.
        opens_onnx: whether `open` also takes an ONNX graph; receipts then time that too.
        requires: modules that `write` and `open` will import; looked up without importing them.
        extra: the extra of the distribution that installs `requires`.
    """

    name: str
    summary: str
    write: Callable[[Export, Path], str]
    open: Callable[..., Graph]
    graph: str = "model.onnx"
    opens_onnx: bool = False
    requires: tuple[str, ...] = ()
    extra: str = ""


@hookspec
def modelwright_tasks() -> Iterable[TaskEntry]:  # pyright: ignore[reportReturnType]
    """The tasks that this plugin offers.

    >>> from modelwright.config import TaskConfig
    >>> def build(config):  # imports torch when asked, not before
    ...     from modelwright.testing.toy import ToyTask
    ...     return ToyTask(config)
    >>> @hookimpl
    ... def modelwright_tasks():
    ...     yield TaskEntry("toy", "two blobs of points", config=TaskConfig, build=build)
    >>> [entry.name for entry in modelwright_tasks()]
    ['toy']
    """


@hookspec
def modelwright_observers() -> Iterable[ObserverEntry]:  # pyright: ignore[reportReturnType]
    """Observers that a run may name under its setting `observers`.

    >>> @hookimpl
    ... def modelwright_observers():
    ...     yield ObserverEntry("printer", "prints every event", build=lambda run_folder: print)
    >>> [entry.name for entry in modelwright_observers()]
    ['printer']
    """


@hookspec
def modelwright_compressors() -> Iterable[CompressorEntry]:  # pyright: ignore[reportReturnType]
    """Kinds of stages that a compression recipe may name under `stage`.

    >>> from modelwright.compression.stages import StageConfig
    >>> def halve(stage, settings):  # changes stage.model, which is the stage's own
    ...     return stage.made(stage.model.half().float())
    >>> @hookimpl
    ... def modelwright_compressors():
    ...     yield CompressorEntry("round", "weights as 16-bit numbers", config=StageConfig, run=halve)
    >>> [entry.name for entry in modelwright_compressors()]
    ['round']
    """


@hookspec
def modelwright_exporters() -> Iterable[ExporterEntry]:  # pyright: ignore[reportReturnType]
    """Runtimes that `modelwright export RUN --runtime NAME` may name.

    >>> def write(export, target):  # called when asked, not before
    ...     return export.write_onnx(target)
    >>> def read(path, *, threads=None):
    ...     from modelwright.bundle.runtime import Graph
    ...     return Graph(path, threads=1)
    >>> @hookimpl
    ... def modelwright_exporters():
    ...     yield ExporterEntry("one-thread", "ONNX Runtime, never more than one thread", write=write, open=read)
    >>> [entry.name for entry in modelwright_exporters()]
    ['one-thread']
    """
