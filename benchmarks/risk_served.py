"""What risk scoring costs and explains: rows per second, memory, small networks, reasons. Knows recipes, no trainer.

    python benchmarks/risk_served.py --out runs/served                   all of it (half an hour on two cores)
    python benchmarks/risk_served.py --out runs/served path              reading as a share of a training step
    python benchmarks/risk_served.py --out runs/served score             rows per second of a bundle, and one row
    python benchmarks/risk_served.py --out runs/served stream            10 million rows from disk through the trainer
    python benchmarks/risk_served.py --out runs/served shrink            Taiwan: distilled, then 8 bits, 3 seeds
    python benchmarks/risk_served.py --out runs/served reasons           Taiwan: the bundle's reasons against captum's

`stream` writes a Parquet file of 10 million made-up applicants under OUT (0.6 GB). Needs pandas, as risk_tables.py.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from risk_tables import export

import modelwright as mw
from modelwright import folder, run
from modelwright.bundle.timing import interleaved, summary
from modelwright.plugins import discover
from modelwright.training.loading import Plan, read
from modelwright_risk.codec import RiskCodec
from modelwright_risk.model import Network
from modelwright_risk.portfolio import make
from modelwright_risk.task import RiskTask

TASK = "risk-scoring"
SEEDS = (0, 1, 2)
TEN_MILLION = 10_000_000
CAPTUM_ROWS = 500
"""Rows that captum is asked about at once."""
CAPTUM_STEPS = 500
"""Its steps; ten times its default, so that what is compared is the method and not its error."""
ASKED = {"mlp": 6000, "tabm": 500, "ft-transformer": 100}
"""Test rows that captum is asked about, of 6,000: a large network takes it hours."""


def trained(where: Path, recipe: str, settings: dict[str, Any]) -> Path:
    """A run, made unless it is there."""
    if not mw.Run(where, TASK).results:
        quiet: dict[str, Any] = {"observers": [], "evaluate.resamples": 0, **settings}
        mw.train(TASK, recipe=recipe, settings=quiet, out=where, overwrite=True, warn=lambda line: None)
    return where


def opened(where: Path) -> tuple[RiskTask, Network]:
    """The task of a run, and its kept weights."""
    _, entry, config = folder.read_config(where, discover())
    task = entry.build(config)
    facts = folder.read_facts(where)
    assert isinstance(task, RiskTask)
    assert facts is not None
    task.facts = facts
    model, _ = run.load_model(task, where, config, torch.device("cpu"), warn=print)
    return task, model.eval()


def taiwan(out: Path, model: str, seed: int = 0) -> Path:
    """A network trained on the saved split."""
    tables = out / "tables"
    export("taiwan_default", tables)
    preset = json.loads((tables / "taiwan_default.json").read_text(encoding="utf-8"))
    settings = {
        **preset,
        "data.path": str(tables / "taiwan_default.csv"),
        "data.split": str(tables / "taiwan_default.split.csv"),
        "model.name": model,
        "seed": seed,
        "train.threads": 1,
    }
    return trained(out / f"taiwan-{model}-{seed}", "standard", settings)


# Experiments ----------------------------------------------------------------------------------------------------------


def path(out: Path) -> dict[str, Any]:
    """The default network on 100,000 applicants: the same batches once trained on, once only read."""
    settings = {"data.name": "portfolio", "train.steps": 600, "train.threads": 1, "train.select": "last"}
    where = trained(out / "path", "large", settings)
    lines = (where / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [event for event in map(json.loads, lines) if event["event"] == "step"]
    step = 1024 / statistics.median(event["samples_per_second"] for event in steps)
    task, _ = opened(where)
    data = task.datasets()["train"]
    plan = Plan(task, len(data), batch_size=1024, seed=0, epochs=10)
    keys = plan.micro_batches(start=0, rank=0, world=1, accumulate=1)
    taken: list[float] = []
    with closing(read(task, data, keys, workers=0, device=torch.device("cpu"))) as batches:
        for _ in range(plan.steps):
            began = time.perf_counter()
            next(batches)
            taken.append(time.perf_counter() - began)
    # The mean: an epoch's order is made in one step and used by all.
    share = statistics.mean(taken) / step
    return {"step_ms": 1000 * step, "read_ms": 1000 * statistics.mean(taken), "share": share}


def score(out: Path) -> dict[str, Any]:
    """A bundle of the default network, trained on the portfolio."""
    where = trained(out / "score", "large", {"data.name": "portfolio", "train.steps": 300})
    bundle = mw.load(mw.export(where, overwrite=True, warn=print), threads=2)
    table = make(300_000, seed=1).table
    rows = {name: column.to_numpy() for name, column in zip(table.column_names, table.columns, strict=True)}
    whole = interleaved({"all": lambda: bundle.columns(rows, batch=10_000)}, seconds=10, least=5)["all"]
    one = table.slice(0, 1).to_pylist()[0]
    single = mw.load(bundle.path, threads=1)
    arrays, _ = next(iter(single.codec.batches([one], size=1)))
    feed = [arrays[spec.name] for spec in single.graph.inputs]
    calls: dict[str, Callable[[], object]] = {
        "graph": lambda: single.graph(*feed),
        "all": lambda: single.predict(one),
    }
    taken = {name: summary(each).p50_ms for name, each in interleaved(calls, seconds=5, least=1000).items()}
    return {
        "rows_per_second": 300_000 / float(np.median(whole)),
        "one_row_model_ms": taken["graph"],
        "one_row_ms": taken["all"],
    }


def stream(out: Path) -> dict[str, Any]:
    """Training from disk in a process of its own, whose memory is its own."""
    file = out / "ten_million.parquet"
    if not file.exists():
        aside, writer = file.with_suffix(".part"), None
        for seed in range(TEN_MILLION // 500_000):
            table = make(500_000, seed=seed).table
            writer = writer or pq.ParquetWriter(aside, table.schema)
            writer.write_table(table, row_group_size=100_000)
        assert writer is not None
        writer.close()
        aside.rename(file)
    settings = [
        *("data.name=table", f"data.path={file}", "data.target=default", "data.identifiers=[applicant]"),
        *("data.ignored=[month]", "data.memory=0.5", "data.valid=0.02", "data.test=0.02"),
        *("train.steps=null", "train.epochs=1", "train.threads=2", "evaluate.resamples=0", "seed=0"),
    ]
    command = [sys.executable, "-m", "modelwright", "train", TASK, "--recipe", "large", *settings]
    began = time.monotonic()
    subprocess.run([*command, "--out", str(out / "stream"), "--overwrite"], check=True)
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # Linux counts in KiB
    results = mw.Run(out / "stream", TASK).results
    auc = next(each["metrics"]["auc"]["value"] for each in results["evaluations"] if each["split"] == "test")
    training = results["training"]
    return {
        "rows": results["data"]["train"],
        "peak_gib": peak / 2**30,
        "seconds": seconds,
        "training_seconds": training["seconds"],
        "rows_per_second": results["data"]["train"] / training["seconds"],
        "test_auc": auc,
    }


def shrink(out: Path) -> dict[str, Any]:
    """TabM teaches a 64 x 2 perceptron, which is then held in 8 bits."""
    stages = [
        {"stage": "distill", "student": {"model.name": "mlp"}, "mix": 0.9, "temperature": 1.0},
        {"stage": "quantize", "kind": "dynamic"},
    ]
    recipe = out / "small.yaml"
    recipe.write_text(json.dumps(stages, indent=1) + "\n", encoding="utf-8")  # JSON is YAML
    found: list[dict[str, Any]] = []
    for seed in SEEDS:
        where = taiwan(out, "tabm", seed)
        if not (where / "variants" / "small-2-quantize" / "receipt.json").exists():
            mw.compress(where, recipe=recipe)
        receipts = [
            json.loads((where / "variants" / name / "receipt.json").read_text(encoding="utf-8"))
            for name in ("small-1-distill", "small-2-quantize")
        ]
        aucs = [receipts[0]["metrics"]["auc"]["original"], *(each["metrics"]["auc"]["variant"] for each in receipts)]
        found.append(
            {
                "seed": seed,
                "teacher": aucs[0],
                "lost_by_distilling": aucs[0] - aucs[1],
                "lost_by_int8": aucs[1] - aucs[2],
                "bytes": [each["bytes"] for each in receipts],
            }
        )
    means = {key: statistics.mean(each[key] for each in found) for key in ("lost_by_distilling", "lost_by_int8")}
    return {"seeds": found, **means}


def reasons(out: Path) -> dict[str, Any]:
    """Attributions of test rows: how far they add up, and whose four features lead."""
    return {model: _reasons(taiwan(out, model), rows=rows) for model, rows in ASKED.items()}


def _reasons(where: Path, *, rows: int) -> dict[str, Any]:
    import captum.attr

    task, network = opened(where)
    bundle = mw.load(mw.export(where, overwrite=True, warn=print), threads=2)
    data = task.datasets()["test"]
    plan = Plan(task, len(data), batch_size=CAPTUM_ROWS, seed=0, epochs=1)
    baseline = network.encoder.average().detach()[None]
    method = captum.attr.IntegratedGradients(lambda tokens: network.head(tokens)["logit"])
    with torch.no_grad():
        start = float(network.head(baseline)["logit"])
    gaps: list[np.ndarray] = []
    same: list[np.ndarray] = []
    codec = bundle.codec
    assert isinstance(codec, RiskCodec)
    keys = plan.micro_batches(start=0, rank=0, world=1, accumulate=1)
    with closing(read(task, data, keys, workers=0, device=torch.device("cpu"))) as batches:
        for batch in batches:
            assert batch is not None
            if sum(map(len, gaps)) >= rows:
                break
            given = dict(zip([spec.name for spec in task.inputs], batch.inputs, strict=True))
            ours = bundle.explainer(*(given[spec.name].numpy() for spec in bundle.explainer.inputs))
            with torch.no_grad():
                tokens = network.encoder(*batch.inputs)
            theirs = method.attribute(
                tokens,
                baseline.expand_as(tokens),
                n_steps=CAPTUM_STEPS,
                method="gausslegendre",
                internal_batch_size=20_000,
            )
            captum_says = network.encoder.per_feature(theirs).detach().float().numpy()
            gaps.append(np.abs(ours["attributions"].sum(axis=1) - (ours["logit"] - start)))
            said, wanted = (
                codec.explain({"logit": ours["logit"], "attributions": each}, None)["reasons"]
                for each in (ours["attributions"], captum_says)
            )
            same.append(np.array([mine == other for mine, other in zip(said, wanted, strict=True)]))
    gap, agree = np.concatenate(gaps), np.concatenate(same)
    return {
        "rows": len(gap),
        "completeness_error_max": float(gap.max()),
        "completeness_error_mean": float(gap.mean()),
        "same_reasons": float(agree.mean()),
    }


EXPERIMENTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "path": path,
    "score": score,
    "stream": stream,
    "shrink": shrink,
    "reasons": reasons,
}


def main() -> None:
    """Parses, runs, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help=", ".join(EXPERIMENTS))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(EXPERIMENTS):
        parser.error(f"no experiment {sorted(unknown)}; there are: {', '.join(EXPERIMENTS)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    for name in arguments.names or EXPERIMENTS:
        print(json.dumps({name: EXPERIMENTS[name](arguments.out)}), flush=True)


if __name__ == "__main__":
    main()
