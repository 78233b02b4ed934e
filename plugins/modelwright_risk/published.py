"""German credit and Taiwan default as they were published: which file, which columns mean what. Reads no rows.

Statlog German Credit Data: H. Hofmann, UCI 1994. Default of credit card clients: I-C. Yeh, C. Lien, UCI 2009.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.errors import ConfigError, DataError
from modelwright_risk.files import Piece, find
from modelwright_risk.tables import Layout, layout_of, records_of

GERMAN = (
    "status",
    "duration",
    "credit_history",
    "purpose",
    "amount",
    "savings",
    "employment",
    "installment_rate",
    "personal_status_sex",
    "other_debtors",
    "residence_since",
    "property",
    "age",
    "other_installment_plans",
    "housing",
    "existing_credits",
    "job",
    "people_liable",
    "telephone",
    "foreign_worker",
    "class",
)
"""The attributes of german.doc, in their order."""
TAIWAN = "default payment next month"


@dataclass(frozen=True)
class Published:
    """A published set.

    Attributes:
        files: what it is called, without packing; the first that is there is taken.
        settings: what its columns mean; taken where the user says nothing.
        layout: of its file, from the layout that the file itself suggests.
    """

    files: tuple[str, ...]
    settings: Mapping[str, Any]
    layout: Callable[[Piece], Layout]


def _german(piece: Piece) -> Layout:
    """german.data has no line of names; german_credit.csv has."""
    if not Path(piece.label).name.startswith("german.data"):
        return layout_of(piece)
    with piece.open() as file:
        return Layout.of(file.read(1 << 16), piece.label, names=GERMAN)


def _taiwan(piece: Piece) -> Layout:
    """UCI's sheet has X1 .. X23, Y above the line of names."""
    layout = layout_of(piece)
    if layout.names[-1] == "Y" and "X1" in layout.names:
        found = next(records_of(piece, layout), (0, []))[1]
        if "LIMIT_BAL" not in found:
            raise DataError(f"{piece.label} has no line of names below X1, X2, ...: get it from UCI again")
        layout = dataclasses.replace(layout, names=tuple(found), skip=layout.skip + 1)
    names = tuple(TAIWAN if name.replace(".", " ") == TAIWAN else name for name in layout.names)
    return dataclasses.replace(layout, names=names)


SETS: Mapping[str, Published] = {
    "german_credit": Published(
        files=("german.data", "german_credit.csv"),
        settings={"target": "class", "bad": "2"},
        layout=_german,
    ),
    "taiwan_default": Published(
        files=("default_of_credit_card_clients.csv", "default of credit card clients.csv", "UCI_Credit_Card.csv"),
        settings={
            "target": TAIWAN,
            "bad": "1",
            "identifiers": ["ID"],
            "categorical": ["SEX", "EDUCATION", "MARRIAGE"],
        },
        layout=_taiwan,
    ),
}


def locate(name: str, path: str | list[str] | None) -> tuple[Piece, Layout]:
    """The file of a published set and how it is laid out.

    Args:
        path: the file, or a folder or archive that holds it.

    Raises:
        ConfigError: no path, or several.
        DataError: the file is not there.
    """
    chosen = SETS[name]
    if not isinstance(path, str):
        raise ConfigError(f"data.name={name} needs data.path: the folder that holds {chosen.files[0]}, or the file")
    pieces = [piece for pieces in find(path).values() for piece in pieces]
    if len(pieces) > 1 or Path(path).expanduser().is_dir():
        called = {_bare(piece): piece for piece in pieces}
        piece = next((called[file] for file in chosen.files if file in called), None)
        if piece is None:
            raise DataError(f"{path} holds no {' or '.join(chosen.files)}: get {name} from UCI, or name the file")
    else:
        piece = pieces[0]
    return piece, chosen.layout(piece)


def _bare(piece: Piece) -> str:
    name = Path(piece.member or piece.path.name).name
    for suffix in (".gz", ".xz", ".bz2", ".zip"):
        name = name.removesuffix(suffix)
    return name
