"""Discovery: entry points -> Catalog. Knows how plugins are found and set apart; imports no torch and names no plugin.

Each entry point is taken all or nothing: load, register, check the hooks' names, collect the records. Whatever fails is
unregistered and kept as a `PluginFailure`; the others stay usable.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import Distribution, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeVar, cast

import pluggy

from modelwright import hookspecs
from modelwright.compression.stages import StageConfig
from modelwright.config import TaskConfig, build_config, nest, read_yaml
from modelwright.errors import (
    BrokenPlugin,
    ConfigError,
    DuplicateTask,
    ModelwrightError,
    PluginError,
    UnknownTask,
    did_you_mean,
)
from modelwright.hookspecs import PROJECT, CompressorEntry, ExporterEntry, ObserverEntry, TaskEntry

E = TypeVar("E", ObserverEntry, CompressorEntry, ExporterEntry)
TASK_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class EntryPointLike(Protocol):
    """What discovery needs of an entry point (importlib.metadata.EntryPoint, or a stand-in)."""

    @property
    def name(self) -> str: ...
    def load(self) -> Any: ...


@dataclass(frozen=True)
class Provider:
    """Who offers something: the entry point and its distribution."""

    plugin: str
    distribution: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True)
class PluginFailure:
    """A plugin that could not be taken, and why."""

    plugin: str
    distribution: str
    error: str
    version: str = field(default="", compare=False)

    @property
    def mend(self) -> str:
        """What to do about it."""
        return f"mend or remove it: pip install --upgrade {self.distribution}, or pip uninstall {self.distribution}"


@dataclass
class Catalog:
    """What is installed: tasks, observers, compressors and exporters by name, who offers them, and what failed.

    Attributes:
        offers: each plugin's hooks, and the names of what it gives through each; the core's too.
    """

    tasks: dict[str, TaskEntry] = field(default_factory=dict[str, TaskEntry])
    observers: dict[str, ObserverEntry] = field(default_factory=dict[str, ObserverEntry])
    compressors: dict[str, CompressorEntry] = field(default_factory=dict[str, CompressorEntry])
    exporters: dict[str, ExporterEntry] = field(default_factory=dict[str, ExporterEntry])
    providers: dict[str, Provider] = field(default_factory=dict[str, Provider])
    plugins: list[Provider] = field(default_factory=list[Provider])
    failures: list[PluginFailure] = field(default_factory=list[PluginFailure])
    conflicts: dict[str, tuple[Provider, ...]] = field(default_factory=dict[str, tuple[Provider, ...]])
    offers: dict[Provider, Mapping[str, tuple[str, ...]]] = field(
        default_factory=dict[Provider, Mapping[str, tuple[str, ...]]]
    )

    def task(self, name: str) -> TaskEntry:
        """The task of that name, all its modules present.

        Raises:
            UnknownTask: nobody offers it.
            DuplicateTask: two distributions offer it.
            BrokenPlugin: the plugin that seems to offer it failed, or modules that it needs are missing.
        """
        if providers := self.conflicts.get(name):
            both = " and ".join(str(provider) for provider in providers)
            raise DuplicateTask(f"task '{name}' is offered by {both}; uninstall one of them")
        if name not in self.tasks:
            for failure in self.failures:
                # The entry that failed may well have been the one: its name is all that is known of it.
                if name in (failure.plugin, failure.distribution) or failure.plugin in re.split(r"[-_]", name):
                    raise BrokenPlugin(
                        f"task '{name}' may belong to plugin '{failure.plugin}' of {failure.distribution}, "
                        f"which could not be loaded: {failure.error}; {failure.mend}"
                    )
            installed = ", ".join(sorted(self.tasks)) or "none"
            near = did_you_mean(name, self.tasks)
            raise UnknownTask(f"no task '{name}' is installed{near}; installed: {installed}")
        entry = self.tasks[name]
        if missing := missing_modules(entry.requires):
            raise BrokenPlugin(
                f"{name} could not load: no module named {missing[0]}. Install it: {self.install_command(name)}"
            )
        return entry

    def install_command(self, name: str) -> str:
        """The command that installs what a task needs."""
        entry = self.tasks[name]
        extra = f"[{entry.extra}]" if entry.extra else ""
        return f'pip install "{self.providers[name].distribution}{extra}"'

    def observer(self, name: str) -> ObserverEntry:
        """The observer of that name, all its modules present.

        Raises:
            PluginError: nobody offers it, or modules that it needs are missing.
        """
        return _usable("observer", name, self.observers)

    def compressor(self, name: str) -> CompressorEntry:
        """The compressor of that name, all its modules present.

        Raises:
            PluginError: nobody offers it, or modules that it needs are missing.
        """
        return _usable("compressor", name, self.compressors)

    def exporter(self, name: str) -> ExporterEntry:
        """The exporter of that name, all its modules present.

        Raises:
            PluginError: nobody offers it, or modules that it needs are missing.
        """
        return _usable("runtime", name, self.exporters, install=self.pip_name)

    def pip_name(self, entry: ExporterEntry) -> str:
        """What pip is told to install for an exporter."""
        owners = (who for who, hooks in self.offers.items() if entry.name in hooks.get("modelwright_exporters", ()))
        distribution = next((owner.distribution for owner in owners), PROJECT)
        return f"{distribution}[{entry.extra}]" if entry.extra else distribution


def _usable(kind: str, name: str, offered: Mapping[str, E], install: Callable[[E], str] | None = None) -> E:
    if name not in offered:
        near = did_you_mean(name, offered)
        raise PluginError(f"no {kind} '{name}' is installed{near}; installed: {', '.join(sorted(offered)) or 'none'}")
    entry = offered[name]
    if missing := missing_modules(entry.requires):
        wanted = missing[0] if install is None else f'"{install(entry)}"'
        raise PluginError(f"{kind} '{name}' needs the module {missing[0]}: pip install {wanted}")
    return entry


def missing_modules(names: Iterable[str]) -> list[str]:
    """Those of `names` that cannot be found, looked up without importing them."""
    missing: list[str] = []
    for name in names:
        try:
            found = importlib.util.find_spec(name) is not None
        except (ImportError, ValueError):
            found = False
        if not found:
            missing.append(name)
    return missing


def discover(plugins: Iterable[EntryPointLike] | None = None) -> Catalog:
    """Everything that is installed, broken plugins set aside with their reasons.

    Args:
        plugins: entry points to use; those of the group ``modelwright`` when left out.
    """
    catalog = Catalog()
    _take(catalog, _CoreEntry(), Provider("core", PROJECT, ""))
    for point in entry_points(group=PROJECT) if plugins is None else plugins:
        _take(catalog, point, _provider(point))
    return catalog


def _provider(point: EntryPointLike) -> Provider:
    """Who an entry point belongs to; its own name where that cannot be told."""
    distribution = cast("Distribution | None", getattr(point, "dist", None))
    # A distribution that is only half uninstalled has no metadata; one Python then gives None, another raises.
    with contextlib.suppress(Exception):
        if distribution is not None and distribution.name:
            return Provider(point.name, distribution.name, distribution.version or "")
    return Provider(point.name, point.name)


def _take(catalog: Catalog, point: EntryPointLike, provider: Provider) -> None:
    """Adds what one entry point offers, or the reason why not."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        plugin = point.load()
        manager.register(plugin, name=point.name)
        _check_hooks(manager, plugin)
        tasks = [_checked_task(entry) for entry in _collect(manager.hook.modelwright_tasks())]
        observers = [_checked_observer(entry) for entry in _collect(manager.hook.modelwright_observers())]
        compressors = [_checked_compressor(entry) for entry in _collect(manager.hook.modelwright_compressors())]
        exporters = [_checked_exporter(entry) for entry in _collect(manager.hook.modelwright_exporters())]
    except BaseException as error:  # whatever a plugin throws at import (SystemExit too), the others must stay usable
        if isinstance(error, KeyboardInterrupt):
            raise
        catalog.failures.append(PluginFailure(provider.plugin, provider.distribution, _reason(error), provider.version))
        return
    hooks = {caller.name for caller in manager.get_hookcallers(plugin) or []}
    given: dict[str, Sequence[TaskEntry | ObserverEntry | CompressorEntry | ExporterEntry]] = {
        "modelwright_tasks": tasks,
        "modelwright_observers": observers,
        "modelwright_compressors": compressors,
        "modelwright_exporters": exporters,
    }
    catalog.offers[provider] = {hook: tuple(each.name for each in given[hook]) for hook in given if hook in hooks}
    if point.name != "core":
        catalog.plugins.append(provider)
    for entry in tasks:
        if entry.name in catalog.conflicts:
            catalog.conflicts[entry.name] = (*catalog.conflicts[entry.name], provider)
        elif entry.name in catalog.tasks:
            catalog.conflicts[entry.name] = (catalog.providers.pop(entry.name), provider)
            del catalog.tasks[entry.name]
        else:
            catalog.tasks[entry.name] = entry
            catalog.providers[entry.name] = provider
    for kind, entries, known in (
        ("observer", observers, catalog.observers),
        ("compressor", compressors, catalog.compressors),
        ("runtime", exporters, catalog.exporters),
    ):
        for entry in entries:
            if known.setdefault(entry.name, entry) is not entry:  # pyright: ignore[reportArgumentType]
                problem = f"{kind} '{entry.name}' is already offered by another plugin"
                failure = PluginFailure(provider.plugin, provider.distribution, problem, provider.version)
                catalog.failures.append(failure)


def _check_hooks(manager: pluggy.PluginManager, plugin: object) -> None:
    """Refuses hooks that do not exist, and plugins without any hook."""
    known = [name for name in vars(hookspecs) if name.startswith("modelwright_")]
    named = [name for name in dir(plugin) if name.startswith("modelwright_")]
    for name in named:
        if name not in known and not isinstance(getattr(plugin, name), ModuleType):
            raise PluginError(f"there is no hook '{name}'{did_you_mean(name, known)}")
        if name in known and not hasattr(getattr(plugin, name), f"{PROJECT}_impl"):
            raise PluginError(f"hook '{name}' is not marked: put @hookimpl above it")
    manager.check_pending()  # functions of other names that are marked for a hook that does not exist
    if not manager.get_hookcallers(plugin):
        raise PluginError(f"it offers none of the hooks {', '.join(known)}")


def _collect(results: Iterable[Iterable[Any]]) -> list[Any]:
    return [record for result in results for record in result]


def _checked_task(entry: Any) -> TaskEntry:
    if not isinstance(entry, TaskEntry):
        raise PluginError(f"modelwright_tasks must yield TaskEntry records, not {type(entry).__name__}")
    if not TASK_NAME.fullmatch(entry.name):
        raise PluginError(f"task name '{entry.name}' must be lowercase words joined by hyphens")
    if not (isinstance(entry.config, type) and issubclass(entry.config, TaskConfig)):
        raise PluginError(f"task '{entry.name}': config must be a subclass of modelwright.config.TaskConfig")
    return entry


def _checked_observer(entry: Any) -> ObserverEntry:
    if not isinstance(entry, ObserverEntry):
        raise PluginError(f"modelwright_observers must yield ObserverEntry records, not {type(entry).__name__}")
    return entry


def _checked_compressor(entry: Any) -> CompressorEntry:
    if not isinstance(entry, CompressorEntry):
        raise PluginError(f"modelwright_compressors must yield CompressorEntry records, not {type(entry).__name__}")
    if not (isinstance(entry.config, type) and issubclass(entry.config, StageConfig)):
        raise PluginError(f"compressor '{entry.name}': config must be a subclass of StageConfig")
    return entry


def _checked_exporter(entry: Any) -> ExporterEntry:
    if not isinstance(entry, ExporterEntry):
        raise PluginError(f"modelwright_exporters must yield ExporterEntry records, not {type(entry).__name__}")
    return entry


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ModelwrightError) else f"{type(error).__name__}: {text}"


class _CoreEntry:
    """The core registers what it offers itself through the same hooks."""

    name = "core"

    def load(self) -> Any:
        from modelwright import builtin

        return builtin


# Settings and recipes -------------------------------------------------------------------------------------------------


def recipes_of(entry: TaskEntry) -> Mapping[str, Path]:
    """A task's recipes: name -> YAML file."""
    if entry.recipes is None:
        return {}
    return {path.stem: path for path in sorted(entry.recipes.glob("*.yaml"))}


def settings_of(
    entry: TaskEntry,
    *,
    recipe: str | None = None,
    config: str | Path | Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
) -> TaskConfig:
    """The effective settings of a task: defaults, recipe, file, overrides, the later ones winning.

    Raises:
        ConfigError: an unknown recipe or setting, or an impossible value.
    """
    layers: list[Mapping[str, Any]] = []
    if recipe is not None:
        recipes = recipes_of(entry)
        if recipe not in recipes:
            near = did_you_mean(recipe, recipes)
            raise ConfigError(f"{entry.name} has no recipe '{recipe}'{near}; it has: {', '.join(recipes) or 'none'}")
        layers.append(read_yaml(recipes[recipe]))
    if config is not None:
        layers.append(config if isinstance(config, Mapping) else read_yaml(Path(config)))
    if isinstance(settings, Mapping):
        return build_config(entry.config, layers=[*layers, nest(settings)])
    return build_config(entry.config, layers=layers, overrides=settings)
