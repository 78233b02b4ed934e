"""The card of a bundle: what it is, in Markdown, for whoever finds it. Knows the manifest and a receipt; no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def write_card(manifest: Mapping[str, Any], *, summary: str, receipt: Mapping[str, Any], licence: str = "") -> str:
    """The card's text.

    Args:
        manifest: of the bundle, without its digests.
        summary: what the task is, in one line.
        receipt: what compression cost and gained; empty where there was none.
        licence: a line, where the plugin gives one.
    """
    return "\n".join(_lines(manifest, summary, receipt, licence)) + "\n"


def _lines(manifest: Mapping[str, Any], summary: str, receipt: Mapping[str, Any], licence: str) -> Iterator[str]:
    made = f"by modelwright {manifest['versions']['modelwright']}, {manifest['created']}"
    yield f"# {manifest['task']}"
    yield ""
    yield f"A model to {summary}: the variant `{manifest['variant']}`, written {made}."
    yield from ["", "```", "modelwright predict BUNDLE FILES...", "modelwright evaluate BUNDLE", "```"]
    yield from _heading("Inputs and outputs")
    yield from _table(["input", "shape", "type", "values seen"], [_input(each) for each in manifest["inputs"]])
    yield ""
    gives = ", ".join(manifest["outputs"])
    yield f"{manifest['runtime']} runs the graph, which gives {gives}; `{manifest['codec']}` makes predictions of that."
    yield from _heading("Data")
    data = manifest["settings"].get("data", {})
    yield from _table(
        ["setting", "value"], [[f"data.{n}", value] for n, value in data.items() if value not in (None, "")]
    )
    yield from _heading("Metrics")
    yield from _metrics(manifest["evaluations"], receipt)
    if receipt:
        yield from _heading("Compression")
        yield from [f"- {said}" for said in receipt.get("verdict", [])]
        yield from ["", f"Measured on {receipt.get('processor', '?')}, {receipt.get('threads', '?')} threads:", ""]
        rows = [_latency(row) for row in receipt.get("latency", [])]
        yield from _table(["model", "runtime", "batch", "p50 ms", "p95 ms", "samples/s"], rows)
    yield from _heading("Limits")
    yield from [f"- {each}" for each in _limits(manifest)]
    if licence:
        yield from _heading("Licence")
        yield licence


def _metrics(evaluations: Sequence[Mapping[str, Any]], receipt: Mapping[str, Any]) -> Iterator[str]:
    """Metrics without a slash in their name; those are details."""
    if receipt:
        rows = [
            [name, receipt["split"], receipt["samples"], _number(each["variant"]), _number(each["original"])]
            for name, each in receipt.get("metrics", {}).items()
            if "/" not in name
        ]
        yield from _table(["metric", "split", "samples", "value", "before compression"], rows)
        return
    rows = [
        [name, each["split"], each["samples"], _number(metric["value"]), _between(metric)]
        for each in evaluations
        for name, metric in each["metrics"].items()
        if "/" not in name
    ]
    if not rows:
        yield "None measured yet: `modelwright evaluate BUNDLE`."
        return
    yield from _table(["metric", "split", "samples", "value", "interval"], rows)


def _limits(manifest: Mapping[str, Any]) -> Iterator[str]:
    yield "It was measured on samples like those it was trained on; on others it may be worse, and it does not say so."
    yield "Values far from those seen (above) were never tried."
    agreement = manifest["agreement"]
    if agreement:
        cases = len(agreement["cases"])
        yield (
            f"On real samples the graph and the PyTorch model differ by at most {agreement['gap']:.2g} of an output's "
            f"largest value ({cases} comparisons, allowed: {agreement['tolerance']:g})."
        )
    else:
        yield "The graph was written when the variant was made; what the variant costs is measured above."
    yield "The digests in manifest.json tell that files were changed, not who wrote them."


def _input(each: Mapping[str, Any]) -> list[Any]:
    shape = [size if isinstance(size, int) else _size(size) for size in each["shape"]]
    return [
        each["name"],
        " x ".join(map(str, ["batch", *shape])),
        each["dtype"],
        f"{each['low']:g} to {each['high']:g}",
    ]


def _size(size: Mapping[str, Any]) -> str:
    steps = f", in steps of {size['multiple']}" if size["multiple"] > 1 else ""
    return f"{size['name']} (from {size['minimum']}{steps})"


def _latency(row: Mapping[str, Any]) -> list[Any]:
    times = [f"{row['p50_ms']:.3g}", f"{row['p95_ms']:.3g}", f"{row['samples_per_second']:.4g}"]
    return [row["model"], row["runtime"], row["batch"], *times]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _between(metric: Mapping[str, float | None]) -> str:
    if metric["low"] is None or metric["high"] is None:
        return ""
    return f"{metric['low']:.4f} to {metric['high']:.4f}"


def _heading(text: str) -> Iterator[str]:
    yield from ["", f"## {text}", ""]


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |"
