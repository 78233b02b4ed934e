"""Object detection for modelwright. Cheap to import: torch, Pillow and detectors come in when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from modelwright.hookspecs import TaskEntry, hookimpl
from modelwright_detection.config import DetectionConfig

if TYPE_CHECKING:
    from modelwright_detection.task import DetectionTask


def build(config: DetectionConfig) -> DetectionTask:
    """The task; imports torch."""
    from modelwright_detection.task import DetectionTask

    return DetectionTask(config)


@hookimpl
def modelwright_tasks() -> Iterator[TaskEntry]:
    """Object detection."""
    yield TaskEntry(
        "object-detection",
        "find objects in a picture: a box, a class and a score for each",
        config=DetectionConfig,
        build=build,
        extra="detection",
        requires=("torchvision", "PIL", "sklearn", "faster_coco_eval"),
        recipes=Path(__file__).parent / "recipes",
    )
