"""Image classification as the engine asks for it. Knows the contract and the parts of this plugin, no trainer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright.codec import Columns
from modelwright.errors import ConfigError
from modelwright.task import (
    Batch,
    Datasets,
    Evaluated,
    Facts,
    Figure,
    Input,
    Keyed,
    Losses,
    Objective,
    Progress,
    Task,
)
from modelwright_image import data, figures, metrics
from modelwright_image.augment import augment
from modelwright_image.codec import ImageCodec
from modelwright_image.config import ImageConfig
from modelwright_image.model import Classifier, build_model, load_pretrained


class Pictures(Protocol):
    """What this file needs of a split."""

    labels: np.ndarray
    classes: tuple[str, ...]
    channels: int
    size: int

    def stats(self) -> tuple[np.ndarray, np.ndarray]: ...
    def picture(self, index: int, /) -> np.ndarray: ...
    def name_of(self, index: int, /) -> str: ...


class ClassWeights(nn.Module):
    """One weight per class; a module so that it moves with the model."""

    weights: Tensor

    def __init__(self, weights: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("weights", torch.from_numpy(weights.astype(np.float32)))


class ImageTask(Task):
    """Says which class a picture belongs to."""

    def __init__(self, config: ImageConfig) -> None:
        super().__init__(config)
        self.settings = config

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Raw pictures, channels x size x size."""
        channels, size = self.facts.values["channels"], self.facts.values["size"]
        return (Input("image", (channels, size, size), "uint8"),)

    @property
    def objective(self) -> Objective:
        """Accuracy decides."""
        return Objective("accuracy", "max")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the logits."""
        return tuple(self.facts.values["classes"])

    @property
    def codec(self) -> ImageCodec:
        """Makes pictures of the training data's size and channels."""
        values = self.facts.values
        return ImageCodec(self.classes, values["size"], values["channels"], self.settings.data.resize)

    # Data -------------------------------------------------------------------------------------------------------

    def datasets(self) -> Datasets:
        """The splits that the settings under `data` name; with facts at hand, brought to their classes and size."""
        values = self.facts.values
        known = data.Known(self.classes, values["size"], values["channels"]) if values else None
        return data.load(self.settings.data, seed=self.settings.seed, known=known)

    def find_facts(self, datasets: Datasets) -> Facts:
        """Classes, size, channels, the channels' mean and deviation (0..255), and pictures per class."""
        train = cast("Pictures", datasets["train"])
        mean, std = train.stats()
        counts = np.bincount(train.labels, minlength=len(train.classes))
        return Facts(
            {
                "classes": list(train.classes),
                "channels": int(train.channels),
                "size": int(train.size),
                "mean": [float(value) for value in mean],
                "std": [float(value) for value in std],
                "counts": counts.tolist(),
            }
        )

    def augment(self, batch: Batch, keyed: Keyed, progress: Progress) -> Batch:
        """As the settings under `augment` ask; mixed pictures get a target `shares` (N x classes) beside the label."""
        labels = cast("Tensor", batch.targets["label"])
        images, targets = augment(
            batch.inputs[0], labels, keyed, self.settings.augment, classes=len(self.facts.values["classes"])
        )
        mixed = {} if targets is labels else {"shares": targets}
        return dataclasses.replace(batch, inputs=(images,), targets={**batch.targets, **mixed})

    # Model and loss -----------------------------------------------------------------------------------------------

    def model(self) -> Classifier:
        """The network that the settings under `model` name.

        Raises:
            ConfigError: there is no such network, or it does not fit the pictures.
        """
        values = self.facts.values
        return build_model(
            self.settings.model,
            classes=len(values["classes"]),
            channels=values["channels"],
            size=values["size"],
            mean=values["mean"],
            std=values["std"],
        )

    def initialize(self, model: nn.Module) -> str | None:
        """Starts from `model.pretrained`, where that is given.

        Raises:
            ConfigError: the weights cannot be had, or none fits.
        """
        if self.settings.model.pretrained is None:
            return None
        return load_pretrained(cast("Classifier", model), self.settings.model)

    def criterion(self, model: nn.Module) -> ClassWeights | None:
        """The class weights, where there are any.

        Raises:
            ConfigError: not one weight per class.
        """
        wanted = self.settings.loss.class_weights
        counts = np.array(self.facts.values["counts"], dtype=np.float64)
        if wanted == "none":
            return None
        if wanted == "balanced":
            # Inverse frequency, 1 on average over the samples; a class without pictures is never weighed.
            present = counts > 0
            weights = np.where(present, counts.sum() / (present.sum() * np.maximum(counts, 1)), 1.0)
            return ClassWeights(weights)
        if len(wanted) != len(counts):
            raise ConfigError(
                f"loss.class_weights has {len(wanted)} values and the data {len(counts)} classes: "
                f"give one each for {', '.join(self.classes[:8])}{', ...' if len(counts) > 8 else ''}"
            )
        return ClassWeights(np.array(wanted))

    def loss(
        self, criterion: nn.Module | None, outputs: Mapping[str, Tensor], batch: Batch, progress: Progress
    ) -> Losses:
        """Cross-entropy, or the squared error of the logits against one-hot targets, averaged over the classes.

        With class weights the sum is divided by the weights of the batch's labels, as torch does; mixed targets weigh
        by their shares.
        """
        logits = outputs["logits"].float()
        labels = cast("Tensor", batch.targets["label"])
        shares = cast("Tensor | None", batch.targets.get("shares"))
        weights = criterion.weights if isinstance(criterion, ClassWeights) else None
        settings = self.settings.loss
        if settings.name == "mse":
            total = _squared_error(logits, labels, shares, weights, smoothing=settings.label_smoothing)
        else:
            total = F.cross_entropy(
                logits,
                labels if shares is None else shares,
                weight=weights,
                reduction="sum",
                label_smoothing=settings.label_smoothing,
            )
        if weights is None:
            return Losses(total, len(batch))
        return Losses(total, weights[labels].sum() if shares is None else (shares @ weights).sum())

    def distill_loss(
        self,
        outputs: Mapping[str, Tensor],
        teacher: Mapping[str, Tensor],
        batch: Batch,
        progress: Progress,
        *,
        temperature: float,
    ) -> Losses:
        """The divergence of the softened class probabilities from the teacher's, on the scale of the task's own loss.

        Hinton, Vinyals, Dean 2015: the square of the temperature keeps the size of the gradients.
        """
        return Losses(soft_cross_entropy(outputs["logits"], teacher["logits"], temperature=temperature), len(batch))

    # Truth and metrics ----------------------------------------------------------------------------------------------

    def truths(self, batch: Batch) -> Columns:
        """The column `label`."""
        return Columns({"label": cast("Tensor", batch.targets["label"]).cpu().numpy()}, batch.ids)

    def measure(self, predictions: Columns, truths: Columns) -> Columns:
        """Label, predicted class, confidence, rank of the truth and log loss of each sample."""
        return Columns(metrics.measure(predictions.array("probabilities"), truths.array("label")), truths.ids)

    def metrics(self, measured: Columns) -> dict[str, float]:
        """Accuracy and the other scores of `modelwright_image.metrics.scores`."""
        return metrics.scores(measured, classes=self.facts.values["classes"])

    def perfect(self, truths: Columns) -> Columns:
        """All probability on the truth."""
        sure = np.eye(len(self.facts.values["classes"]), dtype=np.float32)[truths.array("label")]
        return Columns({"probabilities": sure}, truths.ids)

    def figures(self, evaluated: Evaluated) -> Iterator[Figure]:
        """Confusion matrix, scores per class, reliability, the worst mistakes and some samples."""
        pictures = cast("figures.Pictures", evaluated.dataset)
        return figures.draw(evaluated.measured, pictures, classes=self.classes)


def soft_cross_entropy(logits: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of two softened distributions, summed over the batch, times temperature squared."""
    said = F.log_softmax(logits.float() / temperature, dim=1)
    taught = F.log_softmax(teacher.float() / temperature, dim=1)
    return F.kl_div(said, taught, reduction="sum", log_target=True) * temperature**2


def _squared_error(
    logits: Tensor, labels: Tensor, shares: Tensor | None, weights: Tensor | None, *, smoothing: float
) -> Tensor:
    classes = logits.shape[1]
    targets = F.one_hot(labels, classes).float() if shares is None else shares
    smoothed = targets * (1 - smoothing) + smoothing / classes
    errors = (logits - smoothed).square().mean(dim=1)
    # The mean over the classes makes the loss that of nn.MSELoss on N x classes.
    return errors.sum() if weights is None else (errors * (targets @ weights)).sum()
