"""Losses add up between two readings; the speed counts training alone."""

from __future__ import annotations

import pytest
import torch

from modelwright.task import Losses
from modelwright.training import tally
from modelwright.training.tally import Tally


def test_the_speed_leaves_out_what_is_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(tally.time, "perf_counter", lambda: now)
    counted = Tally()
    counted.add(torch.tensor(6.0), 3, samples=30)
    now = 110.0  # of which an evaluation took seven seconds
    counted.pause(7.0)
    assert counted.speed() == pytest.approx(10.0)


def test_loss_and_parts_are_means_over_the_weight() -> None:
    counted = Tally()
    for value in (1.0, 3.0):
        counted.part(Losses(torch.tensor(value), 2, {"box": torch.tensor(4 * value)}), 2)
        counted.add(torch.tensor(value), 2, samples=2)
    assert counted.mean == pytest.approx(1.0)
    assert counted.parts() == {"box": pytest.approx(4.0)}
