"""Writes bundles: of a run's model, or of one of its variants. Knows run folders and the exporter; trains nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

from modelwright import __version__, environment, folder
from modelwright.bundle.card import write_card
from modelwright.bundle.codecs import describe
from modelwright.bundle.export import write_graph
from modelwright.bundle.runtime import CARD, CODEC, EXPLAIN, FACTS, MANIFEST, is_bundle, sha256
from modelwright.bundle.timing import Observed, observe
from modelwright.compression import variants
from modelwright.compression.variants import ORIGINAL, RECEIPT, RUNTIME
from modelwright.errors import BundleError, CheckpointError, ExportError
from modelwright.evaluation.evaluator import Predictor
from modelwright.files import write_json, write_text
from modelwright.hookspecs import ExporterEntry
from modelwright.plugins import Catalog, discover
from modelwright.run import Run, load_model, to_stderr
from modelwright.task import Dataset, Datasets, Keys, Split, Task
from modelwright.training.loading import fetch

SEEN = 64
"""Samples that an input's usual values and sizes are taken from."""
FORMAT = 1
"""Of the manifest; rises when older readers could no longer understand it."""


@dataclass(frozen=True)
class Source:
    """What is exported of a run.

    Attributes:
        task: with its facts; of the variant's own settings.
        model: in torch; None where only a graph is left.
        graph: that was written already for `runtime`, where there is one.
        runtime: what the graph is for, or is to be for.
        receipt: what was measured of it; empty where it is the run's own model.
    """

    task: Task
    model: nn.Module | None
    graph: Path | None
    runtime: ExporterEntry
    receipt: Mapping[str, Any]

    @property
    def predictor(self) -> Predictor:
        """What it is scored by: its graph, where it has one."""
        if self.graph is not None:
            return self.runtime.open(self.graph, threads=self.task.config.train.threads)
        assert self.model is not None
        return self.task.served(self.model).eval()


def export(
    run: str | Path | Run,
    *,
    variant: str = ORIGINAL,
    runtime: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    catalog: Catalog | None = None,
    warn: Callable[[str], None] = to_stderr,
) -> Path:
    """Writes a bundle of a run's kept weights, or of one of its variants; gives its folder.

    Args:
        runtime: what is to run it, an exporter's name; the variant's own (mostly onnxruntime) when left out.
        out: the bundle's folder; ``bundle`` (or ``bundle-<variant>``) in the run folder when left out.
        overwrite: replace a bundle that lies there.

    Raises:
        RunError: it is no run folder, or nothing was trained yet.
        CompressionError: there is no such variant.
        PluginError: there is no such runtime, or modules that it needs are missing.
        ExportError: it has no graph (for that runtime), or the graph disagrees with the model.
        BundleError: something is there already, or the folder cannot be made.
    """
    where = run.folder if isinstance(run, Run) else Path(run)
    target = Path(out) if out is not None else where / ("bundle" if variant == ORIGINAL else f"bundle-{variant}")
    catalog = catalog or discover()
    name = folder.read_task(where)
    _free(target, overwrite=overwrite)
    source = find(where, variant, runtime=runtime, catalog=catalog, warn=warn)
    entry, provider = catalog.task(name), catalog.providers[name]
    write_bundle(
        target,
        source,
        name=name,
        summary=entry.summary,
        install=f"{provider.distribution}[{entry.extra}]" if entry.extra else provider.distribution,
        reader_install=catalog.pip_name(source.runtime),
        dataset=usual_samples(source.task.datasets()),
        variant=variant,
        evaluations=folder.read_results(where).get("evaluations", []) if variant == ORIGINAL else [],
        overwrite=overwrite,
        warn=warn,
    )
    return target


def find(
    where: Path, variant: str, *, runtime: str | None = None, catalog: Catalog, warn: Callable[[str], None]
) -> Source:
    """A variant of a run, ready to be scored or exported; a graph where it has one for the runtime.

    Raises:
        RunError: it is no run folder, or nothing was trained yet.
        CompressionError: there is no such variant.
        PluginError: there is no such runtime, or modules that it needs are missing.
        ExportError: all that is left of the variant is a graph for another runtime.
    """
    _, entry, config = folder.read_config(where, catalog)
    facts = folder.read_facts(where)
    if facts is None:
        raise CheckpointError(f"{where} was never trained; go on with: modelwright resume {where}")
    if variant == ORIGINAL:
        exporter = catalog.exporter(runtime or RUNTIME)
        task = entry.build(config)
        task.facts = facts
        model, _ = load_model(task, where, config, torch.device("cpu"), warn=warn)
        return Source(task, model, None, exporter, {})
    found = variants.find(where, variant)
    exporter = catalog.exporter(runtime or found.runtime)
    task = variants.task_of(entry, config, found.settings, facts, settled=found.settled)
    loaded = variants.load_model(task, found)
    model = None if loaded is None else loaded[0]
    if found.graph is not None and found.runtime == exporter.name:
        return Source(task, model, found.graph, exporter, found.receipt)
    if model is not None:
        return Source(task, model, None, exporter, found.receipt)
    if found.graph is None:
        raise CheckpointError(f"variant {variant} of {where} has neither weights nor a graph: compress again")
    raise ExportError(
        f"variant {variant} of {where} is a graph in 8 bits for {found.runtime}: leave out --runtime, or compress for "
        f"{exporter.name}"
    )


def write_bundle(
    target: Path,
    source: Source,
    *,
    name: str,
    summary: str,
    install: str,
    dataset: Dataset,
    reader_install: str = "",
    variant: str = ORIGINAL,
    evaluations: Sequence[Mapping[str, Any]] = (),
    overwrite: bool = False,
    warn: Callable[[str], None] = to_stderr,
) -> None:
    """Writes a bundle; the folder appears complete or not at all, and a failure leaves what was there.

    Args:
        name, summary: of the task.
        install: what pip is told to install for it, for example ``modelwright[image]``.
        reader_install: the same for the runtime.
        dataset: real samples, to compare graph and model on and to see values and sizes.
        evaluations: as in results.json.

    Raises:
        ExportError: the model has no graph, or the graph disagrees with it.
        BundleError: something is there already, or the folder cannot be made.
    """
    _free(target, overwrite=overwrite)
    task, exporter = source.task, source.runtime
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        codec = describe(task.codec)
        agreement = None
        path, seed = aside / exporter.graph, task.config.seed
        if source.graph is not None:
            for file in exporter.open(source.graph, threads=1).files:
                shutil.copyfile(file, aside / file.name)
        if source.model is not None:
            if source.graph is None:
                agreement = write_graph(task, source.model, dataset, path, exporter=exporter, seed=seed, warn=warn)
            explainer = task.explainer(task.served(source.model).eval())
            if explainer is not None:
                write_graph(
                    task, source.model, dataset, aside / EXPLAIN, seed=seed, serve=lambda _: explainer, warn=warn
                )
        graph = exporter.open(path, threads=1)
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "task": name,
            "variant": variant,
            "install": install,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {"modelwright": __version__, **environment.versions()},
            "runtime": f"{graph.runtime} on the CPU",
            "graph": exporter.graph,
            "reader": f"{type(graph).__module__}:{type(graph).__qualname__}",
            "reader_install": reader_install,
            "codec": codec["codec"],
            "inputs": [each.as_json() for each in observed(task, dataset)],
            "outputs": [each.name for each in graph.outputs],
            "agreement": None if agreement is None else agreement.as_json(),
            "evaluations": list(evaluations),
            "settings": task.config.model_dump(mode="json"),
            "facts": task.facts.values,
        }
        write_json(aside / CODEC, codec)
        if task.facts.arrays:
            arrays = {each: np.asarray(array, order="C") for each, array in task.facts.arrays.items()}
            save_file(arrays, aside / FACTS)
        if source.receipt:
            write_json(aside / RECEIPT, dict(source.receipt))
        write_text(
            aside / CARD, write_card(manifest, summary=summary, receipt=source.receipt, licence=source.task.licence)
        )
        manifest["files"] = {file.name: sha256(file) for file in sorted(aside.iterdir())}
        write_json(aside / MANIFEST, manifest)
        _put(aside, target)
    except OSError as error:
        raise BundleError(f"{target} could not be written: {error.strerror}; choose another --out") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def usual_samples(datasets: Datasets) -> Dataset:
    """The split that graph and model are compared on: held out where there is one."""
    splits: tuple[Split, ...] = ("valid", "test", "train")
    return datasets[next(filter(datasets.has, splits))]


def observed(task: Task, dataset: Dataset) -> tuple[Observed, ...]:
    """What some samples, spread over the data, show of each input."""
    indices = np.unique(np.linspace(0, len(dataset) - 1, min(SEEN, len(dataset))).astype(np.int64))
    batches: list[list[np.ndarray]] = []
    for index in indices:  # one by one: beside others a sample would be padded
        batch = fetch(task, dataset, Keys(task.config.seed, 0, 1, np.array([index])))
        assert batch is not None
        batches.append([tensor.numpy() for tensor in batch.inputs])
    return observe(task.inputs, batches)


def _free(target: Path, *, overwrite: bool) -> None:
    """Looks at what lies where a bundle is to go.

    Raises:
        BundleError: something that must not be replaced.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not overwrite:
        raise BundleError(f"{target} exists already; choose another --out, or add --overwrite")
    if not is_bundle(target):
        raise BundleError(f"{target} is no bundle and is not overwritten; choose another --out")


def _put(aside: Path, target: Path) -> None:
    """Renames a finished folder to where it belongs, in place of what is there."""
    old = target.with_name(f".{target.name}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    aside.rename(target)
    shutil.rmtree(old, ignore_errors=True)
