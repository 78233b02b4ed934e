"""The toy task keeps the contract that it is an example of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modelwright.config import build_config
from modelwright.task import Datasets, Key, Keys, Progress
from modelwright.testing.toy import TOY, Spirals, ToyConfig, ToyTask
from modelwright.training.loading import fetch
from modelwright.training.randomness import KeyedNumbers


@pytest.fixture
def toy() -> ToyTask:
    task = TOY.build(build_config(ToyConfig, overrides=["data.samples=40"]))
    assert isinstance(task, ToyTask)
    task.facts = task.find_facts(task.datasets())
    return task


def test_splits_differ_and_are_the_same_every_time(toy: ToyTask) -> None:
    first, second = toy.datasets(), toy.datasets()
    sizes = [len(first[split]) for split in ("train", "valid", "test")]
    assert sizes == [40, 13, 13]
    points = [first[split].points for split in ("train", "valid", "test")]  # type: ignore[attr-defined]
    assert torch.equal(points[0], second["train"].points)  # type: ignore[attr-defined]
    assert not torch.equal(points[1], points[2])
    assert not torch.equal(points[0][:13], points[1])


def test_one_sample_and_a_whole_batch_agree(toy: ToyTask) -> None:
    data = Spirals(10, seed=0, noise=0.1)
    keys = Keys(0, 0, 1, np.array([7, 2, 2]))
    batch = fetch(toy, data, keys)
    assert batch is not None
    examples = [data[Key(0, 0, 1, index)] for index in (7, 2, 2)]
    one_by_one = toy.collate(examples, keys.indices)
    assert torch.equal(batch.inputs[0], one_by_one.inputs[0])
    assert torch.equal(batch.targets["label"], one_by_one.targets["label"])
    assert batch.ids.tolist() == one_by_one.ids.tolist() == [7, 2, 2]


def test_augmentation_moves_a_sample_alike_in_any_batch(toy: ToyTask) -> None:
    data, progress = Spirals(10, seed=0, noise=0.1), Progress(0, 1, 0, 1)

    def moved(indices: list[int]) -> torch.Tensor:
        batch = fetch(toy, data, Keys(0, 3, 9, np.array(indices)))
        assert batch is not None
        return toy.augment(batch, KeyedNumbers(seed=0, epoch=3, ids=batch.ids), progress).inputs[0]

    assert torch.equal(moved([4, 9, 1])[1], moved([9])[0])
    assert not torch.equal(moved([9])[0], data.points[9])


def test_perfect_predictions_score_one(toy: ToyTask) -> None:
    batch = fetch(toy, toy.datasets()["test"], Keys(0, 0, 1, np.arange(13)))
    assert batch is not None
    truths = toy.truths(batch)
    assert toy.metrics(toy.measure(toy.perfect(truths), truths)) == {"accuracy": 1.0}


def test_outputs_and_loss_have_the_promised_shape(toy: ToyTask) -> None:
    batch = fetch(toy, toy.datasets()["train"], Keys(0, 0, 1, np.arange(5)))
    assert batch is not None
    outputs = toy.model()(*batch.inputs)
    losses = toy.loss(None, outputs, batch, Progress(0, 1, 0, 1))
    assert outputs["logits"].shape == (5, 3)
    assert losses.sum.shape == ()
    assert losses.weight == 5
    probabilities = toy.codec.decode({"logits": outputs["logits"].detach().numpy()}, None).array("probabilities")
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(5))


def test_facts_are_of_the_training_points_only(toy: ToyTask) -> None:
    train = Spirals(40, seed=0, noise=0.05)
    assert toy.facts.arrays["mean"] == pytest.approx(train.points.numpy().mean(axis=0))
    assert toy.find_facts(Datasets(train)).values["classes"] == ["a", "b", "c"]
