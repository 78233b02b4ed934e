"""Checks of what a bundle needs: a codec that travels as JSON, a graph that agrees with the model. Knows no command."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys

import numpy as np

from modelwright.bundle.codecs import NamesItsModule, describe, restore
from modelwright.bundle.export import write_graph
from modelwright.errors import BundleError, ExportError
from modelwright.testing.kit import Failed
from modelwright.testing.subject import Subject, same


class _Package:
    """An entry point of the task's own package."""

    def __init__(self, value: str) -> None:
        self.value = value


def check_codec_round_trips(subject: Subject) -> None:
    """The codec, made again from its settings as JSON, is equal and decodes alike; importing it imports no torch."""
    codec, model, batch = subject.task.codec, subject.model(), subject.batch(subject.some(3))
    try:
        record = json.loads(json.dumps(describe(codec)))
        again = restore(record, plugins=[_plugin_of(subject)])
    except (ExportError, BundleError) as error:
        raise Failed(str(error)) from error
    if again != codec:
        raise Failed(f"made again from its settings the codec is {again!r}, and was {codec!r}")
    outputs = {name: value.numpy() for name, value in subject.outputs(subject.task.served(model), batch).items()}
    one, two = codec.decode(outputs, batch.context), again.decode(outputs, batch.context)
    if not same(dict(one), dict(two)) or not np.array_equal(one.ids, two.ids):
        raise Failed("made again from its settings the codec decodes the same outputs to something else")
    module = record["codec"].partition(":")[0]
    if not _imports_no_torch(module):
        raise Failed(f"importing {module} imports torch, or fails alone: keep the codec in a module of its own")


def check_export_agrees(subject: Subject) -> None:
    """Model and explainer have ONNX graphs that agree with them at batch 1 and 3 and at another of what may change."""
    task, model = subject.task, subject.learned.model
    try:
        _ = subject.graph
        explainer = task.explainer(task.served(model).eval())
        if explainer is not None:
            target = subject.folder / "explain.onnx"
            write_graph(
                task, model, subject.splits["train"], target, seed=subject.config.seed, serve=lambda _: explainer
            )
    except ExportError as error:
        raise Failed(str(error)) from error


def _plugin_of(subject: Subject) -> NamesItsModule:
    build = subject.entry.build
    while isinstance(build, functools.partial):
        build = build.func
    return _Package(build.__module__)


@functools.cache
def _imports_no_torch(module: str) -> bool:
    code = f"import sys, {module}; print('torch' in sys.modules)"
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # a path that this process added counts too
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=found, check=False)
    return done.stdout.split()[-1:] == ["False"]
