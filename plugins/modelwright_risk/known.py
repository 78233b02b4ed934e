"""What is known of a table once its training rows are: columns, outcomes, groups. Knows plain values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelwright.data import Facts
from modelwright_risk.schema import Schema


@dataclass(frozen=True)
class Known:
    """What fixes how rows are read.

    Attributes:
        schema: the columns that the model sees, with the levels of their categories.
        target: the column that says how it ended.
        bad: the value of the target that means default, as text.
        good: the other one.
        identifiers: columns that tell applicants apart.
        protected: by column, the names of its groups; a group's code is ``FIRST`` + its place.
        edges: of protected columns of numbers, where they are cut into bands.
    """

    schema: Schema
    target: str
    bad: str
    good: str
    identifiers: tuple[str, ...] = ()
    protected: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    edges: Mapping[str, tuple[float, ...]] = field(default_factory=dict[str, tuple[float, ...]])

    def as_json(self) -> dict[str, Any]:
        """JSON values; what `of` reads among the facts of a run."""
        return {
            "schema": self.schema.as_json(),
            "target": self.target,
            "bad": self.bad,
            "good": self.good,
            "identifiers": list(self.identifiers),
            "protected": {name: list(levels) for name, levels in self.protected.items()},
            "edges": {name: list(edges) for name, edges in self.edges.items()},
        }

    @staticmethod
    def of(facts: Facts) -> Known:
        """What the facts of a run say."""
        values = facts.values
        return Known(
            schema=Schema.from_json(values["schema"]),
            target=values["target"],
            bad=values["bad"],
            good=values["good"],
            identifiers=tuple(values["identifiers"]),
            protected={name: tuple(levels) for name, levels in values["protected"].items()},
            edges={name: tuple(edges) for name, edges in values["edges"].items()},
        )
