"""Every error that modelwright raises on purpose. Knows no torch and no task.

The whole tree::

    ModelwrightError            anything a user can cause; its text is one line: who, what, what to do next
    ├── ConfigError             a setting that is unknown, of the wrong type or impossible
    ├── PluginError             something about installed plugins
    │   ├── UnknownTask         no plugin offers the task that was asked for
    │   ├── DuplicateTask       two distributions offer one task name
    │   └── BrokenPlugin        the plugin that offers the task could not be loaded
    ├── DataError               samples that are missing, broken or contradictory
    ├── RunError                a run folder that is missing, in the way or incomplete
    │   └── CheckpointError     a checkpoint that is missing, damaged or of another model
    ├── TrainingError           training that cannot go on (loss not finite, out of memory)
    ├── EvaluationError         predictions that do not fit the truths
    ├── CompressionError        a stage that cannot do what a recipe asks, a target out of reach
    ├── ExportError             a model that has no graph, or a graph that disagrees with its model
    ├── BundleError             a bundle that is missing, tampered with or of a plugin that is not installed
    └── Interrupted             stopped by the user; a checkpoint is on disk

The command line prints the text of a ModelwrightError and exits with 1 (Interrupted: 130).
Anything else is a defect of ours or of a plugin and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ModelwrightError(Exception):
    """Base of all errors that a user can cause. ``str(error)`` is one line."""


class ConfigError(ModelwrightError):
    """A setting is unknown, has the wrong type or contradicts another."""


class PluginError(ModelwrightError):
    """Something is wrong with an installed plugin."""


class UnknownTask(PluginError):
    """No plugin offers the task that was asked for."""


class DuplicateTask(PluginError):
    """Two distributions offer a task of the same name."""


class BrokenPlugin(PluginError):
    """The plugin that should offer a task could not be loaded."""


class DataError(ModelwrightError):
    """Samples are missing, broken or contradictory."""


class RunError(ModelwrightError):
    """A run folder is missing, already there, or incomplete."""


class CheckpointError(RunError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class TrainingError(ModelwrightError):
    """Training cannot go on."""


class EvaluationError(ModelwrightError):
    """Predictions do not fit the truths."""


class CompressionError(ModelwrightError):
    """A stage cannot do what a recipe asks, or a target is out of reach."""


class ExportError(ModelwrightError):
    """A model cannot be written as a graph, or the graph disagrees with it."""


class BundleError(ModelwrightError):
    """A bundle is missing, was tampered with, or belongs to a plugin that is not installed."""


class Interrupted(ModelwrightError):
    """The user stopped the run; a checkpoint was saved."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the nearest known name, or an empty string.

    >>> did_you_mean("epoch", ["epochs", "steps"])
    " (did you mean 'epochs'?)"
    """
    spelt = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), list(spelt), n=1, cutoff=0.6)
    return f" (did you mean '{spelt[near[0]]}'?)" if near else ""
