"""Compression recipes: a list of stages in YAML or Python. Knows what stages are called; knows no torch and no task.

::

    - stage: prune
      keep: 0.5
    - stage: distill
      train: {epochs: 5}
    - stage: quantize
      kind: static
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

from modelwright.compression.stages import StageConfig
from modelwright.config import build_config, load_yaml
from modelwright.errors import ConfigError, PluginError, did_you_mean
from modelwright.hookspecs import CompressorEntry, TaskEntry
from modelwright.plugins import Catalog, missing_modules

OWN = Path(__file__).parent / "recipes"
RECIPE_NAME = re.compile(r"[a-z0-9]+([-_.][a-z0-9]+)*")

Source: TypeAlias = "str | Path | Sequence[Mapping[str, Any]]"
"""A recipe's name, a YAML file, or its stages."""


@dataclass(frozen=True)
class RecipeStage:
    """One stage: what does it, and its settings."""

    compressor: CompressorEntry
    settings: StageConfig

    def as_json(self) -> dict[str, Any]:
        """JSON values, as they would be written in a recipe."""
        return {"stage": self.compressor.name, **self.settings.model_dump(mode="json")}


@dataclass(frozen=True)
class Recipe:
    """Stages in their order. `name` becomes part of the names of its variants."""

    name: str
    stages: tuple[RecipeStage, ...]


def recipes_for(entry: TaskEntry) -> Mapping[str, Path]:
    """The recipes that a task may use: name -> YAML file; the task's own stand before the core's."""
    folders = [OWN, *([entry.recipes / "compress"] if entry.recipes else [])]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def read_recipe(source: Source, *, entry: TaskEntry, catalog: Catalog, name: str | None = None) -> Recipe:
    """A recipe, checked.

    Args:
        source: where it comes from.
        name: for a list of stages; a file's is its stem.

    Raises:
        ConfigError: there is no such recipe, it is no list of stages, or a setting is unknown or impossible.
        PluginError: a stage that nobody offers, or modules that it needs are missing.
    """
    if isinstance(source, (str, Path)):
        path = _path(str(source), entry)
        stages, name = load_yaml(path), name or path.stem
    else:
        stages = [dict(stage) for stage in source]
    what = f"recipe '{name}'" if name else "the recipe"
    if not isinstance(stages, list) or not stages:
        raise ConfigError(f"{what} must be a list of stages, each with its settings: - stage: prune")
    name = name or "custom"
    if not RECIPE_NAME.fullmatch(name):
        raise ConfigError(f"the recipe's name '{name}' must be lowercase letters, numbers and hyphens: rename its file")
    return Recipe(name, tuple(_stage(each, what, catalog) for each in cast("list[Any]", stages)))


def _path(source: str, entry: TaskEntry) -> Path:
    known = recipes_for(entry)
    if source in known:
        return known[source]
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return path
    near = did_you_mean(source, known)
    raise ConfigError(f"there is no compression recipe '{source}'{near}; known: {', '.join(known)}, or give a file")


def _stage(given: Any, what: str, catalog: Catalog) -> RecipeStage:
    if not isinstance(given, Mapping) or "stage" not in given:
        raise ConfigError(f"{what}: each stage is written as settings with its name, - stage: prune; found {given!r}")
    settings = dict(cast("Mapping[str, Any]", given))
    compressor = catalog.compressor(str(settings.pop("stage")))
    try:
        config = build_config(compressor.config, layers=[settings])
    except ConfigError as error:
        raise ConfigError(f"{what}, stage {compressor.name}: {error}") from error
    needed = config.requires()
    if missing := missing_modules(needed):
        raise PluginError(
            f'{what}, stage {compressor.name} needs the module {missing[0]}: pip install "{needed[missing[0]]}"'
        )
    return RecipeStage(compressor, config)
