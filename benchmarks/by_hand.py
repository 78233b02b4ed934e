"""The same network compressed with other tools by their documented calls. Knows NNCF, torch-pruning, few of our parts.

What is ours here is reading the run and the pictures, counting hits and timing: the same for all sides.
"""

from __future__ import annotations

import copy
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright import folder
from modelwright.bundle.export import write_graph
from modelwright.bundle.runtime import Graph
from modelwright.bundle.timing import interleaved, summary
from modelwright.compression.variants import find
from modelwright.plugins import discover
from modelwright.run import load_model, prepare_torch
from modelwright_image.augment import flip_and_crop

CALIBRATION = 512


class Shown(nn.Module):
    """A network that was changed by hand, behind the task's own input and output."""

    def __init__(self, whole: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.whole = whole
        self.whole.network = network

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return self.whole(image)


def everything(run: Path, *, epochs: int) -> list[dict[str, Any]]:
    """Accuracy on the test split, bytes and milliseconds of each side; times are taken by turns."""
    _, entry, config = folder.read_config(run, discover())
    prepare_torch(config)
    task = entry.build(config)
    facts = folder.read_facts(run)
    assert facts is not None
    task.facts = facts
    model, _ = load_model(task, run, config, torch.device("cpu"), warn=print)
    datasets = task.datasets()
    train, test = datasets["train"], datasets["test"]

    with tempfile.TemporaryDirectory() as scratch:
        float_graph, nncf_graph = Path(scratch) / "float.onnx", Path(scratch) / "nncf.onnx"
        pruned_graph = Path(scratch) / "pruned.onnx"
        write_graph(task, copy.deepcopy(model), test, float_graph)
        with_nncf(float_graph, nncf_graph, train)
        began = time.process_time()
        pruned = with_torch_pruning(copy.deepcopy(model), train, epochs=epochs)
        seconds = time.process_time() - began
        write_graph(task, pruned, test, pruned_graph)
        files = {
            "original": float_graph,
            "int8, NNCF by hand": nncf_graph,
            "int8, modelwright": find(run, "int8-1-quantize").graph,
            "pruned to half, torch-pruning by hand": pruned_graph,
            "pruned to half, modelwright": find(run, "half-2-distill").graph,
            "pruned to half and int8, modelwright": find(run, "half-3-quantize").graph,
        }
        rows = measured({name: path for name, path in files.items() if path is not None}, test)
    for row in rows:
        if "torch-pruning" in row["what"]:
            row["training_cpu_seconds"] = round(seconds)
    return rows


def measured(files: dict[str, Path], test: Any) -> list[dict[str, Any]]:
    """A row per graph."""
    graphs = {name: Graph(path, threads=torch.get_num_threads()) for name, path in files.items()}
    pictures, labels = test.pixels.permute(0, 3, 1, 2).numpy(), test.labels
    one = np.ascontiguousarray(pictures[:1])
    times = interleaved({name: lambda g=graph: g(one) for name, graph in graphs.items()}, seconds=5.0, least=50)
    rows: list[dict[str, Any]] = []
    for name, graph in graphs.items():
        hits = [
            graph(np.ascontiguousarray(pictures[start : start + 256]))["logits"].argmax(1)
            == labels[start : start + 256]
            for start in range(0, len(labels), 256)
        ]
        figures = summary(times[name])
        rows.append(
            {
                "what": name,
                "accuracy": float(np.concatenate(hits).mean()),
                "bytes": files[name].stat().st_size,
                "p50_ms": round(figures.p50_ms, 4),
                "ratio": round(float(np.median(times[name] / times["original"])), 3),
            }
        )
    return rows


def with_nncf(source: Path, target: Path, train: Any) -> None:
    """Post-training quantization as NNCF's documentation shows it for ONNX."""
    import nncf

    loaded = onnx.load(source)
    name = loaded.graph.input[0].name
    rows = np.random.default_rng(0).permutation(len(train))[:CALIBRATION]
    pictures = train.pixels[torch.from_numpy(rows)].permute(0, 3, 1, 2).numpy()
    calibration = nncf.Dataset(list(pictures), lambda picture: {name: picture[None]})
    onnx.save(nncf.quantize(loaded, calibration, subset_size=CALIBRATION), target)


def with_torch_pruning(model: Any, train: Any, *, epochs: int) -> nn.Module:
    """Half of the channels by group magnitude, then plain fine-tuning, as torch-pruning's documentation shows it."""
    import torch_pruning as tp

    network = model.network
    channels, side = model.channels, model.side or train.size
    example = torch.randn(1, channels, side, side)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    pruner = tp.pruner.MetaPruner(
        network,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=[last],
    )
    pruner.step()
    shown = Shown(model, network)
    fine_tune(shown, train, epochs=epochs)
    return shown.eval()


def fine_tune(model: nn.Module, train: Any, *, epochs: int, batch_size: int = 128) -> None:
    """The recipe `standard`, by hand: SGD with Nesterov momentum, one cycle to 0.05, flips and crops."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = epochs * -(-len(train) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=steps)
    rng = np.random.default_rng(0)
    model.train()
    for _ in range(epochs):
        order = rng.permutation(len(train))
        for start in range(0, len(order), batch_size):
            rows = torch.from_numpy(order[start : start + batch_size])
            pictures = train.pixels[rows].permute(0, 3, 1, 2)
            draw = partial(_draw, rng, len(rows))
            pictures = flip_and_crop(pictures, draw, flip=True, crop=2)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(pictures)["logits"], torch.from_numpy(train.labels)[rows])
            loss.backward()
            optimizer.step()
            schedule.step()


def _draw(rng: np.random.Generator, count: int, name: str, columns: int = 1) -> np.ndarray:
    return rng.random((count, columns))
