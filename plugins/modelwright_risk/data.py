"""Settings -> the three splits of a table, read, checked and converted. Knows no file formats and no models."""

# pyarrow has no annotations.
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import pyarrow as pa

from modelwright.data import Dataset, Datasets, Facts, Split
from modelwright.errors import ConfigError, DataError
from modelwright_risk import facts, streaming
from modelwright_risk.cells import text_of, texts
from modelwright_risk.checks import constants, findings
from modelwright_risk.columns import about, check_names, choose, groups_of, need_target, with_levels
from modelwright_risk.config import RiskConfig, RiskData
from modelwright_risk.convert import Block, convert
from modelwright_risk.datasets import Table
from modelwright_risk.kinds import Undated, times
from modelwright_risk.known import Known
from modelwright_risk.sources import GIB, RowPlaces, Source, cost, open_source, pieces_of, with_presets
from modelwright_risk.splits import CODES, NONE, TRAIN, by_group, by_time, listed, stratified
from modelwright_risk.targets import Outcome, outcome

__all__ = ["Known", "Table", "find_facts", "load"]

LISTED = 3
"""Bad rows that an error shows."""


def load(config: RiskConfig, *, seed: int, known: Known | None = None) -> Datasets:
    """The splits that the settings describe: each a `Table`, or a `StreamedTable` where the rows do not fit in memory.

    Args:
        seed: of splits at random, and of the made-up portfolio.
        known: what a run knows already (its facts): columns are then read as it says and nothing is inferred.

    Raises:
        ConfigError: settings that do not fit the table.
        DataError: rows or columns that are missing, broken or contradictory.
    """
    data = with_presets(config.data)
    if data.name == "table":
        pieces = pieces_of(data)
        if cost(pieces) > data.memory * GIB:
            return streaming.load(data, pieces, monotone=config.model.monotone, seed=seed, known=known)
    source = open_source(data, seed=seed)
    target = need_target(data, source.table.column_names)
    check_names(data, config.model.monotone, source.table.column_names)
    ended = outcome(source.table[target], target, bad=data.bad, names=(known.bad, known.good) if known else None)
    notes: list[str] = []
    problems = dict(source.bad)
    splits = _split(data, source, ended, seed=seed, problems=problems, notes=notes)
    if known is None:
        known, block, told = _learn(data, source, ended, np.flatnonzero(splits == TRAIN), config.model.monotone)
        splits = _judged(data, source, block, splits, problems=problems, notes=notes)
        tables = _tables(source, block, known, splits)
        notes = [*told, *notes, *findings(tables, seed=seed)]
    else:
        block = convert(source.table, known, weight=data.weight)
        splits = _judged(data, source, block, splits, problems=problems, notes=notes)
        tables = _tables(source, block, known, splits)
    return Datasets(tables["train"], tables.get("valid"), tables.get("test"), notes=notes)


def find_facts(train: Dataset, *, bins: int | None) -> Facts:
    """What model and codec need to know of the training rows.

    values: what `Known.as_json` says, and rows, base_rate, missing {feature: share}, categories {feature: share of
    each code}. arrays: quantiles float32 (n, bins + 1), the ascending edges of each numeric feature's bins over values
    that are neither missing nor special codes; shares float32 (n, bins), of all training rows in each bin.

    Args:
        train: as `load` gives it.
        bins: of each numeric feature; None: 16, or 8 below 2,000 rows.
    """
    if isinstance(train, streaming.StreamedTable):
        return facts.facts_of(train.sample, bins=bins, rows=len(train), base_rate=train.base_rate)
    return facts.facts_of(cast("Table", train), bins=bins)


# Splits -------------------------------------------------------------------------------------------------------------


def _split(
    data: RiskData, source: Source, ended: Outcome, *, seed: int, problems: dict[int, str], notes: list[str]
) -> np.ndarray:
    """The split of each row, int8; NONE for rows that cannot be in any, which join `problems` with the reason.

    What is known of cells other than the target and the time plays no part, so that it stays the same in every run.
    """
    usable = ended.known.copy()
    when = _times(data, source)
    if when is not None and data.split_by == "time":
        undated = usable & ~np.isfinite(when)
        problems |= dict.fromkeys(source.rows[undated].tolist(), f"{data.time} has no value")
        usable &= ~undated
    if not usable.any():
        raise DataError("no row is left that has a target: check data.target and data.path")
    found = source.given.copy()
    if data.split is not None:
        found = listed(data.split, source.table, source.rows, size=source.size)
    elif (found == NONE).all():
        found[:] = TRAIN
    if not (usable & (found == TRAIN)).any():
        raise DataError("the data have no train split: name one with data.path or data.split")
    found[~usable] = NONE
    wanted: dict[Split, float] = {"test": data.test, "valid": data.valid}
    shares: dict[Split, float] = {}
    for split, share in wanted.items():
        if share > 0 and not (found == CODES[split]).any():
            shares[split] = share
    if shares:
        own = np.flatnonzero(found == TRAIN)
        found[own] = _cut(data, source, ended, when, own, shares, seed)
        how = {
            "random": f"stratified, by seed {seed}",
            "group": f"by {data.group}, seed {seed}",
            "time": f"by {data.time}",
        }
        notes.append(f"splits cut from the training rows, {how[data.split_by]}: {', '.join(shares)}")
    return found


def _cut(
    data: RiskData,
    source: Source,
    ended: Outcome,
    when: np.ndarray | None,
    rows: np.ndarray,
    shares: Mapping[Split, float],
    seed: int,
) -> np.ndarray:
    if data.split_by == "time":
        if when is None:
            raise ConfigError("data.split_by=time needs data.time: the column that orders the rows")
        return by_time(when[rows], shares=shares)
    if data.split_by == "group":
        if data.group is None:
            raise ConfigError("data.split_by=group needs data.group: the column whose values stay together")
        coded = texts(source.table[data.group])
        groups = coded.indices.fill_null(len(coded.dictionary)).to_numpy()[rows]
        return by_group(np.unique(groups, return_inverse=True)[1], shares=shares, seed=seed)
    return stratified(ended.bad[rows], source.rows[rows], shares=shares, seed=seed)


def _times(data: RiskData, source: Source) -> np.ndarray | None:
    if data.time is None:
        return None
    try:
        return times(source.table[data.time])
    except Undated as error:
        column = source.table[data.time].to_pylist()
        place = next((row for row, cell in enumerate(column) if text_of(cell) == error.cell), 0)
        raise DataError(
            f"{source.where(int(source.rows[place]))}: {data.time} is '{error.cell}', which {error.reason}: write all "
            "dates as 2024-12-31"
        ) from error


# Columns ------------------------------------------------------------------------------------------------------------


def _learn(
    data: RiskData, source: Source, ended: Outcome, train: np.ndarray, monotone: Mapping[str, str]
) -> tuple[Known, Block, list[str]]:
    """What the rows say of themselves; all rows, converted; and what a user should know of it."""
    table = source.table
    chosen = choose(data, table, source.files)
    groups, edges = groups_of(data.protected, table, train, categorical=data.categorical)
    schema = with_levels(chosen.features, table, train, monotone)
    known = Known(schema, str(data.target), *ended.names, tuple(chosen.identifiers), groups, edges)
    block = convert(table, known, weight=data.weight)
    dropped = constants(block.numbers[train], block.codes[train], schema)
    block = block.without(dropped)
    known = replace(known, schema=block.schema)
    return known, block, about(known, chosen, dropped, monotone)


# Rows ---------------------------------------------------------------------------------------------------------------


def _judged(
    data: RiskData, source: Source, block: Block, splits: np.ndarray, *, problems: dict[int, str], notes: list[str]
) -> np.ndarray:
    """The splits without the rows that cannot be used: stops at them, or counts them, as `data.on_bad` says."""
    wrong = ~block.usable()
    target = str(data.target)
    reasons = dict(problems)
    for place in np.flatnonzero(wrong).tolist()[: LISTED if data.on_bad == "error" else None]:
        reason = block.reason(place, source.table, target=target, weight=data.weight)
        reasons.setdefault(int(source.rows[place]), reason)
    count = int(wrong.sum()) + sum(row not in set(source.rows[wrong].tolist()) for row in problems)
    kept = np.where(wrong, np.int8(NONE), splits)
    if count:
        shown = "; ".join(f"{source.where(row)}: {reasons[row]}" for row in sorted(reasons)[:LISTED])
        told = f"{count} of {source.size} rows cannot be used ({shown}{'; ...' if count > LISTED else ''})"
        if data.on_bad == "error":
            raise DataError(f"{told}: mend them, or set data.on_bad=skip to leave them out")
        notes.append(f"{told}: left out")
    for split, code in CODES.items():
        before, after = splits == code, kept == code
        if before.any() and not after.any():
            raise DataError(f"not one row of the {split} split can be used: check data.path")
        if after.any() and split == "train" and len(np.unique(block.bad[after])) < 2:
            raise DataError(
                f"all {int(after.sum())} training rows are {'bad' if block.bad[after][0] else 'good'}: both are needed"
            )
    return kept


def _tables(source: Source, block: Block, known: Known, splits: np.ndarray) -> dict[Split, Table]:
    tables: dict[Split, Table] = {}
    for split, code in CODES.items():
        rows = np.flatnonzero(splits == code)
        if len(rows):
            tables[split] = Table(
                known,
                numbers=block.numbers[rows],
                codes=block.codes[rows],
                bad=block.bad[rows],
                cells=source.table.take(pa.array(rows)),
                where=partial(_place, source.where, source.rows[rows]),
                weight=None if block.weight is None else block.weight[rows],
                groups={name: codes[rows] for name, codes in block.groups.items()},
                true_probability=None if source.probability is None else source.probability[rows],
            )
    return tables


def _place(where: RowPlaces, rows: np.ndarray, index: int) -> str:
    return where(int(rows[index])).rpartition("/")[2]
