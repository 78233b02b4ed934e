"""Trains networks on real credit tables and compares them with what risk_references.py fitted. Knows recipes.

    pip install pandas                                             risk_tables.py needs it
    python benchmarks/risk.py --out runs/risk                      all sets, all models (some hours on one core)
    python benchmarks/risk.py --out runs/risk hmeq --models mlp tabm
    python benchmarks/risk.py --out runs/risk --references runs/references --table       only the tables

Large sets: 3 seeds on the saved split. Small ones: 5 x 5 cross-validation on the very folds of the references, the
interval of the difference by the corrected t-test for repeated cross-validation (Nadeau and Bengio 2003; Bouckaert and
Frank 2004): folds share their training rows, so that 25 differences say less than 25 independent ones.
What was trained is not trained again.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from risk_tables import FOLDS, REPEATS, TABLES, export
from scipy import stats
from sklearn.metrics import roc_auc_score

import modelwright as mw
from modelwright import folder, run
from modelwright.evaluation.evaluator import evaluate
from modelwright.plugins import discover
from modelwright_risk.metrics import Rows

TASK = "risk-scoring"
SEEDS = (0, 1, 2)
MODELS = ("mlp", "large", "tabm", "ft-transformer", "scorecard", "fine")
"""Networks by name; `fine` is the recipe of that name."""
RECIPES = {"german_credit": "tiny", "credit_approval": "tiny", "give_me_some_credit": "large", "portfolio": "large"}
"""By the number of rows; `standard` for the others."""
MORE = {
    "portfolio": {
        "model.bins": 16,
        "score.calibration": "platt",
        "train.steps": 2500,
        "train.batch_size": 512,
    }
}
"""Settings of a set beside its recipe's: on the portfolio probabilities are compared with true ones."""
SMALL = ("german_credit", "credit_approval")
CATALOG = discover()


def splits(name: str, tables: Path) -> Iterator[tuple[str, int, Path]]:
    """What is to be trained: a name, a seed and the file of the split."""
    if name in SMALL:
        for repeat in range(REPEATS):
            for fold in range(FOLDS):
                yield f"{repeat}-{fold}", repeat, tables / "folds" / f"{name}-{repeat}-{fold}.csv"
    else:
        for seed in SEEDS:
            yield str(seed), seed, tables / f"{name}.split.csv"


def fit(name: str, model: str, out: Path, tables: Path) -> None:
    """Every training of one model on one set; what is said of the test rows is stored beside the run."""
    preset = json.loads((tables / f"{name}.json").read_text(encoding="utf-8"))
    for label, seed, split in splits(name, tables):
        where = out / f"{name}-{model}-{label}"
        if (where / "test.npz").exists():
            continue
        settings: dict[str, Any] = {
            **preset,
            "data.path": str(tables / f"{name}.csv"),
            "data.split": str(split),
            **({} if model == "fine" else {"model.name": model}),
            "seed": seed,
            "train.threads": 1,
            "evaluate.resamples": 0,
            "observers": [],
            **MORE.get(name, {}),
        }
        recipe = "fine" if model == "fine" else RECIPES.get(name, "standard")
        mw.train(TASK, recipe=recipe, settings=settings, out=where, overwrite=True, warn=lambda line: None)
        np.savez(where / "test.npz", **said(where, split))
        print(f"{where.name}: AUC {auc(where):.4f}, {cpu_seconds(where):.0f} CPU seconds", flush=True)


def said(where: Path, split: Path) -> dict[str, np.ndarray]:
    """Probability and truth of each test row, with its number in the table."""
    _, entry, config = folder.read_config(where, CATALOG)
    task = entry.build(config)
    facts = folder.read_facts(where)
    assert facts is not None
    task.facts = facts
    model, _ = run.load_model(task, where, config, torch.device("cpu"), warn=print)
    test = task.datasets()["test"]
    found = evaluate(task, task.served(model).eval(), test, batch_size=4096)
    with split.open(encoding="utf-8", newline="") as file:
        rows = [int(line["row"]) for line in csv.DictReader(file) if line["split"] == "test"]
    assert len(rows) == len(test)
    measured = found.measured
    return {"row": np.array(rows), "probability": measured.array("probability"), "bad": measured.array("bad")}


def auc(where: Path) -> float:
    """On the test rows."""
    with np.load(where / "test.npz") as stored:
        return float(roc_auc_score(stored["bad"], stored["probability"]))


def cpu_seconds(where: Path) -> float:
    """Of the training."""
    return float(mw.Run(where, TASK).results["training"]["cpu_seconds"])


# Tables ---------------------------------------------------------------------------------------------------------------


def runs_of(out: Path, name: str, model: str) -> list[Path]:
    """The finished runs of one model on one set."""
    return sorted(path.parent for path in out.glob(f"{name}-{model}-*/test.npz"))


def reference(references: Path, name: str, model: str, label: str) -> float:
    """The AUC of a reference on the rows of a seed, or of a fold."""
    seed, _, fold = label.partition("-")
    with np.load(references / "predictions" / f"{name}-{model}-{seed}.npz") as stored:
        rows = stored["fold"] == int(fold) if fold else np.ones(len(stored["bad"]), bool)
        return float(roc_auc_score(stored["bad"][rows], stored["probability"][rows]))


def difference(runs: list[Path], references: Path, name: str, model: str, other: str) -> tuple[float, float, float]:
    """Mean difference of the AUC to a reference, with its 95 % interval."""
    labels = [path.name.removeprefix(f"{name}-{model}-") for path in runs]
    each = [auc(path) - reference(references, name, other, label) for path, label in zip(runs, labels, strict=True)]
    mean, count = statistics.mean(each), len(each)
    if count < 2:
        return mean, math.nan, math.nan
    # Of folds, the share of test rows to training rows counts too: they are not independent.
    shared = 1 / (FOLDS - 1) if name in SMALL else 0.0
    half = stats.t.ppf(0.975, count - 1) * math.sqrt((1 / count + shared) * statistics.variance(each))
    return mean, mean - half, mean + half


def best_reference(references: Path, name: str) -> str:
    """The reference with the highest mean AUC."""
    found: dict[str, list[float]] = {}
    for path in (references / "predictions").glob(f"{name}-*.npz"):
        model = path.stem.removeprefix(f"{name}-").rpartition("-")[0]
        with np.load(path) as stored:
            folds = [stored["fold"] == fold for fold in np.unique(stored["fold"])]
            found.setdefault(model, []).extend(
                roc_auc_score(stored["bad"][rows], stored["probability"][rows]) for rows in folds
            )
    return max(found, key=lambda model: statistics.mean(found[model]))


def table(out: Path, references: Path | None) -> str:
    """Every set and model, as Markdown."""
    lines = [
        "| set | model | runs | test AUC | sd | to the best reference | 95 % interval | CPU seconds a fit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in TABLES:
        for model in MODELS:
            runs = runs_of(out, name, model)
            if not runs:
                continue
            values, compared = [auc(path) for path in runs], " | "
            if references is not None:
                other = best_reference(references, name)
                mean, low, high = difference(runs, references, name, model, other)
                compared = f"{mean:+.4f} ({other}) | {low:+.4f} to {high:+.4f}"
            spread = statistics.stdev(values) if len(values) > 1 else math.nan
            most = max(cpu_seconds(path) for path in runs)
            lines.append(
                f"| {name} | {model} | {len(runs)} | {statistics.mean(values):.4f} | {spread:.4f} | {compared} "
                f"| at most {most:.0f} |"
            )
    return "\n".join([*lines, "", *truth(out, references)])


def truth(out: Path, references: Path | None) -> list[str]:
    """The portfolio, whose true probabilities are known: how far each model is from them, on the test rows."""
    path = out / "tables" / "portfolio.truth.npy"
    files = [(where.name, where / "test.npz") for model in MODELS for where in runs_of(out, "portfolio", model)]
    if references is not None:
        files += [(each.stem, each) for each in sorted((references / "predictions").glob("portfolio-*.npz"))]
    if not path.exists() or not files:
        return []
    known = np.load(path)
    lines = [
        "| run | AUC | Bayes AUC | gap | calibration error to the truth | slope of the truth |",
        "|---|---|---|---|---|---|",
    ]
    for name, file in files:
        with np.load(file) as stored:
            said, row, bad = stored["probability"], stored["row"], stored["bad"]
        order = np.argsort(said)
        rows = Rows(said[order], bad[order].astype(np.float64), truth=known[row][order])
        found = rows.scores(cutoff=0.5, cost_bad=5, cost_good=1)
        lines.append(
            f"| {name} | {found['auc']:.4f} | {found['bayes_auc']:.4f} | {found['bayes_auc'] - found['auc']:.4f} "
            f"| {found['true_calibration_error']:.4f} | {found['true_slope']:.3f} |"
        )
    return lines


def main() -> None:
    """Parses, runs, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="SET", help=", ".join(TABLES))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--references", type=Path, help="what risk_references.py wrote")
    parser.add_argument("--table", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(TABLES):
        parser.error(f"no set {sorted(unknown)}; there are: {', '.join(TABLES)}")
    tables = arguments.out / "tables"
    for name in [] if arguments.table else arguments.names or TABLES:
        if not (tables / f"{name}.json").exists():
            export(name, tables)
        for model in arguments.models:
            fit(name, model, arguments.out, tables)
    print(table(arguments.out, arguments.references))


if __name__ == "__main__":
    main()
