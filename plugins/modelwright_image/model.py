"""Networks by name, with normalisation and enlargement inside. Knows torch and torchvision, no data sets, no training.

What a network here gets is the raw picture (0..255), so that what was trained is what is served.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
import torchvision.models
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from modelwright.errors import ConfigError, did_you_mean
from modelwright.weights import load_matching, read_weights
from modelwright_image.config import ImageModel
from modelwright_image.resnet import kaiming, small_resnet
from modelwright_image.weights import download

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PREFIX = "torchvision/"


class Classifier(nn.Module):
    """Raw pictures -> logits.

    Args:
        network: takes N x C x S x S floats and gives N x classes.
        mean, std: per channel, on the 0..255 scale.
        channels: what `network` takes; a grey picture is repeated where that is 3.
        side: what pictures are enlarged to (bilinear) before `network`; None: they stay as they are.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, network: nn.Module, *, mean: Sequence[float], std: Sequence[float], channels: int, side: int | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.channels = channels
        self.side = side
        self.frozen = False
        scale = torch.tensor([1 / s if s > 0 else 1.0 for s in std])
        # (x - mean) * scale as one fused x * scale + shift; one number for all channels is quicker still.
        shift = -torch.tensor(mean) * scale
        same = bool((scale == scale[0]).all() and (shift == shift[0]).all())
        self.register_buffer("scale", (scale[:1] if same else scale).view(1, -1, 1, 1))
        self.register_buffer("shift", (shift[:1] if same else shift).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Pictures N x C x S x S, uint8 or float in 0..255, as {"logits": N x classes}."""
        x = image.float()
        if x.shape[1] != self.channels:
            x = x.expand(-1, self.channels, -1, -1)
        scale, shift = self.scale, cast("Tensor", self.shift)
        if self.training and x.is_contiguous(memory_format=torch.channels_last):
            # Repeated along a row of pixels, the constants make long runs that the CPU can vectorise.
            row = (1, self.channels, 1, x.shape[-1])
            scale = scale.expand(row).contiguous(memory_format=torch.channels_last)
            shift = shift.expand(row).contiguous(memory_format=torch.channels_last)
        x = torch.addcmul(shift, x, scale)
        if self.side is not None:
            x = F.interpolate(x, size=(self.side, self.side), mode="bilinear", align_corners=False)
        return {"logits": cast("Tensor", self.network(x))}

    def freeze(self) -> None:
        """Leaves only the head to train; the batch norms below it keep their statistics."""
        self.frozen = True
        self.network.requires_grad_(False)
        head_of(self.network)[1].requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> Classifier:
        """As of any module, but frozen batch norms stay as they are served."""
        super().train(mode)
        if self.frozen:
            for module in self.network.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def build_model(
    settings: ImageModel,
    *,
    classes: int,
    channels: int,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Classifier:
    """The network that `settings` name, with fresh weights.

    Args:
        settings: name, normalisation, dropout, what is frozen.
        classes: number of logits.
        channels: of the pictures, 1 or 3.
        size: side of the pictures in pixels.
        mean, std: of the training pictures per channel, on the 0..255 scale.

    Raises:
        ConfigError: an unknown name, a size the network cannot take, frozen without weights to start from.
    """
    if settings.name.startswith(PREFIX):
        name = settings.name.removeprefix(PREFIX)
        network, takes, smallest = torchvision_network(name, classes=classes, size=size), 3, 0
    else:
        name = settings.name
        network, smallest = small_network(name, channels=channels, classes=classes, size=size, dropout=settings.dropout)
        takes = channels
    mean, std = _normalisation(settings.normalize, mean=mean, std=std, channels=takes)
    side = smallest if size < smallest else None
    model = Classifier(network, mean=mean, std=std, channels=takes, side=side)
    _try_out(model, settings.name, channels=channels, size=size)

    if settings.freeze:
        if not settings.pretrained:
            raise ConfigError("model.freeze trains only the head and needs model.pretrained: a file, folder or run")
        model.freeze()
    return model


def load_pretrained(model: Classifier, settings: ImageModel) -> str:
    """Puts the weights that `settings.pretrained` names into a model, all but the head where the classes differ.

    Returns:
        One line: how many tensors were taken over.

    Raises:
        ConfigError: they cannot be read or fetched, or none fits.
    """
    source = settings.pretrained or ""
    if source != "default":
        weights = read_weights(source)
    elif settings.name.startswith(PREFIX):
        weights = download(settings.name.removeprefix(PREFIX))
    else:
        raise ConfigError(
            f"model.pretrained=default needs a network of torchvision, and {settings.name} is none: "
            f"give a file, folder or run, or model.name={PREFIX}resnet18"
        )
    loaded = load_matching(model.network, weights, head=head_of(model.network)[0], source=source)
    return f"{source}: {loaded}"


def head_of(network: nn.Module) -> tuple[str, nn.Module]:
    """Name and module of the layer that gives the logits: the last linear one, or the last convolution (SqueezeNet)."""
    for kind in (nn.Linear, nn.Conv2d):
        found = [(name, module) for name, module in network.named_modules() if isinstance(module, kind)]
        if found:
            return found[-1]
    raise ValueError("a network without linear or convolutional layers has no head")


# Small networks -----------------------------------------------------------------------------------------------------


def small_network(name: str, *, channels: int, classes: int, size: int, dropout: float) -> tuple[nn.Module, int]:
    """A network of this plugin, and the smallest side of a picture it is made for.

    Raises:
        ConfigError: an unknown name.
    """
    resnets = {"resnet20": 20, "resnet32": 32, "resnet56": 56}
    if name in resnets:
        return small_resnet(resnets[name], channels=channels, classes=classes, dropout=dropout), 32
    makers: dict[str, Callable[..., nn.Module]] = {
        "lenet": lenet,
        "cnn": cnn,
        "alexnet": alexnet,
        "resnet18": resnet18,
    }
    if name not in makers:
        known = [*makers, *resnets, *(PREFIX + each for each in torchvision_names())]
        hint = f" (did you mean '{PREFIX}{name}'?)" if PREFIX + name in known else did_you_mean(name, known)
        raise ConfigError(
            f"model.name: there is no network '{name}'{hint}; known are {', '.join([*makers, *resnets])} "
            f"and {PREFIX}NAME for any classifier of torchvision"
        )
    smallest = 28 if name == "cnn" else 32
    return makers[name](channels=channels, classes=classes, side=max(size, smallest), dropout=dropout), smallest


def lenet(*, channels: int, classes: int, side: int, dropout: float) -> nn.Module:
    """The network of the tutorial: two 5x5 convolutions, three linear layers; 62 006 parameters for CIFAR-10."""
    left = ((side - 4) // 2 - 4) // 2
    return _sequence(
        conv1=nn.Conv2d(channels, 6, 5),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(6, 16, 5),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(16 * left * left, 120),
        relu3=nn.ReLU(),
        fc2=nn.Linear(120, 84),
        relu4=nn.ReLU(),
        dropout=_dropout(dropout),
        fc3=nn.Linear(84, classes),
    )


def cnn(*, channels: int, classes: int, side: int, dropout: float) -> nn.Module:
    """A small network that is quick on a CPU: most of its work is done on small maps.

    Pooling comes right after the first convolution, because a layer at full resolution costs four times one behind it.
    """
    layers: dict[str, nn.Module] = {}
    width = channels
    for number, wider in enumerate((32, 64, 128), start=1):
        layers[f"conv{number}"] = nn.Conv2d(width, wider, 3, padding=1, bias=False)
        layers[f"norm{number}"] = nn.BatchNorm2d(wider)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"pool{number}"] = nn.MaxPool2d(2)
        width = wider
    shrink = max(side // 8 // 3, 1)
    network = _sequence(
        **layers,
        # Large pictures are brought down to about 3 x 3, or the last layer would outgrow all others.
        average=nn.AvgPool2d(shrink) if shrink > 1 else nn.Identity(),
        flatten=nn.Flatten(),
        dropout=_dropout(dropout),
        fc=nn.Linear(width * (side // 8 // shrink) ** 2, classes),
    )
    kaiming(network)
    return network


def alexnet(*, channels: int, classes: int, side: int, dropout: float) -> nn.Module:
    """AlexNet (Krizhevsky, Sutskever, Hinton 2012); for pictures under 64 pixels with what their size asks for.

    On small pictures the original's first layer (11x11, stride 4) and its pools would leave a single pixel. There, 3x3
    convolutions of the same widths with stride 1 stand in the same places, and the linear layers have 1024 units.
    """
    if side >= 64:
        network = torchvision.models.alexnet(num_classes=classes, dropout=dropout)
        if channels != 3:
            network.features[0] = nn.Conv2d(channels, 64, kernel_size=11, stride=4, padding=2)
        return network
    left = side // 8
    return _sequence(
        conv1=nn.Conv2d(channels, 64, 3, padding=1),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(64, 192, 3, padding=1),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        conv3=nn.Conv2d(192, 384, 3, padding=1),
        relu3=nn.ReLU(),
        conv4=nn.Conv2d(384, 256, 3, padding=1),
        relu4=nn.ReLU(),
        conv5=nn.Conv2d(256, 256, 3, padding=1),
        relu5=nn.ReLU(),
        pool5=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        dropout6=_dropout(dropout),
        fc6=nn.Linear(256 * left * left, 1024),
        relu6=nn.ReLU(),
        dropout7=_dropout(dropout),
        fc7=nn.Linear(1024, 1024),
        relu7=nn.ReLU(),
        fc8=nn.Linear(1024, classes),
    )


def resnet18(*, channels: int, classes: int, side: int, dropout: float) -> nn.Module:
    """ResNet-18 with the stem that is usual for small pictures: a 3x3 convolution, no pool; 11.2 M parameters."""
    network: Any = torchvision.models.resnet18(num_classes=classes)
    network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    if dropout:
        network.fc = nn.Sequential(nn.Dropout(dropout), network.fc)
    return network


def _sequence(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def _dropout(share: float) -> nn.Module:
    # torch draws a mask even for a share of 0; an Identity costs nothing and keeps the layers' names.
    return nn.Dropout(share) if share else nn.Identity()


# torchvision --------------------------------------------------------------------------------------------------------


def torchvision_names() -> list[str]:
    """The classifiers of torchvision."""
    return torchvision.models.list_models(module=torchvision.models)


def torchvision_network(name: str, *, classes: int, size: int) -> nn.Module:
    """A classifier of torchvision with random weights and a head for `classes`.

    Raises:
        ConfigError: torchvision has no such classifier, or it cannot be made for pictures of this size.
    """
    if name not in torchvision_names():
        hint = did_you_mean(name, torchvision_names())
        raise ConfigError(f"model.name: torchvision has no classifier '{name}'{hint}; try {PREFIX}resnet50")
    options: dict[str, Any] = {"num_classes": classes}
    if name in ("googlenet", "inception_v3"):
        # The further heads of these two are for training only and change the shape of the output.
        options |= {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        options["image_size"] = size
    if name == "maxvit_t":
        options["input_size"] = (size, size)
    try:
        return torchvision.models.get_model(name, **options)
    except (ValueError, RuntimeError, AssertionError, TypeError) as error:
        raise _wrong_size(PREFIX + name, size, error) from error


def _try_out(model: Classifier, name: str, *, channels: int, size: int) -> None:
    """Shows the network one black picture: better a clear word now than a torch error in the first step."""
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(1, channels, size, size, dtype=torch.uint8))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise _wrong_size(name, size, error) from error
    model.train()


def _wrong_size(name: str, size: int, error: Exception) -> ConfigError:
    reason = " ".join(str(error).split())[:120]
    return ConfigError(
        f"{name} cannot take pictures of {size} x {size} pixels ({reason}): set data.size, 224 fits most of torchvision"
    )


def _normalisation(
    kind: str, *, mean: Sequence[float], std: Sequence[float], channels: int
) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation per channel on the 0..255 scale."""
    if kind == "symmetric":
        return [127.5], [127.5]
    if kind == "unit":
        return [0.0], [255.0]
    if kind == "imagenet":
        means, stds = [255 * m for m in IMAGENET_MEAN], [255 * s for s in IMAGENET_STD]
        return (means, stds) if channels == 3 else ([sum(means) / 3], [sum(stds) / 3])
    return mean, std
