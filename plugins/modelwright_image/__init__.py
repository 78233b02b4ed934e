"""Image classification for modelwright. Cheap to import: torch and Pillow come in when a task is built."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from modelwright.hookspecs import TaskEntry, hookimpl
from modelwright_image.config import ImageConfig

if TYPE_CHECKING:
    from modelwright_image.task import ImageTask


def build(config: ImageConfig) -> ImageTask:
    """The task; imports torch."""
    from modelwright_image.task import ImageTask

    return ImageTask(config)


@hookimpl
def modelwright_tasks() -> Iterator[TaskEntry]:
    """Image classification."""
    yield TaskEntry(
        "image-classification",
        "say which class a picture belongs to",
        config=ImageConfig,
        build=build,
        extra="image",
        requires=("torchvision", "PIL", "sklearn"),
        recipes=Path(__file__).parent / "recipes",
    )
