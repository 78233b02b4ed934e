"""Tables that tests make for themselves; where the real ones lie."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]


def as_csv(columns: Mapping[str, Sequence[Any]], *, delimiter: str = ",") -> str:
    """Columns as the text of a CSV; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def loans(rows: int = 300, *, seed: int = 0) -> dict[str, list[Any]]:
    """Two numbers, a category, a counter, a customer, a month and an outcome that depends on the first number."""
    rng = np.random.default_rng(seed)
    income = rng.normal(3000, 800, rows).round(2)
    return {
        "id": list(range(1, rows + 1)),
        "income": [None if place % 10 == 3 else float(value) for place, value in enumerate(income)],
        "debts": rng.integers(0, 5, rows).tolist(),
        "job": rng.choice(["clerk", "nurse", "smith"], rows).tolist(),
        "customer": (np.arange(rows) // 2 % 70).tolist(),
        "month": [f"2020-{1 + place * 12 // rows:02}" for place in range(rows)],
        "bad": (rng.random(rows) < np.where(income < 2800, 0.5, 0.15)).astype(int).tolist(),
    }


@pytest.fixture(name="as_csv")
def as_csv_fixture() -> Callable[..., str]:
    return as_csv


@pytest.fixture(name="loans")
def loans_fixture() -> Callable[..., dict[str, list[Any]]]:
    return loans


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., str]:
    """Writes columns as a CSV and gives its path."""

    def write(columns: Mapping[str, Sequence[Any]], name: str = "loans.csv") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_csv(columns), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """The folder of a real data set; skips where there is none."""

    def find(name: str) -> Path:
        folder = Path(os.environ.get("MODELWRIGHT_DATA") or ROOT.parent / "shared" / "data") / name
        if not folder.is_dir():
            pytest.skip(f"no {folder}: set MODELWRIGHT_DATA to the folder of real data")
        return folder

    return find
