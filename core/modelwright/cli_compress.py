"""The command `compress`: parsing and printing only."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelwright.errors import ConfigError
from modelwright.printing import console, table

if TYPE_CHECKING:
    from modelwright.compression.api import Compressed
    from modelwright.plugins import Catalog

_UNITS = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3}


def parse_bytes(text: str) -> int:
    """A size as people write it.

    >>> parse_bytes("500kB"), parse_bytes("1.5 MiB"), parse_bytes("42")
    (500000, 1572864, 42)

    Raises:
        ConfigError: it is no size.
    """
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?)\s*([A-Za-z]*)\s*", text)
    if found is None or found[2].lower() not in _UNITS:
        raise ConfigError(f"--max-bytes: '{text}' is no size; write 500kB, 2MB or 1.5MiB")
    return round(float(found[1]) * _UNITS[found[2].lower()])


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command()
    def compress(
        run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder.", show_default=False)],
        recipe: Annotated[
            str | None,
            typer.Option("--recipe", metavar="NAME|FILE", help="A compression recipe; small when no target is given."),
        ] = None,
        max_drop: Annotated[
            float | None, typer.Option(metavar="X", min=0, help="Largest loss of the main metric, on validation.")
        ] = None,
        max_bytes: Annotated[str | None, typer.Option(metavar="SIZE", help="Of the graph on disk: 500kB.")] = None,
        max_latency_ms: Annotated[
            float | None, typer.Option(metavar="X", min=0, help="Median time of one sample on this machine.")
        ] = None,
        minutes: Annotated[float, typer.Option(metavar="N", min=0.1, help="That a search with targets may take.")] = 20,
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
        overwrite: Annotated[
            bool, typer.Option("--overwrite", help="Replace variants made with other settings.")
        ] = False,
    ) -> None:
        """Make a run's model smaller and faster, and measure what came of it."""
        size = None if max_bytes is None else parse_bytes(max_bytes)
        from modelwright.folder import read_task

        read_task(run)  # a mistake is told before torch is imported, which takes seconds
        from modelwright.compression.api import compress as work
        from modelwright.observers import ConsoleProgress

        with ConsoleProgress(console(stderr=True)) as progress:
            found = work(
                run,
                recipe=recipe,
                max_drop=max_drop,
                max_bytes=size,
                max_latency_ms=max_latency_ms,
                minutes=minutes,
                overwrite=overwrite,
                observer=progress,
                warn=progress.say,
            )
        if as_json:
            import json

            print(json.dumps({"run": str(run), "chosen": found.chosen, "variants": found.receipts}))
            return
        print_receipts(found)
        print(f"export it: modelwright export {run} --variant {found.chosen}")


def finish(run_folder: Path, catalog: Catalog) -> None:
    """The end of a demo: the run's model compressed, where its task has a recipe `quick` for that, and exported."""
    from modelwright.bundle import writing
    from modelwright.compression.api import compress
    from modelwright.compression.recipe import recipes_for
    from modelwright.compression.variants import ORIGINAL
    from modelwright.folder import read_task
    from modelwright.observers import ConsoleProgress

    chosen = ORIGINAL
    with ConsoleProgress(console(stderr=True)) as progress:
        if "quick" in recipes_for(catalog.task(read_task(run_folder))):
            found = compress(run_folder, recipe="quick", catalog=catalog, observer=progress, warn=progress.say)
            print_receipts(found)
            chosen = found.chosen
        bundle = writing.export(run_folder, variant=chosen, catalog=catalog, warn=progress.say)
    print(f"bundle: {bundle}")
    print(f"try it: modelwright predict {bundle} FILES...")


def print_receipts(found: Compressed) -> None:
    """A row per variant, the verdicts of the chosen one, and where to go on."""
    from modelwright.report.compression import receipt_cells

    receipts = found.receipts
    if receipts:
        objective = receipts[0]["objective"]["metric"]
        rows = table("variant", objective, "drop", "bytes", "MACs", "batch 1", "batch 32")
        for each in receipts:
            cells = [f"{value} ({below})" if below else value for value, below in receipt_cells(each)]
            rows.add_row(each["variant"], *cells)
        console().print(rows)
        threads, processor = receipts[0]["threads"], receipts[0]["processor"]
        print(f"drop with its interval on {receipts[0]['split']}; median times; shares of the run's own model in torch")
        print(f"({threads} threads, {processor})")
    print(f"chosen: {found.chosen}")
    for said in found.receipt.get("verdict", ["the run's own model meets all targets"]):
        print(f"  {said}")
    print(f"report: {found.report}")
