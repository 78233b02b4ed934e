"""A tree ensemble as teacher of a network. Knows LightGBM, which is imported when asked for; knows no stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from modelwright.errors import ConfigError, PluginError
from modelwright.task import Batch, Datasets
from modelwright_risk.datasets import Table

FOLDS = 5
ROUNDS, PATIENCE = 2000, 50
"""Trees at most, and how many may bring nothing."""
PARAMETERS = {
    "objective": "binary",
    "learning_rate": 0.03,
    "num_leaves": 15,
    "min_child_samples": 40,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "verbosity": -1,
}
"""Few leaves and a small rate: what tables of credit mostly want."""


def lightgbm(datasets: Datasets, *, seed: int) -> Callable[[Batch], Mapping[str, Tensor]]:
    """Fits LightGBM on the training split; it then says the log-odds of default of training samples.

    What it says of a row comes from trees that were grown without that row: an ensemble knows the rows that it has
    seen by heart, and what it says of those is hardly more than the labels again.

    Raises:
        PluginError: LightGBM is not installed.
        ConfigError: the table is streamed from disk.
    """
    try:
        import lightgbm as gbm
    except (ImportError, OSError) as error:  # OSError: the machine lacks libgomp
        raise PluginError(
            f'the teacher lightgbm could not load: {error}; install it: pip install "modelwright[lightgbm]"'
        ) from error
    train = datasets["train"]
    if not isinstance(train, Table):
        raise ConfigError("the teacher lightgbm needs the table in memory: raise data.memory, or take another teacher")
    rows, bad, weight, categories = _columns(train)
    fold = np.random.default_rng(seed).permutation(len(bad)) % FOLDS
    said = np.zeros(len(bad), np.float32)
    for number in range(FOLDS):
        held = fold == number
        parts = [
            gbm.Dataset(
                rows[each],
                bad[each],
                weight=None if weight is None else weight[each],
                categorical_feature=categories,
                free_raw_data=False,
            )
            for each in (~held, held)
        ]
        trees = gbm.train(
            {**PARAMETERS, "seed": seed, "num_threads": torch.get_num_threads(), "deterministic": True},
            parts[0],
            num_boost_round=ROUNDS,
            valid_sets=[parts[1]],
            callbacks=[gbm.early_stopping(PATIENCE, verbose=False)],
        )
        said[held] = cast("np.ndarray", trees.predict(rows[held], raw_score=True))
    table = torch.from_numpy(said)

    def teach(batch: Batch) -> Mapping[str, Tensor]:
        found = table.index_select(0, torch.from_numpy(np.asarray(batch.ids, dtype=np.int64)))
        return {"logit": found.to(batch.inputs[0].device)}

    return teach


def _columns(table: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, Any]:
    """Rows as LightGBM takes them, what became of them, their weights, and which columns are categories."""
    parts = [each.numpy().astype(np.float64) for each in (table.numbers, table.codes) if each.shape[1]]
    first = table.numbers.shape[1]
    categories = list(range(first, first + table.codes.shape[1]))
    weight = None if table.weight is None else table.weight.numpy()
    return np.concatenate(parts, axis=1), table.bad.numpy(), weight, categories
