"""What a user should know of rows before a model is trained on them. Knows converted tables; no files."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from modelwright.data import Split
from modelwright_risk.columns import some
from modelwright_risk.datasets import Table
from modelwright_risk.schema import MISSING, UNSEEN, Schema

LEAK = 0.95
"""AUC of a single column from which on it is said to know the outcome."""
BINS = 32
MANY_MISSING = 0.5
RARE = 50
"""Bad rows of a split below which scores say little."""
CODES = (
    *(-7.0, -8.0, -9.0, -88.0, -98.0, -99.0, -998.0, -999.0, -9999.0, -99999.0, -999999.0),
    *(96.0, 97.0, 98.0, 99.0, 996.0, 997.0, 998.0, 999.0),
    *(9999.0, 99999.0, 999999.0, 9999999.0, 99999999.0),
)
"""Values that are often no quantities."""
HIGH = 2.0
"""How far above all other values a code lies: this factor."""


def constants(numbers: np.ndarray, codes: np.ndarray, schema: Schema) -> list[str]:
    """Names of columns that have one value throughout (missing is one, too; what is no finite number is none).

    Args:
        numbers: float32 (N, n); codes: int64 (N, c).
    """
    found = [
        feature.name
        for place, feature in enumerate(schema.numeric)
        if np.isnan(column := numbers[:, place]).all() or (np.isfinite(column[0]) and (column == column[0]).all())
    ]
    return found + [
        feature.name for place, feature in enumerate(schema.categorical) if (codes[:, place] == codes[0, place]).all()
    ]


def findings(tables: Mapping[Split, Table], *, seed: int) -> list[str]:
    """One line for each thing that was found."""
    counts: dict[Split, tuple[int, int]] = {
        split: (len(table), int(table.bad.sum())) for split, table in tables.items()
    }
    return [
        *balance(counts),
        *about_columns(tables["train"], seed=seed),
        *_unseen(tables),
        *_duplicate_rows(tables),
    ]


def about_columns(train: Table, *, seed: int) -> list[str]:
    """What the columns of training rows show."""
    return [*_missing(train), *_duplicate_columns(train), *_leaks(train, seed=seed), *_special(train)]


def balance(counts: Mapping[Split, tuple[int, int]]) -> list[str]:
    """Rows and bad rows of each split."""
    told = ", ".join(f"{split} {rows} ({bad / rows:.2%} bad)" for split, (rows, bad) in counts.items())
    notes = [f"rows: {told}"]
    few = [split for split, (rows, bad) in counts.items() if min(bad, rows - bad) < RARE]
    if few:
        notes.append(f"fewer than {RARE} bad or good rows in {' and '.join(few)}: scores of it vary much by chance")
    return notes


def _missing(train: Table) -> list[str]:
    schema = train.known.schema
    shares = (
        np.isnan(train.numbers.numpy()).mean(axis=0).tolist() + (train.codes.numpy() == MISSING).mean(axis=0).tolist()
    )
    named = sorted(zip(shares, (feature.name for feature in schema.ordered), strict=True), reverse=True)
    told = [f"{name} {share:.1%}" for share, name in named if share > 0]
    return [f"no value in: {some(told)}"] if told else []


def _duplicate_columns(train: Table) -> list[str]:
    seen: dict[bytes, str] = {}
    notes: list[str] = []
    for matrix, features in (
        (train.numbers, train.known.schema.numeric),
        (train.codes, train.known.schema.categorical),
    ):
        for place, feature in enumerate(features):
            content = np.ascontiguousarray(matrix[:, place].numpy()).tobytes()
            first = seen.setdefault(content, feature.name)
            if first != feature.name:
                notes.append(f"{feature.name} has the same values as {first}: list one of them in data.ignored")
    return notes


def _leaks(train: Table, *, seed: int) -> list[str]:
    """Columns that alone tell bad from good nearly always: mostly known only after the outcome."""
    bad = train.bad.numpy() > 0.5
    # Rates are taken from one half and judged on the other: else a category of single rows would know everything.
    half = np.random.default_rng(seed).permutation(len(bad)) % 2 == 0
    found: list[str] = []
    for place, feature in enumerate(train.known.schema.numeric):
        column = train.numbers[:, place].numpy()
        if _auc_alone(_cut(column), bad, half) > LEAK:
            found.append(feature.name)
    for place, feature in enumerate(train.known.schema.categorical):
        if _auc_alone(train.codes[:, place].numpy(), bad, half) > LEAK:
            found.append(feature.name)
    return [
        f"{name} alone tells bad from good (AUC above {LEAK}): is it known before the decision? else data.ignored"
        for name in found
    ]


def _cut(column: np.ndarray) -> np.ndarray:
    """Numbers as bins of about one size; missing ones are a bin of their own."""
    there = ~np.isnan(column)
    spread = column[there][:: max(int(there.sum()) // 20_000, 1)]
    edges = np.unique(np.quantile(spread, np.linspace(0, 1, BINS + 1))) if len(spread) else np.zeros(1)
    # Values that many rows share get bins of their own on both sides: a leak is often "0 or anything else".
    return np.where(there, 2 + np.searchsorted(edges, column, "left") + np.searchsorted(edges, column, "right"), 0)


def _auc_alone(codes: np.ndarray, bad: np.ndarray, half: np.ndarray) -> float:
    areas: list[float] = []
    size = int(codes.max()) + 1
    for learnt in (half, ~half):
        rows, hits = np.bincount(codes[learnt], minlength=size), np.bincount(codes[learnt & bad], minlength=size)
        judged = [np.bincount(codes[~learnt & chosen], minlength=size) for chosen in (bad, ~bad)]
        areas.append(auc_of((hits + bad.mean()) / (rows + 1), *judged))
    return float(np.mean(areas))


def auc_of(score: np.ndarray, bad: np.ndarray, good: np.ndarray) -> float:
    """The area under the ROC curve of groups of rows.

    Args:
        score, bad, good: of each group, its score and how many rows it has of either outcome.
    """
    distinct, places = np.unique(score, return_inverse=True)
    hits, others = (np.bincount(places, weights=counts, minlength=len(distinct)) for counts in (bad, good))
    if not hits.sum() or not others.sum():
        return 0.5
    below = np.cumsum(others) - others
    return float((hits * (below + others / 2)).sum() / (hits.sum() * others.sum()))


def _special(train: Table) -> list[str]:
    """Values that look like codes and are treated as quantities."""
    told: list[str] = []
    for place, feature in enumerate(train.known.schema.numeric):
        column = train.numbers[:, place].numpy()
        column = column[~np.isnan(column)]
        codes = [code for code in suspicious(column) if code not in feature.special]
        if codes:
            told.append(f"{feature.name} [{', '.join(f'{code:g}' for code in codes)}]")
    return [f"values that look like codes: {some(told)}; if so, name them with data.special"] if told else []


def suspicious(column: np.ndarray) -> list[float]:
    """Values of a column (no NaN) that look like codes: far above all others, or the only ones below zero."""
    there = [code for code in CODES if (column == code).any()]
    rest = column[~np.isin(column, np.asarray(there, dtype=column.dtype))]
    if not there or len(rest) == 0:
        return []
    low, high = float(rest.min()), float(rest.max())
    return sorted(code for code in there if (code < 0 <= low) or (code > 0 and code > HIGH * max(high, 0.0)))


def _unseen(tables: Mapping[Split, Table]) -> list[str]:
    notes: list[str] = []
    for split, table in tables.items():
        features = table.known.schema.categorical
        counts = (table.codes == UNSEEN).sum(dim=0).tolist()
        told = [f"{feature.name} {count}" for feature, count in zip(features, counts, strict=True) if count]
        if told and split != "train":
            notes.append(f"{split} has categories that the training rows have not: {some(told)} rows")
        elif told:
            notes.append(f"categories beyond the most frequent ones are taken together: {some(told)} rows")
    return notes


def _duplicate_rows(tables: Mapping[Split, Table]) -> list[str]:
    seen: dict[Split, np.ndarray] = {split: fingerprints(table) for split, table in tables.items()}
    notes: list[str] = []
    splits = list(tables)
    for place, split in enumerate(splits):
        for other in splits[place + 1 :]:
            shared = int(np.isin(seen[other], seen[split]).sum())
            if shared:
                notes.append(f"{shared} rows of {other} are also in {split}, by all that the model sees")
    return notes


def fingerprints(table: Table) -> np.ndarray:
    """A number for each row, equal for equal inputs: uint64."""
    # -0.0 + 0.0 is 0.0: the two are one value.
    parts = [
        (table.numbers.numpy() + np.float32(0)).view(np.uint32).astype(np.uint64),
        table.codes.numpy().astype(np.uint64),
    ]
    mixed = np.full(len(table), 0x9E3779B97F4A7C15, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in (column for part in parts for column in part.T):
            mixed = (mixed ^ column) * np.uint64(0xFF51AFD7ED558CCD)
            mixed ^= mixed >> np.uint64(32)
    return mixed
