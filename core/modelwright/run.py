"""A run from settings to report, readable from top to bottom. Knows the order of the stages; each stage knows its own.

The Python API: `train`, `resume`, `evaluate` and the `Run` that they give back.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from modelwright import environment, folder
from modelwright.config import TaskConfig
from modelwright.errors import CheckpointError, ConfigError, ModelwrightError
from modelwright.evaluation.bootstrap import Interval
from modelwright.evaluation.evaluator import Scores, asking
from modelwright.evaluation.evaluator import evaluate as evaluate_model
from modelwright.evaluation.settling import settle
from modelwright.events import Observer, Observers
from modelwright.files import write_json
from modelwright.hookspecs import TaskEntry
from modelwright.observers import MetricsLog
from modelwright.plugins import Catalog, discover, settings_of
from modelwright.report.figures import save_figures
from modelwright.report.page import write_report
from modelwright.task import Datasets, Evaluated, Facts, Split, Task
from modelwright.training import checkpoint as checkpoints
from modelwright.training import distributed
from modelwright.training.randomness import seed_everything
from modelwright.training.steps import Supervised
from modelwright.training.trainer import BEST, LAST, STEP, Trainer

T = TypeVar("T")
Warn = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """A run on disk."""

    folder: Path
    task: str

    @property
    def report(self) -> Path:
        """The page to open."""
        return self.folder / "report.html"

    @property
    def results(self) -> dict[str, Any]:
        """What results.json holds."""
        return folder.read_results(self.folder)

    @property
    def metrics(self) -> dict[str, Interval]:
        """Metrics with their intervals, on the test split (or, without one, on the validation split)."""
        evaluations = {each["split"]: each for each in self.results.get("evaluations", [])}
        found = evaluations.get("test") or evaluations.get("valid") or {"metrics": {}}
        return {name: Interval(**value) for name, value in found["metrics"].items()}


def train(
    task: str,
    *,
    recipe: str | None = None,
    config: str | Path | Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    out: str | Path | None = None,
    overwrite: bool = False,
    catalog: Catalog | None = None,
    observer: Observer | None = None,
    warn: Warn | None = None,
) -> Run:
    """Trains, evaluates and reports.

    Args:
        task: a task's name, as `modelwright tasks` lists them.
        recipe: one of the task's recipes.
        config: a YAML file, or settings as nested mappings, on top of the recipe.
        settings: on top of that: ``{"train.epochs": 3}`` or ``["train.epochs=3"]``.
        out: the run folder; ``runs/<task>-<time>`` when left out.
        overwrite: replace a run that lies there.
        catalog: the installed plugins; found when left out.
        observer: told of each event.
        warn: told of what a user should know; printed to stderr when left out.

    Raises:
        ModelwrightError: settings, data or training failed; see modelwright.errors.
    """
    catalog = catalog or discover()
    entry = catalog.task(task)
    effective = settings_of(entry, recipe=recipe, config=config, settings=settings)
    device = prepare_torch(effective)
    with distributed.process_group(device):
        out = distributed.broadcast(Path(out) if out is not None else folder.default_folder(task))
        aside = _on_first_rank(lambda: _begin(out, task, effective, device, overwrite=overwrite))
        try:
            return _go_on(Run(out, task), entry, effective, device, catalog, observer, warn or to_stderr)
        finally:
            if distributed.rank() == 0:
                folder.settle(out, aside)


def resume(
    run: str | Path | Run,
    *,
    catalog: Catalog | None = None,
    observer: Observer | None = None,
    warn: Warn | None = None,
) -> Run:
    """Goes on with a run at the exact step where its newest checkpoint was written.

    Raises:
        RunError: it is no run folder.
        ModelwrightError: training failed; see modelwright.errors.
    """
    catalog = catalog or discover()
    where = run.folder if isinstance(run, Run) else Path(run)
    name, entry, config = folder.read_config(where, catalog)
    device = prepare_torch(config)
    with distributed.process_group(device):
        return _go_on(Run(where, name), entry, config, device, catalog, observer, warn or to_stderr)


def evaluate(
    run: str | Path | Run,
    *,
    split: Split = "test",
    catalog: Catalog | None = None,
    warn: Warn | None = None,
) -> dict[str, Any]:
    """Scores a run's kept weights on a split; puts the result into its results and its report.

    Returns:
        ``{"task", "split", "samples", "weights", "metrics": {name: {"value", "low", "high"}}}``

    Raises:
        RunError: it is no run folder, or nothing was trained yet.
        DataError: there is no such split.
    """
    catalog = catalog or discover()
    where = run.folder if isinstance(run, Run) else Path(run)
    name, entry, config = folder.read_config(where, catalog)
    device = prepare_torch(config)
    with distributed.process_group(device):
        task = entry.build(config)
        facts = folder.read_facts(where)
        if facts is None:
            raise CheckpointError(f"{where} was never trained; go on with: modelwright resume {where}")
        task.facts = facts
        datasets = task.datasets()
        model, weights = load_model(task, where, config, device, warn=warn or to_stderr)
        if not checkpoints.exists(where / "checkpoints", LAST):
            (warn or to_stderr)(f"{where} is not finished: these are its best weights so far")
        found = _score(task, model, datasets, split, config, device)
        if distributed.rank() == 0:
            _keep(where, task, datasets, split, found, weights, model=model)
            write_report(where)
        return {"task": name, **_as_json(split, found, weights)}


def load_model(
    task: Task, where: Path, config: TaskConfig, device: torch.device, *, warn: Warn
) -> tuple[nn.Module, str]:
    """A run's kept model in eval mode, and which weights it has ("best" or "last").

    Raises:
        CheckpointError: nothing is kept yet, or it is damaged.
    """
    kept = where / "checkpoints"
    kind = BEST if config.train.select == "best" and checkpoints.exists(kept, BEST) else LAST
    if not checkpoints.exists(kept, kind):
        raise CheckpointError(f"{where} is not finished; go on with: modelwright resume {where}")
    found = checkpoints.newest(kept, kind, warn=warn)
    model = task.model()
    checkpoints.load_module(model, found.tensors["model"], found.state["extra"], what=f"the {kind} checkpoint")
    layout = torch.channels_last if config.train.channels_last else torch.preserve_format
    model = model.to(device=device, memory_format=layout)  # pyright: ignore[reportCallIssue] - missing in stubs
    return model.eval(), kind


# The stages -----------------------------------------------------------------------------------------------------------


def _begin(out: Path, task: str, config: TaskConfig, device: torch.device, *, overwrite: bool) -> Path | None:
    aside = folder.create(out, overwrite=overwrite)
    folder.write_config(out, config, task=task)
    write_json(
        out / folder.ENVIRONMENT,
        environment.describe(
            task=task,
            command=shlex.join(["modelwright", *sys.argv[1:]]),
            device=str(device),
            threads=torch.get_num_threads(),
            ranks=distributed.world(),
        ),
    )
    return aside


def _go_on(
    run: Run,
    entry: TaskEntry,
    config: TaskConfig,
    device: torch.device,
    catalog: Catalog,
    observer: Observer | None,
    warn: Warn,
) -> Run:
    """Everything after the run folder is there: data, training, evaluation, report."""
    task: Task = entry.build(config)
    datasets = task.datasets()
    train_data = datasets["train"]
    task.facts = _facts(run.folder, task, datasets)
    valid_data = datasets["valid"] if datasets.has("valid") else None
    for note in datasets.notes if distributed.rank() == 0 else []:
        warn(note)
    if device.type == "cuda":
        for data in (train_data, valid_data):
            _to_device(data, device)
    seed_everything(config.seed, "model")
    step = Supervised(task)
    _initialize(run.folder, task, step.model, warn)
    trainer = Trainer(
        task,
        config,
        step,
        train=train_data,
        valid=valid_data,
        folder=run.folder / "checkpoints",
        name=run.task,
        device=device,
        observer=_observers(run.folder, config, catalog, observer, warn),
        warn=warn,
    )
    reason = trainer.fit()
    summary = {
        "task": run.task,
        "objective": {"metric": task.objective.metric, "goal": task.objective.goal},
        "training": {
            "steps": trainer.state.step,
            "epochs": trainer.epochs_done,
            "seconds": trainer.state.seconds,
            "cpu_seconds": trainer.state.cpu_seconds,
            "parameters": sum(p.numel() for p in trainer.step.model.parameters()),
            "reason": reason,
        },
        "data": {"train": len(train_data), "valid": len(valid_data) if valid_data is not None else None, "test": None},
    }
    model, weights = load_model(task, run.folder, config, device, warn=warn)
    settle(task, task.served(model).eval(), datasets, config, device=device)
    if distributed.rank() == 0:
        folder.write_facts(run.folder, task.facts)
        write_json(run.folder / folder.RESULTS, {**summary, "evaluations": []})
    held_out: list[Split] = [split for split in ("valid", "test") if datasets.has(split)]
    splits: list[Split] = held_out or ["train"]
    for split in splits:
        found = _score(task, model, datasets, split, config, device)
        if distributed.rank() == 0:
            drawn = model if split == splits[-1] else None
            _keep(run.folder, task, datasets, split, found, weights, model=drawn)
    if distributed.rank() == 0:
        write_report(run.folder)
    distributed.barrier()
    return run


def _facts(where: Path, task: Task, datasets: Datasets) -> Facts:
    """Read from the run folder, or found by rank 0 and stored there."""

    def find() -> Facts:
        # Rank 0 alone looks whether they are there: others might look after it has written them.
        facts = folder.read_facts(where)
        if facts is None:
            facts = task.find_facts(datasets)
            folder.write_facts(where, facts)
        return facts

    return _on_first_rank(find)


def _initialize(where: Path, task: Task, model: nn.Module, warn: Warn) -> None:
    """Weights to start from, in a run that starts; ranks get those of rank 0 from the trainer."""

    def initialize() -> str | None:
        # A run that goes on has weights of its own; where it began may be gone.
        return None if checkpoints.exists(where / "checkpoints", STEP) else task.initialize(model)

    if said := _on_first_rank(initialize):
        warn(said)


def _score(
    task: Task, model: nn.Module, datasets: Datasets, split: Split, config: TaskConfig, device: torch.device
) -> Scores:
    settings = config.evaluate
    return evaluate_model(
        task,
        task.served(model).eval(),
        datasets[split],
        batch_size=settings.batch_size,
        device=device,
        channels_last=config.train.channels_last,
        workers=config.train.workers,
        resamples=settings.resamples,
        level=settings.level,
        seed=config.seed,
    )


def _keep(
    where: Path, task: Task, datasets: Datasets, split: Split, found: Scores, weights: str, *, model: nn.Module | None
) -> None:
    """Puts an evaluation into results.json and, where a model is given, its figures beside it."""
    results = folder.read_results(where)
    others = [each for each in results.get("evaluations", []) if each["split"] != split]
    results["evaluations"] = [*others, _as_json(split, found, weights)]
    data = results.setdefault("data", {})
    data[split] = found.samples
    data["notes"] = list(dict.fromkeys([*data.get("notes", []), *datasets.notes]))
    write_json(where / folder.RESULTS, results)
    if model is not None:
        device = next((parameter.device for parameter in model.parameters()), None)
        ask = asking(task.served(model).eval(), device=device)
        evaluated = Evaluated(split, datasets[split], found.predictions, found.truths, found.measured, ask)
        save_figures(task.figures(evaluated), where, split=split)


def _as_json(split: str, found: Scores, weights: str) -> dict[str, Any]:
    metrics = {name: interval.as_json() for name, interval in found.metrics.items()}
    return {"split": split, "samples": found.samples, "weights": weights, "metrics": metrics}


def _observers(where: Path, config: TaskConfig, catalog: Catalog, observer: Observer | None, warn: Warn) -> Observer:
    if distributed.rank() != 0:
        return lambda event: None
    named: dict[str, Observer] = {"metrics.jsonl": MetricsLog(where)}
    for name in config.observers:
        named[name] = catalog.observer(name).build(where)
    if observer is not None:
        named["observer"] = observer
    return Observers(named, warn=warn)


def prepare_torch(config: TaskConfig) -> torch.device:
    """Sets torch's threads as the settings ask; the device to work on.

    Raises:
        ConfigError: there is no such device.
    """
    if config.train.threads is not None:
        torch.set_num_threads(config.train.threads)
    try:
        return distributed.pick_device(config.train.device)
    except RuntimeError as error:
        raise ConfigError(
            f"train.device: '{config.train.device}' is no device of torch; use auto, cpu or cuda"
        ) from error


def _to_device(data: Any, device: torch.device) -> None:
    """Tensor-resident data go to the GPU once, where the dataset offers it."""
    move = getattr(data, "to", None)
    if move is not None:
        move(device)


def _on_first_rank(do: Callable[[], T]) -> T:
    """Done by rank 0 alone; its result, or its error, on every rank."""
    value: Any = None
    problem: ModelwrightError | None = None
    if distributed.rank() == 0:
        try:
            value = do()
        except ModelwrightError as error:
            problem = error
    value, problem = distributed.broadcast((value, problem))
    if problem is not None:
        raise problem
    return value


def to_stderr(message: str) -> None:
    """Tells the user something, once for all ranks."""
    if distributed.rank() == 0:
        print(f"modelwright: {message}", file=sys.stderr, flush=True)
