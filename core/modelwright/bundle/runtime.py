"""Predicts with what was exported: a graph in its runtime, and a bundle of graph and codec. Imports no torch.

::

    bundle/
        model.onnx          raw values in, named outputs out; its weights too (model.onnx.data beside it above 2 GB);
                            for OpenVINO model.xml and model.bin
        explain.onnx        the same inputs to what says why, where the task has that
        codec.json          the codec's class and settings
        card.md             for people: what it is, data, metrics, limits
        manifest.json       digests of the others, versions, settings and facts of the run
        facts.safetensors   arrays that the facts hold, where there are any
        receipt.json        what compression cost and gained, where there was any
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from modelwright.bundle.codecs import NamesItsModule, imported, restore
from modelwright.codec import Codec, Columns, merged
from modelwright.data import Input, Size
from modelwright.errors import BundleError, DataError

MANIFEST, GRAPH, CODEC, CARD, FACTS = "manifest.json", "model.onnx", "codec.json", "card.md", "facts.safetensors"
EXPLAIN = "explain.onnx"
READER = "modelwright.bundle.runtime:Graph"
"""What reads a graph where a manifest does not say."""

DTYPES = {"float": "float32", "double": "float64"}
"""ONNX Runtime's names of types that numpy calls otherwise."""


class Graph:
    """An ONNX file, ready to run on the CPU. Scores like any model: the evaluator takes it as a predictor.

    A graph of another runtime is a subclass with `load`, `run`, and `files` where one is not all.

    Args:
        path: the file; what it stores outside itself lies beside it.
        threads: of one call; all cores that this process may use when left out.

    Attributes:
        runtime: what runs it, as people call it.
        package: the distribution that this is a part of.
        inputs: as the graph names them, without the batch axis; a `Size` where a dimension may change.
        outputs: the same for what it gives.

    Raises:
        BundleError: there is no such file, or it is no graph that its runtime takes.
    """

    runtime: ClassVar[str] = "ONNX Runtime"
    package: ClassVar[str] = "onnxruntime"
    inputs: tuple[Input, ...]
    outputs: tuple[Input, ...]

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        self.path = Path(path)
        # A number of our own: with their own choice runtimes pin their threads, and complain where they may not.
        self.threads = threads or cores()
        if not self.path.is_file():
            raise BundleError(f"there is no graph {self.path}; write one: modelwright export RUN")
        try:
            self.load()
        except BundleError:
            raise
        except Exception as error:  # the exceptions of runtimes share no base but this
            raise BundleError(
                f"{self.path} is no graph that {self.runtime} takes: {_line(error)}; export it again"
            ) from error

    def __call__(self, *arrays: Any) -> dict[str, np.ndarray]:
        """Its outputs by name.

        Args:
            arrays: one for each of `inputs`, batch first: whatever numpy takes as an array, tensors on the CPU too.

        Raises:
            BundleError: another number of arrays.
        """
        if len(arrays) != len(self.inputs):
            wanted = ", ".join(spec.name for spec in self.inputs)
            raise BundleError(f"{self.path} takes {len(self.inputs)} arrays ({wanted}), not {len(arrays)}")
        found = self.run([np.asarray(array, order="C") for array in arrays])
        return {spec.name: np.asarray(value) for spec, value in zip(self.outputs, found, strict=True)}

    @property
    def files(self) -> list[Path]:
        """Everything that it consists of."""
        return sorted(self.path.parent.glob(f"{self.path.name}*"))

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(file.stat().st_size for file in self.files)

    def load(self) -> None:
        """Makes it ready; finds inputs and outputs."""
        import onnxruntime  # half a second, which listing tasks must not cost

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; its warnings are of optimizations that it left out
        self._session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        self.inputs = _specs(self._session.get_inputs())
        self.outputs = _specs(self._session.get_outputs())

    def run(self, arrays: Sequence[np.ndarray]) -> Sequence[Any]:
        """Outputs in their order."""
        feed = {spec.name: array for spec, array in zip(self.inputs, arrays, strict=True)}
        return self._session.run([spec.name for spec in self.outputs], feed)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _specs(nodes: Sequence[Any]) -> tuple[Input, ...]:
    return tuple(
        Input(node.name, tuple(_dimension(each) for each in node.shape[1:]), _dtype(node.type)) for node in nodes
    )


def _dimension(size: int | str | None) -> int | Size:
    return size if isinstance(size, int) else Size(size or "?")


def _dtype(kind: str) -> str:
    """``tensor(float)`` as numpy's ``float32``."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    return DTYPES.get(name, name)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


class Bundle:
    """What `modelwright export` wrote, ready to predict; open one with `Bundle.load`.

    Attributes:
        path: its folder.
        codec: makes arrays of raw things, and predictions of outputs.
        graph: the model.
        manifest: versions, settings, facts, inputs; what `manifest.json` holds.
    """

    def __init__(self, path: Path, codec: Codec, graph: Graph, manifest: Mapping[str, Any]) -> None:
        self.path, self.codec, self.graph, self.manifest = path, codec, graph, manifest

    @staticmethod
    def load(
        path: str | Path, *, threads: int | None = None, plugins: Iterable[NamesItsModule] | None = None
    ) -> Bundle:
        """Opens a bundle after checking every digest.

        Args:
            path: its folder.
            threads: of one prediction; all cores that this process may use when left out.
            plugins: entry points whose packages a codec may come from; those installed when left out.

        Raises:
            BundleError: it is none, a file differs from what was exported, or what it needs is not installed.
        """
        folder = Path(path)
        manifest = read_manifest(folder)
        record = _json(folder / CODEC)
        codec = restore(record, install=_pip_name(manifest), plugins=plugins)
        return Bundle(folder, codec, graph_of(folder, manifest, threads=threads, plugins=plugins), manifest)

    @property
    def card(self) -> str:
        """What the bundle is, for people (Markdown)."""
        return (self.path / CARD).read_text(encoding="utf-8")

    @property
    def explains(self) -> bool:
        """Whether it can say why."""
        return (self.path / EXPLAIN).is_file()

    @cached_property
    def explainer(self) -> Graph:
        """The graph that says why.

        Raises:
            BundleError: the bundle has none.
        """
        if not self.explains:
            raise BundleError(f"{self.path} cannot say why: its task, or this variant of the model, has no explainer")
        return Graph(self.path / EXPLAIN, threads=self.graph.threads)

    def predict(self, x: Any, *, explain: bool = False) -> Any:
        """What the model says of one raw thing (a record: JSON values by name), or of several (a list of such).

        Args:
            x: a raw thing, or what the codec takes as several: a list; a table where raw things are rows.
            explain: say why, too.

        Raises:
            DataError: a raw thing that the codec cannot use.
            BundleError: it cannot explain.
        """
        many = self.codec.many(x)
        records = self.codec.records(self.columns([x] if many is None else many, explain=explain))
        return records[0] if many is None else records

    def columns(self, raws: Any, *, batch: int | None = None, explain: bool = False) -> Columns:
        """What the model says of raw things, one row each, in their order.

        Args:
            raws: a sequence, or whatever the codec takes as one (a table).
            batch: samples of one call of the graph; what suits the codec when left out.
            explain: say why, too.

        Raises:
            DataError: a raw thing that the codec cannot use, or makes no sample of.
        """
        many, size = self.codec.many(raws), batch or self.codec.batch_size
        things = cast("Sequence[Any]", raws) if many is None else many
        graph = self.explainer if explain else self.graph
        parts = [
            part
            for start in range(0, len(things), size)
            for part in self._batches(things[start : start + size], start, size, graph, explain=explain)
        ]
        table = merged(self.codec, Columns.join(parts)) if parts else Columns({})
        if table.rows != len(things):
            missing = len(things) - table.rows
            raise DataError(f"the codec made no sample of {missing} of {len(things)} things: leave them out")
        return table

    def _batches(self, raws: Sequence[Any], start: int, size: int, graph: Graph, *, explain: bool) -> Iterator[Columns]:
        decode = self.codec.explain if explain else self.codec.decode
        for arrays, context in self.codec.batches(raws, size=size):
            outputs = graph(*(arrays[spec.name] for spec in graph.inputs))
            yield decode(outputs, context).with_ids(start + context.rows)


def load(path: str | Path, *, threads: int | None = None) -> Bundle:
    """Opens a bundle: ``modelwright.load("runs/digits/bundle").predict("seven.png")``.

    Raises:
        BundleError: it is none, a file differs from what was exported, or what it needs is not installed.
    """
    return Bundle.load(path, threads=threads)


# Files ----------------------------------------------------------------------------------------------------------------


def is_bundle(folder: Path) -> bool:
    """Whether a folder looks like a bundle."""
    return (folder / MANIFEST).is_file() and (folder / CODEC).is_file()


def read_manifest(folder: Path) -> dict[str, Any]:
    """What manifest.json holds, after checking every digest in it.

    Raises:
        BundleError: it is no bundle, or a file differs.
    """
    if not (folder / MANIFEST).is_file():
        raise BundleError(
            f"{folder} is no bundle: it has no {MANIFEST}; write one: modelwright export RUN --out {folder}"
        )
    manifest = _json(folder / MANIFEST)
    digests, graph = manifest.get("files"), str(manifest.get("graph", GRAPH))
    if not isinstance(digests, dict) or not {graph, CODEC} <= set(cast("dict[str, str]", digests)):
        raise BundleError(f"{folder / MANIFEST} is damaged: it lists no digests of {graph} and {CODEC}; export again")
    for name, digest in cast("dict[str, str]", digests).items():
        path = folder / name
        if path.parent != folder or not path.is_file():
            raise BundleError(f"{folder} is incomplete: {name} is missing; get or export it again")
        if sha256(path) != digest:
            raise BundleError(f"{folder} was changed after it was exported: {name} differs; get or export it again")
    return manifest


def graph_of(
    folder: Path,
    manifest: Mapping[str, Any],
    *,
    threads: int | None = None,
    plugins: Iterable[NamesItsModule] | None = None,
) -> Graph:
    """The graph of a bundle, in the runtime that its manifest names.

    Raises:
        BundleError: the runtime is not installed, or its reader belongs to no installed plugin or is none.
    """
    name = str(manifest.get("reader", READER))
    install = _pip_name(manifest, "reader_install")
    reader = imported(name, Graph, what="reader", install=install, plugins=plugins)
    return reader(folder / str(manifest.get("graph", GRAPH)), threads=threads)


def _pip_name(manifest: Mapping[str, Any], key: str = "install") -> str:
    """What pip is told to install; nothing where a bundle says what no distribution is called."""
    name = str(manifest.get(key, ""))
    return name if re.fullmatch(r"[A-Za-z0-9._-]+(\[[a-z0-9_,-]+\])?", name) else ""


def sha256(path: Path) -> str:
    """A file's digest."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {_line(error)}; get or export it again") from error
    if not isinstance(values, dict):
        raise BundleError(f"{path} is damaged: it holds no settings; get or export it again")
    return cast("dict[str, Any]", values)
