"""Settings of image classification. Knows no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from modelwright.config import DataConfig, ModelConfig, Settings, TaskConfig


class ImageData(DataConfig):
    """Pictures and their classes."""

    name: Literal["digits", "cifar10", "cifar100", "mnist", "fashion_mnist", "folder", "csv"] = "digits"
    """digits (embedded), a published set (cifar10, cifar100, mnist, fashion_mnist), or your own: folder, csv."""
    download: bool = True
    """Fetch a published set where it is not under data.path; needs a network."""
    size: Annotated[int, Field(ge=8, le=4096)] | None = None
    """Side of the square pictures the model sees; empty: the pictures' own, or 224 where they are of several sizes."""
    resize: Literal["crop", "pad", "squash"] = "crop"
    """How a picture becomes square: cut its longer side, pad its shorter side, or squash it."""
    valid: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the training pictures kept for validation where the data have no such split (stratified); 0: none."""
    test: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share kept for the test where the data have no such split (stratified); 0: none."""
    memory: Annotated[float, Field(ge=0)] = 4.0
    """GiB of decoded pictures that may stay in memory; larger sets are decoded as they are needed."""


class ImageModel(ModelConfig):
    """The network."""

    name: str = "lenet"
    """lenet, alexnet, cnn, resnet18, resnet20, resnet32, resnet56, or any of torchvision's: torchvision/resnet50."""
    normalize: Literal["data", "symmetric", "unit", "imagenet"] = "data"
    """Inside the model: by the training data's mean and deviation, to [-1, 1], to [0, 1], or ImageNet's constants."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the last layer (lenet, alexnet, cnn, resnets)."""


class AugmentConfig(Settings):
    """Changes made to training pictures, a whole batch at once on the device; 0 or false: off."""

    flip: bool = False
    """Mirror left and right, half of the time."""
    crop: Annotated[int, Field(ge=0)] = 0
    """Shift by up to this many pixels; the border is reflected."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Rotate by up to this many degrees."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Zoom by a factor in [1 - scale, 1 + scale]."""
    color: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Change brightness, contrast and saturation by factors in [1 - color, 1 + color]."""
    cutout: Annotated[int, Field(ge=0)] = 0
    """Blank a square of this side (DeVries and Taylor 2017)."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Mix pairs of a batch, shares drawn from Beta(mixup, mixup) (Zhang et al. 2018)."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """Paste a rectangle of another picture of the batch, area from Beta(cutmix, cutmix) (Yun et al. 2019)."""


class LossConfig(Settings):
    """The training loss."""

    name: Literal["cross_entropy", "mse"] = "cross_entropy"
    """cross_entropy, or mse on one-hot targets (for teaching)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each target spread over all classes."""
    class_weights: Literal["none", "balanced"] | list[Annotated[float, Field(gt=0)]] = "none"
    """none, balanced (by inverse frequency), or one weight per class."""


class ImageConfig(TaskConfig):
    """All settings of image-classification."""

    data: ImageData = ImageData()
    model: ImageModel = ImageModel()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
