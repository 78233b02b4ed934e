"""Writes a run's report: one HTML page that asks for nothing outside itself. Knows a run folder; knows no torch."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from modelwright.files import write_text
from modelwright.report.compression import read_compressions, receipt_cells
from modelwright.report.curves import best_step, learning_curves
from modelwright.report.run_folder import Evaluation, ObjectiveRecord, Run, Score, read_run

REPORT_FILE = "report.html"


@dataclass(frozen=True)
class Headline:
    """The score that the page opens with.

    Attributes:
        metric: its name.
        split: where it was measured.
        score: value and interval.
        verdict: what it means, in one sentence.
    """

    metric: str
    split: str
    score: Score
    verdict: str


@dataclass(frozen=True)
class Details:
    """The scores with a slash in their name ("f1/cat"), as a table: rows are what follows the slash.

    Attributes:
        title: which evaluation.
        columns: the metrics.
        rows: (name, a score or None for each metric).
    """

    title: str
    columns: list[str]
    rows: list[tuple[str, list[Score | None]]]


def write_report(run_folder: Path) -> Path:
    """Write report.html into a run folder, from whatever the folder holds; gives the page's path.

    Raises:
        RunError: there is no such folder, or nothing of a run in it.
    """
    run = read_run(run_folder)
    path = run_folder / REPORT_FILE
    write_text(path, render_page(run))
    return path


def render_page(run: Run) -> str:
    """The page as HTML. Every text of the run is escaped."""
    evaluations = list(run.results.evaluations) if run.results else []
    evaluations.sort(key=lambda evaluation: evaluation.split != "test")  # the score that counts stands first
    objective = run.objective
    problems = list(run.problems)
    compressions = read_compressions(run.folder, problems)
    return _template().render(
        run=run,
        task=run.task or "unknown task",
        started=run.started,
        level=f"{100 * run.level:g} %",
        intervals=any(score.low is not None for e in evaluations for score in e.metrics.values()),
        headline=_headline(run, evaluations, objective),
        facts=_facts(run),
        problems=problems,
        compressions=compressions,
        cells=receipt_cells,
        evaluations=evaluations,
        metrics=_metric_rows(evaluations, objective),
        details=[table for evaluation in evaluations if (table := _details(evaluation))],
        curves=learning_curves(run),
        best=best_step(run),
        figures=[(figure, run.data_uri(figure)) for figure in run.figures],
        notes=run.results.data.notes if run.results else [],
        commands=_commands(run),
        environment={key: value for key, value in run.environment.items() if key != "packages"},
        packages=_mapping(run.environment.get("packages")),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {"number": number, "count": count, "heading": heading}
    for name, each in filters.items():
        environment.filters[name] = each
    return environment.get_template("page.html.jinja")


# What the page says ---------------------------------------------------------------------------------------------------


def _headline(run: Run, evaluations: Sequence[Evaluation], objective: ObjectiveRecord | None) -> Headline | None:
    """The objective on the test split; without one on validation, without results as validation last saw it."""
    if objective is None:
        return None
    name = objective.metric
    for split in ("test", "valid", "train"):
        for evaluation in evaluations:
            score = evaluation.metrics.get(name)
            if evaluation.split == split and score is not None and score.value is not None:
                return Headline(name, split, score, _verdict(evaluation, score, objective, level=run.level))
    scored = [event for event in run.named("evaluation") if isinstance(event.get("metrics"), dict)]
    seen = next((event for event in reversed(scored) if event.get("best") is True), None)
    value = seen["metrics"].get(name) if seen else None
    if seen is None or not isinstance(value, int | float):
        return None
    verdict = (
        f"The run has no final results; this is its best {name} on validation so far, at step {seen['step']}, "
        f"and says little about new data, because it was picked for being the best."
    )
    return Headline(name, "valid", Score(value=float(value)), verdict)


def _verdict(evaluation: Evaluation, score: Score, objective: ObjectiveRecord, *, level: float) -> str:
    """What a score means, in one plain sentence."""
    kind = {"test": "held-out test ", "valid": "validation ", "train": "training "}[evaluation.split]
    samples = f"{count(evaluation.samples)} {kind}samples" if evaluation.samples else f"the {kind}samples"
    better = "higher is better" if objective.goal == "max" else "lower is better"
    sentence = f"On {samples} the model reaches {objective.metric} {number(score.value)} ({better})"
    if score.low is not None and score.high is not None:
        sentence += (
            f"; from that many samples the true value is known only to lie about between {number(score.low)} "
            f"and {number(score.high)} ({100 * level:g} % interval)"
        )
    if evaluation.split == "valid":
        chosen = " that chose the weights" if evaluation.weights == "best" else ""
        sentence += f"; a score on samples{chosen} is no proof for new data, and there is none on a test split"
    if evaluation.split == "train":
        sentence += "; the model has seen these samples, so this is no proof for new data"
    return sentence + "."


def _facts(run: Run) -> list[tuple[str, str]]:
    """The few figures beside the headline; what is not known is left out."""
    results = run.results
    facts: list[tuple[str, str | None]] = []
    if results:
        training, data = results.training, results.data
        splits = (("training", data.train), ("validation", data.valid), ("test", data.test))
        facts += [
            ("parameters", count(training.parameters)),
            ("training time", duration(training.seconds)),
            ("processor time", duration(training.cpu_seconds)),
            ("epochs", None if training.epochs is None else f"{training.epochs:g}"),
            ("steps", count(training.steps)),
            ("ended by", training.reason),
            *((f"{split} samples", count(size)) for split, size in splits),
        ]
    device = run.environment.get("device")
    facts.append(("device", str(device) if device else None))
    return [(name, value) for name, value in facts if value]


def _metric_rows(
    evaluations: Sequence[Evaluation], objective: ObjectiveRecord | None
) -> list[tuple[str, list[Score | None]]]:
    """The main metrics, the objective first: (name, one score per evaluation)."""
    names = list(dict.fromkeys(name for e in evaluations for name in e.metrics if "/" not in name))
    names.sort(key=lambda name: objective is None or name != objective.metric)
    return [(name, [evaluation.metrics.get(name) for evaluation in evaluations]) for name in names]


def _details(evaluation: Evaluation) -> Details | None:
    scores: dict[str, dict[str, Score]] = {}
    columns: dict[str, None] = {}
    for name, score in evaluation.metrics.items():
        metric, slash, row = name.partition("/")
        if slash:
            columns[metric] = None
            scores.setdefault(row, {})[metric] = score
    if not scores:
        return None
    rows = [(row, [found.get(metric) for metric in columns]) for row, found in scores.items()]
    weights = f", {evaluation.weights} weights" if evaluation.weights else ""
    return Details(f"{evaluation.split}{weights}", list(columns), rows)


def _commands(run: Run) -> list[tuple[str, str]]:
    """What repeats the run and what it is good for: (purpose, command), to be given beside the run folder."""
    name = f"./{run.name}" if run.name.startswith("-") else run.name
    folder, config, again = (shlex.quote(text) for text in (name, f"{name}/config.yaml", f"{name}-again"))
    commands: list[tuple[str, str]] = []
    if run.config:
        task = shlex.quote(run.task or "TASK")
        commands.append(("Repeat it", f"modelwright train {task} -c {config} --out {again}"))
    if run.results is None:
        commands.append(("Go on with it", f"modelwright resume {folder}"))
    splits = [evaluation.split for evaluation in run.results.evaluations] if run.results else []
    for split in dict.fromkeys(splits or ["test"]):
        commands.append(
            (f"Evaluate it on the {split} split", f"modelwright evaluate {folder} --split {shlex.quote(split)}")
        )
    return commands


def _mapping(value: Any) -> dict[Any, Any]:
    return dict(value) if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


# How it says it -------------------------------------------------------------------------------------------------------


def number(value: float | None) -> str:
    """A score, with as many digits as a reader can use.

    >>> number(0.74316), number(12.3456), number(43210.9), number(0.0000123), number(None)
    ('0.7432', '12.35', '43,211', '1.23e-05', 'n/a')
    """
    if value is None or value != value:
        return "n/a"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if 0 < size < 0.001:
        return f"{value:.3g}"
    return f"{value:.4f}" if size < 10 else f"{value:.2f}"


def count(value: int | None) -> str | None:
    """A whole number with its thousands apart.

    >>> count(62006)
    '62,006'
    """
    return None if value is None else f"{value:,}"


def duration(seconds: float | None) -> str | None:
    """Seconds in the unit that suits them.

    >>> duration(7.31), duration(350), duration(4020)
    ('7.3 s', '5 min 50 s', '1 h 7 min')
    """
    if seconds is None:
        return None
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def heading(name: str) -> str:
    """A name as a heading.

    >>> heading("calibration_error")
    'Calibration error'
    """
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]
