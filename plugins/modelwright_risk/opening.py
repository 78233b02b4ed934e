"""A run or a bundle, opened to be asked. Knows torch and the engine's folders; knows nothing of what is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.numpy import load_file

from modelwright.bundle.runtime import FACTS, GRAPH, Graph, read_manifest
from modelwright.bundle.writing import find
from modelwright.config import build_config
from modelwright.data import Facts, Keys
from modelwright.errors import DataError
from modelwright.plugins import Catalog
from modelwright.run import to_stderr
from modelwright_risk.task import RiskTask

AT_ONCE = 65_536


@dataclass(frozen=True)
class Opened:
    """A task with its facts, and what says log-odds.

    Attributes:
        predict: inputs of the model as arrays -> log-odds, one per row.
    """

    task: RiskTask
    predict: Callable[..., np.ndarray]

    def training(self) -> tuple[list[np.ndarray], np.ndarray] | None:
        """Inputs and outcomes of the training rows; None where they can no longer be read."""
        try:
            train = cast("Any", self.task.datasets()["train"])
        except DataError as error:
            to_stderr(f"shares and bad rates are left out: {error}")
            return None
        batches = [
            train.__getitems__(Keys(0, 0, 1, np.arange(start, min(start + AT_ONCE, len(train)))))
            for start in range(0, len(train), AT_ONCE)
        ]
        inputs = [
            np.concatenate([each.numpy() for each in column])
            for column in zip(*(b.inputs for b in batches), strict=True)
        ]
        return inputs, np.concatenate([batch.targets["bad"].numpy() for batch in batches])


def open_run(path: Path, catalog: Catalog, *, variant: str = "original") -> Opened:
    """A run's kept weights.

    Raises:
        RunError: it is no run, or nothing was trained yet.
    """
    source = find(path, variant, catalog=catalog, warn=to_stderr)
    network = source.predictor

    def predict(*arrays: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            found: Any = network(*(torch.from_numpy(np.ascontiguousarray(each)) for each in arrays))["logit"]
        return np.asarray(found)

    return Opened(cast("RiskTask", source.task), predict)


def open_bundle(path: Path, catalog: Catalog) -> Opened:
    """A bundle's graph.

    Raises:
        BundleError: it is none, or was changed.
    """
    manifest = read_manifest(path)
    entry = catalog.task(manifest["task"])
    task = entry.build(build_config(entry.config, layers=[manifest["settings"]]))
    task.facts = Facts(manifest["facts"], load_file(path / FACTS) if FACTS in manifest["files"] else {})
    graph = Graph(path / GRAPH)

    def predict(*arrays: np.ndarray) -> np.ndarray:
        return graph(*arrays)["logit"]

    return Opened(cast("RiskTask", task), predict)
