"""Losses and weights that are not finite stop the run before anything bad is kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from modelwright.errors import TrainingError
from modelwright.training.guard import Guard, check_finite, list_ids, out_of_memory


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_names_step_and_samples(bad: float) -> None:
    guard = Guard(every=1)
    guard(4, torch.tensor(0.5), [np.array([1, 2])])
    with pytest.raises(TrainingError, match=rf"the loss became {bad} at step 5 \(samples 7, 3, 9\): lower .*clip") as e:
        guard(5, torch.tensor(bad), [np.array([7, 3]), np.array([9])])
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("every", [2, 5, 100])
def test_looking_seldom_still_finds_the_right_step(every: int) -> None:
    guard = Guard(every=every)
    with pytest.raises(TrainingError, match=r"became nan at step 3 \(samples 30\)"):  # noqa: PT012
        for step in range(10):
            guard(step, torch.tensor(math.nan if step >= 3 else 1.0), [np.array([step * 10])])
        guard.look()


def test_what_was_looked_at_is_forgotten() -> None:
    guard = Guard(every=100)
    guard(0, torch.tensor(math.nan), [np.array([0])])
    with pytest.raises(TrainingError):
        guard.look()
    guard.look()


def test_weights_are_looked_at_too() -> None:
    good, bad = torch.ones(3), torch.tensor([1.0, math.inf])
    check_finite(1, [good, torch.ones(2, dtype=torch.bfloat16)])
    check_finite(1, [])
    with pytest.raises(TrainingError, match="weights became NaN or infinite within the 7 steps done: lower"):
        check_finite(7, [good, bad])


def test_long_lists_of_samples_are_cut() -> None:
    assert list_ids([]) == ""
    assert list_ids([np.arange(8)]) == "0, 1, 2, 3, 4, 5, 6, 7"
    assert list_ids([np.arange(5), np.arange(5)]) == "0, 1, 2, 3, 4, 0, 1, 2, ... (10 in all)"


def test_memory_that_ran_out_is_known_on_cpu_and_gpu() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(error.value)
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not out_of_memory(RuntimeError("shapes cannot be multiplied"))
