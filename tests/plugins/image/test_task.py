"""The image task against its contract: facts, losses that divide right, perfect predictions, recipes that load."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torchvision")
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

import modelwright_image
from modelwright.codec import Columns
from modelwright.config import build_config, read_yaml
from modelwright.errors import ConfigError
from modelwright.task import Batch, Datasets, Evaluated, Keys, Progress
from modelwright_image.config import ImageConfig
from modelwright_image.task import ImageTask

PROGRESS = Progress(step=0, steps=1, epoch=0, epochs=1)
COUNTS = (6, 3, 1)


class Split:
    """Ten grey pictures of three classes."""

    classes = ("cat", "dog", "owl")
    channels = 1
    size = 8

    def __init__(self):
        self.labels = np.repeat(np.arange(3), COUNTS)
        self.pixels = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1), dtype=np.uint8)

    def __len__(self):
        return 10

    def stats(self):
        values = self.pixels.reshape(-1, 1)
        return values.mean(axis=0), values.std(axis=0)

    def picture(self, index):
        return self.pixels[index]

    def name_of(self, index):
        return f"{index}.png"

    def __getitems__(self, keys):
        images = torch.from_numpy(self.pixels[keys.indices]).permute(0, 3, 1, 2)
        return Batch((images,), {"label": torch.from_numpy(self.labels[keys.indices])}, keys.indices)


def keyed(name, columns=1):
    return np.random.default_rng(list(name.encode())).random((10, columns))


@pytest.fixture
def make():
    def make(**settings):
        task = ImageTask(ImageConfig.model_validate(settings))
        task.facts = task.find_facts(Datasets(Split()))
        return task

    return make


@pytest.fixture
def batch():
    return Split().__getitems__(Keys(0, 0, 1, np.arange(10)))


def logits(seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(10, 3)).astype(np.float32))


def test_build_gives_the_task():
    assert isinstance(modelwright_image.build(ImageConfig()), ImageTask)


def test_facts_are_plain_values_and_enough_for_model_and_codec(make):
    import json

    task = make()
    facts = json.loads(json.dumps(task.facts.values))
    assert facts["counts"] == list(COUNTS)
    assert task.inputs[0].shape == (1, 8, 8)
    assert task.codec.classes == ("cat", "dog", "owl")
    again = ImageTask(ImageConfig())
    again.facts.values = facts
    assert again.model()(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))["logits"].shape == (1, 3)


def test_plain_loss_is_the_sum_of_cross_entropies(make, batch):
    task = make()
    assert task.criterion(nn.Identity()) is None
    found = task.loss(None, {"logits": logits()}, batch, PROGRESS)
    assert found.weight == 10
    torch.testing.assert_close(found.sum / 10, F.cross_entropy(logits(), batch.targets["label"]))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("balanced", [10 / 18, 10 / 9, 10 / 3]), ([1.0, 2.0, 0.5], [1.0, 2.0, 0.5])],
)
def test_weighted_loss_divides_as_torch_does(make, batch, wanted, expected):
    task = make(loss={"class_weights": wanted, "label_smoothing": 0.1})
    found = task.loss(task.criterion(nn.Identity()), {"logits": logits()}, batch, PROGRESS)
    reference = nn.CrossEntropyLoss(weight=torch.tensor(expected), label_smoothing=0.1)
    torch.testing.assert_close(found.sum / found.weight, reference(logits(), batch.targets["label"]))


def test_balanced_weights_are_those_of_scikit_learn(make):
    compute = pytest.importorskip("sklearn.utils.class_weight").compute_class_weight
    expected = compute("balanced", classes=np.arange(3), y=Split().labels)
    found = make(loss={"class_weights": "balanced"}).criterion(nn.Identity()).weights
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_class_without_pictures_does_not_break_balanced_weights(make):
    task = make(loss={"class_weights": "balanced"})
    task.facts.values["counts"] = [6, 4, 0]
    np.testing.assert_allclose(task.criterion(nn.Identity()).weights, [10 / 12, 10 / 8, 1])


def test_one_weight_per_class_is_asked_for(make):
    with pytest.raises(ConfigError, match="has 2 values and the data 3 classes: give one each for cat, dog, owl"):
        make(loss={"class_weights": [1.0, 2.0]}).criterion(nn.Identity())


@pytest.mark.parametrize("name", ["cross_entropy", "mse"])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_shares_that_are_one_hot_give_the_loss_of_labels(make, batch, name, weights):
    task = make(loss={"name": name, "class_weights": weights, "label_smoothing": 0.2})
    criterion = task.criterion(nn.Identity())
    hard = task.loss(criterion, {"logits": logits()}, batch, PROGRESS)
    batch.targets["shares"] = F.one_hot(batch.targets["label"], 3).float()
    soft = task.loss(criterion, {"logits": logits()}, batch, PROGRESS)
    torch.testing.assert_close(soft.sum, hard.sum)
    assert float(soft.weight) == pytest.approx(float(hard.weight))


def test_mse_is_that_of_torch_on_one_hot_targets(make, batch):
    found = make(loss={"name": "mse"}).loss(None, {"logits": logits()}, batch, PROGRESS)
    expected = F.mse_loss(logits(), F.one_hot(batch.targets["label"], 3).float())
    torch.testing.assert_close(found.sum / found.weight, expected)


@pytest.mark.parametrize("weights", ["none", "balanced"])
@pytest.mark.parametrize("name", ["cross_entropy", "mse"])
def test_micro_batches_add_up(make, batch, name, weights):
    task = make(loss={"name": name, "class_weights": weights})
    criterion, outputs = task.criterion(nn.Identity()), logits()
    whole = task.loss(criterion, {"logits": outputs}, batch, PROGRESS)
    parts = [
        task.loss(criterion, {"logits": outputs[rows]}, Split().__getitems__(Keys(0, 0, 1, rows)), PROGRESS)
        for rows in (np.arange(4), np.arange(4, 10))
    ]
    torch.testing.assert_close(sum(part.sum for part in parts), whole.sum)
    assert float(sum(part.weight for part in parts)) == pytest.approx(float(whole.weight))


def test_augment_keeps_labels_and_adds_shares_where_pictures_are_mixed(make, batch):
    plain = make(augment={"flip": True}).augment(batch, keyed, PROGRESS)
    assert set(plain.targets) == {"label"}
    assert plain.inputs[0].dtype == torch.uint8
    mixed = make(augment={"mixup": 1.0}).augment(batch, keyed, PROGRESS)
    assert mixed.targets["shares"].shape == (10, 3)
    assert torch.equal(mixed.targets["label"], batch.targets["label"])
    assert mixed.inputs[0].dtype == torch.float32
    assert mixed.ids is batch.ids


def test_perfect_predictions_score_best(make, batch):
    task = make()
    truths = task.truths(batch)
    found = task.metrics(task.measure(task.perfect(truths), truths))
    assert found["accuracy"] == found["f1"] == found["recall/owl"] == 1
    assert found["log_loss"] == found["calibration_error"] == 0
    assert task.objective.metric in found


def test_scores_from_logits_through_the_codec(make, batch):
    task = make()
    predictions = task.codec.decode({"logits": logits().numpy()}, None).with_ids(batch.ids)
    found = task.metrics(task.measure(predictions, task.truths(batch)))
    expected = F.cross_entropy(logits(), batch.targets["label"]).item()
    assert found["log_loss"] == pytest.approx(expected, rel=1e-5)


def test_figures_are_offered(make, batch):
    task = make()
    truths = task.truths(batch)
    predictions = Columns({"probabilities": logits().softmax(dim=1).numpy()}, batch.ids)
    evaluated = Evaluated("test", Split(), predictions, truths, task.measure(predictions, truths), dict)
    assert "confusion" in [figure.name for figure in task.figures(evaluated)]


def test_a_run_starts_from_pretrained_weights_and_says_so(make, tmp_path):
    save_file(make().model().state_dict(), tmp_path / "old.safetensors")
    task = make(model={"pretrained": str(tmp_path)})
    assert "10 of 10 tensors taken over" in task.initialize(task.model())
    assert make().initialize(make().model()) is None


def test_the_digits_come_as_the_task_expects():
    task = ImageTask(ImageConfig())
    datasets = task.datasets()
    task.facts = task.find_facts(datasets)
    batch = datasets["train"].__getitems__(Keys(0, 0, 1, np.array([3, 0])))
    outputs = task.model()(*batch.inputs)
    assert np.isfinite(float(task.loss(None, outputs, batch, PROGRESS).sum.detach()))
    assert task.truths(batch).array("label").tolist() == datasets["train"].labels[[3, 0]].tolist()


def test_a_task_with_facts_reads_the_data_as_they_say():
    task = ImageTask(ImageConfig())
    task.facts = task.find_facts(task.datasets())
    task.facts.values["size"] = 12
    assert task.datasets()["test"].picture(0).shape == (12, 12, 1)


RECIPES = sorted((Path(modelwright_image.__file__).parent / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_valid_and_say_how_to_use_them(path):
    config = build_config(ImageConfig, layers=[read_yaml(path)])
    assert f"--recipe {path.stem}" in path.read_text(encoding="utf-8")
    assert hasattr(torch.optim, config.train.optimizer.name)


def test_the_readme_lists_every_recipe():
    page = (Path(modelwright_image.__file__).parent / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", page.partition("## Recipes")[2], flags=re.MULTILINE)
    assert sorted(listed) == [path.stem for path in RECIPES]


def test_the_tutorial_recipe_is_the_tutorial():
    config = build_config(ImageConfig, layers=[read_yaml(next(p for p in RECIPES if p.stem == "tutorial"))])
    assert (config.model.name, config.model.normalize) == ("lenet", "symmetric")
    optimizer = config.train.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("SGD", 0.001, 0.9, 0)
    assert (config.train.batch_size, config.train.epochs, config.train.schedule.name) == (64, 10, "constant")
    assert config.augment == type(config.augment)()
