"""Looks for a variant that meets targets: what to prune, in which numbers. Knows the pipeline, and no stage's work.

Size and speed are known before anything is trained, so whatever is too large or too slow is ruled out in seconds.
Optuna (Akiba et al. 2019) chooses what to try; what a trial made is a variant like any other, and is not made twice.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import optuna
import torch
from torch import nn

from modelwright.bundle.export import write_graph
from modelwright.bundle.runtime import Graph
from modelwright.bundle.timing import interleaved, ratios
from modelwright.compression.pipeline import Compression
from modelwright.compression.prune import prune
from modelwright.compression.quantize import quantize
from modelwright.compression.receipt import score
from modelwright.compression.recipe import Recipe, RecipeStage
from modelwright.compression.stages import DistillConfig, PruneConfig, QuantizeConfig
from modelwright.compression.targets import Targets
from modelwright.compression.variants import ORIGINAL, Variant
from modelwright.errors import CompressionError, ConfigError, ExportError
from modelwright.task import Split

LEAST, MOST, STEP = 0.1, 1.0, 0.05
"""Shares of the channels that are tried."""
FLOAT = "float"
OUT = (2**63, math.inf)
"""Bytes and share of what cannot be made."""
KINDS = ("static", FLOAT, "weights", "dynamic")
TELLING = ("static", FLOAT)
"""Those tried before Optuna chooses."""
TRIES = 5
"""Seconds that the run's own graph is timed for before a time is called out of reach."""
TRAININGS = 4
"""Into so many the time is divided."""


@dataclass(frozen=True)
class Candidate:
    """A variant that was tried. `drop`: of the objective, on validation; positive is worse. `share`: see `_Search`."""

    name: str
    keep: float
    kind: str
    drop: float
    size: int
    share: float
    latency_ms: float

    def __str__(self) -> str:
        return f"{self.name} (drop {self.drop:.4f} on validation, {self.size:,} bytes, {self.latency_ms:.3g} ms)"


@dataclass
class Found:
    """What a search came to."""

    names: list[str]
    chosen: str
    targets: Targets
    candidates: list[Candidate] = field(default_factory=list[Candidate])

    def as_json(self) -> dict[str, Any]:
        """JSON values: targets, and what was tried."""
        return {"targets": vars(self.targets), "tried": [vars(each) for each in self.candidates]}


def search(work: Compression, template: Recipe, targets: Targets, *, minutes: float, overwrite: bool) -> Found:
    """The best variant that meets all targets.

    Best is: the smallest and fastest (product of both ratios) within `max_drop`; without one, the least drop.

    Args:
        template: its prune and quantize stages are changed from trial to trial, the others stay.
        minutes: to spend; nothing is begun that is not expected to end in time, and what was begun is ended.

    Raises:
        CompressionError: a target cannot be met; says which, and how near the nearest came.
        ConfigError: the template quantizes for another runtime than ONNX Runtime, which targets are about.
    """
    for stage in template.stages:
        if isinstance(stage.settings, QuantizeConfig) and stage.settings.runtime != "onnxruntime":
            raise ConfigError(
                f"targets are searched for in ONNX Runtime, recipe '{template.name}' is for {stage.settings.runtime}: "
                "leave out runtime, or the targets"
            )
    return _Search(work, template, targets, minutes=minutes, overwrite=overwrite).run()


class _Search:
    """A search.

    A machine that others use is slow at times. So a graph is timed in turns with the run's own one and known by its
    `share` of that one's time, which is what it takes when the machine is at its quickest.
    """

    def __init__(
        self, work: Compression, template: Recipe, targets: Targets, *, minutes: float, overwrite: bool
    ) -> None:
        self._work, self._targets, self._overwrite = work, targets, overwrite
        self._minutes = minutes
        self._ends = time.monotonic() + 60 * minutes
        self._stages = template.stages
        self._candidates: dict[tuple[float, str], Candidate] = {}
        self._probed: dict[tuple[float, str], tuple[int, float]] = {}
        self._own_ms = math.inf
        self._made: list[str] = []
        self._drops: dict[str, float] = {}
        self._tried = 0

    def run(self) -> Found:
        self._refuse_the_impossible()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        first = self._first()
        sampler = optuna.samplers.TPESampler(seed=self._work.config.seed, n_startup_trials=len(first) + 2)
        study = optuna.create_study(direction="minimize", sampler=sampler)
        for keep, kind in first:
            study.enqueue_trial({"keep": keep, "kind": kind})
        stale, longest = 0, 0.0
        # What takes as long as the longest so far has to end in time; the first is tried in any case.
        while ((began := time.monotonic()) + longest < self._ends and stale < 10) or not self._tried:
            self._tried += 1
            trial = study.ask()
            key = (
                round(trial.suggest_float("keep", self._least, MOST, step=STEP), 2),
                trial.suggest_categorical("kind", KINDS),
            )
            stale = stale + 1 if key in self._probed else 0
            study.tell(trial, self._try(*key))
            longest = max(longest, time.monotonic() - began)
        return self._choose()

    def _refuse_the_impossible(self) -> None:
        """If the smallest there is misses a size or a time, nothing will meet it."""
        if self._targets.max_bytes is None and self._targets.max_latency_ms is None:
            return
        for _ in range(TRIES):
            self._timed({})
        least = {kind: self._probe(self._least, kind) for kind in KINDS} | {"": self._probe(MOST, FLOAT)}
        size, latency = min(each[0] for each in least.values()), min(each[1] for each in least.values())
        share = f"{self._least:.0%} of the channels"
        _, too_large, too_slow = self._targets.excess(drop=None, size=size, latency_ms=latency)
        if too_large > 0:
            raise CompressionError(
                f"max-bytes {self._targets.max_bytes:,} cannot be met: the smallest variant, {share}, takes {size:,} "
                "bytes; ask for more, or train a smaller model"
            )
        if too_slow > 0:
            raise CompressionError(
                f"max-latency-ms {self._targets.max_latency_ms:g} cannot be met: the quickest variant, {share}, takes "
                f"{latency:.3g} ms here; ask for more, or train a smaller model"
            )

    def _first(self) -> list[tuple[float, str]]:
        """What needs no training; then what is pruned least, as that loses least; then half of all channels."""
        limited = self._targets.max_bytes is not None or self._targets.max_latency_ms is not None
        whole, half = ([(keep, kind) for kind in TELLING] for keep in (MOST, 0.5))
        gentle = [(self._gentlest(kind), kind) for kind in TELLING] if limited else []
        return list(dict.fromkeys([*whole, *gentle, *half]))

    def _gentlest(self, kind: str) -> float:
        """The largest share of channels whose size and time are within the targets."""

        def fits(share: float) -> bool:
            size, latency = self._probe(share, kind)
            return max(self._targets.excess(drop=None, size=size, latency_ms=latency)) <= 0

        return largest(np.arange(self._least, MOST + STEP / 2, STEP).round(2).tolist(), fits)

    # A trial ----------------------------------------------------------------------------------------------------------

    def _try(self, keep: float, kind: str) -> float:
        """How bad a trial is: what it costs, and ten times what it misses."""
        size, latency = self._probe(keep, kind)
        excess = self._targets.excess(drop=None, size=size, latency_ms=latency)
        # Times are noisy: what is near the target is measured again when it is made.
        if (size, latency) == OUT or max(excess) > 0.1:
            return 100 + 10 * min(sum(max(each, 0) for each in excess), 1e6)
        made = self._candidates.get((keep, kind)) or self._make(keep, kind)
        excess = self._targets.excess(drop=made.drop, size=made.size, latency_ms=made.latency_ms)
        return self._cost(made) + 10 * sum(max(each, 0) for each in excess)

    def _make(self, keep: float, kind: str) -> Candidate:
        variant = self._trained(keep)
        share = f"search-{round(100 * keep):03d}"
        if kind != FLOAT:
            base = next((s.settings for s in self._stages if isinstance(s.settings, QuantizeConfig)), QuantizeConfig())
            stage = RecipeStage(
                self._work.catalog.compressor("quantize"), base.model_copy(update={"kind": kind, "max_drop": None})
            )
            variant = self._run(Recipe(f"{share}-{kind}", (stage,)), variant)
        made = self._judged(variant, keep, kind)
        self._candidates[keep, kind] = made
        self._drops[made.name] = float(variant.receipt.get("drop", {}).get("value", 0.0))
        self._work.warn(f"tried {made}")
        return made

    def _trained(self, keep: float) -> Variant:
        """The run's own model, or what is left of it after pruning and training."""
        if keep == MOST:
            return self._work.original
        stages: list[RecipeStage] = []
        for stage in self._stages:
            settings = stage.settings
            if isinstance(settings, QuantizeConfig):
                continue
            if isinstance(settings, PruneConfig):
                settings = settings.model_copy(update={"keep": keep})
            if isinstance(settings, DistillConfig) and not {"epochs", "steps", "minutes"} & set(settings.train):
                budget = 0.7 * self._minutes / TRAININGS
                settings = settings.model_copy(update={"train": {**settings.train, "minutes": budget}})
            stages.append(RecipeStage(stage.compressor, settings))
        return self._run(Recipe(f"search-{round(100 * keep):03d}", tuple(stages)), self._work.original)

    def _run(self, recipe: Recipe, parent: Variant) -> Variant:
        made = self._work.run(recipe, parent=parent, overwrite=self._overwrite)
        self._made += [each.name for each in made if each.name not in self._made]
        return made[-1]

    def _judged(self, variant: Variant, keep: float, kind: str) -> Candidate:
        task = self._work.task_of(variant)
        if variant.graph is None:
            raise ExportError(f"{variant.name} has no graph: {variant.receipt.get('export_error', '')}")
        found = score(task, Graph(variant.graph), self._work.datasets, self._split, self._work.config)
        value = found.metrics[task.objective.metric].value
        drop = self._learned - value if task.objective.goal == "max" else value - self._learned
        # Not the receipt's times: beside eager torch, which empties the caches, a small graph takes twice as long.
        size, share = self._timed({kind: Graph(variant.graph, threads=torch.get_num_threads())})[kind]
        return Candidate(variant.name, keep, kind, drop, size, share, share * self._own_ms)

    @cached_property
    def _split(self) -> Split:
        """Choices are made on validation, never on the test."""
        return "valid" if self._work.datasets.has("valid") else "train"

    @cached_property
    def _learned(self) -> float:
        task = self._work.task_of(self._work.original)
        served = task.served(copy.deepcopy(self._work.model).cpu()).eval()
        found = score(task, served, self._work.datasets, self._split, self._work.config)
        return found.metrics[task.objective.metric].value

    @cached_property
    def _least(self) -> float:
        """The smallest share that pruning can leave: no layer may lose all its channels."""
        shares = np.arange(LEAST, MOST, STEP).round(2).tolist()
        for share in shares[:-1]:
            with contextlib.suppress(CompressionError):
                self._pruned(share)
                return share
        self._pruned(shares[-1])  # says why, where nothing can be pruned at all
        return shares[-1]

    def _probe(self, keep: float, kind: str) -> tuple[int, float]:
        """Bytes and milliseconds of a variant, from a model that is pruned and not trained."""
        if (keep, kind) not in self._probed:
            with TemporaryDirectory(prefix="modelwright-search-") as scratch:
                self._probe_all(keep, Path(scratch))
        size, share = self._probed[keep, kind]
        return size, share * self._own_ms

    def _pruned(self, keep: float) -> nn.Module:
        """The run's own model without some channels, not trained."""
        work = self._work
        task, model = work.task({}), copy.deepcopy(work.model).cpu().eval()
        if keep == MOST:
            return model
        base = next((s.settings for s in self._stages if isinstance(s.settings, PruneConfig)), PruneConfig())
        prunable = task.prunable(model)
        if prunable is None:
            raise CompressionError("the task offers no pruning: give a recipe without targets, for example int8")
        # Gradients that Taylor importance needs would cost more than the probe; sizes hardly depend on it.
        prune(
            model,
            [torch.from_numpy(array[:2].copy()) for array in work.samples],
            keep=keep,
            of=base.of,
            scope=base.scope,
            importance="magnitude",
            prunable=prunable,
            multiple=base.multiple,
        )
        return model

    def _probe_all(self, keep: float, scratch: Path) -> None:
        work = self._work
        source = scratch / "float.onnx"
        write_graph(work.task({}), self._pruned(keep), work.datasets[work.split], source, seed=work.config.seed)
        calibration = [work.samples]
        graphs = {FLOAT: source}
        for kind in KINDS:
            if kind != FLOAT:
                graphs[kind] = scratch / f"{kind}.onnx"
                try:
                    quantize(source, graphs[kind], kind=kind, calibration=calibration, score=None, max_drop=None)
                except CompressionError:  # it has no layer of a kind that this can store
                    del graphs[kind]
                    self._probed[keep, kind] = OUT
        loaded = {kind: Graph(path, threads=torch.get_num_threads()) for kind, path in graphs.items()}
        self._probed |= {(keep, kind): found for kind, found in self._timed(loaded).items()}

    def _timed(self, graphs: Mapping[str, Graph]) -> dict[str, tuple[int, float]]:
        """Bytes of each, and its share of the time that the run's own graph takes for one sample."""
        one = [np.ascontiguousarray(array[:1]) for array in self._work.samples]
        calls = {kind: _call(graph, one) for kind, graph in {ORIGINAL: self._own, **graphs}.items()}
        times = interleaved(calls, seconds=1.0, least=20)
        self._own_ms = min(self._own_ms, 1000 * float(np.median(times[ORIGINAL])))
        shares = ratios(times, reference=ORIGINAL)
        return {kind: (graph.bytes, shares[kind]) for kind, graph in graphs.items()}

    @cached_property
    def _own(self) -> Graph:
        variant = self._work.original
        if variant.graph is None:
            raise ExportError(f"the run's own model has no graph: {variant.receipt.get('export_error', '')}")
        return Graph(variant.graph, threads=torch.get_num_threads())

    # The end ----------------------------------------------------------------------------------------------------------

    def _cost(self, made: Candidate) -> float:
        """Size times time, beside the original's; where no drop was given, the drop itself."""
        if self._targets.max_drop is None:
            return made.drop
        size, latency = self._probe(MOST, FLOAT)
        return made.size / size * made.share * self._own_ms / latency

    def _choose(self) -> Found:
        tried = [replace(each, latency_ms=each.share * self._own_ms) for each in self._candidates.values()]
        if not tried:
            raise CompressionError(
                f"no variant within {self._targets} could be made in {self._minutes:g} minutes: give more --minutes"
            )
        missed = {each.name: self._excess(each) for each in tried}
        met = [each for each in tried if max(missed[each.name]) <= 0]
        if not met:
            nearest = min(tried, key=lambda each: sum(max(x, 0) for x in missed[each.name]))
            names = ("max-drop", "max-bytes", "max-latency-ms")
            which = " and ".join(n for n, x in zip(names, missed[nearest.name], strict=True) if x > 0)
            raise CompressionError(
                f"no variant met {self._targets} within {self._minutes:g} minutes; the nearest misses {which}: "
                f"{nearest}; give more --minutes, or ask for less"
            )
        best = min(met, key=self._cost)
        most, lost = self._targets.max_drop, self._drops[best.name]
        if most is not None and lost > most:
            self._work.warn(
                f"{best.name} loses {lost:.4f} on {self._work.split}, more than max-drop {most:g}, and {best.drop:.4f} "
                f"on {self._split}, by which it was chosen: look at the other variants, or ask for less of a drop"
            )
        return Found(_unique([*self._made, best.name]), best.name, self._targets, tried)

    def _excess(self, made: Candidate) -> list[float]:
        return self._targets.excess(drop=made.drop, size=made.size, latency_ms=made.latency_ms)


def largest(values: Sequence[float], fits: Callable[[float], bool]) -> float:
    """The largest of ascending values that fits, by halving; the first where none does.

    >>> largest([0.1, 0.2, 0.3, 0.4], lambda value: value < 0.35)
    0.3
    """
    low, high = 0, len(values)  # the largest known to fit, the smallest known not to
    middle = high - 1
    while high - low > 1:
        low, high = (middle, high) if fits(values[middle]) else (low, middle)
        middle = (low + high) // 2
    return values[low]


def _call(graph: Graph, arrays: Sequence[np.ndarray]) -> Any:
    return lambda: graph(*arrays)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
