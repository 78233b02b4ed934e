"""The supervised step: whose parameters are trained, and who is asked for what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from modelwright.config import build_config
from modelwright.task import Batch, Losses, Progress
from modelwright.testing.toy import ToyConfig, ToyTask
from modelwright.training.steps import Step, Supervised


class Shared(nn.Module):
    """A loss that weighs its parts itself (Kendall et al. 2018) and looks at one of the model's own weights."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(2))
        self.frozen = nn.Parameter(torch.zeros(2), requires_grad=False)
        self.last = next(p for p in model.parameters() if p.requires_grad)


class Task(ToyTask):
    def model(self) -> nn.Module:
        model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 3)})
        model["a"].requires_grad_(False)
        return model

    def criterion(self, model: nn.Module) -> nn.Module | None:
        return Shared(model)


def test_each_parameter_that_is_trained_is_in_one_group() -> None:
    step = Supervised(Task(build_config(ToyConfig)))
    groups = step.groups()
    names = {id(p): name for name, p in step.named_parameters()}
    found = [[names[id(p)] for p in group["params"]] for group in groups]
    assert found == [["model.b.weight"], ["model.b.bias"], ["criterion.log_variance"]]
    assert [group.get("weight_decay") for group in groups] == [None, 0.0, 0.0]


def test_without_a_criterion_the_tasks_groups_are_all() -> None:
    class Plain(Task):
        def criterion(self, model: nn.Module) -> nn.Module | None:
            return None

    assert len(Supervised(Plain(build_config(ToyConfig))).groups()) == 2


def test_the_model_gets_inputs_and_hints_and_the_loss_its_outputs() -> None:
    seen: dict[str, Any] = {}

    class Model(nn.Module):
        def forward(self, point: Tensor, *, noise: Tensor) -> dict[str, Tensor]:
            return {"logits": point + noise}

    class Hinted(ToyTask):
        def model(self) -> nn.Module:
            return Model()

        def loss(
            self, criterion: nn.Module | None, outputs: Mapping[str, Tensor], batch: Batch, progress: Progress
        ) -> Losses:
            seen.update(outputs=outputs, progress=progress, criterion=criterion)
            return Losses(outputs["logits"].sum(), len(batch))

    batch = Batch((torch.ones(2, 2),), {}, np.arange(2), hints={"noise": torch.ones(2, 2)})
    progress = Progress(3, 10, 1, 2)
    losses = Supervised(Hinted(build_config(ToyConfig)))(batch, progress)
    assert (float(losses.sum), losses.weight) == (8.0, 2)
    assert seen["progress"] is progress
    assert seen["criterion"] is None


def test_a_step_must_say_what_it_trains_and_how() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Step()  # type: ignore[abstract]
