"""modelwright: train, evaluate and shrink models of any domain. Public names only; each is imported when first used.

>>> import modelwright
>>> "train" in dir(modelwright)
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from modelwright.bundle.runtime import Bundle, load
    from modelwright.bundle.writing import export
    from modelwright.codec import Codec, Columns, Context, Sample
    from modelwright.compression.api import Compressed, compress
    from modelwright.config import DataConfig, ModelConfig, Settings, TaskConfig, TrainConfig
    from modelwright.evaluation.bootstrap import Interval
    from modelwright.hookspecs import CompressorEntry, ExporterEntry, ObserverEntry, TaskEntry, hookimpl
    from modelwright.plugins import Catalog, discover
    from modelwright.run import Run, evaluate, resume, train
    from modelwright.task import Batch, Datasets, Example, Facts, Input, Key, Keys, Losses, Objective, Size, Task

_HOMES = {
    "bundle.runtime": ("Bundle", "load"),
    "codec": ("Codec", "Columns", "Context", "Sample"),
    "bundle.writing": ("export",),
    "compression.api": ("Compressed", "compress"),
    "config": ("DataConfig", "ModelConfig", "Settings", "TaskConfig", "TrainConfig"),
    "evaluation.bootstrap": ("Interval",),
    "hookspecs": ("CompressorEntry", "ExporterEntry", "ObserverEntry", "TaskEntry", "hookimpl"),
    "plugins": ("Catalog", "discover"),
    "run": ("Run", "evaluate", "resume", "train"),
    "task": (
        *("Batch", "Datasets", "Example", "Facts", "Input", "Key", "Keys"),
        *("Losses", "Objective", "Size", "Task"),
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll] - imported lazily
    "Batch",
    "Bundle",
    "Catalog",
    "Codec",
    "Columns",
    "Compressed",
    "CompressorEntry",
    "Context",
    "DataConfig",
    "Datasets",
    "Example",
    "ExporterEntry",
    "Facts",
    "Input",
    "Interval",
    "Key",
    "Keys",
    "Losses",
    "ModelConfig",
    "Objective",
    "ObserverEntry",
    "Run",
    "Sample",
    "Settings",
    "Size",
    "Task",
    "TaskConfig",
    "TaskEntry",
    "TrainConfig",
    "compress",
    "discover",
    "evaluate",
    "export",
    "hookimpl",
    "load",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'modelwright' has no attribute '{name}'")
    return getattr(importlib.import_module(f"modelwright.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
