"""Reads a run folder: settings, environment, events, results, figures. Knows no HTML, no torch and no task.

Anything but the folder itself may be missing or damaged (a run that was interrupted has no results); that is then
said in `Run.problems`, not raised.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from modelwright.errors import RunError
from modelwright.observers import METRICS_FILE, parse_line

T = TypeVar("T")
FIGURES_FOLDER = "figures"
FIGURES_INDEX = "index.json"
_MEDIA = {".svg": "image/svg+xml", ".png": "image/png", ".wav": "audio/wav"}


class _Record(BaseModel):
    """Read leniently: unknown keys are left alone, so that a newer version's runs can still be shown."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Score(_Record):
    """A metric's value and its interval (None: no interval, or no number)."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class Evaluation(_Record):
    """The scores of one split."""

    split: str
    samples: int | None = None
    weights: str | None = None
    metrics: dict[str, Score] = {}


class ObjectiveRecord(_Record):
    """The metric that decides."""

    metric: str
    goal: Literal["max", "min"]


class Training(_Record):
    """What training took."""

    steps: int | None = None
    epochs: float | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    parameters: int | None = None
    reason: str | None = None


class Data(_Record):
    """Samples per split, and what to know of them."""

    train: int | None = None
    valid: int | None = None
    test: int | None = None
    notes: list[str] = []


class Results(_Record):
    """results.json."""

    task: str | None = None
    objective: ObjectiveRecord | None = None
    training: Training = Training()
    data: Data = Data()
    evaluations: list[Evaluation] = []


class SoundEntry(_Record):
    """One sound of a figure; `file` lies beside the index."""

    file: str
    title: str = ""


class FigureEntry(_Record):
    """One picture of figures/index.json; `file` lies beside the index."""

    file: str
    title: str = ""
    caption: str = ""
    split: str = ""
    sounds: list[SoundEntry] = []

    @property
    def files(self) -> list[str]:
        """The picture and its sounds."""
        return [self.file, *(sound.file for sound in self.sounds)]


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    Attributes:
        name: the folder's name.
        folder: where it is, absolute.
        config: config.yaml as text; empty if missing.
        environment: environment.json; empty if missing.
        events: the readable lines of metrics.jsonl.
        results: results.json; None if missing.
        figures: the entries of figures/index.json whose file is there.
        problems: what is missing or damaged, a sentence each.
    """

    name: str
    folder: Path
    config: str = ""
    environment: dict[str, Any] = field(default_factory=dict[str, Any])
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    results: Results | None = None
    figures: list[FigureEntry] = field(default_factory=list[FigureEntry])
    problems: list[str] = field(default_factory=list[str])

    @property
    def task(self) -> str | None:
        """The task's name, from whatever file tells it."""
        if self.results and self.results.task:
            return self.results.task
        named = self.environment.get("task") or next((e.get("task") for e in self.named("run_started")), None)
        return str(named) if named else None

    @property
    def objective(self) -> ObjectiveRecord | None:
        """The metric that decides, from the results or the run's start."""
        if self.results and self.results.objective:
            return self.results.objective
        for event in self.named("run_started"):
            if isinstance(event.get("objective"), str) and event.get("goal") in ("max", "min"):
                return ObjectiveRecord(metric=event["objective"], goal=event["goal"])
        return None

    @property
    def started(self) -> datetime | None:
        """When the run began, in UTC."""
        try:
            started = datetime.fromisoformat(str(self.environment.get("started")))
        except ValueError:
            return None
        return started.astimezone(UTC) if started.tzinfo else started.replace(tzinfo=UTC)

    @property
    def level(self) -> float:
        """Coverage of the intervals, from the settings; 0.95 where they do not tell."""
        try:
            level = yaml.safe_load(self.config)["evaluate"]["level"]
        except (yaml.YAMLError, KeyError, TypeError):
            return 0.95
        return float(level) if isinstance(level, float) else 0.95

    def named(self, event: str) -> Iterator[dict[str, Any]]:
        """The events of one name, in their order."""
        return (record for record in self.events if record["event"] == event)

    def data_uri(self, entry: FigureEntry | SoundEntry) -> str:
        """A picture or a sound as an address that holds it; a script inside an SVG does not run from there."""
        path = self.folder / FIGURES_FOLDER / entry.file
        return f"data:{_MEDIA[path.suffix.lower()]};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def read_run(run_folder: Path) -> Run:
    """What a run folder holds.

    Raises:
        RunError: there is no such folder, or nothing of a run in it.
    """
    if not run_folder.is_dir():
        raise RunError(f"{run_folder} is no run folder: there is no such folder; give the one that train wrote")
    folder = run_folder.resolve()
    names = ("config.yaml", "environment.json", METRICS_FILE, "results.json")
    if not any((folder / name).exists() for name in names):
        raise RunError(f"{run_folder} is no run folder: it holds none of {', '.join(names)}; give one that train wrote")
    problems: list[str] = []
    config = _text(folder / "config.yaml", problems) or ""
    environment = _parsed(folder / "environment.json", dict[str, Any], problems) or {}
    events = list(_events(folder / METRICS_FILE, problems))
    results = _parsed(folder / "results.json", Results, problems, missing=_unfinished(events))
    figures = list(_figures(folder / FIGURES_FOLDER, problems))
    return Run(folder.name, folder, config, environment, events, results, figures, problems)


def read_index(folder: Path, problems: list[str]) -> list[FigureEntry]:
    """The entries of a figures folder's index; none if there is no readable one (then `problems` grows)."""
    index = folder / FIGURES_INDEX
    return (_parsed(index, list[FigureEntry], problems) or []) if index.exists() else []


def _text(path: Path, problems: list[str], *, missing: str = "") -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        problems.append(missing or f"{path.name} is missing.")
    except OSError as error:
        problems.append(f"{path.name} could not be read: {error.strerror}.")
    return None


def _parsed(path: Path, kind: type[T], problems: list[str], *, missing: str = "") -> T | None:
    """A JSON file as `kind`, or None where it is missing or damaged."""
    text = _text(path, problems, missing=missing)
    if text is None:
        return None
    try:
        # json rather than pydantic's own parser: it takes the halves of surrogate pairs that file names may hold.
        return TypeAdapter(kind).validate_python(json.loads(text))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        problems.append(f"{path.name} is not as expected and was left out ({where}: {problem['msg']}).")
    except ValueError:
        problems.append(f"{path.name} is damaged (no JSON) and was left out.")
    return None


def _unfinished(events: list[dict[str, Any]]) -> str:
    """What to say where there are no results."""
    steps = max((event["step"] for event in events), default=None)
    total = next((event.get("steps") for event in reversed(events) if event["event"] == "run_started"), None)
    done = f" after step {steps}" + (f" of {total}" if total else "") if steps is not None else ""
    return f"There is no results.json: the run still goes on or was interrupted{done}."


def _events(path: Path, problems: list[str]) -> Iterator[dict[str, Any]]:
    text = _text(path, problems)
    lines = [line for line in (text or "").split("\n") if line.strip()]
    parsed = [parse_line(line) for line in lines]
    if damaged := parsed.count(None):
        were = "line is damaged and was" if damaged == 1 else "lines are damaged and were"
        problems.append(f"In {path.name} {damaged} {were} skipped.")
    return (event for event in parsed if event is not None)


def _figures(folder: Path, problems: list[str]) -> Iterator[FigureEntry]:
    for entry in read_index(folder, problems):
        for file in entry.files:
            # A name with a path in it could show any file of the machine to whoever receives the report.
            plain = Path(file).name == file and Path(file).suffix.lower() in _MEDIA
            if not plain or not (folder / file).is_file():
                problems.append(f"The figure {file} is missing.")
                break
        else:
            yield entry
