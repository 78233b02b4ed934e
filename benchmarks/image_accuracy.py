"""Trains the image recipes on real data and prints what they reach. Knows recipes; the engine does the rest.

    python benchmarks/image_accuracy.py --out runs/accuracy             everything (about two hours on one core)
    python benchmarks/image_accuracy.py --out runs/accuracy lenet-standard --seeds 0 1 2
    python benchmarks/image_accuracy.py --out runs/accuracy --table                only the table of what is there

A run that was interrupted is gone on with; a finished one is not repeated.
"""

from __future__ import annotations

import argparse
import os
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import modelwright as mw

TASK = "image-classification"


@dataclass(frozen=True)
class Experiment:
    """A recipe with what is set on top of it."""

    recipe: str
    data: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    seeds: tuple[int, ...] = (0,)

    def overrides(self, root: Path) -> list[str]:
        """As they are written on the command line."""
        settings = {**self.data, **self.settings}
        if "data.path" in settings:
            settings["data.path"] = str(root / settings["data.path"])
        return [f"{key}={value}" for key, value in settings.items()]


CIFAR = {"data.name": "folder", "data.path": "cifar10_jpeg", "data.valid": 0}
FASHION = {"data.name": "fashion_mnist", "data.path": "fashion_mnist", "data.valid": 0}
ONE = {"train.threads": 1}
PLAIN = {
    "train.precision": "fp32",
    "train.epochs": 24,
    "train.batch_size": 64,
    "train.optimizer.lr": 0.1,
    "train.optimizer.weight_decay": 0.0003,
    "augment.crop": 2,
}
"""More and smaller steps, less to hold the network back: another way to spend an hour and a half on one core."""
EXPERIMENTS = {
    "lenet-tutorial": Experiment("tutorial", CIFAR, ONE),
    "lenet-standard": Experiment("standard", CIFAR, ONE, (0, 1, 2)),
    "fashion-cnn": Experiment("fashion", FASHION, ONE, (0,)),
    "resnet20": Experiment("resnet", CIFAR, ONE),
    "resnet20-fp32": Experiment("resnet", CIFAR, {**ONE, **PLAIN}),
    "digits": Experiment("quick", {"data.name": "digits"}, ONE, (0, 1, 2)),
}


def data_root() -> Path:
    """Where the real data lie."""
    return Path(os.environ.get("MODELWRIGHT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def run(name: str, seed: int, out: Path) -> None:
    """Trains one experiment with one seed, unless that is done already."""
    experiment = EXPERIMENTS[name]
    folder = out / f"{name}-{seed}"
    if mw.Run(folder, TASK).results:
        return
    if (folder / "checkpoints").exists():
        mw.resume(folder)
        return
    settings = experiment.overrides(data_root())
    command = f"modelwright train {TASK} --recipe {experiment.recipe} {' '.join(settings)} seed={seed}"
    print(f"{name}, seed {seed}: {command}", flush=True)
    mw.train(TASK, recipe=experiment.recipe, settings=[*settings, f"seed={seed}"], out=folder, overwrite=True)


def table(out: Path) -> str:
    """What the finished runs under `out` reached, as Markdown."""
    lines = [
        "| experiment | seed | epochs | test accuracy | 95 % interval | minutes | CPU minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in EXPERIMENTS:
        reached: list[float] = []
        for folder in sorted(out.glob(f"{name}-[0-9]*")):
            found = mw.Run(folder, TASK)
            if "accuracy" not in found.metrics:
                continue
            accuracy, training = found.metrics["accuracy"], found.results["training"]
            reached.append(accuracy.value)
            lines.append(
                f"| {name} | {folder.name.rpartition('-')[2]} | {training['epochs']:g} | {100 * accuracy.value:.2f} % "
                f"| {100 * (accuracy.low or 0):.2f} to {100 * (accuracy.high or 0):.2f} "
                f"| {training['seconds'] / 60:.1f} | {training['cpu_seconds'] / 60:.1f} |"
            )
        if len(reached) > 1:
            mean, spread = statistics.mean(reached), statistics.stdev(reached)
            lines.append(
                f"| **{name}** | mean of {len(reached)} | | **{100 * mean:.2f} %** | sd {100 * spread:.2f} |||"
            )
    return "\n".join(lines)


def main() -> None:
    """Parses, runs, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help=", ".join(EXPERIMENTS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*")
    parser.add_argument("--table", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(EXPERIMENTS):
        parser.error(f"no experiment {sorted(unknown)}; there are: {', '.join(EXPERIMENTS)}")
    for name in [] if arguments.table else arguments.names or EXPERIMENTS:
        for seed in arguments.seeds or EXPERIMENTS[name].seeds:
            run(name, seed, arguments.out)
    print(table(arguments.out))


if __name__ == "__main__":
    main()
