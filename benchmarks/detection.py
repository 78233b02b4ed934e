"""Trains detectors from scratch with this engine and with ultralytics' own trainer: scores, curves and CPU time.

    python benchmarks/detection.py --out runs/detection --data bccd --model yolo11n yolo26n      both trainers
    python benchmarks/detection.py --out runs/detection --data bccd --model ssdlite320 d-fine --trainer ours
    python benchmarks/detection.py --out runs/detection --data scenes --model yolo11n --seeds 0 1 2 3 4
    python benchmarks/detection.py --out runs/detection --data bccd --model yolo11n yolo26n --compress
    python benchmarks/detection.py --out runs/detection --data bccd --model yolo11n yolo26n --times
    python benchmarks/detection.py --out runs/detection --table                                   only the tables

The pictures are written once, as large as the models see them, and both trainers read the same files. Both have the
same batches, epochs and hyperparameters (those that ultralytics' `optimizer=auto` chooses, without gradient
accumulation), each its own augmentation and its own random numbers. Both keep the weights that are best on the
validation split by their own score; this plugin's evaluation then scores both on the test split.

Each training is a process of its own with one thread. The two trainers of a model and seed run one after the other, or
with `--jobs 2` side by side; which one begins changes with the seed. What was made is not made again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

TASK = "object-detection"
SETS: dict[str, dict[str, Any]] = {
    "bccd": {"size": 320, "epochs": 20, "batch": 8, "close": 5},
    "scenes": {"size": 128, "epochs": 12, "batch": 8, "close": 3},
}
"""Side in pixels, epochs, pictures of a batch, and how many epochs go without mosaic at the end."""
RECIPES: dict[str, list[dict[str, Any]]] = {
    "int8": [{"stage": "quantize", "kind": "static", "calibrate": 128}],
    "int8-all": [{"stage": "quantize", "kind": "static", "calibrate": 128, "max_drop": None}],
    "lean": [
        {
            "stage": "prune",
            "keep": 0.7,
            "of": "macs",
            "scope": "layer",
            "multiple": 16,
            "train": {"epochs": 10, "optimizer.lr": 7e-4},
        }
    ],
}
"""8 bits where the measured sensitivity allows them; everywhere; three tenths of the operations taken out.

A processor computes 8 or 16 channels at once, and these networks halve their channels and join the halves again: with
multiples of 16 they fit, without a pruned network is slower than the whole one.
"""
RATES = {"ssdlite320": 1e-3, "d-fine": 5e-4, "d-fine-s": 5e-4, "rt-detr": 5e-4, "rt-detr-r18": 5e-4}
"""Learning rates of the models that ultralytics does not know."""


def data_root() -> Path:
    """Where the real data lie."""
    return Path(os.environ.get("MODELWRIGHT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def written(out: Path, name: str) -> Path:
    """The pictures as ultralytics and this plugin read them: the data.yaml."""
    folder = out / f"{name}-data"
    if (folder / "data.yaml").exists():
        return folder / "data.yaml"
    from detection_parity import write_data

    from modelwright.config import build_config
    from modelwright_detection.config import DetectionConfig

    size = SETS[name]["size"]
    own = [f"data.name={name}", "data.scenes=500"]
    if name == "bccd":
        own = ["data.name=voc", f"data.path={data_root() / 'bccd' / 'BCCD.tar.gz'}", "data.on_bad=skip"]
    config = build_config(DetectionConfig, overrides=[f"data.size={size}", *own])
    return write_data(folder, config, side=size)


def settings_of(name: str, model: str, seed: int, yaml: Path, *, classes: int) -> dict[str, Any]:
    """This engine's settings."""
    budget = SETS[name]
    digits = {"augment.flip": 0.0} if name == "scenes" else {}  # a mirrored digit is none
    return {
        "seed": seed,
        "data.name": "yolo",
        "data.path": str(yaml),
        "data.size": budget["size"],
        "model.name": model,
        "augment.close_mosaic": budget["close"],
        **digits,
        "train.epochs": budget["epochs"],
        "train.batch_size": budget["batch"],
        "train.optimizer.name": "AdamW",
        "train.optimizer.lr": RATES.get(model, automatic_lr(classes)),
        "train.optimizer.weight_decay": 5e-4,
        "train.schedule.name": "ultralytics",
        "train.clip": 10.0,
        "train.ema.decay": 0.9999,
        "train.ema.tau": 2000.0,
        "train.threads": 1,
        "train.device": "cpu",
        "evaluate.batch_size": 2 * budget["batch"],
    }


def automatic_lr(classes: int) -> float:
    """What ultralytics' `optimizer=auto` takes for AdamW."""
    return round(0.002 * 5 / (4 + classes), 6)


def names_in(yaml: Path) -> list[str]:
    """The classes."""
    return json.loads(yaml.read_text(encoding="utf-8"))["names"]


# The two trainers -----------------------------------------------------------------------------------------------------


def ours(folder: Path, name: str, model: str, seed: int, yaml: Path) -> dict[str, Any]:
    """A run of this engine."""
    import modelwright as mw
    from modelwright import events

    curve: list[float] = []
    spent = {"train": 0.0, "valid": 0.0}
    mark = 0.0

    def observe(event: events.Event) -> None:
        nonlocal mark
        now = time.process_time()
        if isinstance(event, events.EpochDone):
            spent["train"] += now - mark
        elif isinstance(event, events.EvaluationDone) and event.split == "valid":
            spent["valid"] += now - mark
            curve.append(event.metrics["map"])
        elif not isinstance(event, events.RunStarted):
            return
        mark = now

    settings = settings_of(name, model, seed, yaml, classes=len(names_in(yaml)))
    run = mw.train(TASK, settings=settings, out=folder / "run", overwrite=True, observer=observe)
    test = {key: run.metrics[key].value for key in ("map", "map_50")}
    return {"curve": curve, "cpu": spent, "test": test}


def theirs(folder: Path, name: str, model: str, seed: int, yaml: Path) -> dict[str, Any]:
    """ultralytics' own trainer; its best averaged weights, in full precision, scored by this plugin."""
    from modelwright_detection import ultra

    ultra.library()
    from ultralytics.data import utils as data_utils
    from ultralytics.models.yolo.detect import DetectionTrainer

    data_utils.check_font = lambda *_, **__: None  # would fetch one
    budget, classes = SETS[name], names_in(yaml)
    curve: list[float] = []
    spent = {"train": 0.0, "valid": 0.0}
    best: dict[str, Any] = {}
    mark = 0.0

    class Quiet(DetectionTrainer):
        def final_eval(self) -> None:
            """It would score weights that were rounded to 16 bits."""

    def start(_: Any) -> None:
        nonlocal mark
        mark = time.process_time()

    def trained(_: Any) -> None:
        nonlocal mark
        now = time.process_time()
        spent["train"] += now - mark
        mark = now

    def validated(trainer: Any) -> None:
        nonlocal mark
        now = time.process_time()
        spent["valid"] += now - mark
        mark = now
        score = float(trainer.metrics["metrics/mAP50-95(B)"])
        if score >= max([*curve, 0.0]):
            best.update({key: value.clone() for key, value in trainer.ema.ema.float().state_dict().items()})
        curve.append(score)

    trainer = Quiet(
        overrides={
            "model": f"{model}.yaml",
            "data": str(yaml),
            "project": str(folder),
            "epochs": budget["epochs"],
            "batch": budget["batch"],
            "nbs": budget["batch"],
            "imgsz": budget["size"],
            "optimizer": "AdamW",
            "lr0": automatic_lr(len(classes)),
            "momentum": 0.9,
            "warmup_bias_lr": 0.0,
            "fliplr": 0.0 if name == "scenes" else 0.5,
            "close_mosaic": budget["close"],
            "device": "cpu",
            "workers": 0,
            "amp": False,
            "plots": False,
            "seed": seed,
            "verbose": False,
        }
    )
    trainer.add_callback("on_train_start", start)
    trainer.add_callback("on_train_epoch_end", trained)
    trainer.add_callback("on_fit_epoch_end", validated)
    with contextlib.redirect_stdout(sys.stderr):
        trainer.train()
    return {"curve": curve, "cpu": spent, "test": scored(best, name, model, yaml)}


def scored(weights: dict[str, Any], name: str, model: str, yaml: Path) -> dict[str, float]:
    """What weights of ultralytics' score on the test split, measured by this plugin."""
    from modelwright.config import build_config
    from modelwright.evaluation.evaluator import evaluate
    from modelwright_detection.config import DetectionConfig
    from modelwright_detection.task import DetectionTask

    config = build_config(DetectionConfig, layers=[settings_of(name, model, 0, yaml, classes=len(names_in(yaml)))])
    task = DetectionTask(config)
    task.facts = task.find_facts(task.datasets())
    network = task.model()
    network.network.load_state_dict(weights, strict=True)
    found = evaluate(task, task.served(network).eval(), task.datasets()["test"], batch_size=config.evaluate.batch_size)
    return {key: found.metrics[key].value for key in ("map", "map_50")}


TRAINERS = {"ours": ours, "theirs": theirs}


# Many of them ---------------------------------------------------------------------------------------------------------


def one(out: Path, name: str, model: str, trainer: str, seed: int) -> None:
    """Trains once and keeps what came of it."""
    folder = out / f"{name}-{model}-{trainer}-{seed}"
    yaml = written(out, name)
    found = TRAINERS[trainer](folder, name, model, seed, yaml)
    line = {"data": name, "model": model, "trainer": trainer, "seed": seed, **SETS[name], **found}
    (folder / "found.json").write_text(json.dumps(line) + "\n", encoding="utf-8")


def start(out: Path, name: str, model: str, trainer: str, seed: int) -> subprocess.Popen[bytes] | None:
    """A training in a process of its own; None: it was done before."""
    folder = out / f"{name}-{model}-{trainer}-{seed}"
    if (folder / "found.json").exists():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    # ultralytics sends nothing and keeps its settings there.
    quiet = {"YOLO_CONFIG_DIR": str(folder), "YOLO_OFFLINE": "true", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--out", str(out), "--one", name, model, trainer, str(seed)]
    with (folder / "log.txt").open("wb") as log:
        return subprocess.Popen(command, env={**os.environ, **quiet}, stdout=log, stderr=log)


def compress(out: Path, name: str, model: str, seed: int) -> None:
    """Variants of a run of this engine, and its bundle, scored as a user's would be."""
    import modelwright as mw
    from modelwright.bundle.scoring import evaluate_bundle

    run = out / f"{name}-{model}-ours-{seed}" / "run"
    bundle = run / "bundle"
    if not bundle.exists():
        mw.export(run, out=bundle)
    eager = mw.Run(run, TASK).metrics["map"].value
    served = evaluate_bundle(bundle)["metrics"]["map"]["value"]
    (run / "served.json").write_text(json.dumps({"eager": eager, "onnx": served}) + "\n", encoding="utf-8")
    for recipe, stages in RECIPES.items():
        path = out / f"{recipe}.yaml"
        path.write_text(json.dumps(stages, indent=1) + "\n", encoding="utf-8")  # JSON is YAML
        print(f"modelwright compress {run} --recipe {path}", flush=True)
        mw.compress(run, recipe=str(path))


def times(out: Path, name: str, models: list[str], seed: int) -> None:
    """8 bits over fp32 in ONNX Runtime, by turns on one thread: medians of ratios."""
    import numpy as np

    from modelwright.bundle.runtime import Graph
    from modelwright.bundle.timing import interleaved

    for model in models:
        variants = out / f"{name}-{model}-ours-{seed}" / "run" / "variants"
        graphs = {each: Graph(variants / each / "model.onnx", threads=1) for each in ("original", "int8-1-quantize")}
        for batch in (1, 32):
            shape = (batch, 3, SETS[name]["size"], SETS[name]["size"])
            pictures = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
            calls = {each: partial(graph, pictures) for each, graph in graphs.items()}
            taken = interleaved(calls, seconds=12, least=6)
            ratio = np.median(taken["int8-1-quantize"] / taken["original"])
            print(f"{model}, batch {batch}: {ratio:.3f} of the time of fp32", flush=True)


def receipts(out: Path) -> list[str]:
    """Every receipt under `out`, as Markdown; times are of ONNX Runtime in 8 bits over ONNX Runtime in fp32."""
    lines = ["| run | variant | mAP 50-95 | drop | 95 % interval | bytes | MACs | batch 1 | batch 32 |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for path in sorted(out.glob("*/run/variants/*/receipt.json")):
        receipt = json.loads(path.read_text(encoding="utf-8"))
        if not receipt.get("drop"):
            continue
        times = {
            (row["model"], row["batch"]): row["ratio"] for row in receipt["latency"] if row["runtime"] == "ONNX Runtime"
        }
        ratios = [times["variant", batch] / times["original", batch] for batch in (1, 32)]
        drop = receipt["drop"]
        lines.append(
            f"| {path.parents[3].name} | {receipt['variant']} | {receipt['metrics']['map']['variant']:.4f} "
            f"| {drop['value']:+.4f} | {drop['low']:+.4f} to {drop['high']:+.4f} | {receipt['bytes']['ratio']:.3f} "
            f"| {receipt['macs']['ratio']:.3f} | {ratios[0]:.3f} | {ratios[1]:.3f} |"
        )
    for path in sorted(out.glob("*/run/served.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        lines.append(f"- {path.parents[1].name}: eager {found['eager']:.5f}, its bundle in ONNX {found['onnx']:.5f}")
    return lines


def table(out: Path) -> str:
    """What was found, as Markdown."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*/found.json"))]
    lines = ["| data | model | trainer | seed | mAP 50-95 | mAP 50 | CPU s training | CPU s validation |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for each in found:
        lines.append(
            f"| {each['data']} | {each['model']} | {each['trainer']} | {each['seed']} | {each['test']['map']:.4f} "
            f"| {each['test']['map_50']:.4f} | {each['cpu']['train']:.0f} | {each['cpu']['valid']:.0f} |"
        )
    lines += ["", "Means over seeds (sd), and medians of CPU time, this engine's over ultralytics':", ""]
    groups = sorted({(each["data"], each["model"]) for each in found})
    for name, model in groups:
        sides = {
            trainer: {e["seed"]: e for e in found if (e["data"], e["model"], e["trainer"]) == (name, model, trainer)}
            for trainer in TRAINERS
        }
        said = [f"{name} {model}:"]
        for trainer, runs in sides.items():
            scores = [each["test"]["map"] for each in runs.values()]
            spread = f" (sd {statistics.stdev(scores):.4f})" if len(scores) > 1 else ""
            said += [f"{trainer} {statistics.mean(scores):.4f}{spread}," if scores else f"{trainer} none,"]
        both = sides["ours"].keys() & sides["theirs"].keys()
        for part in ("train", "valid"):
            ratios = [sides["ours"][seed]["cpu"][part] / sides["theirs"][seed]["cpu"][part] for seed in both]
            said += [f"CPU {part} {statistics.median(ratios):.3f}"] if ratios else []
        lines.append("- " + " ".join(said))
    lines += ["", "mAP 50-95 on the validation split after each epoch:", ""]
    lines += [
        f"- {each['data']} {each['model']} {each['trainer']} {each['seed']}: "
        + " ".join(f"{value:.3f}" for value in each["curve"])
        for each in found
    ]
    lines += ["", *receipts(out)]
    return "\n".join(lines)


def main() -> None:
    """Parses, trains, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", choices=list(SETS), default="bccd")
    parser.add_argument("--model", nargs="+", default=["yolo11n", "yolo26n"])
    parser.add_argument("--trainer", nargs="+", choices=list(TRAINERS), default=list(TRAINERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    parser.add_argument("--compress", action="store_true", help="and compress this engine's runs")
    parser.add_argument("--times", action="store_true", help="time what --compress made, and nothing else")
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    if arguments.one:
        name, model, trainer, seed = arguments.one
        one(out, name, model, trainer, int(seed))
        return
    out.mkdir(parents=True, exist_ok=True)
    if arguments.times:
        times(out, arguments.data, arguments.model, arguments.seeds[0])
        return
    if not arguments.table:
        written(out, arguments.data)
        running: list[subprocess.Popen[bytes]] = []
        for model in arguments.model:
            for seed in arguments.seeds:
                for trainer in arguments.trainer if seed % 2 == 0 else reversed(arguments.trainer):
                    made = start(out, arguments.data, model, trainer, seed)
                    running += [made] if made is not None else []
                    while len(running) >= arguments.jobs:
                        running[0].wait()
                        running = [each for each in running if each.poll() is None]
        for each in running:
            each.wait()
        for model in arguments.model if arguments.compress else []:
            for seed in arguments.seeds:
                compress(out, arguments.data, model, seed)
    print(table(out))


if __name__ == "__main__":
    main()
