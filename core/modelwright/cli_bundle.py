"""The commands of bundles: export, predict, benchmark. Parsing and printing only; only export imports torch."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelwright.codec import Format
from modelwright.errors import BundleError, ConfigError, did_you_mean
from modelwright.files import write_bytes, write_text
from modelwright.printing import console, table

if TYPE_CHECKING:
    from modelwright.bundle.predicting import Answer
    from modelwright.codec import Codec, Collection

BATCHES = (1, 32)
"""Batch sizes that `benchmark` times."""
SECONDS = 2.0
"""Spent on each of them."""
SHOWN = 4
"""Values of a record that a table has room for."""

BundleFolder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(export)
    app.command()(predict)
    app.command()(benchmark)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)],
    variant: Annotated[str, typer.Option("--variant", metavar="NAME", help="One of its variants.")] = "original",
    runtime: Annotated[
        str | None, typer.Option("--runtime", metavar="NAME", help="What will run it: onnxruntime, openvino.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The bundle's folder.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that lies there.")] = False,
) -> None:
    """Write a bundle of a run's model: a folder that predicts without torch."""
    from modelwright.folder import read_task

    read_task(run)  # a mistake is told before torch is imported, which takes seconds
    from modelwright.bundle import writing

    print(writing.export(run, variant=variant, runtime=runtime, out=out, overwrite=overwrite))


def predict(
    bundle: BundleFolder,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATHS...", help="Files, folders, patterns; - reads a list of paths from stdin."),
    ],
    form: Annotated[
        str, typer.Option("--format", metavar="NAME", help="table, jsonl, csv, or one of the task's own.")
    ] = "table",
    explain: Annotated[bool, typer.Option("--explain", help="Say why, too, where the task can.")] = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="PATH", help="Where it is written.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what lies there.")] = False,
) -> None:
    """Say what a bundle's model makes of files."""
    from modelwright.bundle.predicting import answers
    from modelwright.bundle.runtime import Bundle

    opened = Bundle.load(bundle)
    codec = opened.codec
    own = codec.formats()
    if form not in {*WRITERS, *own}:
        known = [*WRITERS, *own]
        raise ConfigError(f"there is no format '{form}'{did_you_mean(form, known)}; there are: {', '.join(known)}")
    found = _Told(answers(opened, _listed(paths), explain=explain))
    chosen = own.get(form)
    if isinstance(chosen, Format):
        if out is None:
            raise ConfigError(f"the format '{form}' makes files: give their folder with --out DIR")
        found.failed += _write_files(found, chosen, out, overwrite=overwrite)
    elif out is None:
        _write_text(found, codec, form, chosen)
    else:
        _free(out, overwrite=overwrite)
        with contextlib.redirect_stdout(io.StringIO()) as text:
            _write_text(found, codec, form, chosen)
        write_text(out, text.getvalue())
    if found.failed:
        raise typer.Exit(1)


def benchmark(
    bundle: BundleFolder,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Threads; all cores when left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Time a bundle's model on this machine, on random values of the kind it was made for."""
    from importlib import metadata

    import numpy as np

    from modelwright.bundle.runtime import Bundle
    from modelwright.bundle.timing import Observed, example, interleaved, summary
    from modelwright.environment import processor

    opened = Bundle.load(bundle, threads=threads)
    inputs = [Observed.from_json(each) for each in opened.manifest["inputs"]]
    rows: list[dict[str, Any]] = []
    for batch in BATCHES:
        arrays = example(inputs, batch=batch, rng=np.random.default_rng(0))
        taken = interleaved({"graph": lambda arrays=arrays: opened.graph(*arrays)}, seconds=SECONDS, least=20)["graph"]
        found = summary(taken, batch=batch)
        figures = {"p50_ms": found.p50_ms, "p95_ms": found.p95_ms, "samples_per_second": found.samples_per_second}
        rows.append({"batch": batch, **figures, "runs": found.runs})
    about = {
        "task": opened.manifest["task"],
        "variant": opened.manifest["variant"],
        "processor": processor(),
        "threads": opened.graph.threads,
        "runtime": f"{opened.graph.runtime} {metadata.version(opened.graph.package)}",
    }
    if as_json:
        print(json.dumps({**about, "latency": rows}))
        return
    listed = table("batch", "p50 ms", "p95 ms", "samples/s")
    for row in rows:
        listed.add_row(
            str(row["batch"]), f"{row['p50_ms']:.3g}", f"{row['p95_ms']:.3g}", f"{row['samples_per_second']:,.4g}"
        )
    console().print(listed)
    print(f"{about['runtime']}, {about['threads']} threads, {about['processor']}")


# Predictions as text --------------------------------------------------------------------------------------------------


class _Told:
    """Answers as they come; what failed is told on stderr and counted."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self._answers = answers
        self.failed = 0

    def __iter__(self) -> Iterator[Answer]:
        for answer in self._answers:
            if answer.error:
                self.failed += 1
                where = "" if answer.name in answer.error else f"{answer.name}: "
                print(f"modelwright: {where}{answer.error}", file=sys.stderr)
            yield answer


def _records(answers: Iterable[Answer], codec: Codec) -> Iterator[tuple[Answer, dict[str, Any]]]:
    for answer in answers:
        yield answer, {} if answer.row is None else codec.records(answer.row)[0]


def _write_table(answers: Iterable[Answer], codec: Codec) -> None:
    rows = list(_records(answers, codec))
    first = next((record for _, record in rows if record), {})
    plain = [name for name, value in first.items() if not isinstance(value, (list, dict))]
    names = (plain or list(first))[:SHOWN]
    listed = table("name", *names)
    for answer, record in rows:
        cells = [f"failed: {answer.error}"] if answer.error else [_short(record.get(name)) for name in names]
        listed.add_row(answer.name, *cells[: max(len(names), 1)])
    console().print(listed)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _write_jsonl(answers: Iterable[Answer], codec: Codec) -> None:
    for answer, record in _records(answers, codec):
        values = {"error": answer.error} if answer.error else record
        print(json.dumps({"name": answer.name, **values}, ensure_ascii=False), flush=True)


def _write_csv(answers: Iterable[Answer], codec: Codec) -> None:
    """Columns: name, those of the first record (a dict in it as one column for each key), error; lists as JSON."""
    rows = [(answer, _flat(record)) for answer, record in _records(answers, codec)]
    names = list(next((record for _, record in rows if record), {}))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["name", *names, "error"])
    for answer, record in rows:
        writer.writerow([answer.name, *(record.get(name, "") for name in names), answer.error])


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": each for key, each in value.items()}
        else:
            flat[name] = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
    return flat


def _write_text(answers: Iterable[Answer], codec: Codec, form: str, collection: Collection | None) -> None:
    if collection is None:
        WRITERS[form](answers, codec)
    else:
        print(collection.write((answer.name, answer.row) for answer in answers if answer.row is not None))


WRITERS = {"table": _write_table, "jsonl": _write_jsonl, "csv": _write_csv}


# Predictions as files -------------------------------------------------------------------------------------------------


def _write_files(answers: Iterable[Answer], form: Format, out: Path, *, overwrite: bool) -> int:
    """One file for each answer, told on stdout; gives how many could not be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BundleError(f"{out} cannot be made: {error.strerror}; choose another --out") from error
    failed, written = 0, set[Path]()
    for answer in answers:
        if answer.row is None:
            continue
        name, content = form.write(answer.name, answer.raw, answer.row)
        path = out / Path(name).name
        if path in written or (path.exists() and not overwrite):
            why = "two things have that name" if path in written else "it exists already, add --overwrite"
            print(f"modelwright: {answer.name}: {path} is not written: {why}", file=sys.stderr)
            failed += 1
            continue
        write_bytes(path, content)
        written.add(path)
        print(path)
    return failed


def _free(out: Path, *, overwrite: bool) -> None:
    if out.is_dir() or (out.exists() and not overwrite):
        raise BundleError(f"{out} exists already; choose another --out, or add --overwrite for a file")
    if not out.parent.is_dir():
        raise BundleError(f"there is no folder {out.parent}: make it, or choose another --out")


def _listed(paths: Iterable[str]) -> Iterator[str]:
    """The paths; in place of ``-`` those on stdin, one a line."""
    for path in paths:
        if path == "-":
            yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
        else:
            yield path
