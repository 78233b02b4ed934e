"""The columns that a model sees, and what is known of each from the training data. Knows plain values only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

UNSEEN, MISSING, FIRST = 0, 1, 2
"""Codes of a category: never seen in training; no value; the first level that was seen."""


@dataclass(frozen=True)
class Feature:
    """One column.

    Attributes:
        name: of the column.
        kind: numeric, or categorical.
        levels: of a categorical one: the values seen in training, as text; level i has the code ``FIRST + i``.
        special: of a numeric one: codes that are no quantities (-9, 96, 98).
        monotone: of a numeric one: 1 where risk only rises with it, -1 where it only falls, 0 where nothing is known.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    levels: tuple[str, ...] = ()
    special: tuple[float, ...] = ()
    monotone: Literal[-1, 0, 1] = 0

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "levels": list(self.levels), "special": list(self.special)}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Feature:
        """The opposite."""
        return Feature(
            name=values["name"],
            kind=values["kind"],
            levels=tuple(values["levels"]),
            special=tuple(float(each) for each in values["special"]),
            monotone=values["monotone"],
        )


@dataclass(frozen=True)
class Schema:
    """Features in the order in which the model takes them: `numbers` first, then `codes`."""

    features: tuple[Feature, ...]

    @property
    def numeric(self) -> tuple[Feature, ...]:
        """The columns of the input `numbers`."""
        return tuple(each for each in self.features if each.kind == "numeric")

    @property
    def categorical(self) -> tuple[Feature, ...]:
        """The columns of the input `codes`."""
        return tuple(each for each in self.features if each.kind == "categorical")

    @property
    def ordered(self) -> tuple[Feature, ...]:
        """All of them: the numeric ones, then the categorical ones; the order of attributions."""
        return self.numeric + self.categorical

    def as_json(self) -> list[dict[str, Any]]:
        """JSON values."""
        return [each.as_json() for each in self.features]

    @staticmethod
    def from_json(values: Iterable[Mapping[str, Any]]) -> Schema:
        """The opposite."""
        return Schema(tuple(Feature.from_json(each) for each in values))


def names_of(features: Sequence[Feature]) -> list[str]:
    """Their names."""
    return [each.name for each in features]
