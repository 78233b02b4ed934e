"""The core's own observers: metrics.jsonl, TensorBoard and the console. Knows events and nothing of training.

An observer is a callable that takes an event and returns nothing. Torch and rich come in when they are used.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from modelwright.events import (
    CheckpointSaved,
    EpochDone,
    EvaluationDone,
    Event,
    Observer,
    RunFinished,
    RunStarted,
    StepDone,
)
from modelwright.files import write_bytes
from modelwright.hookspecs import ObserverEntry, hookimpl

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console, RenderableType
    from rich.live import Live
    from torch.utils.tensorboard.writer import SummaryWriter

METRICS_FILE = "metrics.jsonl"


@hookimpl
def modelwright_observers() -> Iterator[ObserverEntry]:
    """The observers that a run may name under its setting `observers`."""
    yield ObserverEntry(
        "tensorboard", "curves for TensorBoard, in the run folder", build=tensorboard, requires=("tensorboard",)
    )


# metrics.jsonl --------------------------------------------------------------------------------------------------------


class MetricsLog:
    """Appends each event to metrics.jsonl as one JSON object per line, on disk line by line.

    The keys are those of the event, with `event` before them (step, evaluation, run_started, epoch, checkpoint,
    finished). A step's `seconds` is the time since the run began, pauses between resumes left out. Numbers that are
    not finite become null; paths are relative to the run folder.

    A start drops every line of a later step and every line that is no JSON (half of one, after a kill -9), so that a
    resumed run leaves each step once.

    Args:
        run_folder: the folder that holds metrics.jsonl; must exist.
        clock: seconds, monotonic.
    """

    def __init__(self, run_folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = run_folder
        self._clock = clock
        self._began = clock()
        self._file: TextIO | None = None

    def __call__(self, event: Event) -> None:
        """Write `event`."""
        if isinstance(event, RunStarted):
            self.close()
            spent = self._cut(after=event.step)
            self._began = self._clock() - spent
        line = json.dumps(self._record(event), ensure_ascii=False, allow_nan=False)
        file = self._file = self._file or self._open()
        file.write(line + "\n")
        file.flush()
        if isinstance(event, RunFinished):
            self.close()

    def close(self) -> None:
        """Close the file; a later event opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> TextIO:
        path = self._folder / METRICS_FILE
        # Something was written after the last newline: a half line. Ours must not be glued to it.
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            self._cut(after=None)
        return path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n")

    def _cut(self, *, after: int | None) -> float:
        """Drop lines of steps later than `after` (None: no limit) and lines that are no JSON.

        Returns:
            The seconds that the run had taken at the last step kept.
        """
        path = self._folder / METRICS_FILE
        if not path.exists():
            return 0.0
        before = path.read_bytes()
        kept: list[bytes] = []
        spent = 0.0
        for line in before.splitlines():
            record = parse_line(line)
            if record is None or (after is not None and record["step"] > after):
                continue
            kept.append(line + b"\n")
            if record["event"] == "step" and isinstance(record.get("seconds"), int | float):
                spent = float(record["seconds"])
        if (content := b"".join(kept)) != before:
            write_bytes(path, content)
        return spent

    def _record(self, event: Event) -> dict[str, Any]:
        values = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
        record: dict[str, Any] = {"event": _event_name(event), **values}
        if isinstance(event, StepDone):
            record["seconds"] = round(self._clock() - self._began, 3)
        return {key: self._plain(value) for key, value in record.items()}

    def _plain(self, value: Any) -> Any:
        """`value` as what JSON knows."""
        if isinstance(value, Mapping):
            return {str(key): self._plain(inner) for key, inner in cast("Mapping[Any, Any]", value).items()}
        if isinstance(value, Path):
            return (value.relative_to(self._folder) if value.is_relative_to(self._folder) else value).as_posix()
        if value is None or isinstance(value, str | bool | int):
            return value
        number = float(value)  # also numpy's and torch's scalars
        return number if math.isfinite(number) else None


_NAMES: dict[type[Event], str] = {
    StepDone: "step",
    EpochDone: "epoch",
    EvaluationDone: "evaluation",
    CheckpointSaved: "checkpoint",
    RunFinished: "finished",
}


def _event_name(event: Event) -> str:
    """The name in metrics.jsonl; an event without one of its own goes by its class: RunStarted -> run_started."""
    return _NAMES.get(type(event)) or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(event).__name__).lower()


def parse_line(line: str | bytes) -> dict[str, Any] | None:
    """A line of metrics.jsonl as a mapping with at least `event` and `step`, or None where it is damaged."""
    try:
        record: object = json.loads(line)
    except ValueError:  # no JSON, or no UTF-8
        return None
    if not isinstance(record, dict):
        return None
    found = cast("dict[str, Any]", record)
    return found if isinstance(found.get("event"), str) and isinstance(found.get("step"), int) else None


# TensorBoard ----------------------------------------------------------------------------------------------------------


def tensorboard(run_folder: Path) -> Observer:
    """An observer that writes TensorBoard's event files to the folder `tensorboard` of the run; imports torch.

    A resumed run purges what was written for later steps.
    """
    return _TensorBoard(run_folder / "tensorboard")


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._start(resumed_at=event.step)
        if self._writer is None:
            return
        for tag, value in self._scalars(event):
            self._writer.add_scalar(tag, value, event.step)  # pyright: ignore[reportUnknownMemberType]
        # The writer buffers for two minutes; an interrupted run ends with a checkpoint, not with RunFinished.
        if isinstance(event, EvaluationDone | CheckpointSaved):
            self._writer.flush()
        if isinstance(event, RunFinished):
            self._writer.close()
            self._writer = None

    def _start(self, *, resumed_at: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        if self._writer is not None:
            self._writer.close()
        # TensorBoard hides steps from purge_step on; the step that was resumed at is kept.
        purge = resumed_at + 1 if self._folder.exists() else None
        self._writer = SummaryWriter(str(self._folder), purge_step=purge)

    @staticmethod
    def _scalars(event: Event) -> Iterator[tuple[str, float]]:
        if isinstance(event, StepDone):
            yield "train/loss", event.loss
            yield "train/lr", event.lr
            yield "train/samples_per_second", event.samples_per_second
            for name, value in event.parts.items():
                yield f"train/parts/{name}", value
        if isinstance(event, EvaluationDone):
            for name, value in event.metrics.items():
                yield f"{event.split}/{name}", value


# Console --------------------------------------------------------------------------------------------------------------


class ConsoleProgress:
    """Shows how a run goes: a live bar on a terminal, otherwise plain lines (start, each evaluation or epoch, end).

    Use it as a context manager, so that the terminal is restored whatever happens; RunFinished ends the bar too.

    Args:
        console: where to.
        clock: seconds, monotonic.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._live: Live | None = None
        self._started: RunStarted | None = None
        self._began = 0.0
        self._finish: float | None = None
        self._step = 0
        self._epoch = 0.0
        self._loss: float | None = None
        self._newest: float | None = None
        self._best: float | None = None
        self._ended = ""

    def __enter__(self) -> ConsoleProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the bar and restore the terminal; what it showed last stays."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def __call__(self, event: Event) -> None:
        """Show `event`."""
        self._step = event.step
        if isinstance(event, RunStarted):
            self._start(event)
        elif isinstance(event, StepDone):
            self._loss, self._epoch = event.loss, event.epoch
            self._estimate()
        elif isinstance(event, EpochDone):
            self._loss = event.loss
            if self._started is not None and not self._started.validated:
                self._note(f"epoch {event.epoch}, step {event.step}/{self._started.steps}: loss {event.loss:.4f}")
        elif isinstance(event, EvaluationDone):
            self._evaluated(event)
        elif isinstance(event, RunFinished):
            self._ended = f"{event.reason} after {clock_time(event.seconds)}"
            self._note(self._ended)
            self.close()

    def _start(self, event: RunStarted) -> None:
        self._started = event
        self._began = self._clock()
        self._epoch = event.step / max(event.steps_per_epoch, 1)
        resumed = f", resumed at step {event.step}" if event.step else ""
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self.close()
            self._live = self._bar()
            self._live.start()
        self._note(f"{event.task}: {event.steps} steps, {event.epochs} epochs{resumed}")

    def _estimate(self) -> None:
        """When the run will end, from its mean speed since it started here (evaluations included)."""
        if self._started is None or self._step <= self._started.step:
            return
        per_step = (self._clock() - self._began) / (self._step - self._started.step)
        self._finish = self._clock() + per_step * (self._started.steps - self._step)

    def _evaluated(self, event: EvaluationDone) -> None:
        self._epoch = event.epoch
        value = event.metrics.get(self._started.objective) if self._started else None
        self._newest = value
        if event.best:
            self._best = value
        steps = f"/{self._started.steps}" if self._started else ""
        shown = f": {', '.join(self._figures())}" if self._figures() else ""
        self._note(f"epoch {event.epoch:g}, step {event.step}{steps}{shown}")

    def _figures(self) -> list[str]:
        """Loss and main metric in words."""
        figures: list[str] = []
        if self._loss is not None:
            figures.append(f"loss {self._loss:.4f}")
        if self._newest is not None and self._started is not None:
            best = ""
            if self._best is not None:
                best = " (best)" if self._newest == self._best else f" (best {self._best:.4f})"
            figures.append(f"{self._started.objective} {self._newest:.4f}{best}")
        return figures

    def say(self, line: str) -> None:
        """Print a line (a warning, for example), above the bar where there is one."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _note(self, line: str) -> None:
        """A plain line, where no bar says it."""
        if self._live is None:
            self.say(line)

    def _bar(self) -> Live:
        from rich.live import Live
        from rich.spinner import Spinner

        spinner = Spinner("dots", style="cyan")
        # Drawn eight times a second by a thread of rich: spinner and time left move between two events.
        return Live(
            get_renderable=lambda: self._drawn(spinner), console=self._console, refresh_per_second=8, transient=False
        )

    def _drawn(self, spinner: RenderableType) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        started = self._started
        if started is None:
            return Text("")
        bar = ProgressBar(total=max(started.steps, 1), completed=self._step, complete_style="cyan")
        grid = Table.grid(padding=(0, 1), expand=True)
        for ratio in (None, None, 1, None, None):
            grid.add_column(ratio=ratio, no_wrap=True)
        epoch = Text(f"epoch {min(int(self._epoch) + 1, started.epochs)}/{started.epochs}")
        percent = Text(f"{100 * self._step // max(started.steps, 1):3d} %")
        over = bool(self._ended) or self._live is None
        grid.add_row(" " if over else spinner, epoch, bar, percent, Text(self._left(), style="cyan"))
        return Group(grid, Text("  " + "   ".join(self._figures()), no_wrap=True, overflow="ellipsis"))

    def _left(self) -> str:
        if self._ended:
            return self._ended
        if self._finish is None:
            return f"{clock_time(self._clock() - self._began)} so far"
        return f"{clock_time(max(self._finish - self._clock(), 0))} left"


def clock_time(seconds: float) -> str:
    """Seconds as hours, minutes and seconds.

    >>> clock_time(59.6), clock_time(3725)
    ('1:00', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
