"""The residual networks for small images of He et al. 2015, section 4.2. Knows layers only: no settings, no data.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016, https://arxiv.org/abs/1512.03385.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (16, 32, 64)


class Shortcut(nn.Module):
    """Option A of the paper: no parameters. Takes every `stride`-th pixel and adds channels of zeros."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (channels_out - channels_in) // 2
        self.after = channels_out - channels_in - self.before

    def forward(self, x: Tensor) -> Tensor:
        """N x C_in x H x W -> N x C_out x H/stride x W/stride."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))

    def resize_channels(self, kept_in: Sequence[int], kept_out: Sequence[int]) -> None:
        """Fewer channels, after pruning (`modelwright.compression.plan.ResizesChannels`)."""
        self.before = sum(channel < self.before for channel in kept_out)
        self.after = len(kept_out) - len(kept_in) - self.before


class Block(nn.Module):
    """Two 3x3 convolutions around which the input goes unchanged."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        same = stride == 1 and channels_in == channels_out
        self.shortcut = nn.Identity() if same else Shortcut(channels_in, channels_out, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """N x C_in x H x W -> N x C_out x H/stride x W/stride."""
        inner = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        return cast("Tensor", self.relu2(inner + self.shortcut(x)))


def small_resnet(depth: int, *, channels: int, classes: int, dropout: float) -> nn.Module:
    """A ResNet of 6n + 2 layers: three stages of n blocks with 16, 32 and 64 channels.

    Args:
        depth: 20 (0.27 M parameters), 32, 56, ...
        channels: of the image.
        classes: number of logits.
        dropout: before the last layer.
    """
    blocks = (depth - 2) // 6
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = nn.Conv2d(channels, WIDTHS[0], 3, padding=1, bias=False)
    layers["norm"] = nn.BatchNorm2d(WIDTHS[0])
    layers["relu"] = nn.ReLU()
    width_in = WIDTHS[0]
    for stage, width in enumerate(WIDTHS, start=1):
        members: list[nn.Module] = []
        for number in range(blocks):
            members.append(Block(width_in, width, stride=2 if stage > 1 and number == 0 else 1))
            width_in = width
        layers[f"stage{stage}"] = nn.Sequential(*members)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["dropout"] = nn.Dropout(dropout) if dropout else nn.Identity()
    layers["fc"] = nn.Linear(width_in, classes)
    network = nn.Sequential(layers)
    kaiming(network)
    return network


def kaiming(network: nn.Module) -> None:
    """Draws the weights of all convolutions anew (He et al. 2015, "Delving Deep into Rectifiers"; fan-out)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
