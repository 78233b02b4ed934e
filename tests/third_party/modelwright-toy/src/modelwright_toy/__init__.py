"""Tide forecasting for modelwright: a task, an observer, a stage, a runtime. Imports torch only when asked to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from modelwright import CompressorEntry, ExporterEntry, ObserverEntry, TaskEntry, hookimpl
from modelwright.events import EvaluationDone, Event, Observer, RunStarted
from modelwright_toy.settings import LullConfig, TideConfig

if TYPE_CHECKING:
    from modelwright.bundle.export import Export
    from modelwright.bundle.runtime import Graph
    from modelwright.compression.context import Made, Stage
    from modelwright_toy.task import TideTask


def build(config: TideConfig) -> TideTask:
    """The task; imports torch."""
    from modelwright_toy.task import TideTask

    return TideTask(config)


def build_diary(run_folder: Path) -> Observer:
    """Writes a line of diary.txt for each start and each evaluation."""

    def write(event: Event) -> None:
        line = ""
        if isinstance(event, RunStarted):
            line = f"{event.task}: {event.steps} steps"
        elif isinstance(event, EvaluationDone):
            line = f"step {event.step}: {event.metrics['error']:.3f} m off"
        if line:
            with (run_folder / "diary.txt").open("a", encoding="utf-8") as diary:
                diary.write(f"{line}\n")

    return write


def lull(stage: Stage, settings: LullConfig) -> Made:
    """Sets the smallest weights to zero; imports torch."""
    import torch

    model = stage.torch_model("lull")
    with torch.no_grad():
        for weight in model.parameters():
            weight[weight.abs() < settings.below] = 0.0
    return stage.made(model, notes={"lulled_below": settings.below})


def write(export: Export, target: Path) -> str:
    """An ONNX graph; imports torch."""
    return export.write_onnx(target)


def open_tally(path: Path, *, threads: int | None = None) -> Graph:
    """The graph; imports no torch."""
    from modelwright_toy.graph import TallyGraph

    return TallyGraph(path, threads=threads)


@hookimpl
def modelwright_tasks() -> Iterator[TaskEntry]:
    """Tide forecasting."""
    yield TaskEntry(
        "tide-forecasting",
        "forecast the water level of the next twelve hours",
        config=TideConfig,
        build=build,
        requires=("torch",),
        recipes=Path(__file__).parent / "recipes",
    )


@hookimpl
def modelwright_observers() -> Iterator[ObserverEntry]:
    """A diary in plain words."""
    yield ObserverEntry("tide-diary", "keeps a diary of the run in diary.txt", build=build_diary)


@hookimpl
def modelwright_compressors() -> Iterator[CompressorEntry]:
    """Calms a network down."""
    yield CompressorEntry("tide-lull", "sets the smallest weights to zero", config=LullConfig, run=lull)


@hookimpl
def modelwright_exporters() -> Iterator[ExporterEntry]:
    """Counts the calls."""
    yield ExporterEntry("tide-tally", "counts the calls", write=write, open=open_tally, graph="tally.onnx")
