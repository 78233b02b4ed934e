"""What the core's own stages do: prune, distill, quantize. Knows the parts; each part knows its own method."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modelwright.bundle.export import write_graph
from modelwright.bundle.runtime import Graph, graph_of, read_manifest
from modelwright.codec import Columns
from modelwright.compression.context import Made, Stage
from modelwright.compression.cost import cost
from modelwright.compression.distill import (
    Distillation,
    Teacher,
    check_teacher,
    network_teacher,
    stored_teacher,
)
from modelwright.compression.plan import Plan
from modelwright.compression.prune import prune as prune_channels
from modelwright.compression.prune import sparsify
from modelwright.compression.stages import DistillConfig, PruneConfig, QuantizeConfig
from modelwright.config import merge, nest
from modelwright.errors import CompressionError
from modelwright.task import Batch, Losses, Progress, Task
from modelwright.training.randomness import seed_everything
from modelwright.training.steps import Supervised

AWARE_RATE = 0.1
"""Of the run's peak rate, in training with simulated rounding."""
TAYLOR_SAMPLES = 256
"""Training samples behind the gradients of Taylor importance."""


# Prune ----------------------------------------------------------------------------------------------------------------


def prune(stage: Stage, settings: PruneConfig) -> Made:
    """Takes channels out, in as many rounds as asked for, and trains what is left after each.

    Raises:
        CompressionError: the task offers no pruning, nothing can be pruned, or only a graph is left.
    """
    model = stage.torch_model("prune")
    if not settings.structured:
        return _sparsify(stage, model, settings)
    before = cost(stage.task.served(model), stage.inputs())
    plan = stage.plan
    for number in range(settings.rounds):
        prunable = stage.task.prunable(model)
        if prunable is None:
            raise CompressionError("the task offers no pruning: leave the stage out, or define prunable")
        if settings.importance == "taylor":
            _accumulate_gradients(stage, model)
        edits = prune_channels(
            model,
            stage.inputs(),
            keep=settings.keep ** (1 / settings.rounds),
            of=settings.of,
            scope=settings.scope,
            importance=settings.importance,
            prunable=prunable,
            multiple=settings.multiple,
        )
        model.zero_grad(set_to_none=True)
        plan = plan + edits
        if settings.train is not None:
            stage.train(Supervised(stage.task, model), settings.train, name=f"round-{number + 1}")
    after = cost(stage.task.served(model), stage.inputs())
    notes = {
        "kept_parameters": after.parameters / before.parameters,
        "kept_macs": after.macs / before.macs,
        "trained": settings.train is not None,
    }
    return stage.made(model, plan=plan, notes=notes)


def _accumulate_gradients(stage: Stage, model: nn.Module) -> None:
    """The gradient of the task's loss over some training samples, into `.grad`; the model stays in eval mode."""
    step = Supervised(stage.task, model).to(stage.device)
    step.eval()
    model.zero_grad(set_to_none=True)
    seed_everything(stage.config.seed, "importance")
    for batch in stage.samples(TAYLOR_SAMPLES):
        losses = step(batch.to(stage.device), Progress(0, 1, 0, 1, stage.config.seed))
        losses.sum.backward()


class _Sparse(Supervised):
    """Supervised training in which the weights that were taken out stay zero."""

    def __init__(self, task: Task, model: nn.Module, masks: dict[str, Tensor]) -> None:
        super().__init__(task, model)
        self._masks = masks

    def forward(self, batch: Batch, progress: Progress) -> Losses:
        """Zeroes what the last update moved, then as in supervised training."""
        self.hold()
        return super().forward(batch, progress)

    @torch.no_grad()
    def hold(self) -> None:
        """Puts the zeros back."""
        for name, parameter in self.model.named_parameters():
            if name in self._masks:
                parameter.mul_(self._masks[name].to(parameter.device))


def _sparsify(stage: Stage, model: nn.Module, settings: PruneConfig) -> Made:
    masks = sparsify(model, keep=settings.keep)
    step = _Sparse(stage.task, model, masks)
    if settings.train is not None:
        stage.train(step, settings.train)
    step.hold()
    left = float(np.mean([float(mask.float().mean()) for mask in masks.values()]))
    return stage.made(model, notes={"structured": False, "nonzero_weights": left})


# Distill --------------------------------------------------------------------------------------------------------------


def distill(stage: Stage, settings: DistillConfig) -> Made:
    """Trains the present model, or a fresh one of another architecture, on truth and teacher.

    Raises:
        CompressionError: the task offers no distillation, the teacher is of another kind, or only a graph is left.
        ConfigError: settings of the student that do not exist.
    """
    if settings.student:
        further = nest(settings.student)
        task = stage.rebuild(further)
        seed_everything(task.config.seed, "model")
        model, plan, changed = task.model(), Plan(), merge(stage.settings, further)
    else:
        task, model, plan, changed = stage.task, stage.torch_model("distill"), stage.plan, stage.settings
    model.to(stage.device)
    teacher = find_teacher(stage, settings.teacher)
    check_teacher(model, teacher, next(stage.samples(2, batch_size=2)).to(stage.device), what=settings.teacher)
    step = Distillation(task, model, teacher, temperature=settings.temperature, mix=settings.mix)
    reason = stage.train(step, settings.train, task=task)
    return stage.made(model, plan=plan, settings=changed, notes={"teacher": settings.teacher, "ended": reason})


def find_teacher(stage: Stage, source: str) -> Teacher:
    """The teacher that a recipe names.

    Raises:
        CompressionError: there is no such teacher.
        RunError, BundleError: it is damaged.
    """
    if source == "original":
        return network_teacher(stage.original, device=stage.device)
    own = stage.task.teachers()
    if source in own:
        return own[source](stage.datasets)
    path = Path(source)
    if not path.exists():
        known = "".join(f"{name}, " for name in ("original", *own))
        raise CompressionError(f"there is no teacher {source}: give {known}a run's folder, a bundle or a .npz file")
    if path.is_file():
        return stored_teacher(path, samples=len(stage.datasets["train"]), device=stage.device)
    if (path / "manifest.json").exists():
        graph = graph_of(path, read_manifest(path))

        def ask(batch: Batch) -> dict[str, Tensor]:
            said = graph(*[tensor.cpu().numpy() for tensor in batch.inputs])
            return {name: torch.from_numpy(value).to(stage.device) for name, value in said.items()}

        return ask
    from modelwright import folder, run

    _, entry, config = folder.read_config(path, stage.catalog)
    facts = folder.read_facts(path)
    if facts is None:
        raise CompressionError(f"the teacher {source} was never trained; go on with: modelwright resume {source}")
    task = entry.build(config)
    task.facts = facts
    model, _ = run.load_model(task, path, config, stage.device, warn=stage.warn)
    return network_teacher(model, device=stage.device)


# Quantize -------------------------------------------------------------------------------------------------------------


def quantize(stage: Stage, settings: QuantizeConfig) -> Made:
    """Writes the model's graph in 8-bit numbers; layers that this hurts stay in float.

    Raises:
        CompressionError: there is nothing to calibrate on, no layer can be quantized, or the graph is OpenVINO's.
        ExportError: the model has no graph.
    """
    # ONNX Runtime's quantizer takes a second to import, which the other stages need not wait for.
    from modelwright.compression.aware import QuantizationAware
    from modelwright.compression.quantize import quantize as quantize_graph

    if stage.graph is not None and stage.graph.suffix != ".onnx":
        raise CompressionError(f"{stage.graph.name} is in 8 bits already: leave out this stage quantize")
    plan, model = stage.plan, stage.model
    source = stage.graph
    kind = settings.kind
    if kind == "aware":
        model = stage.torch_model("quantization-aware training")
        step = QuantizationAware(stage.task, model, stage.inputs())
        plan = plan + step.folded
        # The weights are good already and have to give way a little only: a full rate would undo them.
        gentle = {"optimizer.lr": AWARE_RATE * stage.config.train.optimizer.lr}
        stage.train(step, {**gentle, **settings.train})
        step.finish()
        kind, source = "static", None
    if source is None:
        assert model is not None
        source = stage.folder / "float.onnx"
        # A copy: the exporter wants the model on the CPU, and what it does to it stays its own.
        write_graph(stage.task, copy.deepcopy(model).cpu(), stage.datasets["train"], source, seed=stage.config.seed)
    before = stage.measured(Graph(source))
    if settings.runtime == "openvino":
        return _quantize_for_openvino(stage, settings, source, plan, before)
    target = stage.folder / "int8.onnx"
    done = quantize_graph(
        source,
        target,
        kind=kind,
        calibration=_arrays(stage, settings.calibrate),
        score=lambda path: -stage.certain_drop(before, stage.measured(Graph(path))),
        max_drop=settings.max_drop,
    )
    return stage.made(plan=plan, graph=target, notes=done.as_json())


def _quantize_for_openvino(stage: Stage, settings: QuantizeConfig, source: Path, plan: Plan, before: Columns) -> Made:
    from modelwright.compression.openvino_int8 import quantize as quantize_graph

    target = stage.folder / stage.catalog.exporter(settings.runtime).graph
    done = quantize_graph(
        source,
        target,
        calibration=_arrays(stage, settings.calibrate),
        drop=lambda predictor: stage.certain_drop(before, stage.measured(predictor)),
        max_drop=settings.max_drop,
    )
    return stage.made(plan=plan, graph=target, runtime=settings.runtime, notes=done.as_json())


def _arrays(stage: Stage, count: int) -> list[Sequence[np.ndarray]]:
    def each() -> Iterator[Any]:
        for batch in stage.samples(count):
            yield [tensor.numpy() for tensor in batch.inputs]

    return list(each())
