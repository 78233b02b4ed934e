"""Training rows of an opened run; runs and bundles themselves are opened in the tests of the whole task."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("pyarrow")

from modelwright.errors import DataError
from modelwright.task import Keys
from modelwright_risk import opening


class Rows:
    def __len__(self) -> int:
        return 5

    def __getitems__(self, keys: Keys) -> Any:
        rows = torch.from_numpy(keys.indices)
        return SimpleNamespace(inputs=(rows[:, None].float(), rows[:, None]), targets={"bad": (rows % 2).float()})


def opened(datasets: Any) -> opening.Opened:
    return opening.Opened(SimpleNamespace(datasets=datasets), lambda *arrays: arrays[0])  # type: ignore[arg-type]


def test_training_rows_come_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "AT_ONCE", 2)
    found = opened(lambda: {"train": Rows()}).training()
    assert found is not None
    inputs, bad = found
    assert [each[:, 0].tolist() for each in inputs] == [[0, 1, 2, 3, 4]] * 2
    assert bad.tolist() == [0, 1, 0, 1, 0]
    assert bad.dtype == np.float32


def test_data_that_are_gone_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    def gone() -> Any:
        raise DataError("loans.csv is not there")

    assert opened(gone).training() is None
    assert "shares and bad rates are left out: loans.csv is not there" in capsys.readouterr().err
