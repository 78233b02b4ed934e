"""The engine against loops written by hand: samples a second and peak memory. Knows the engine and benchmarks/loops.py.

    python benchmarks/image_throughput.py                      everything, on one thread (about twenty minutes)
    python benchmarks/image_throughput.py --cases lenet-64 --launches 10
    python benchmarks/image_throughput.py --knobs                     also: does fused, channels-last ... pay?
    python benchmarks/image_throughput.py --json > throughput.json

All loops run in one process and take turns, a short segment each, so that whatever disturbs the machine disturbs all;
several such processes follow each other (see `launched`).
The engine is the real `Trainer`: at the end of each of its segments (a log line) it calls its observer, and in there
the other loops have their turn. What stands in the table are ratios within a round: the median, and in brackets the
quartiles. Peak memory is that of two further processes, of which each runs one loop.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loops import HandLoop, Knobs, LimitLoop, Pixels, TutorialLoop

ENGINE, HAND, FUSED, LIMIT = "engine", "hand-written", "hand-written, fused", "network alone"
TUTORIAL, WORKERS = "tutorial", "tutorial, 2 workers"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SEED = 0
MEMORY_STEPS = 3
"""Segments whose peak memory is taken."""

Loop = Callable[[int], None]


@dataclass(frozen=True)
class Case:
    """What is trained. `segment`: steps in a turn."""

    name: str
    model: str
    batch_size: int
    segment: int
    tutorial: bool = False


CASES = {
    case.name: case
    for case in (
        Case("lenet-64", "lenet", 64, 60, tutorial=True),
        Case("lenet-512", "lenet", 512, 12),
        Case("resnet20", "resnet20", 128, 5),
    )
}


@dataclass(frozen=True)
class Turn:
    """Seconds a step: on the clock, and of this process's processor time."""

    wall: float
    cpu: float


class Watch:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def turn(self, steps: int) -> Turn:
        """The mean of `steps` steps since then."""
        return Turn((time.perf_counter() - self._wall) / steps, (time.process_time() - self._cpu) / steps)


# Data ---------------------------------------------------------------------------------------------------------------


def read_pixels(root: Path) -> tuple[Pixels, str]:
    """10,000 pictures of CIFAR-10 and where they come from; random ones where there are none."""
    from modelwright_image import data
    from modelwright_image.config import ImageData

    path = root / "cifar10_jpeg"
    if not path.exists():
        rng = np.random.default_rng(SEED)
        images = torch.from_numpy(rng.integers(0, 256, (10_000, 32, 32, 3), dtype=np.uint8))
        return Pixels(images, torch.from_numpy(rng.integers(0, 10, 10_000))), f"random pictures, for want of {path}"
    settings = ImageData(name="folder", path=str(path), valid=0)
    found = data.load(settings, seed=SEED, known=data.Known(CLASSES, 32, 3))["test"]
    assert isinstance(found, data.Pictures)
    return Pixels(found.pixels, torch.from_numpy(found.labels)), "the 10,000 test pictures of cifar10_jpeg"


def whole_batches(pixels: Pixels, batch_size: int) -> Pixels:
    """As many pictures as fill whole batches, so that every step of every loop has as many samples."""
    count = len(pixels) // batch_size * batch_size
    return Pixels(pixels.images[:count].contiguous(), pixels.labels[:count].contiguous())


# The engine ---------------------------------------------------------------------------------------------------------


def run_engine(
    case: Case, pixels: Pixels, *, segments: int, start: dict[str, torch.Tensor], between: Callable[[float], None]
) -> list[Turn]:
    """Trains with the real `Trainer`; `between` is called with the loss after each segment, off the clock.

    Returns:
        A turn per segment; the first includes the checkpoint that a run begins with.
    """
    from modelwright import events
    from modelwright.plugins import discover, settings_of
    from modelwright.task import Datasets
    from modelwright.training.steps import Supervised
    from modelwright.training.trainer import Trainer
    from modelwright_image.datasets import Pictures

    entry = discover().task("image-classification")
    steps = case.segment * segments
    settings = {
        "seed": SEED,
        "model.name": case.model,
        "train.batch_size": case.batch_size,
        "train.steps": steps,
        "train.checkpoint_every": steps,
        "train.log_every": case.segment,
        "train.device": "cpu",
    }
    task = entry.build(settings_of(entry, recipe="standard", settings=settings))
    train = Pictures(
        pixels.images.numpy(), pixels.labels.numpy(), names=[str(i) for i in range(len(pixels))], classes=CLASSES
    )
    task.facts = task.find_facts(Datasets(train))
    step = Supervised(task)
    step.model.load_state_dict(start)
    turns: list[Turn] = []
    watch = Watch()

    def observe(event: events.Event) -> None:
        nonlocal watch
        if isinstance(event, events.StepDone) and event.step % case.segment == 0:  # an epoch's end logs as well
            turns.append(watch.turn(case.segment))
            between(event.loss)
            watch = Watch()

    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            task,
            task.config,
            step,
            train=train,
            valid=None,
            folder=Path(folder),
            name="image-classification",
            device=torch.device("cpu"),
            observer=observe,
            warn=print,
        ).fit()
    return turns


def fresh_model(case: Case, pixels: Pixels) -> torch.nn.Module:
    """The case's network, normalising by the pictures' own mean and deviation as the recipe does."""
    from modelwright_image.config import ImageModel
    from modelwright_image.datasets import Pictures
    from modelwright_image.model import build_model

    torch.manual_seed(SEED)
    mean, std = Pictures(pixels.images.numpy(), pixels.labels.numpy(), names=[], classes=CLASSES).stats()
    settings = ImageModel(name=case.model, normalize="data")
    return build_model(settings, classes=10, channels=3, size=32, mean=mean.tolist(), std=std.tolist())


# Taking turns -------------------------------------------------------------------------------------------------------


def take_turns(case: Case, pixels: Pixels, *, rounds: int, knobs: bool) -> dict[str, list[Turn]]:
    """Every loop's turns, `rounds` each after one to warm up."""
    pixels = whole_batches(pixels, case.batch_size)
    model = fresh_model(case, pixels)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    others = loops_of(case, model, pixels, segments=rounds + 1, knobs=knobs)
    turns: dict[str, list[Turn]] = {name: [] for name in others}

    def between(loss: float) -> None:
        names = list(others)
        turn = len(turns[names[0]])
        # Who follows whom changes from round to round.
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            turns[name].append(take_turn(others[name], case.segment))
        if turn == 0:
            check_same(case, loss, others[FUSED])

    engine = run_engine(case, pixels, segments=rounds + 1, start=start, between=between)
    return {name: each[1:] for name, each in {ENGINE: engine, **turns}.items()}


def launched(case: Case, arguments: argparse.Namespace) -> dict[str, list[Turn]]:
    """The turns of a process of its own.

    Where memory happens to lie makes one loop several percent quicker than its twin for as long as a process lives;
    only several processes average that out.
    """
    command = [sys.executable, __file__, "--turns", "--cases", case.name, "--rounds", str(arguments.rounds)]
    command += ["--threads", str(arguments.threads), "--data", str(arguments.data)]
    command += ["--knobs"] if arguments.knobs else []
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
    return {name: [Turn(*turn) for turn in each] for name, each in json.loads(printed).items()}


def take_turn(loop: Loop, steps: int) -> Turn:
    """One segment of a loop. The tutorial's is shorter, because its steps are long."""
    if not isinstance(loop, TutorialLoop):
        watch = Watch()
        loop(steps)
        return watch.turn(steps)
    loop.drain()
    watch = Watch()
    loop(steps // 3)
    turn = watch.turn(steps // 3)
    loop.settle()
    return turn


def loops_of(case: Case, model: torch.nn.Module, pixels: Pixels, *, segments: int, knobs: bool) -> dict[str, Loop]:
    """The loops to hold the engine against."""
    ways = {
        HAND: Knobs(),
        FUSED: Knobs(fused=True),
        f"{FUSED}, numpy's random numbers": Knobs(fused=True, hashed=False),
    }
    if knobs:
        ways |= {
            f"{FUSED}, contiguous": Knobs(fused=True, channels_last=False),
            f"{HAND}, contiguous": Knobs(channels_last=False),
            f"{FUSED}, gradients zeroed": Knobs(fused=True, set_to_none=False),
        }
    steps = case.segment * segments
    loops: dict[str, Loop] = {
        name: HandLoop(model, pixels, batch_size=case.batch_size, steps=steps, seed=SEED, knobs=way)
        for name, way in ways.items()
    }
    for layout, channels_last in {"channels-last": True, "contiguous": False}.items():
        loops[f"{LIMIT}, {layout}"] = LimitLoop(model, pixels, batch_size=case.batch_size, channels_last=channels_last)
    if case.tutorial:
        loops[TUTORIAL] = TutorialLoop(model, pixels, batch_size=case.batch_size, workers=0)
        loops[WORKERS] = TutorialLoop(model, pixels, batch_size=case.batch_size, workers=2)
    return loops


def check_same(case: Case, loss: float, hand: Loop) -> None:
    """Stops when engine and hand-written loop did not do the same: then their speeds could not be compared."""
    assert isinstance(hand, HandLoop)
    other = hand.losses / hand.step
    if abs(loss - other) > 1e-4 * other:
        raise SystemExit(f"{case.name}: mean loss of {hand.step} steps is {loss} in the engine and {other} by hand")


# Peak memory --------------------------------------------------------------------------------------------------------


def peak_memory(case: Case, pixels: Pixels, threads: int) -> dict[str, dict[str, float]]:
    """MiB at the peak of a process that runs one loop, and how much of that came with the steps."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pixels.npz"
        np.savez(path, images=pixels.images.numpy(), labels=pixels.labels.numpy())
        return {name: _peak(case, name, path, threads) for name in (ENGINE, HAND)}


def _peak(case: Case, name: str, path: Path, threads: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--cases", case.name, "--threads", str(threads), "--peak", name, str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def run_alone(case: Case, name: str, path: Path) -> dict[str, float]:
    """In a process of its own: a few segments of one loop."""
    stored = np.load(path)
    every = Pixels(torch.from_numpy(stored["images"]), torch.from_numpy(stored["labels"]))
    pixels = whole_batches(every, case.batch_size)
    del every
    model = fresh_model(case, pixels)
    before = _peak_mib()
    if name == ENGINE:
        run_engine(case, pixels, segments=MEMORY_STEPS, start=dict(model.state_dict()), between=lambda loss: None)
    else:
        steps = case.segment * MEMORY_STEPS
        HandLoop(model, pixels, batch_size=case.batch_size, steps=steps, seed=SEED)(steps)
    return {"peak": _peak_mib(), "steps": _peak_mib() - before}


def _peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # Linux: ru_maxrss of a child begins at its parent's
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / (1 << 10)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


# What came out ------------------------------------------------------------------------------------------------------


def quartiles(values: Sequence[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "low": low, "high": high}


def summary(case: Case, turns: Mapping[str, list[Turn]], clock: str) -> dict[str, Any]:
    """Samples a second of each loop, and the engine's against it, round by round."""
    seconds = {name: [getattr(turn, clock) for turn in each] for name, each in turns.items()}
    if clock == "cpu":  # which does not see what workers do
        seconds.pop(WORKERS, None)
    return {
        name: {
            "samples_per_second": quartiles([case.batch_size / value for value in each]),
            "engine_against_it": quartiles([a / b for a, b in zip(each, seconds[ENGINE], strict=True)]),
        }
        for name, each in seconds.items()
    }


def table(results: Mapping[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| case | loop | samples/s | microseconds a step | engine : loop |",
        "|---|---|---|---|---|",
    ]
    for case_name, result in results.items():
        case = CASES[case_name]
        for name, row in result["speed"].items():
            speed, ratio = row["samples_per_second"], row["engine_against_it"]
            step = 1e6 * case.batch_size / speed["median"]
            samples = f"{speed['median']:,.0f} ({speed['low']:,.0f} to {speed['high']:,.0f})"
            against = f"{ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})"
            lines.append(f"| {case_name} | {name} | {samples} | {step:,.0f} | {against} |")
    if any(result["memory"] for result in results.values()):
        lines += ["", "| case | peak, engine | peak, hand-written | engine : hand-written |", "|---|---|---|---|"]
    for case_name, result in results.items():
        if memory := result["memory"]:
            engine, hand = memory[ENGINE], memory[HAND]
            lines.append(
                f"| {case_name} | {engine['peak']:.0f} MiB ({engine['steps']:.0f} since before the first step) "
                f"| {hand['peak']:.0f} MiB ({hand['steps']:.0f}) | {engine['peak'] / hand['peak']:.3f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Parses, runs, prints."""
    here = Path(__file__).resolve()
    root = Path(os.environ.get("MODELWRIGHT_DATA", here.parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--launches", type=int, default=4, help="processes, each with its rounds")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, default=root, help="the folder that holds cifar10_jpeg")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: for a busy machine")
    parser.add_argument("--knobs", action="store_true", help="more ways to write the loop by hand")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--turns", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--peak", nargs=2, metavar=("LOOP", "PIXELS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        name, path = arguments.peak
        print(json.dumps(run_alone(CASES[arguments.cases[0]], name, Path(path))))
        return
    if arguments.rounds < 2:
        parser.error("--rounds must be 2 or more, or there is no spread")
    pixels, origin = read_pixels(arguments.data)
    if arguments.turns:
        turns = take_turns(CASES[arguments.cases[0]], pixels, rounds=arguments.rounds, knobs=arguments.knobs)
        print(json.dumps({name: [[turn.wall, turn.cpu] for turn in each] for name, each in turns.items()}))
        return
    results: dict[str, Any] = {}
    for case in (CASES[name] for name in arguments.cases):
        each = [launched(case, arguments) for _ in range(arguments.launches)]
        turns = {name: [turn for launch in each for turn in launch[name]] for name in each[0]}
        memory = None if arguments.no_memory else peak_memory(case, pixels, arguments.threads)
        results[case.name] = {"case": asdict(case), "speed": summary(case, turns, arguments.clock), "memory": memory}
    if arguments.json:
        settings = {name: getattr(arguments, name) for name in ("launches", "rounds", "threads", "clock")}
        print(json.dumps({**settings, "torch": torch.__version__, "data": origin, "cases": results}, indent=1))
    else:
        rounds = f"{arguments.launches} x {arguments.rounds} rounds, {arguments.threads} thread(s)"
        print(f"{rounds}, {arguments.clock} time, {origin}\n")
        print(table(results))


if __name__ == "__main__":
    main()
