"""Variants of a run's model on disk: what lies where, and reading it. Knows neither stages nor how one is made.

::

    runs/digits/variants/small-2-distill/
        variant.json        which stages made it, and from what; written last, a variant without it is unfinished
        model.safetensors   its weights      } where it is a torch model
        plan.json           edits that lead from the task's fresh model to its shapes
        model.onnx          its graph, where it has one; of OpenVINO's: model.xml and model.bin
        receipt.json        what was measured
        training/           checkpoints of its training
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from modelwright.compression.plan import Plan, replay
from modelwright.config import TaskConfig, build_config
from modelwright.errors import CompressionError, did_you_mean
from modelwright.evaluation.settling import with_settled
from modelwright.files import write_json
from modelwright.hookspecs import TaskEntry
from modelwright.task import Facts, Task
from modelwright.training import checkpoint as checkpoints

FOLDER, RECORD, RECEIPT, GRAPH, PLAN = "variants", "variant.json", "receipt.json", "model.onnx", "plan.json"
RUNTIME = "onnxruntime"
"""The runtime that graphs are for where nothing else is asked for."""
ORIGINAL = "original"
"""The name of the run's own model, as a variant."""


@dataclass(frozen=True)
class Variant:
    """A finished variant.

    Attributes:
        name: its folder's name.
        parent: the variant it was made from.
        stages: all stages that lead to it, as JSON values.
        settings: of another model than the run's own (a student), on top of the run's.
        notes: what its stages said of their work, by stage.
        key: a digest of the run's weights and the stages: equal keys, equal work.
        folder: where it lies.
        runtime: that its graph is for: an exporter's name.
        graph_name: the graph's file.
        settled: what the task found on validation data for this variant.
    """

    name: str
    parent: str
    stages: list[dict[str, Any]]
    settings: dict[str, Any]
    notes: dict[str, Any]
    key: str
    folder: Path = field(default=Path(), compare=False)
    runtime: str = RUNTIME
    graph_name: str = GRAPH
    settled: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def graph(self) -> Path | None:
        """Its graph, where it has one."""
        path = self.folder / self.graph_name
        return path if path.exists() else None

    @property
    def receipt(self) -> dict[str, Any]:
        """What was measured; empty where nothing was."""
        path = self.folder / RECEIPT
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def key_of(weights: str, stages: list[dict[str, Any]]) -> str:
    """The digest that tells whether work was done already."""
    return hashlib.sha256(json.dumps([weights, stages], sort_keys=True).encode()).hexdigest()[:16]


def find(run_folder: Path, name: str) -> Variant:
    """The finished variant of that name.

    Raises:
        CompressionError: there is none.
    """
    found = {variant.name: variant for variant in finished(run_folder)}
    if name not in found:
        # A recipe's name stands for its last variant.
        stage = re.compile(rf"{re.escape(name)}-([0-9]+)-.+")
        numbered = {int(match[1]): each for each in found if (match := stage.fullmatch(each))}
        if not numbered:
            near = did_you_mean(name, found)
            known = ", ".join(found) or f"none; make some: modelwright compress {run_folder}"
            raise CompressionError(f"{run_folder} has no variant '{name}'{near}; it has: {known}")
        name = numbered[max(numbered)]
    return found[name]


def finished(run_folder: Path) -> list[Variant]:
    """All finished variants, in the order of their names; a damaged record counts as unfinished."""
    found: list[Variant] = []
    for path in sorted((run_folder / FOLDER).glob(f"*/{RECORD}")):
        try:
            found.append(Variant(**json.loads(path.read_text(encoding="utf-8")), folder=path.parent))
        except (OSError, ValueError, TypeError):
            continue
    return found


def record(variant: Variant) -> None:
    """Marks a variant as finished."""
    values = asdict(variant)
    del values["folder"]
    write_json(variant.folder / RECORD, values)


def task_of(
    entry: TaskEntry,
    config: TaskConfig,
    settings: Mapping[str, Any],
    facts: Facts,
    *,
    settled: Mapping[str, Any],
) -> Task:
    """The run's task with some settings changed (another architecture), and what was settled for those weights."""
    task = entry.build(changed(config, settings))
    task.facts = with_settled(facts, settled)
    return task


def changed(config: TaskConfig, settings: Mapping[str, Any]) -> TaskConfig:
    """Settings with some of them changed, checked again.

    Raises:
        ConfigError: an unknown one, or an impossible value.
    """
    return build_config(type(config), layers=[config.model_dump(), settings])


def save_model(folder: Path, model: nn.Module, plan: Plan) -> None:
    """Weights and plan, each replaced whole."""
    tensors, extra = checkpoints.module_state(model)
    checkpoints.write_tensors(folder / "model.safetensors", tensors)
    write_json(folder / PLAN, {**plan.as_json(), "extra": extra})


def load_model(task: Task, variant: Variant) -> tuple[nn.Module, Plan] | None:
    """The torch model of a variant in eval mode, with its plan; None where it is only a graph.

    Raises:
        CompressionError: its files are damaged, or of another model.
    """
    weights = variant.folder / "model.safetensors"
    if not weights.exists():
        return None
    try:
        values = json.loads((variant.folder / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CompressionError(f"the plan of {variant.folder} is damaged: {error}; compress again") from error
    plan = Plan.from_json({name: value for name, value in values.items() if name != "extra"})
    model = replay(task.model(), plan)
    tensors = checkpoints.read_tensors(weights)
    checkpoints.load_module(model, tensors, values.get("extra", {}), what=f"variant {variant.name}")
    return model.eval(), plan
