"""Small blocks and networks whose channels hang together in every way that pruning has to follow. Knows torch only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 8


def conv(c_in: int, c_out: int, kernel: int = 1, **further: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, **further), nn.BatchNorm2d(c_out), nn.ReLU()
    )


class Block(nn.Module):
    """Takes and gives N x C x 8 x 8."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.build(c)

    def build(self, c: int) -> None:
        raise NotImplementedError


class Plain(Block):
    def build(self, c: int) -> None:
        self.layers = nn.Sequential(conv(c, 6, 3), nn.Conv2d(6, c, 1, bias=False), nn.BatchNorm2d(c), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Residual(Block):
    def build(self, c: int) -> None:
        self.inner = nn.Sequential(conv(c, 5, 3), nn.Conv2d(5, c, 3, padding=1), nn.BatchNorm2d(c))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.inner(x)
        return x.relu_()


class Dense(Block):
    def build(self, c: int) -> None:
        self.left, self.right, self.both = conv(c, 3), conv(c, 4, 3), conv(c + 7, c)

    def forward(self, x: Tensor) -> Tensor:
        return self.both(torch.cat([self.left(x), x, self.right(x)], dim=1))


class Chunked(Block):
    """C2f, as in YOLO."""

    def build(self, c: int) -> None:
        self.first, self.inner, self.last = conv(c, 8), conv(4, 4, 3), conv(12, c)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        parts.append(parts[-1] + self.inner(parts[-1]))
        return self.last(torch.cat(parts, 1))


class HalvesBySize(Block):
    def build(self, c: int) -> None:
        self.first, self.last = conv(c, 8), conv(4, c)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        half = x.shape[1] // 2
        return self.last(x[:, :half] * x[:, half:])


class HalvesByNumber(HalvesBySize):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x[:, :4] * x[:, 4:])


class Gated(Block):
    def build(self, c: int) -> None:
        self.first, self.last = nn.Conv2d(c, 8, 1), conv(4, c)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.glu(self.first(x), dim=1))


class Depthwise(Block):
    def build(self, c: int) -> None:
        self.layers = nn.Sequential(conv(c, 6), conv(6, 12, 3, groups=6), conv(12, c))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Grouped(Block):
    """Groups wider than many."""

    def build(self, c: int) -> None:
        self.layers = nn.Sequential(conv(c, 8), conv(8, 12, 3, groups=2), conv(12, c))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ManyGroups(Block):
    def build(self, c: int) -> None:
        self.layers = nn.Sequential(conv(c, 8), conv(8, 4, 3, groups=4), conv(4, c))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Shuffled(Block):
    def build(self, c: int) -> None:
        self.first, self.last = conv(c, 12), conv(12, c)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        n, channels, height, width = x.shape
        x = x.view(n, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return self.last(x.view(n, channels, height, width))


class PixelShuffled(Block):
    def build(self, c: int) -> None:
        self.layers = nn.Sequential(conv(c, 12), nn.PixelShuffle(2), conv(3, c), nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Shared(Block):
    def build(self, c: int) -> None:
        self.first, self.twice, self.last = conv(c, 6), nn.Conv2d(6, 6, 3, padding=1), conv(6, c)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.twice(F.relu(self.twice(self.first(x)))))


class Upsampled(Block):
    def build(self, c: int) -> None:
        self.first, self.up, self.last = conv(c, 5), nn.ConvTranspose2d(5, 6, 2, stride=2), conv(6, c)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(F.avg_pool2d(self.first(x), 2), scale_factor=2.0)
        return F.adaptive_avg_pool2d(self.last(self.up(x)), (SIDE, SIDE))


class Squeezed(Block):
    def build(self, c: int) -> None:
        self.first, self.down, self.up, self.last = conv(c, 6), nn.Conv2d(6, 3, 1), nn.Conv2d(3, 6, 1), conv(6, c)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x * self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid())


class Scaled(Block):
    """Parameters and buffers beside the layers', of one axis and of several."""

    def build(self, c: int) -> None:
        self.first, self.last = nn.Sequential(nn.Conv2d(c, 6, 1), nn.PReLU(6)), conv(6, c)
        self.gain = nn.Parameter(torch.rand(6))
        self.register_buffer("map", torch.rand(6, SIDE, SIDE))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x) * self.gain[:, None, None] * self.map)


class GroupNormed(Block):
    def build(self, c: int) -> None:
        self.layers = nn.Sequential(nn.Conv2d(c, 12, 1), nn.GroupNorm(4, 12), nn.ReLU(), conv(12, c))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Tokens(Block):
    """Pixels as a sequence, layers on the last axis."""

    def build(self, c: int) -> None:
        self.norm, self.up, self.down = nn.LayerNorm(c), nn.Linear(c, 7), nn.Linear(7, c)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).permute(0, 2, 1)
        tokens = tokens + self.down(F.gelu(self.up(self.norm(tokens))))
        return tokens.transpose(1, 2).unflatten(2, (SIDE, SIDE))


class ZeroPad(nn.Module):
    """Adds channels of zeros, and says how it does with fewer."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))

    def resize_channels(self, kept_in: Sequence[int], kept_out: Sequence[int]) -> None:
        self.before = sum(channel < self.before for channel in kept_out)
        self.after = len(kept_out) - len(kept_in) - self.before


class Padded(Block):
    def build(self, c: int) -> None:
        self.pad, self.wide, self.last = ZeroPad(2, 3), conv(4, 9, 3), conv(9, c)
        self.first = conv(c, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(F.relu(self.pad(x) + self.wide(x)))


class PaddedByNumber(Padded):
    def build(self, c: int) -> None:
        super().build(c)
        self.pad = nn.ZeroPad3d((0, 0, 0, 0, 2, 3))


class Unknown(Block):
    """An operation over the channels that nobody told of."""

    def build(self, c: int) -> None:
        self.first, self.last = conv(c, 6), conv(6, c)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).cumsum(1))


class Hidden(Unknown):
    """An operation that no mode sees; gives the channels the other way round."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        with torch._C.DisableTorchFunction():
            x = x.flip(1)
        return self.last(x)


class Counting(Unknown):
    """Computes with its number of channels."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x * (6 / x.shape[1]) ** 2)


STEM, OUT, HEAD = (6, 1), (6, 1), (5, 1)
BLOCKS: dict[str, tuple[type[Block], list[tuple[int, int]]]] = {
    "plain": (Plain, [STEM, (6, 1), OUT, HEAD]),
    "residual": (Residual, [STEM, (5, 1), HEAD]),
    "dense": (Dense, [STEM, (3, 1), (4, 1), OUT, HEAD]),
    "chunked": (Chunked, [STEM, (4, 2), OUT, HEAD]),
    "halves by size": (HalvesBySize, [STEM, (4, 2), OUT, HEAD]),
    "halves by number": (HalvesByNumber, [STEM, OUT, HEAD]),
    "gated": (Gated, [STEM, (4, 2), OUT, HEAD]),
    "depthwise": (Depthwise, [STEM, (6, 1), OUT, HEAD]),
    "grouped": (Grouped, [STEM, (4, 2), (6, 2), OUT, HEAD]),
    "many groups": (ManyGroups, [STEM, (4, 2), OUT, HEAD]),
    "shuffled": (Shuffled, [STEM, (6, 2), OUT, HEAD]),
    "pixels shuffled": (PixelShuffled, [STEM, (3, 4), OUT, HEAD]),
    "shared": (Shared, [STEM, (6, 1), OUT, HEAD]),
    "upsampled": (Upsampled, [STEM, (5, 1), (6, 1), OUT, HEAD]),
    "squeezed": (Squeezed, [STEM, (6, 1), (3, 1), OUT, HEAD]),
    "scaled": (Scaled, [STEM, (6, 1), OUT, HEAD]),
    "group norm": (GroupNormed, [STEM, (4, 3), OUT, HEAD]),
    "tokens": (Tokens, [(7, 1), HEAD]),
    "padded": (Padded, [STEM, (4, 1), (5, 1), OUT, HEAD]),
    "padded by number": (PaddedByNumber, [STEM, (4, 1), OUT, HEAD]),
    "unknown": (Unknown, [STEM, OUT, HEAD]),
    "hidden": (Hidden, [STEM, OUT, HEAD]),
    "counting": (Counting, [STEM, OUT, HEAD]),
}
"""Block -> what can go in a network of it: groups of channels and how many go with each, layer by layer."""


class Net(nn.Module):
    """A stem, blocks, and a head of two linear layers on the flattened pixels."""

    def __init__(self, blocks: Sequence[str], *, width: int = 6) -> None:
        super().__init__()
        self.stem = conv(3, width, 3)
        self.blocks = nn.Sequential(*[BLOCKS[name][0](width) for name in blocks])
        self.head = nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(4 * width, 5), nn.ReLU(), nn.Linear(5, 3))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """N x 3 x 8 x 8 -> N x 3."""
        return {"y": self.head(self.blocks(self.stem(x)))}


def network(blocks: Sequence[str], *, seed: int = 0, width: int = 6) -> Net:
    """A network with weights and statistics that make every channel matter; in eval mode."""
    torch.manual_seed(seed)
    net = Net(blocks, width=width)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 1.0)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 1.5)
    return net.eval()


def samples(count: int = 3, *, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
