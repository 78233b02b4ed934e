"""Compresses trained networks on real data and prints what came of it. Knows recipes; the engine does the rest.

    python benchmarks/compression.py --out runs/compression lenet                3 seeds on Fashion-MNIST (25 minutes)
    python benchmarks/compression.py --out runs/compression resnet18             on 10,000 pictures of CIFAR-10
    python benchmarks/compression.py --out runs/compression resnet20 --from runs/accuracy/resnet20-0
    python benchmarks/compression.py --out runs/compression distill              a wider network teaches lenet, 3 seeds
    python benchmarks/compression.py --out runs/compression search               targets met, and one out of reach
    python benchmarks/compression.py --out runs/compression by-hand              NNCF and torch-pruning on the same net
    python benchmarks/compression.py --out runs/compression --table              only the tables of what is there

What was made is not made again; an interrupted experiment goes on. `by-hand` needs `pip install nncf torch-pruning`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import tarfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import modelwright as mw
from modelwright.bundle.runtime import Graph
from modelwright.bundle.timing import interleaved, summary
from modelwright.errors import CompressionError

TASK = "image-classification"
SEEDS = (0, 1, 2)
SUBSET = {"train": 1000, "test": 400}
"""Pictures of each class that ResNet-18 is trained and tested on: an epoch of all of them takes half an hour here."""
INT8 = [{"stage": "quantize", "kind": "static"}]
LENET = [
    {"stage": "prune", "keep": 0.5, "scope": "layer", "importance": "taylor", "train": None},
    {
        "stage": "distill",
        "mix": 0.5,
        "temperature": 2.0,
        # Half of a network of 62 thousand weights does not overfit: nothing is to hold it back.
        "train": {"epochs": 24, "optimizer.weight_decay": 0.0, "optimizer.lr": 0.1},
    },
    {"stage": "quantize", "kind": "static"},
]
"""Of four ways the one that lost least; docs/results.md tells of the others."""
RESNET = [
    {"stage": "prune", "keep": 0.5, "scope": "layer", "train": None},
    {"stage": "distill", "mix": 0.9, "train": {"epochs": 3}},
    {"stage": "quantize", "kind": "static"},
]


def data_root() -> Path:
    """Where the real data lie."""
    return Path(os.environ.get("MODELWRIGHT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def fashion() -> dict[str, Any]:
    """Fashion-MNIST, a tenth of the training pictures kept for validation."""
    return {"data.name": "fashion_mnist", "data.path": str(data_root() / "fashion_mnist")}


def trained(folder: Path, recipe: str, settings: Mapping[str, Any]) -> Path:
    """A finished run; made, gone on with, or there already."""
    if mw.Run(folder, TASK).results:
        return folder
    if (folder / "checkpoints").exists():
        return mw.resume(folder).folder
    shown = " ".join(f"{key}={value}" for key, value in settings.items())
    print(f"modelwright train {TASK} --recipe {recipe} {shown} --out {folder}", flush=True)
    return mw.train(TASK, recipe=recipe, settings=dict(settings), out=folder, overwrite=True).folder


def compress(run: Path, name: str, stages: list[dict[str, Any]]) -> mw.Compressed:
    """The run after a recipe, which is kept beside it as a file that can be used again."""
    recipe = run.parent / f"{name}.yaml"
    recipe.write_text(json.dumps(stages, indent=1) + "\n", encoding="utf-8")  # JSON is YAML
    print(f"modelwright compress {run} --recipe {recipe}", flush=True)
    return mw.compress(run, recipe=recipe)


# Experiments ----------------------------------------------------------------------------------------------------------


def lenet_run(out: Path, seed: int, threads: int) -> Path:
    """The tutorial's network on Fashion-MNIST."""
    settings = {**fashion(), "model.name": "lenet", "train.epochs": 20, "train.threads": threads, "seed": seed}
    return trained(out / f"lenet-{seed}", "standard", settings)


def lenet(out: Path, threads: int, _: Path | None) -> None:
    """Half of each layer's channels, then what the original says, then 8 bits; and 8 bits alone."""
    for seed in SEEDS:
        run = lenet_run(out, seed, threads)
        compress(run, "half", LENET)
        compress(run, "int8", INT8)


def resnet18(out: Path, threads: int, _: Path | None) -> None:
    """The same on a large network, a stated part of CIFAR-10 and a stated budget."""
    subset = small_cifar(out)
    settings = {
        "data.name": "folder",
        "data.path": str(subset),
        "model.name": "resnet18",
        "data.valid": 0.05,
        "train.epochs": 4,
        "train.precision": "fp32",
        "train.optimizer.lr": 0.1,
        "train.checkpoint_every": 30,
        "train.threads": threads,
        "evaluate.batch_size": 100,
    }
    run = trained(out / "resnet18-0", "resnet", settings)
    compress(run, "int8", INT8)
    compress(run, "half", RESNET)


def resnet20(out: Path, threads: int, source: Path | None) -> None:
    """The same on the small ResNet that benchmarks/image_accuracy.py trained."""
    if source is None:
        raise SystemExit("resnet20 needs --from RUN, a run of benchmarks/image_accuracy.py")
    run = out / "resnet20-0"
    if not run.exists():
        shutil.copytree(source, run, ignore=shutil.ignore_patterns("variants"))
    compress(run, "int8", INT8)
    compress(run, "half", RESNET)


def distill(out: Path, threads: int, source: Path | None) -> None:
    """A wider network (recipe `fashion`, with its own validation split) teaches a fresh lenet, as long as one alone."""
    teacher = source or trained(out / "cnn-0", "fashion", {**fashion(), "train.threads": threads})
    stage = {"stage": "distill", "teacher": str(teacher), "student": {"model.name": "lenet"}, "mix": 0.9}
    for seed in SEEDS:
        compress(lenet_run(out, seed, threads), "taught", [stage])


def search(out: Path, threads: int, _: Path | None) -> None:
    """Both targets met within the minutes; and a time that nothing can reach."""
    run = lenet_run(out, 0, threads)
    compress(run, "int8", INT8)  # writes the run's own graph
    graph = Graph(run / "variants" / "original" / "model.onnx", threads=threads)
    picture = np.zeros((1, 1, 28, 28), np.uint8)
    tries = [interleaved({"own": lambda: graph(picture)}, seconds=1, least=100)["own"] for _ in range(5)]
    own = min(summary(each).p50_ms for each in tries)
    # Nearly all of the time goes into calling so small a graph: half of its channels still take 0.87 of it.
    for limit in (0.95 * own, 1e-4):
        began = time.monotonic()
        try:
            found = mw.compress(run, max_drop=0.01, max_latency_ms=limit, minutes=20)
            said = f"chosen {found.chosen}"
        except CompressionError as error:
            said = str(error)
        line = {"max_latency_ms": limit, "own": own, "minutes": (time.monotonic() - began) / 60, "said": said}
        with (out / "search.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)


def by_hand(out: Path, threads: int, _: Path | None) -> None:
    """What NNCF and torch-pruning make of the same network by their documented calls; stands in by_hand.py."""
    import by_hand as hand

    run = lenet_run(out, 0, threads)
    compress(run, "half", LENET)
    compress(run, "int8", INT8)
    (out / "by-hand.json").write_text(json.dumps(hand.everything(run, epochs=12), indent=1), encoding="utf-8")


EXPERIMENTS: dict[str, Callable[[Path, int, Path | None], None]] = {
    "lenet": lenet,
    "resnet18": resnet18,
    "resnet20": resnet20,
    "distill": distill,
    "search": search,
    "by-hand": by_hand,
}


def small_cifar(out: Path) -> Path:
    """The first pictures of each class, as the folder layout in one archive."""
    target = out / "small_cifar.tar"
    if target.exists():
        return target
    aside = target.with_suffix(".part")
    with tarfile.open(aside, "w") as written:
        for split, most in SUBSET.items():
            taken: dict[str, int] = {}
            with tarfile.open(data_root() / "cifar10_jpeg" / f"{split}.tar.xz") as read:
                for member in read:
                    kind = member.name.rpartition("/")[0]
                    if member.isfile() and taken.get(kind, 0) < most:
                        taken[kind] = taken.get(kind, 0) + 1
                        content = read.extractfile(member)
                        assert content is not None
                        written.addfile(member, io.BytesIO(content.read()))
    aside.rename(target)
    return target


# Tables ---------------------------------------------------------------------------------------------------------------


def best(receipt: Mapping[str, Any], batch: int) -> float:
    """The quickest runtime's median time, as a share of the original's in eager torch."""
    rows = [row for row in receipt["latency"] if row["model"] == "variant" and row["batch"] == batch]
    return min(row["ratio"] for row in rows)


def table(out: Path) -> str:
    """Every receipt under `out`, as Markdown."""
    lines = [
        "| run | variant | accuracy | drop | 95 % interval | bytes | MACs | batch 1 | batch 32 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[str, list[float]] = {}
    for path in sorted(out.glob("*/variants/*/receipt.json")):
        receipt = json.loads(path.read_text(encoding="utf-8"))
        run, variant = path.parents[2].name, receipt["variant"]
        if variant.startswith("search-"):
            continue
        drop, accuracy = receipt["drop"], receipt["metrics"]["accuracy"]["variant"]
        groups.setdefault(f"{run.rpartition('-')[0]} | {variant}", []).append(100 * drop["value"])
        lines.append(
            f"| {run} | {variant} | {100 * accuracy:.2f} % | {100 * drop['value']:+.2f} | {100 * drop['low']:+.2f} to "
            f"{100 * drop['high']:+.2f} | {receipt['bytes']['ratio']:.3f} | {receipt['macs']['ratio']:.3f} "
            f"| {best(receipt, 1):.3f} | {best(receipt, 32):.3f} |"
        )
    for name, drops in groups.items():
        if len(drops) > 1:
            spread = statistics.stdev(drops)
            lines.append(
                f"| **{name}** | mean of {len(drops)} | **{statistics.mean(drops):+.2f}** | sd {spread:.2f} |||||"
            )
    for extra in ("search.jsonl", "by-hand.json"):
        if (out / extra).exists():
            lines += ["", f"{extra}:", (out / extra).read_text(encoding="utf-8").strip()]
    return "\n".join(lines)


def main() -> None:
    """Parses, runs, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help=", ".join(EXPERIMENTS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--from", dest="source", type=Path, help="a trained run to begin with")
    parser.add_argument("--table", action="store_true", help="make nothing")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(EXPERIMENTS):
        parser.error(f"no experiment {sorted(unknown)}; there are: {', '.join(EXPERIMENTS)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in [] if arguments.table else arguments.names:
        EXPERIMENTS[name](arguments.out, arguments.threads, arguments.source)
    print(table(arguments.out))


if __name__ == "__main__":
    main()
