"""Tables that do not fit in memory: read from disk, group of rows by group of rows. Knows stores; no models.

An epoch's order shuffles the groups, takes a few at a time and mixes their rows; only those few are in memory.
"""

# pyarrow has no annotations.
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from modelwright.data import Datasets, Split
from modelwright.errors import ConfigError, DataError
from modelwright.task import Batch, Example, Key, Keys
from modelwright_risk.cells import texts
from modelwright_risk.checks import about_columns, balance, constants
from modelwright_risk.columns import about, check_names, choose, groups_of, need_target, with_levels
from modelwright_risk.config import RiskData
from modelwright_risk.convert import Block, convert
from modelwright_risk.datasets import Table, row_of
from modelwright_risk.files import Piece
from modelwright_risk.known import Known
from modelwright_risk.schema import Schema
from modelwright_risk.sources import together
from modelwright_risk.splits import CODES, NONE, TRAIN, hashed, listed
from modelwright_risk.stores import Store, open_store
from modelwright_risk.targets import outcome

BUFFER = 128 << 20
"""Bytes of converted rows that a split keeps in memory."""
MOST_GROUPS = 16
"""Groups whose rows are mixed."""
SAMPLE = 200_000
"""Training rows that tell of columns, categories and quantiles."""
LISTED = 3


class StreamedTable:
    """Rows of a split, on disk.

    Args:
        splits: int8, the split of each row of the store.
        code: the one that this is.
        sample: of its rows, in memory; of the training split only.

    Attributes:
        known: columns, outcomes, groups.
        base_rate: share of bad rows.
        sample: some of its rows, evenly spread, as a `Table`.
    """

    def __init__(
        self,
        store: Store,
        known: Known,
        splits: np.ndarray,
        code: int,
        *,
        weight: str | None,
        base_rate: float,
        sample: Table,
    ) -> None:
        self.known = known
        self.base_rate = base_rate
        self.sample = sample
        self._store, self._splits, self._code, self._weight = store, splits, code, weight
        counts = [int((self._of(place) == code).sum()) for place in range(len(store.groups))]
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._largest = max(counts, default=1)
        width = 4 * len(known.schema.numeric) + 2 * len(known.schema.categorical) + 8 + 8 * len(known.protected)
        self._slots = int(np.clip(BUFFER // max(self._largest * width, 1), 1, MOST_GROUPS))
        self._buffer: dict[str, np.ndarray] = {}
        self._held: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_buffer": {}, "_held": {}}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def batches(self, *, batch_size: int, rng: np.random.Generator) -> Sequence[np.ndarray]:
        """The batches of an epoch as indices; those close to each other need the same few groups.

        Args:
            batch_size: rows of each; the last one may be smaller.
        """
        order = np.empty(len(self), dtype=np.int32 if len(self) < 2**31 else np.int64)
        groups = rng.permutation(len(self._starts) - 1)
        start = 0
        for first in range(0, len(groups), self._slots):
            own = groups[first : first + self._slots]
            rows = np.concatenate([np.arange(*self._starts[place : place + 2].tolist()) for place in own.tolist()])
            order[start : start + len(rows)] = rng.permutation(rows)
            start += len(rows)
        return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]

    def __getitems__(self, keys: Keys) -> Batch:
        """A whole batch; an input of no width is left out."""
        ids = np.asarray(keys.indices, dtype=np.int64)
        groups = np.searchsorted(self._starts, ids, side="right") - 1
        found: dict[str, np.ndarray] = {}
        for own in self._fitting(np.unique(groups)):
            picked = np.flatnonzero(np.isin(groups, own))
            slots = np.zeros(int(own.max()) + 1, dtype=np.int64)
            slots[own] = [self._slot(place) for place in own.tolist()]
            rows = slots[groups[picked]] * self._largest + ids[picked] - self._starts[groups[picked]]
            for name, values in self._buffer.items():
                part = values[rows]
                if len(picked) == len(ids):
                    found[name] = part
                else:
                    found.setdefault(name, np.empty((len(ids), *part.shape[1:]), dtype=part.dtype))[picked] = part
        inputs = [torch.from_numpy(found.pop("numbers")), torch.from_numpy(found.pop("codes").astype(np.int64))]
        targets = {name: torch.from_numpy(values) for name, values in found.items()}
        return Batch(tuple(each for each in inputs if each.shape[1]), targets, ids)

    def __getitem__(self, key: Key) -> Example:
        """A row as a dict, and what is true of it; reads its whole group."""
        targets = self.__getitems__(Keys(key.seed, key.epoch, key.epochs, np.array([key.index]))).targets
        return Example(self.row(key.index), {name: values[0].numpy() for name, values in targets.items()})

    def row(self, index: int) -> dict[str, Any]:
        """A row as it stands in the file: column -> cell; reads its whole group."""
        place, row = self._find(index)
        return row_of(self._store.cells(place, self._store.names), row, self.known)

    def name_of(self, index: int) -> str:
        """Where a row stands: "loans.parquet row 17"."""
        place, row = self._find(index)
        return self._store.where(self._store.groups[place].first + row).rpartition("/")[2]

    def _of(self, place: int) -> np.ndarray:
        group = self._store.groups[place]
        return self._splits[group.first : group.first + group.rows]

    def _find(self, index: int) -> tuple[int, int]:
        place = int(np.searchsorted(self._starts, index, side="right")) - 1
        return place, int(np.flatnonzero(self._of(place) == self._code)[index - self._starts[place]])

    def _fitting(self, groups: np.ndarray) -> Iterator[np.ndarray]:
        """Groups, as many at a time as fit in the buffer; first those that lie in it."""
        held = np.isin(groups, list(self._held))
        if held.any():
            yield groups[held]
        rest = groups[~held]
        for first in range(0, len(rest), self._slots):
            yield rest[first : first + self._slots]

    def _slot(self, place: int) -> int:
        """Where a group lies in the buffer, having been read if need be; what was not used for longest gives way."""
        slot = self._held.pop(place, None)
        if slot is None:
            slot = len(self._held) if len(self._held) < self._slots else self._held.pop(next(iter(self._held)))
            self._fill(slot, place)
        self._held[place] = slot
        return slot

    def _fill(self, slot: int, place: int) -> None:
        rows = np.flatnonzero(self._of(place) == self._code)
        block = convert(self._store.cells(place, _columns(self.known, self._weight)), self.known, weight=self._weight)
        start = slot * self._largest
        for name, values in _arrays(block).items():
            if name not in self._buffer:
                self._buffer[name] = np.empty((self._slots * self._largest, *values.shape[1:]), dtype=values.dtype)
            self._buffer[name][start : start + len(rows)] = values[rows]


def _arrays(block: Block) -> dict[str, np.ndarray]:
    """What batches are made of; codes are small numbers."""
    found = {"numbers": block.numbers, "codes": block.codes.astype(np.int16), "bad": block.bad.astype(np.float32)}
    found |= {f"group/{name}": codes for name, codes in block.groups.items()}
    return found if block.weight is None else {**found, "weight": block.weight}


def _columns(known: Known, weight: str | None) -> list[str]:
    names = [feature.name for feature in known.schema.features]
    return list(dict.fromkeys([*names, known.target, *known.protected, *([] if weight is None else [weight])]))


# Loading ------------------------------------------------------------------------------------------------------------


def load(
    data: RiskData,
    pieces: Mapping[Split | None, Sequence[Piece]],
    *,
    monotone: Mapping[str, str],
    seed: int,
    known: Known | None = None,
) -> Datasets:
    """The splits of a table on disk, see `modelwright_risk.data.load`.

    Raises:
        ConfigError: settings that do not fit the table, or a way to split that is not offered here.
        DataError: rows or columns that are missing, broken or contradictory.
    """
    if data.split_by != "random" and data.split is None and None in pieces:
        raise ConfigError(
            f"data.split_by={data.split_by} is not offered for a table that is read from disk: name the splits with "
            f"data.split, or raise data.memory (now {data.memory:g} GiB)"
        )
    files = [piece for own in pieces.values() for piece in own]
    forced = [*data.categorical, *data.identifiers, *data.ignored, *([data.target] if data.target else [])]
    store = open_store(files, numeric=data.numeric, categorical=forced, skip=data.on_bad == "skip")
    target = need_target(data, store.names)
    check_names(data, monotone, store.names)
    if known is None:
        values = pa.chunked_array(
            [texts(store.cells(place, [target])[target]).dictionary for place in range(len(store.groups))]
        )
        names = outcome(values, target, bad=data.bad).names
        chosen = choose(data, store.cells(0, store.names), [])
        scanned = Known(Schema(tuple(chosen.features)), target, *names, tuple(chosen.identifiers))
    else:
        chosen, scanned = None, known
    splits = _split(data, store, pieces, seed=seed)
    notes = [_not_offered(data, store)]
    cells, rates = _scan(data, store, scanned, splits, notes=notes)
    if chosen is not None:
        rows = np.arange(cells.num_rows)
        groups, edges = groups_of(data.protected, cells, rows, categorical=data.categorical)
        known = replace(
            scanned, schema=with_levels(chosen.features, cells, rows, monotone), protected=groups, edges=edges
        )
        block = convert(cells, known, weight=data.weight)
        dropped = constants(block.numbers, block.codes, known.schema)
        known = replace(known, schema=block.without(dropped).schema)
        notes += about(known, chosen, dropped, monotone)
    assert known is not None
    sample = _in_memory(cells, known, data.weight)
    if chosen is not None:
        notes += [*balance(rates), *about_columns(sample, seed=seed)]
    tables: dict[Split, StreamedTable] = {
        split: StreamedTable(
            store, known, splits, CODES[split], weight=data.weight, base_rate=bad / rows, sample=sample
        )
        for split, (rows, bad) in rates.items()
    }
    return Datasets(tables["train"], tables.get("valid"), tables.get("test"), notes=notes)


def _not_offered(data: RiskData, store: Store) -> str:
    return (
        f"{store.size} rows are more than data.memory={data.memory:g} GiB holds: read from disk; columns are judged by "
        f"{SAMPLE} training rows, splits are not stratified, and rows that are in two splits are not looked for"
    )


def _split(data: RiskData, store: Store, pieces: Mapping[Split | None, Sequence[Piece]], *, seed: int) -> np.ndarray:
    """The split of each row of the store, int8."""
    rows = np.arange(store.size)
    if data.split is not None:
        found = listed(data.split, pa.table({}), rows, size=store.size)
    else:
        by_file: list[Split | None] = [split for split, own in pieces.items() for _ in own]
        found = np.empty(store.size, dtype=np.int8)
        for group in store.groups:
            split = by_file[group.file]
            found[group.first : group.first + group.rows] = TRAIN if split is None else CODES[split]
    if not (found == TRAIN).any():
        raise DataError("the data have no train split: name one with data.path or data.split")
    chance = hashed(rows, seed=seed)
    train, start = found == TRAIN, 0.0
    for code, share in ((CODES["test"], data.test), (CODES["valid"], data.valid)):
        if share > 0 and not (found == code).any():
            found[train & (chance >= start) & (chance < start + share)] = code
            start += share
    return found


def _scan(
    data: RiskData, store: Store, known: Known, splits: np.ndarray, *, notes: list[str]
) -> tuple[pa.Table, dict[Split, tuple[int, int]]]:
    """Reads every row once: a sample of the training rows, and rows and bad rows of each split.

    Rows that cannot be used get no split, or stop it, as `data.on_bad` says.
    """
    train = np.flatnonzero(splits == TRAIN)
    wanted = train[np.unique(np.linspace(0, len(train) - 1, min(len(train), SAMPLE)).round().astype(np.int64))]
    columns = _columns(known, data.weight)
    columns += [name for name in data.protected if name not in columns]
    parts: list[pa.Table] = []
    rates: dict[Split, tuple[int, int]] = dict.fromkeys(CODES, (0, 0))
    count, shown = 0, list[str]()
    for place, group in enumerate(store.groups):
        cells = store.cells(place, columns)
        block = convert(cells, known, weight=data.weight)
        own = splits[group.first : group.first + group.rows]
        usable = block.usable()
        for row in np.flatnonzero(~usable).tolist()[: LISTED - len(shown)]:
            reason = block.reason(row, cells, target=known.target, weight=data.weight)
            shown.append(f"{store.where(group.first + row)}: {reason}")
        count += int((~usable).sum())
        own[~usable] = NONE
        for split, code in CODES.items():
            rows, bad = rates[split]
            rates[split] = rows + int((own == code).sum()), bad + int(block.bad[own == code].sum())
        picked = wanted[np.searchsorted(wanted, group.first) : np.searchsorted(wanted, group.first + group.rows)]
        picked = picked[usable[picked - group.first]] - group.first
        parts.append(cells.take(pa.array(picked)))
    if count:
        told = f"{count} of {store.size} rows cannot be used ({'; '.join(shown)}{'; ...' if count > LISTED else ''})"
        if data.on_bad == "error":
            raise DataError(f"{told}: mend them, or set data.on_bad=skip to leave them out")
        notes.append(f"{told}: left out")
    rows, bad = rates["train"]
    if bad in (0, rows):
        raise DataError(f"all {rows} training rows are {'bad' if bad else 'good'}: both are needed")
    return together(parts), {split: found for split, found in rates.items() if found[0]}


def _in_memory(cells: pa.Table, known: Known, weight: str | None) -> Table:
    block = convert(cells, known, weight=weight)
    return Table(
        known,
        numbers=block.numbers,
        codes=block.codes,
        bad=block.bad,
        cells=cells,
        where="row {}".format,
        weight=block.weight,
        groups=block.groups,
    )
