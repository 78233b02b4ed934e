"""Fits what credit analysts know on real tables: tuned LightGBM, tuned XGBoost, a scorecard. Knows no modelwright.

    pip install lightgbm xgboost optbinning pandas scikit-learn pyarrow      in a virtual environment of their own
    python benchmarks/risk_references.py --out runs/references               everything (24 minutes of one core)
    python benchmarks/risk_references.py --out runs/references hmeq --models lightgbm
    python benchmarks/risk_references.py --tables runs/tables                only the tables, for networks to train on
    python benchmarks/risk_references.py --out runs/references --table       only the results that are there

References and networks see the same rows: both read what risk_tables.py writes into --tables (default: OUT/tables).
All is fitted on `train` alone; `val` says when to stop boosting and which settings to use; `test` is only looked at.
The settings are chosen once per set, by log-loss on `val` with seed 0. For small sets it is the mean over all folds:
rows that helped to choose for one fold are tested in another, and what bias that brings favours the references.
Predictions: OUT/predictions/SET-MODEL-SEED.npz with row, probability (of bad), bad, fold; the seed of a small set is
its repeat. A set and a model that are done are not repeated; an interrupted one begins anew.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from risk_tables import FOLDS, REPEATS, TABLES, export
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

SEEDS = (0, 1, 2)
MOST, PATIENCE = 4000, 100
"""Boosting rounds at most, and without progress."""


@dataclass(frozen=True)
class Part:
    """Rows for fitting, stopping and testing, the categories being those of the rows for fitting."""

    seed: int
    fold: int
    special: dict[str, list[float]]
    rows: dict[str, np.ndarray]
    features: dict[str, pd.DataFrame]
    bad: dict[str, np.ndarray]

    @property
    def categorical(self) -> list[str]:
        """Names of columns."""
        frame = self.features["train"]
        return [column for column in frame if frame[column].dtype == "category"]


def parts(name: str, tables: Path, *, tuning: bool) -> Iterator[Part]:
    """All that is to be fitted: three seeds of one split, or folds; for tuning one seed."""
    spec = TABLES[name]
    cells = pd.read_csv(tables / f"{name}.csv", dtype=str, keep_default_na=False, na_values=[""])
    bad = (cells[spec.target] == spec.bad).to_numpy().astype(int)
    features = cells.drop(columns=["row", spec.target])
    numeric = [column for column in features if column not in spec.categorical]
    features = features.astype(dict.fromkeys(numeric, float))
    if spec.small:
        which = [
            (repeat, fold, tables / "folds" / f"{name}-{repeat}-{fold}.csv")
            for repeat, fold in itertools.product(range(REPEATS), range(FOLDS))
        ]
    else:
        which = [(seed, 0, tables / f"{name}.split.csv") for seed in (SEEDS[:1] if tuning else SEEDS)]
    for seed, fold, file in which:
        split = pd.read_csv(file)["split"].to_numpy()
        rows = {title: np.flatnonzero(split == title) for title in ("train", "val", "test")}
        coded = features.copy()
        for column in spec.categorical:
            levels = sorted(features[column].iloc[rows["train"]].dropna().unique())
            coded[column] = pd.Categorical(features[column], categories=levels)  # unseen in training: missing
        yield Part(
            seed,
            fold,
            spec.special,
            rows,
            {title: coded.iloc[chosen].reset_index(drop=True) for title, chosen in rows.items()},
            {title: bad[chosen] for title, chosen in rows.items()},
        )


# References -----------------------------------------------------------------------------------------------------------

Predict = Callable[[pd.DataFrame], np.ndarray]
Settings = dict[str, Any]


def grid(*axes: list[Settings]) -> list[Settings]:
    """Every combination."""
    return [{key: value for each in chosen for key, value in each.items()} for chosen in itertools.product(*axes)]


def fit_lightgbm(part: Part, settings: Settings) -> tuple[Predict, int]:
    """Categories as they are."""
    import lightgbm as lgb

    fixed = {"objective": "binary", "bagging_fraction": 0.8, "bagging_freq": 1, "verbose": -1}
    fixed |= {"num_threads": 1, "force_col_wise": True, "seed": part.seed}
    train = lgb.Dataset(part.features["train"], part.bad["train"])
    valid = train.create_valid(part.features["val"], part.bad["val"])
    stop = lgb.early_stopping(PATIENCE, verbose=False)
    model = lgb.train({**fixed, **settings}, train, MOST, valid_sets=[valid], callbacks=[stop])
    return lambda frame: model.predict(frame, num_threads=1), model.best_iteration


def fit_xgboost(part: Part, settings: Settings) -> tuple[Predict, int]:
    """Each category against the others, as with one-hot columns."""
    import xgboost as xgb

    fixed = {"objective": "binary:logistic", "eval_metric": "logloss", "tree_method": "hist", "subsample": 0.8}
    fixed |= {"max_cat_to_onehot": 1000, "nthread": 1, "seed": part.seed}

    def matrix(frame: pd.DataFrame, label: np.ndarray | None = None) -> xgb.DMatrix:
        return xgb.DMatrix(frame, label, enable_categorical=True, nthread=1)

    train, valid = (matrix(part.features[title], part.bad[title]) for title in ("train", "val"))
    model = xgb.train(
        {**fixed, **settings}, train, MOST, evals=[(valid, "val")], early_stopping_rounds=PATIENCE, verbose_eval=False
    )
    rounds = model.best_iteration + 1
    return lambda frame: model.predict(matrix(frame), iteration_range=(0, rounds)), rounds


def fit_scorecard(part: Part, settings: Settings) -> tuple[Predict, int]:
    """Logistic regression on weights of evidence of optimal bins; missing values and special codes have their own."""
    from optbinning import BinningProcess

    def plain(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.astype(dict.fromkeys(part.categorical, object))

    frame = plain(part.features["train"])
    own = {column: {"special_codes": codes} for column, codes in part.special.items()}
    bins = BinningProcess(
        list(frame),
        categorical_variables=part.categorical,
        min_prebin_size=settings["min_prebin_size"],
        binning_fit_params=own,
    )

    def woe(frame: pd.DataFrame) -> np.ndarray:
        return np.asarray(bins.transform(frame, metric="woe", metric_missing="empirical", metric_special="empirical"))

    bins.fit(frame, part.bad["train"])
    model = LogisticRegression(C=settings["C"], max_iter=2000).fit(woe(frame), part.bad["train"])
    return lambda frame: model.predict_proba(woe(plain(frame)))[:, 1], 0


@dataclass(frozen=True)
class Reference:
    """A model and what is tried."""

    fit: Callable[[Part, Settings], tuple[Predict, int]]
    tried: list[Settings]


RATES = [{"learning_rate": rate} for rate in (0.02, 0.05)]
REFERENCES = {
    "lightgbm": Reference(
        fit_lightgbm,
        grid(
            RATES,
            [{"num_leaves": leaves} for leaves in (4, 7, 15, 31, 63)],
            [
                {"min_data_in_leaf": 20, "feature_fraction": 0.8},
                {"min_data_in_leaf": 60, "feature_fraction": 0.5, "lambda_l2": 10.0},
                {"min_data_in_leaf": 5, "feature_fraction": 0.5, "max_cat_to_onehot": 64},
            ],
        ),
    ),
    "xgboost": Reference(
        fit_xgboost,
        grid(
            RATES,
            [{"max_depth": depth} for depth in (2, 3, 5, 7)],
            [
                {"min_child_weight": 1, "colsample_bytree": 0.8},
                {"min_child_weight": 5, "colsample_bytree": 0.5, "lambda": 10.0},
            ],
        ),
    ),
    "scorecard": Reference(
        fit_scorecard,
        grid([{"min_prebin_size": size} for size in (0.05, 0.02, 0.01)], [{"C": c} for c in (0.01, 0.1, 1.0)]),
    ),
}


def fitted(reference: Reference, part: Part, settings: Settings) -> tuple[dict[str, float], np.ndarray]:
    """One fit: its figures, and the probability of bad of each test row."""
    began = time.process_time()
    predict, rounds = reference.fit(part, settings)
    seconds = time.process_time() - began
    found, truth = {title: predict(part.features[title]) for title in ("val", "test")}, part.bad
    figures = {
        "seed": part.seed,
        "fold": part.fold,
        "auc": float(roc_auc_score(truth["test"], found["test"])),
        "log_loss": float(log_loss(truth["test"], found["test"])),
        "val_auc": float(roc_auc_score(truth["val"], found["val"])),
        "val_log_loss": float(log_loss(truth["val"], found["val"])),
        "rounds": rounds,
        "cpu_seconds": seconds,
    }
    return figures, np.asarray(found["test"], dtype=np.float64)


def run(name: str, model: str, out: Path, tables: Path) -> None:
    """Tunes and fits one model on one set, unless that is done already."""
    done, reference = out / f"{name}-{model}.json", REFERENCES[model]
    if done.exists():
        return
    began = time.process_time()
    prepared, tuning = list(parts(name, tables, tuning=True)), []
    for settings in reference.tried:
        fits = [fitted(reference, part, settings)[0] for part in prepared]
        means = {key: statistics.mean(fit[key] for fit in fits) for key in ("val_log_loss", "val_auc", "auc", "rounds")}
        tuning.append({"settings": settings, **means})
        print(name, model, settings, {key: round(value, 5) for key, value in means.items()}, flush=True)
    seconds = time.process_time() - began
    chosen = min(tuning, key=lambda each: each["val_log_loss"])["settings"]
    fits, kept = [], {}
    for part in parts(name, tables, tuning=False):
        figures, probability = fitted(reference, part, chosen)
        fits.append(figures)
        rows, folds = part.rows["test"], np.full(len(part.rows["test"]), part.fold)
        kept.setdefault(part.seed, []).append((rows, probability, part.bad["test"], folds))
    (out / "predictions").mkdir(parents=True, exist_ok=True)
    for seed, pieces in kept.items():
        columns = dict(
            zip(("row", "probability", "bad", "fold"), map(np.concatenate, zip(*pieces, strict=True)), strict=True)
        )
        np.savez_compressed(out / "predictions" / f"{name}-{model}-{seed}.npz", **columns)
    record = {"chosen": chosen, "fits": fits, "tuning": tuning, "tuning_cpu_seconds": seconds}
    done.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


# What came of it ------------------------------------------------------------------------------------------------------


def summary(out: Path) -> list[dict[str, Any]]:
    """A line for each set and model that is done: means over seeds, or over repeats and folds."""
    lines = []
    for name, model in itertools.product(TABLES, REFERENCES):
        path = out / f"{name}-{model}.json"
        if not path.exists():
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        fits, tried = pd.DataFrame(record["fits"]), record["tuning"]
        by_seed = fits.groupby("seed")[["auc", "log_loss"]].mean()
        own = next(each["auc"] for each in tried if each["settings"] == record["chosen"])
        lines.append(
            {
                "set": name,
                "model": model,
                "fits": len(fits),
                "auc": by_seed["auc"].mean(),
                "auc_sd": by_seed["auc"].std(),
                "log_loss": by_seed["log_loss"].mean(),
                "log_loss_sd": by_seed["log_loss"].std(),
                "rounds": fits["rounds"].mean(),
                "cpu_seconds": fits["cpu_seconds"].mean(),
                "tuning_cpu_seconds": record["tuning_cpu_seconds"],
                "hindsight": max(each["auc"] for each in tried) - own,
                "chosen": record["chosen"],
            }
        )
    return lines


def table(out: Path) -> str:
    """The same as Markdown.

    sd: over seeds, for small sets over the means of repeats. hindsight: what the settings that are best on `test` would
    have gained there.
    """
    rows = [
        "| set | model | fits | test AUC | sd | log-loss | rounds | CPU s | CPU s of tuning | hindsight | chosen |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for line in summary(out):
        chosen = ", ".join(f"{key} {value:g}" for key, value in line["chosen"].items())
        rows.append(
            f"| {line['set']} | {line['model']} | {line['fits']} | {line['auc']:.4f} | {line['auc_sd']:.4f} "
            f"| {line['log_loss']:.4f} | {line['rounds']:.0f} | {line['cpu_seconds']:.1f} "
            f"| {line['tuning_cpu_seconds']:.0f} | +{line['hindsight']:.4f} | {chosen} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Parses, runs, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="SET", help=", ".join(TABLES))
    parser.add_argument("--out", type=Path, help="for results and predictions")
    parser.add_argument("--tables", type=Path, help="for the CSVs; without --out nothing is fitted")
    parser.add_argument("--models", nargs="*", choices=REFERENCES, default=list(REFERENCES))
    parser.add_argument("--table", action="store_true", help="fit nothing")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(TABLES):
        parser.error(f"no set {sorted(unknown)}; there are: {', '.join(TABLES)}")
    if arguments.out is None and (arguments.tables is None or arguments.table):
        parser.error("say where: --out, or --tables alone for the CSVs")
    tables = arguments.tables or arguments.out / "tables"
    for name in [] if arguments.table else arguments.names or TABLES:
        export(name, tables)
        for model in arguments.models if arguments.out else ():
            run(name, model, arguments.out, tables)
    if arguments.out:
        (arguments.out / "references.json").write_text(json.dumps(summary(arguments.out), indent=1), encoding="utf-8")
        (arguments.out / "references.md").write_text(table(arguments.out) + "\n", encoding="utf-8")
        print(table(arguments.out))


if __name__ == "__main__":
    main()
