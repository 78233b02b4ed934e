"""Which columns a model sees, as what, and what becomes of the others. Knows settings and cells; no files."""

# pyarrow has no annotations.
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa

from modelwright.errors import ConfigError, DataError, did_you_mean
from modelwright_risk.cells import numbers, texts
from modelwright_risk.codec import OUTPUTS
from modelwright_risk.config import RiskData
from modelwright_risk.kinds import MOSTLY, Look, band_edges, band_names, levels_of, look
from modelwright_risk.known import Known
from modelwright_risk.schema import Feature, Schema, names_of
from modelwright_risk.tables import Part

FEW_GROUPS = 20
"""A protected column of numbers with more values is cut into bands."""
SHOWN = 5


@dataclass
class Chosen:
    """What columns are taken for; levels of categories are not known yet.

    Attributes:
        features: in the order of the table.
        identifiers: columns that tell rows apart.
        left_out: reason -> columns that the model does not see.
        found: identifiers that were found, not named.
        mixed: categories some of whose cells are numbers, with their share.
    """

    features: list[Feature] = field(default_factory=list[Feature])
    identifiers: list[str] = field(default_factory=list[str])
    left_out: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    found: list[str] = field(default_factory=list[str])
    mixed: dict[str, float] = field(default_factory=dict[str, float])

    def notes(self) -> list[str]:
        """What a user should know of it."""
        told: list[str] = []
        if self.found:
            told.append(
                f"{some(self.found)} tells rows apart: passed through to the predictions, not seen by the model"
            )
        told += [f"{reason}, not seen by the model: {some(names)}" for reason, names in self.left_out.items()]
        told += [
            f"{name} is a category, though {share:.0%} of its cells are numbers: if it is none, use data.numeric"
            for name, share in self.mixed.items()
        ]
        return told


def need_target(data: RiskData, names: Sequence[str]) -> str:
    """The target column.

    Raises:
        ConfigError: none is named.
        DataError: there is no such column.
    """
    if data.target is None:
        raise ConfigError(f"data.target is missing: name the column that says how it ended; {_has(names)}")
    if data.target not in names:
        raise DataError(
            f"there is no column {data.target}{did_you_mean(data.target, names)}: check data.target; {_has(names)}"
        )
    return data.target


def check_names(data: RiskData, monotone: Iterable[str], names: Sequence[str]) -> None:
    """Refuses settings that name columns which are not there, or one column as two things.

    Raises:
        ConfigError: as said.
    """
    lists: dict[str, list[str]] = {
        "data.numeric": data.numeric,
        "data.categorical": data.categorical,
        "data.ignored": data.ignored,
        "data.identifiers": data.identifiers,
    }
    single = {"data.weight": data.weight, "data.time": data.time, "data.group": data.group}
    named = {**lists, **{key: [name] for key, name in single.items() if name is not None}}
    named |= {"data.protected": data.protected, "data.special": [name for name in data.special if name != "*"]}
    named["model.monotone"] = list(monotone)
    for key, columns in named.items():
        for name in columns:
            if name not in names:
                raise ConfigError(f"{key} names {name}, which is no column{did_you_mean(name, names)}; {_has(names)}")
            if name == data.target:
                raise ConfigError(f"{key} names {name}, which is the target: take it out")
    taken = Counter(name for columns in lists.values() for name in set(columns))
    if twice := [name for name, count in taken.items() if count > 1]:
        keys = " and ".join(key for key, columns in lists.items() if twice[0] in columns)
        raise ConfigError(f"{twice[0]} is in {keys}: keep one")
    for name in data.identifiers:
        if name in OUTPUTS:
            raise ConfigError(f"the identifier {name} has the name of a prediction: rename the column")


def choose(data: RiskData, table: pa.Table, parts: Sequence[tuple[Part, np.ndarray]]) -> Chosen:
    """What each column is taken for.

    Args:
        table: all rows.
        parts: the files, each with its rows in `table`; a column must be of one kind in all.

    Raises:
        ConfigError: special codes of a column that holds no numbers.
        DataError: text in a column of numbers, or a column whose kind changes between files.
    """
    chosen = Chosen()
    roles = {data.target, data.weight, data.group}
    for name in table.column_names:
        column = table[name]
        if name in data.identifiers:
            chosen.identifiers.append(name)
        elif name in roles or name in data.ignored:
            continue
        elif name in data.numeric or name in data.categorical:
            _add(chosen, data, name, "numeric" if name in data.numeric else "categorical")
        elif name == data.time or (name in data.protected and not data.protected_as_features):
            continue
        else:
            if len(parts) > 1:
                _same_kind(name, column, parts)
            _place(chosen, data, name, look(name, column))
    for name in data.special:
        if name in {feature.name for feature in chosen.features if feature.kind == "categorical"}:
            raise ConfigError(f"data.special names {name}, which is no column of numbers: list it in data.numeric")
    if not chosen.features:
        raise DataError("no column is left that a model could learn from: check data.ignored and data.identifiers")
    return chosen


def _place(chosen: Chosen, data: RiskData, name: str, seen: Look) -> None:
    if seen.kind in ("numeric", "categorical"):
        _add(chosen, data, name, seen.kind)
        if seen.share:
            chosen.mixed[name] = seen.share
    elif seen.kind == "identifier":
        chosen.identifiers.append(name)
        chosen.found.append(name)
    else:
        reasons = {"date": "dates", "empty": "no value at all", "other": "neither numbers nor text"}
        chosen.left_out.setdefault(reasons[seen.kind], []).append(name)


def _add(chosen: Chosen, data: RiskData, name: str, kind: Literal["numeric", "categorical"]) -> None:
    special: tuple[float, ...] = ()
    if kind == "numeric":
        special = tuple(sorted({*data.special.get(name, []), *data.special.get("*", [])}))
    chosen.features.append(Feature(name, kind, special=special))


def _same_kind(name: str, column: pa.ChunkedArray, parts: Sequence[tuple[Part, np.ndarray]]) -> None:
    """Numbers in one file and text in another are a mistake in one of them."""
    first: dict[bool, Part] = {}
    for part, _ in parts:
        own = part.table[name]
        values = numbers(texts(own).dictionary)
        if len(values) == 0 or np.isnan(values).all():
            continue
        told = bool(np.mean(np.isfinite(values)) >= MOSTLY)
        first.setdefault(told, part)
        if len(first) == 2:
            raise DataError(
                f"column {name} holds numbers in {first[True].label} and text in {first[False].label}: mend one, or "
                "list it in data.categorical"
            )


def with_levels(features: Sequence[Feature], table: pa.Table, rows: np.ndarray, monotone: Mapping[str, str]) -> Schema:
    """The schema, with the levels that categories have among some rows.

    Raises:
        ConfigError: a monotone feature that holds no numbers.
    """
    kinds = {feature.name: feature.kind for feature in features}
    for name in monotone:
        if kinds.get(name) != "numeric":
            raise ConfigError(f"model.monotone names {name}, which is no numeric feature: take it out")
    return Schema(
        tuple(
            Feature(each.name, each.kind, levels=levels_of(table[each.name], rows))
            if each.kind == "categorical"
            else Feature(each.name, each.kind, special=each.special, monotone=_direction(monotone.get(each.name)))
            for each in features
        )
    )


def _direction(told: str | None) -> Literal[-1, 0, 1]:
    return 1 if told == "up" else -1 if told == "down" else 0


def groups_of(
    names: Sequence[str], table: pa.Table, rows: np.ndarray, *, categorical: Sequence[str]
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[float, ...]]]:
    """The groups of protected columns among some rows, and where numbers are cut into bands."""
    groups: dict[str, tuple[str, ...]] = {}
    edges: dict[str, tuple[float, ...]] = {}
    for name in names:
        seen = look("", table[name])
        values = numbers(table[name]) if seen.kind == "numeric" and name not in categorical else None
        if values is not None and len(np.unique(values[rows])) > FEW_GROUPS:
            edges[name] = tuple(band_edges(values[rows]))
            groups[name] = tuple(band_names(edges[name]))
        else:
            groups[name] = levels_of(table[name], rows)
    return groups, edges


def about(known: Known, chosen: Chosen, dropped: Sequence[str], monotone: Iterable[str]) -> list[str]:
    """What a user should know of the columns.

    Args:
        dropped: columns that have one value throughout.

    Raises:
        ConfigError: a monotone feature among them.
        DataError: no other column is left.
    """
    if not known.schema.features:
        raise DataError("every column has one value throughout: there is nothing to learn from; check data.path")
    if gone := sorted(set(dropped) & set(monotone)):
        raise ConfigError(f"model.monotone names {gone[0]}, which has one value throughout: take it out")
    kinds = {"numeric": names_of(known.schema.numeric), "categories": names_of(known.schema.categorical)}
    told = "; ".join(f"{len(names)} {kind} ({some(names)})" for kind, names in kinds.items() if names)
    notes = [f"target {known.target}: {known.bad} is bad, {known.good} good; features: {told}", *chosen.notes()]
    if dropped:
        notes.append(f"one value throughout, not seen by the model: {some(dropped)}")
    return notes + [f"{name} is compared by group: {some(levels)}" for name, levels in known.protected.items()]


def some(names: Sequence[str]) -> str:
    """The first few of some names."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _has(names: Sequence[str]) -> str:
    return f"there are {some(names)}"
