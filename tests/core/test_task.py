"""What a task gets without writing it, and the records of the contract."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from modelwright.codec import Codec, Columns, Context, Sample
from modelwright.config import TaskConfig
from modelwright.errors import DataError
from modelwright.events import Event
from modelwright.task import (
    Batch,
    Datasets,
    Evaluated,
    Example,
    Facts,
    Input,
    Key,
    Keys,
    Losses,
    Objective,
    Progress,
    Task,
    map_tensors,
)


class Letters(Codec):
    """Each letter of a text as a sample; the last letter first where `backwards`."""

    def __init__(self, *, backwards: bool = False) -> None:
        self.backwards = backwards

    def prepare(self, raws: Sequence[Any]) -> list[Sample]:
        samples = [
            Sample({"code": np.array([ord(letter)], dtype=np.float32)}, row)
            for row, raw in enumerate(raws)
            for letter in raw
        ]
        return samples[::-1] if self.backwards else samples

    def decode(self, outputs: Mapping[str, np.ndarray], context: Context | None) -> Columns:
        return Columns({"score": outputs["score"]})


class Minimal(Task):
    """A task that writes only what is required."""

    inputs = (Input("code", (1,), "float32"),)
    objective = Objective("error", "min")
    codec = Letters()

    def datasets(self) -> Datasets:
        return Datasets(None)

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(1, 4), nn.LayerNorm(4), nn.Linear(4, 1, bias=False))

    def loss(
        self, criterion: nn.Module | None, outputs: Mapping[str, Tensor], batch: Batch, progress: Progress
    ) -> Losses:
        return Losses(outputs["score"].sum(), len(batch))

    def truths(self, batch: Batch) -> Columns:
        return Columns({"label": batch.targets["label"].numpy()})

    def metrics(self, measured: Columns) -> dict[str, float]:
        return {"error": 0.0}

    def perfect(self, truths: Columns) -> Columns:
        return Columns({"score": truths["label"]})


@pytest.fixture
def task() -> Minimal:
    return Minimal(TaskConfig())


# The defaults


def test_collating_gives_inputs_targets_and_ids_row_by_row(task: Minimal) -> None:
    examples = [Example("a", {"label": 1, "box": np.zeros(4)}), Example("b", {"label": 2, "box": np.ones(4)})]
    batch = task.collate(examples, np.array([7, 3]))
    assert batch.inputs[0].tolist() == [[97], [98]]
    assert batch.targets["label"].tolist() == [1, 2]
    assert batch.targets["box"].shape == (2, 4)
    assert batch.ids.tolist() == [7, 3]
    assert batch.context is not None
    assert batch.hints == {}


@pytest.mark.parametrize(
    ("raws", "codes", "labels", "ids"),
    [
        (["ab", "c"], [97, 98, 99], [1, 1, 2], [7, 7, 3]),
        (["ab", ""], [97, 98], [1, 1], [7, 7]),  # as many samples as raw things, and yet not one each
    ],
)
def test_several_samples_of_one_raw_thing_share_its_targets_and_its_id(
    task: Minimal, raws: list[str], codes: list[int], labels: list[int], ids: list[int]
) -> None:
    examples = [Example(raw, {"label": number + 1}) for number, raw in enumerate(raws)]
    batch = task.collate(examples, np.array([7, 3]))
    assert batch.inputs[0].flatten().tolist() == codes
    assert batch.targets["label"].tolist() == labels
    assert batch.ids.tolist() == ids
    assert len(batch) == len(ids)


def test_targets_follow_samples_that_the_codec_reordered(task: Minimal) -> None:
    task.codec = Letters(backwards=True)
    batch = task.collate([Example("a", {"label": 1}), Example("b", {"label": 2})], np.array([7, 3]))
    assert batch.inputs[0].flatten().tolist() == [98, 97]
    assert batch.targets["label"].tolist() == [2, 1]
    assert batch.ids.tolist() == [3, 7]


@given(size=st.integers(0, 50), batch_size=st.integers(1, 60), seed=st.integers(0, 3))
def test_an_epoch_covers_each_index_once_in_whole_batches(size: int, batch_size: int, seed: int) -> None:
    task = Minimal(TaskConfig())

    def order() -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        return list(task.order(size, batch_size=batch_size, epoch=1, epochs=3, rng=rng))

    batches = order()
    assert sorted(np.concatenate([*batches, np.array([], int)]).tolist()) == list(range(size))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert [batch.tolist() for batch in batches] == [batch.tolist() for batch in order()]


def test_another_epochs_order_is_another_one(task: Minimal) -> None:
    orders = [task.order(50, batch_size=50, epoch=0, epochs=1, rng=np.random.default_rng(seed))[0] for seed in (0, 1)]
    assert orders[0].tolist() != orders[1].tolist()


def test_vectors_get_no_weight_decay_and_frozen_parameters_are_left_out(task: Minimal) -> None:
    model = task.model()
    decayed, others = task.groups(model)
    assert "weight_decay" not in decayed
    assert others["weight_decay"] == 0.0
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert all(parameter.ndim <= 1 for parameter in others["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(list(model.parameters()))
    for parameter in others["params"]:
        parameter.requires_grad_(False)
    assert len(task.groups(model)) == 1


def test_by_default_a_task_changes_nothing(task: Minimal) -> None:
    batch = task.collate([Example("a", {"label": 1})], np.array([0]))
    progress = Progress(step=0, steps=1, epoch=0, epochs=1)
    model = task.model()
    columns = Columns({"label": np.array([1])})
    assert task.augment(batch, lambda name, columns=1: np.zeros((1, columns)), progress) is batch
    assert task.served(model) is model
    assert task.criterion(model) is None
    assert task.schedules() == {}
    assert task.find_facts(Datasets(None)) == Facts() == task.facts
    assert set(task.measure(Columns({"score": np.array([1])}), columns)) == {"score", "label"}
    assert list(task.figures(Evaluated("test", [], columns, columns, columns, dict))) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", ["datasets", "model", "loss", "truths", "metrics", "perfect"])
def test_what_is_required_must_be_written(missing: str) -> None:
    written = {name: getattr(Minimal, name) for name in Task.__abstractmethods__ - {missing}}
    with pytest.raises(TypeError, match=missing):
        type("Partial", (Task,), written)(TaskConfig())


# Records


@pytest.mark.parametrize(
    ("goal", "value", "than", "better"),
    [
        ("max", 0.9, 0.8, True),
        ("max", 0.8, 0.8, False),
        ("max", 0.7, 0.8, False),
        ("min", 0.7, 0.8, True),
        ("min", 0.9, 0.8, False),
        ("max", -math.inf, None, True),
        ("max", math.nan, None, False),
        ("min", math.nan, 0.8, False),
    ],
)
def test_which_value_is_better(goal: Any, value: float, than: float | None, better: bool) -> None:
    assert Objective("m", goal).better(value, than=than) is better


class Pair(NamedTuple):
    first: Tensor
    second: str


def test_moving_a_batch_keeps_its_structure() -> None:
    one = torch.ones(1)
    targets = {"boxes": [one, one], "pair": Pair(one, "x"), "deep": {"tuple": (one, 3), "none": None}, "text": "y"}
    batch = Batch((one,), targets, np.array([5]), hints={"noise": one})
    moved = batch.to(torch.device("meta"))
    assert moved.inputs[0].device.type == moved.hints["noise"].device.type == "meta"
    assert [box.device.type for box in moved.targets["boxes"]] == ["meta", "meta"]
    assert isinstance(moved.targets["pair"], Pair)
    assert moved.targets["pair"].first.device.type == "meta"
    assert moved.targets["pair"].second == "x"
    assert moved.targets["deep"]["tuple"][0].device.type == "meta"
    assert moved.targets["deep"]["tuple"][1:] == (3,)
    assert moved.targets["deep"]["none"] is None
    assert moved.targets["text"] == "y"
    assert moved.ids is batch.ids
    assert one.device.type == "cpu"


trees = st.recursive(
    st.integers() | st.text(max_size=2) | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(trees)
def test_a_tree_without_tensors_stays_as_it_is(tree: Any) -> None:
    assert map_tensors(lambda tensor: tensor + 1, tree) == tree


def test_keys_ask_for_each_sample_alike() -> None:
    keys = Keys(seed=1, epoch=2, epochs=3, indices=np.array([4, 9]))
    assert list(keys.each()) == [Key(1, 2, 3, 4), Key(1, 2, 3, 9)]


@pytest.mark.parametrize(("step", "steps", "fraction"), [(0, 10, 0.0), (5, 10, 0.5), (10, 10, 1.0), (0, 0, 0.0)])
def test_progress_as_a_fraction(step: int, steps: int, fraction: float) -> None:
    assert Progress(step=step, steps=steps, epoch=0, epochs=1).fraction == fraction


# Datasets


class Numbers(list[Any]):
    """A list as a dataset."""


def test_a_split_given_as_a_function_is_made_once_and_only_when_asked_for() -> None:
    made: list[str] = []

    def make(split: str) -> Any:
        return lambda: made.append(split) or Numbers([1, 2])

    data = Datasets(make("train"), make("valid"))
    assert data.has("train")
    assert not data.has("test")
    assert made == []
    assert data["train"] is data["train"]
    assert made == ["train"]


def test_a_split_given_as_it_is_is_given_back() -> None:
    numbers = Numbers([1])
    assert Datasets(numbers)["train"] is numbers


def test_a_missing_split_is_said() -> None:
    with pytest.raises(DataError, match=r"the data have no valid split: name one with data\.path"):
        Datasets(Numbers([1]))["valid"]
    with pytest.raises(DataError, match="the data have no nonsense split"):
        Datasets(Numbers([1]))["nonsense"]  # type: ignore[index]


def test_an_empty_split_is_said() -> None:
    with pytest.raises(DataError, match=r"the test split is empty: check data\.path"):
        Datasets(None, test=Numbers)["test"]


def test_events_do_not_change() -> None:
    with pytest.raises(AttributeError):
        Event(1).step = 2  # type: ignore[misc]
