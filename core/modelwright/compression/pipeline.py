"""Runs a compression recipe on a finished run: stage after stage, each leaving a variant with a receipt.

Knows the order and where things go; each stage, and the receipt, knows its own. What was done is never done again:
a recipe that was interrupted goes on where it was, inside a stage's training too.
"""

from __future__ import annotations

import copy
import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from modelwright import folder
from modelwright.bundle.agreement import reason_of
from modelwright.bundle.export import write_graph
from modelwright.bundle.runtime import Graph
from modelwright.compression import variants
from modelwright.compression.context import Made, Stage
from modelwright.compression.cost import Cost, cost
from modelwright.compression.plan import Plan
from modelwright.compression.receipt import BATCHES, Measured, judged_split, receipt, score
from modelwright.compression.recipe import Recipe, RecipeStage
from modelwright.compression.variants import GRAPH, ORIGINAL, RECEIPT, Variant
from modelwright.config import TaskConfig, merge
from modelwright.errors import CheckpointError, CompressionError, ExportError, Interrupted
from modelwright.evaluation.evaluator import Scores, evaluate
from modelwright.evaluation.settling import SETTLED, settle
from modelwright.events import Event
from modelwright.files import write_json, write_text
from modelwright.hookspecs import TaskEntry
from modelwright.plugins import Catalog, missing_modules
from modelwright.task import Datasets, Facts, Keys, Split, Task
from modelwright.training.loading import fetch
from modelwright.training.randomness import seed_everything

KEY = "key"
"""A file that says what is being made in an unfinished variant's folder."""
CPU = torch.device("cpu")


@dataclass
class Compression:
    """A finished run that is being compressed.

    Args:
        model: the run's kept model.
        device: for training; scores and times are taken on the CPU.
    """

    run_folder: Path
    entry: TaskEntry
    config: TaskConfig
    facts: Facts
    datasets: Datasets
    model: nn.Module
    device: torch.device
    catalog: Catalog
    observer: Callable[[Event], None]
    warn: Callable[[str], None]

    # The recipe -------------------------------------------------------------------------------------------------------

    def run(self, recipe: Recipe, *, parent: Variant | None = None, overwrite: bool = False) -> list[Variant]:
        """Every stage of a recipe, one after the other.

        Args:
            parent: the variant to begin with; the run's own model when left out.
            overwrite: replace variants of the same names that were made otherwise.

        Returns:
            The variants, in the order of the stages.

        Raises:
            CompressionError: a stage cannot do what it is asked for; variants made so far stay.
            Interrupted: the user stopped it; the same command goes on.
        """
        made: list[Variant] = []
        before = parent or self.original
        for number, stage in enumerate(recipe.stages, start=1):
            name = f"{recipe.name}-{number}-{stage.compressor.name}"
            stages = [*before.stages, stage.as_json()]
            key = variants.key_of(self._digest, stages)
            done = self._finished(name, key, overwrite=overwrite)
            if done is None:
                try:
                    done = self._make(name, key, stages, stage, before)
                except Interrupted as error:
                    raise Interrupted(
                        f"stopped in stage {name}, a checkpoint is saved; go on with the same command: "
                        f"modelwright compress {self.run_folder} --recipe {recipe.name}"
                    ) from error
            made.append(done)
            before = done
        return made

    def _finished(self, name: str, key: str, *, overwrite: bool) -> Variant | None:
        """The variant, where it is made already; else its folder is made ready for beginning or going on."""
        where = self.run_folder / variants.FOLDER / name
        for each in variants.finished(self.run_folder):
            if each.name == name and each.key == key:
                return each
        begun = where / KEY
        if where.exists() and not (begun.exists() and begun.read_text(encoding="utf-8") == key):
            if not overwrite:
                raise CompressionError(
                    f"{where} was made with other settings or from other weights: give the recipe another name, or add "
                    "--overwrite"
                )
            shutil.rmtree(where)
        where.mkdir(parents=True, exist_ok=True)
        write_text(begun, key)
        return None

    def _make(self, name: str, key: str, stages: list[Any], stage: RecipeStage, before: Variant) -> Variant:
        where = self.run_folder / variants.FOLDER / name
        task = self.task(before.settings)
        loaded = self._load(task, before)
        given = Stage(
            task=task,
            config=task.config,
            settings=before.settings,
            model=None if loaded is None else loaded[0].to(self.device).eval(),
            plan=Plan() if loaded is None else loaded[1],
            graph=before.graph,
            original=self.model,
            datasets=self.datasets,
            folder=where,
            device=self.device,
            rebuild=lambda further: self.task(merge(before.settings, further)),
            catalog=self.catalog,
            observer=self.observer,
            warn=self.warn,
        )
        self.warn(f"{name}: {stage.compressor.summary}")
        made = stage.compressor.run(given, stage.settings)
        # What earlier stages noted still holds for this one's result.
        notes = {**before.notes, **made.notes}
        variant = Variant(name, before.name, stages, dict(made.settings), notes, key, where)
        if made.graph is not None:
            variant = replace(variant, runtime=made.runtime, graph_name=self.catalog.exporter(made.runtime).graph)
        return self._store(variant, made, before)

    def _store(self, variant: Variant, made: Made, before: Variant) -> Variant:
        """Weights, graph and receipt; the record that it is finished comes last."""
        task, where, problem = self.task(variant.settings), variant.folder, ""
        eager = served = None
        if made.model is not None:
            eager = made.model.to(CPU).eval()
            variants.save_model(where, eager, made.plan)
            problem = self._export(task, eager, where / GRAPH)
            served = task.served(eager).eval()
        elif made.graph is not None:
            made.graph.replace(where / variant.graph_name)
        graphs = self._graphs(variant)
        deployed = next(iter(graphs), served)
        assert deployed is not None
        variant = replace(variant, settled=settle(task, deployed, self.datasets, self.config))
        measured = self._measured(task, served, graphs, where)
        if measured.cost is None:  # a graph in other numbers does what the model did that it was made from
            measured = replace(measured, cost=self._cost_of(before))
        found = receipt(
            task,
            self.config,
            split=self.split,
            original=self._original_measured,
            variant=measured,
            samples=self.samples,
            notes=variant.notes,
            export_error=problem,
        )
        write_json(
            where / RECEIPT, {"variant": variant.name, "parent": variant.parent, "stages": variant.stages, **found}
        )
        variants.record(variant)
        (where / KEY).unlink(missing_ok=True)
        for left in ("float.onnx", "training", *(path.name for path in where.glob("round-*"))):
            path = where / left
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        return variant

    # Parts ------------------------------------------------------------------------------------------------------------

    def task(self, settings: Mapping[str, Any]) -> Task:
        """The run's task with some settings changed; nothing is settled, as befits weights that are still to come."""
        return variants.task_of(self.entry, self.config, settings, self.facts, settled={})

    def task_of(self, variant: Variant) -> Task:
        """The task as a variant is scored, with what was settled for it."""
        return variants.task_of(self.entry, self.config, variant.settings, self.facts, settled=variant.settled)

    @cached_property
    def split(self) -> Split:
        """The split that receipts are about."""
        return judged_split(self.datasets)

    @cached_property
    def original(self) -> Variant:
        """The run's own model as a variant: weights and graph are written once, to compare with."""
        where = self.run_folder / variants.FOLDER / ORIGINAL
        settled = self.facts.values.get(SETTLED, {})
        variant = Variant(ORIGINAL, "", [], {}, {}, variants.key_of(self._digest, []), where, settled=settled)
        if any(each.name == ORIGINAL and each.key == variant.key for each in variants.finished(self.run_folder)):
            return variant
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir(parents=True)
        variants.save_model(where, self.model, Plan())
        if problem := self._export(self.task({}), copy.deepcopy(self.model), where / GRAPH):
            self.warn(f"the run's own model has no graph: {problem}")
        variants.record(variant)
        return variant

    def _load(self, task: Task, variant: Variant) -> tuple[nn.Module, Plan] | None:
        return variants.load_model(task, variant)

    def _export(self, task: Task, model: nn.Module, target: Path) -> str:
        """Writes the graph; why there is none, where there is none."""
        try:
            write_graph(task, model, self.datasets[self.split], target, seed=self.config.seed)
        except ExportError as error:
            return str(error)
        return ""

    @cached_property
    def _digest(self) -> str:
        """Of the run's weights: variants of other weights are other variants."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            if isinstance(tensor, torch.Tensor):
                digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def samples(self) -> Sequence[np.ndarray]:
        """Inputs of real samples to time with, repeated where there are too few."""
        data = self.datasets[self.split]
        rows = np.arange(max(BATCHES)) % len(data)
        batch = fetch(self.task({}), data, Keys(self.config.seed, 0, 1, rows.astype(np.int64)))
        assert batch is not None
        return [tensor.numpy() for tensor in batch.inputs]

    @cached_property
    def _original_measured(self) -> Measured:
        task, variant = self.task_of(self.original), self.original
        served = task.served(copy.deepcopy(self.model).to(CPU)).eval()
        return self._measured(task, served, self._graphs(variant), variant.folder, as_trained=True)

    def _measured(
        self, task: Task, served: nn.Module | None, graphs: Sequence[Graph], where: Path, *, as_trained: bool = False
    ) -> Measured:
        """A variant is scored as it is deployed, from its graph; the original as it was trained."""
        graph = next(iter(graphs), None)
        predictor = served if as_trained or graph is None else graph
        assert predictor is not None
        weights = where / "model.safetensors"
        size = weights.stat().st_size if as_trained or graph is None else graph.bytes
        with torch.no_grad():
            scores: Scores = score(task, predictor, self.datasets, self.split, self.config)
        counted = None
        if served is not None:
            counted = cost(served, [torch.from_numpy(array[:2].copy()) for array in self.samples])
        return Measured(served, graph, size, counted, scores, list(graphs[1:]))

    def _graphs(self, variant: Variant) -> list[Graph]:
        """A variant's graph in its runtime, then in others that are installed and take it; none without a graph."""
        path, threads = variant.graph, torch.get_num_threads()
        if path is None:
            return []
        graphs = [self.catalog.exporter(variant.runtime).open(path, threads=threads)]
        for entry in self.catalog.exporters.values():
            takes = entry.opens_onnx and path.suffix == ".onnx" and entry.name != variant.runtime
            if takes and not missing_modules(entry.requires):
                try:
                    graph = entry.open(path, threads=threads)
                    graph(*self.samples)
                    graphs.append(graph)
                except Exception as error:  # noqa: BLE001 - it is only timed: what it cannot do must end nothing
                    self.warn(f"{variant.name} is not timed in {entry.name}: {reason_of(error)}")
        return graphs

    def _cost_of(self, variant: Variant) -> Cost | None:
        if variant.name == ORIGINAL:
            return self._original_measured.cost
        found = variant.receipt
        counts = found["parameters"]["variant"], found["macs"]["variant"]
        return None if None in counts else Cost(*counts)

    # Chance -----------------------------------------------------------------------------------------------------------

    def refuse_chance(self, variant: Variant) -> None:
        """Looks whether anything is left of what was learned.

        Raises:
            CompressionError: the variant is hardly better than a model that learned nothing.
        """
        found = variant.receipt["metrics"][self.task({}).objective.metric]
        learned, left = found["original"], found["variant"]
        task = self.task(variant.settings)
        seed_everything(self.config.seed, "untrained")
        fresh = task.served(task.model()).eval()
        scores = evaluate(task, fresh, self.datasets[self.split], batch_size=self.config.evaluate.batch_size)
        chance = scores.metrics[task.objective.metric].value
        if left is None or (learned != chance and (left - chance) / (learned - chance) < 0.1):
            shown = "nan" if left is None else f"{left:.4f}"
            raise CompressionError(
                f"{variant.name} lost what was learned: {task.objective.metric} {shown}, an untrained model has "
                f"{chance:.4f}; keep more, or train longer after pruning; what was made so far is kept"
            )


def open_run(
    run_folder: Path,
    catalog: Catalog,
    *,
    observer: Callable[[Event], None],
    warn: Callable[[str], None],
) -> Compression:
    """A finished run, ready to be compressed.

    Raises:
        RunError: it is no run folder, or not finished.
    """
    from modelwright import run as runs

    _, entry, config = folder.read_config(run_folder, catalog)
    device = runs.prepare_torch(config)
    facts = folder.read_facts(run_folder)
    if facts is None:
        raise CheckpointError(f"{run_folder} was never trained; go on with: modelwright resume {run_folder}")
    task: Task = entry.build(config)
    task.facts = facts
    model, _ = runs.load_model(task, run_folder, config, device, warn=warn)
    return Compression(run_folder, entry, config, facts, task.datasets(), model, device, catalog, observer, warn)
