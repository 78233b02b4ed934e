"""Writes a task's pictures into a run folder. Knows files; knows nothing of what the pictures show."""

# matplotlib leaves the types of its keyword arguments open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib import rc_context

from modelwright.errors import RunError
from modelwright.files import write_bytes, write_json
from modelwright.report.run_folder import FIGURES_FOLDER, FIGURES_INDEX, FigureEntry, SoundEntry, read_index

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

    from modelwright.task import Figure

LARGEST_SVG = 1_000_000  # bytes; beyond that, pixels are smaller and quicker to draw


def save_figures(figures: Iterable[Figure], run_folder: Path, *, split: str) -> None:
    """Write figures/<split>-<name>.svg (.png where an SVG would be over a megabyte) and their entries in the index.

    A figure's sounds lie beside it as <split>-<name>-0.wav and so on.

    The split's earlier figures are replaced; those of other splits stay.

    Raises:
        RunError: two figures have one name.
    """
    folder = run_folder / FIGURES_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    known = read_index(folder, [])
    entries: list[FigureEntry] = []
    for figure in figures:
        stem = re.sub(r"[^\w.-]+", "-", f"{split}-{figure.name}")
        if any(Path(entry.file).stem == stem for entry in entries):
            raise RunError(f"two figures of the {split} split are stored as {stem}: give each Figure a name of its own")
        suffix, content = render(figure.figure)
        write_bytes(folder / f"{stem}{suffix}", content)
        sounds: list[SoundEntry] = []
        for number, sound in enumerate(figure.sounds):
            sounds.append(SoundEntry(file=f"{stem}-{number}.wav", title=sound.title))
            write_bytes(folder / sounds[-1].file, sound.wav)
        about = {"title": figure.title, "caption": figure.caption, "split": split}
        entries.append(FigureEntry(file=f"{stem}{suffix}", sounds=sounds, **about))
    index = [entry for entry in known if entry.split != split] + entries
    write_json(folder / FIGURES_INDEX, [entry.model_dump() for entry in index])
    kept = {file for entry in index for file in entry.files}
    for file in [file for entry in known for file in entry.files]:
        if file not in kept and Path(file).name == file:
            (folder / file).unlink(missing_ok=True)


def render(figure: MatplotlibFigure) -> tuple[str, bytes]:
    """A figure as (".svg", its bytes), or as (".png", its bytes) where the SVG would be too large.

    The same figure gives the same bytes.
    """
    svg = io.BytesIO()
    with rc_context({"svg.hashsalt": "modelwright"}):
        figure.savefig(svg, format="svg", metadata={"Date": None}, bbox_inches="tight")
    if svg.tell() <= LARGEST_SVG:
        return ".svg", svg.getvalue()
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=160, bbox_inches="tight")
    return ".png", png.getvalue()
