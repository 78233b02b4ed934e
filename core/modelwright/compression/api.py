"""`modelwright.compress`: a run and a recipe (or targets) -> variants with receipts. Knows the order of things only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.compression import variants
from modelwright.compression.recipe import Source, read_recipe
from modelwright.compression.targets import Targets
from modelwright.errors import CompressionError
from modelwright.events import Observer, Observers
from modelwright.files import write_json
from modelwright.folder import read_task
from modelwright.plugins import Catalog, discover
from modelwright.report.page import write_report

if TYPE_CHECKING:
    from modelwright.run import Run, Warn

CHOSEN = "chosen.json"


@dataclass(frozen=True)
class Compressed:
    """What came of compressing a run.

    Attributes:
        run_folder: the run's.
        names: of the variants, in the order in which they were made.
        chosen: the one to deploy: a recipe's last, or the best that meets all targets.
    """

    run_folder: Path
    names: list[str]
    chosen: str

    @property
    def report(self) -> Path:
        """The page to open."""
        return self.run_folder / "report.html"

    @property
    def receipts(self) -> list[dict[str, Any]]:
        """What was measured of each variant."""
        return [variants.find(self.run_folder, name).receipt for name in self.names]

    @property
    def receipt(self) -> dict[str, Any]:
        """What was measured of the chosen one."""
        return variants.find(self.run_folder, self.chosen).receipt


def compress(
    run: str | Path | Run,
    *,
    recipe: Source | None = None,
    max_drop: float | None = None,
    max_bytes: int | None = None,
    max_latency_ms: float | None = None,
    minutes: float = 20.0,
    overwrite: bool = False,
    catalog: Catalog | None = None,
    observer: Observer | None = None,
    warn: Warn | None = None,
) -> Compressed:
    """Makes a finished run's model smaller and faster, and measures what came of it.

    Args:
        run: a run folder.
        recipe: a recipe's name, a YAML file or a list of stages; `small` when neither it nor a target is given. With
            targets: the stages that the search changes.
        max_drop: largest loss of the objective, on validation.
        max_bytes: of the graph on disk.
        max_latency_ms: median time of one sample in ONNX Runtime, on this machine.
        minutes: that a search may take.
        overwrite: replace variants of the same names that were made with other settings.
        catalog, observer, warn: as in `modelwright.train`.

    Raises:
        ConfigError: the recipe is wrong.
        CompressionError: a stage cannot do what is asked, a target cannot be met, or nothing is left of what was
            learned; the variants that were made stay.
        Interrupted: the user stopped it; the same call goes on.
    """
    from modelwright import run as runs
    from modelwright.compression.pipeline import open_run

    where = run.folder if isinstance(run, runs.Run) else Path(run)
    catalog = catalog or discover()
    entry = catalog.task(read_task(where))
    targets = Targets(max_drop, max_bytes, max_latency_ms)
    chosen_recipe = read_recipe(recipe or ("search" if targets else "small"), entry=entry, catalog=catalog)
    warn = warn or runs.to_stderr
    told = Observers({} if observer is None else {"observer": observer}, warn=warn)
    work = open_run(where, catalog, observer=told, warn=warn)
    try:
        if targets:
            from modelwright.compression.search import search  # optuna takes a second

            found = search(work, chosen_recipe, targets, minutes=minutes, overwrite=overwrite)
            names, chosen, why = found.names, found.chosen, found.as_json()
        else:
            names = [variant.name for variant in work.run(chosen_recipe, overwrite=overwrite)]
            chosen, why = names[-1], {}
            work.refuse_chance(variants.find(where, chosen))
        _choose(where, chosen, why)
    finally:
        # Also where a stage failed: what was made so far is worth reading.
        if variants.finished(where):
            write_report(where)
    return Compressed(where, names, chosen)


def _choose(run_folder: Path, name: str, why: Mapping[str, Any]) -> None:
    write_json(run_folder / variants.FOLDER / CHOSEN, {"variant": name, **why})


def read_chosen(run_folder: Path) -> dict[str, Any]:
    """Which variant was chosen last, and what for; empty where none was."""
    try:
        return json.loads((run_folder / variants.FOLDER / CHOSEN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


__all__ = ["Compressed", "CompressionError", "compress", "read_chosen"]
