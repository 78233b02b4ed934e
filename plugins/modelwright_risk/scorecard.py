"""Writes a scorecard to a file. Knows files, runs and bundles; `card` knows what a scorecard is.

::

    python -m modelwright_risk.scorecard RUN_OR_BUNDLE --out card.xlsx
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from modelwright.errors import ConfigError, ModelwrightError, RunError
from modelwright.files import write_bytes
from modelwright_risk.card import Card, card_of

HEADER = ("feature", "bin", "share", "bad rate", "log-odds", "points", "rounded")
KINDS = (".csv", ".xlsx")


def as_csv(card: Card) -> bytes:
    """The lines, with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for line in card.lines:
        shares = ["" if each is None else f"{each:.6g}" for each in (line.share, line.bad_rate)]
        writer.writerow([line.feature, line.bin, *shares, f"{line.log_odds:.6f}", f"{line.points:.4f}", line.rounded])
    return text.getvalue().encode("utf-8")


def as_xlsx(card: Card) -> bytes:
    """A sheet of the lines, and one that says how to read them."""
    from openpyxl import Workbook
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
    from openpyxl.styles import Font
    from openpyxl.worksheet.worksheet import Worksheet

    book = Workbook()
    sheet = cast("Worksheet", book.active)
    sheet.title = "scorecard"
    sheet.append(HEADER)
    for number, line in enumerate(card.lines, start=2):
        sheet.append([None, None, line.share, line.bad_rate, line.log_odds, line.points, line.rounded])
        for column, text in enumerate((line.feature, line.bin), start=1):
            cell = sheet.cell(number, column, ILLEGAL_CHARACTERS_RE.sub("", text))
            cell.data_type = "s"  # a level that starts with "=" is no formula
        for column, form in enumerate(("0.0%", "0.00%", "0.0000", "0.00", "0"), start=3):
            sheet.cell(number, column).number_format = form
    for cell in sheet[1]:
        cell.font = Font(bold=True)
    for column, width in zip("ABCDEFG", (26, 30, 10, 10, 12, 12, 10), strict=True):
        sheet.column_dimensions[column].width = width
    sheet.freeze_panes = "A2"
    sheet.auto_filter.ref = f"A1:G{len(card.lines) + 1}"
    about = book.create_sheet("about")
    for text in words(card):
        about.append([text])
    about.column_dimensions["A"].width = 110
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def words(card: Card) -> list[str]:
    """How to read it."""
    scale = card.scale
    return [
        "Points of an applicant: those of the base, and of one bin of each feature. More points are safer.",
        f"{scale['base_points']:g} points: {scale['base_odds']:g} good for 1 bad; {scale['double']:g} more: twice.",
        f"An applicant with {card.cutoff:.2f} points or fewer is refused.",
        f"Rounded points differ from exact ones by at most {card.rounding:.2f} for an applicant.",
        f"Shares and bad rates are those of the {card.applicants:,} training rows; log-odds are those of default.",
    ]


def load(path: Path) -> Card:
    """The scorecard of a run or of a bundle.

    Shares and bad rates are counted where the training data can still be read.

    Raises:
        ModelwrightError: it is neither, it is of another task, or it has no scorecard.
    """
    from modelwright.bundle.runtime import is_bundle, read_manifest
    from modelwright.folder import read_task
    from modelwright.plugins import discover

    catalog = discover()
    bundle = is_bundle(path)
    name = read_manifest(path)["task"] if bundle else read_task(path)
    if name != "risk-scoring":
        raise RunError(f"{path} is of the task {name}: scorecards are made of risk-scoring")
    # torch comes in here: a mistake in the path is told before.
    from modelwright_risk.opening import open_bundle, open_run

    opened = open_bundle(path, catalog) if bundle else open_run(path, catalog)
    codec = opened.task.codec
    return card_of(
        opened.predict,
        opened.task.facts,
        calibrator=codec.calibrator,
        cutoff=codec.cutoff,
        scale=codec.scale,
        training=opened.training(),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; gives its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m modelwright_risk.scorecard", description="Write a scorecard's bins and points to a file."
    )
    parser.add_argument("path", metavar="RUN_OR_BUNDLE", type=Path, help="a run folder, or a bundle's")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="what is written: .csv or .xlsx")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that lies there")
    chosen = parser.parse_args(arguments)
    try:
        write(chosen.path, chosen.out, overwrite=chosen.overwrite)
    except ModelwrightError as error:
        print(f"modelwright: {error}", file=sys.stderr)
        return 1
    print(chosen.out)
    return 0


def write(path: Path, out: Path, *, overwrite: bool = False) -> None:
    """Writes the scorecard of a run or bundle.

    Raises:
        ConfigError: a file of another kind, or one that is there already.
        ModelwrightError: see `load`.
    """
    if out.suffix.lower() not in KINDS:
        raise ConfigError(f"--out {out}: a scorecard is written as {' or '.join(KINDS)}")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists already; choose another --out, or add --overwrite")
    card = load(path)
    write_bytes(out, as_csv(card) if out.suffix.lower() == ".csv" else as_xlsx(card))


if __name__ == "__main__":
    sys.exit(main())
