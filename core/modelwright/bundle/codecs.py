"""A codec as JSON values, and back. Knows which packages may be imported for that; knows no bundle and no torch.

A bundle may come from a stranger: what it names is only imported where it belongs to modelwright or to an installed
plugin, and only used where it is a codec.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any, Protocol, TypeVar, cast

from modelwright.codec import Codec
from modelwright.errors import BundleError, ExportError

T = TypeVar("T")
GROUP = "modelwright"
"""Of entry points; also the one package that needs none."""


class NamesItsModule(Protocol):
    """What is needed of an entry point (importlib.metadata.EntryPoint, or a stand-in)."""

    @property
    def value(self) -> str: ...


def describe(codec: Codec) -> dict[str, Any]:
    """A codec as JSON values: ``{"codec": "module:Class", "settings": {...}}``.

    Raises:
        ExportError: its class is not at the top of a module, or its settings are no JSON values.
    """
    kind = type(codec)
    name = f"{kind.__module__}:{kind.__qualname__}"
    if "<locals>" in name:
        raise ExportError(f"the codec {name} is defined inside a function: put it at the top of its module")
    try:
        settings = json.loads(json.dumps(codec.settings(), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"the settings of {name} are no JSON values ({error}): use plain values in its fields"
        ) from error
    return {"codec": name, "settings": settings}


def restore(record: Mapping[str, Any], *, install: str = "", plugins: Iterable[NamesItsModule] | None = None) -> Codec:
    """The codec that `describe` described.

    Args:
        install: what pip is told to install where the codec's package is missing.
        plugins: entry points whose packages may be imported; those of the group ``modelwright`` when left out.

    Raises:
        BundleError: its package is not installed as a plugin, lacks something, or what is named is no codec.
    """
    name, settings = record.get("codec"), record.get("settings")
    if not isinstance(name, str) or not isinstance(settings, Mapping):
        raise BundleError("codec.json names no codec: export the bundle again")
    found: Any = imported(name, Codec, what="codec", install=install, plugins=plugins)
    try:
        return found(**_fitting(found, cast("Mapping[str, Any]", settings)))
    except TypeError as error:
        raise BundleError(f"the codec {name} does not take its settings ({error}): export the bundle again") from error


def imported(
    name: str, base: type[T], *, what: str, install: str = "", plugins: Iterable[NamesItsModule] | None = None
) -> type[T]:
    """The class of that name (``module:Class``), where it may be imported and is of that kind.

    Args:
        base: what it has to be a subclass of.
        what: the same in a word.
        install, plugins: as for `restore`.

    Raises:
        BundleError: its package is not installed as a plugin or lacks something, or it is of another kind.
    """
    module, _, path = name.partition(":")
    package = module.partition(".")[0]
    command = f'; install it: pip install "{install}"' if install else ""
    points = entry_points(group=GROUP) if plugins is None else plugins
    if package not in {GROUP, *(point.value.partition(":")[0].partition(".")[0] for point in points)}:
        raise BundleError(f"the {what} {name} belongs to '{package}', which is no installed plugin{command}")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except ImportError as error:
        raise BundleError(f"the {what} {name} could not be loaded: {error}{command}") from error
    except AttributeError as error:
        raise BundleError(
            f"there is no {what} {name}: the bundle is of another version of its plugin{command}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise BundleError(f"{name} is no {what}: the bundle is damaged, or not to be trusted")
    return found


def _fitting(kind: type[Codec], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with tuples where JSON has lists, as frozen dataclasses hold them; a field declared a list stays one."""
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    lists = {field.name for field in fields if str(field.type).removeprefix("typing.").lower().startswith("list")}
    return {name: value if name in lists else _tuples(value) for name, value in settings.items()}


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(each) for each in cast("list[Any]", value))
    if isinstance(value, dict):
        return {name: _tuples(each) for name, each in cast("dict[str, Any]", value).items()}
    return value
