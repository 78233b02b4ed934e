"""Which channels hang together, and that a model without some says what it says where they are zero."""

from __future__ import annotations

import copy
import random
from collections.abc import Collection

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modelwright.compression.graph import Graph, trace
from modelwright.compression.plan import Resize, replay
from tests.core.networks import BLOCKS, Net, ZeroPad, network, samples

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def traced(net: nn.Module, x: Tensor | None = None) -> Graph:
    return trace(net, [samples() if x is None else x], prunable=net.modules())


def silenced(net: Net, graph: Graph, removed: Collection[int]) -> Net:
    """A copy in which the removed channels are zero from where they are made: weights, biases and norms that give them.

    It knows nothing of who reads them, which is what is being tested; all activations in `networks.py` keep a zero.
    """
    net = copy.deepcopy(net)
    with torch.no_grad():
        for edit in graph.plan(removed).edits:
            if not isinstance(edit, Resize):
                continue
            module = net.get_submodule(edit.module)
            for name, axes in edit.tensors.items():
                outputs = 1 if isinstance(module, nn.ConvTranspose2d) and name == "weight" else 0
                if outputs in axes and not name.startswith("running"):
                    gone = sorted(set(range(axes[outputs].of)) - set(axes[outputs].indices))
                    getattr(module, name).index_fill_(outputs, torch.tensor(gone), 0.0)
    return net


def y(net: nn.Module) -> Tensor:
    with torch.no_grad():
        return net.eval()(samples())["y"]


# The law --------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=3), st.integers(0, 2**16))
def test_taking_channels_out_equals_zeroing_them(blocks, seed):
    net = network(blocks, seed=seed)
    graph = traced(net)
    rng = random.Random(seed)
    removed = {g for layer in graph.layers for g in rng.sample(layer.groups, rng.randrange(len(layer.groups)))}
    before = y(net)
    smaller = replay(copy.deepcopy(net), graph.plan(removed))
    torch.testing.assert_close(y(smaller), y(silenced(net, graph, removed)), **CLOSE)
    assert torch.equal(y(net), before)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in net.parameters()) or not removed


@pytest.mark.parametrize("block", BLOCKS)
def test_each_way_to_hang_together_is_found(block):
    net = network([block])
    graph = traced(net)
    assert sorted((len(layer.groups), layer.width) for layer in graph.layers) == sorted(BLOCKS[block][1])
    removed = {group for layer in graph.layers for group in layer.groups[::2][: len(layer.groups) - 1]}
    smaller = replay(copy.deepcopy(net), graph.plan(removed))
    torch.testing.assert_close(y(smaller), y(silenced(net, graph, removed)), **CLOSE)
    assert not torch.allclose(y(smaller), y(net), **CLOSE)
    smaller.train()(samples())["y"].sum().backward()
    again = traced(smaller.eval())
    assert sum(len(layer.groups) for layer in again.layers) > 0


# What must stay -------------------------------------------------------------------------------------------------------


class Small(nn.Module):
    """Three linear layers; `between` is done after the second."""

    def __init__(self, between=lambda x: x, after=lambda x: x):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(4, 6), nn.Linear(6, 8), nn.Linear(8, 3)
        self.between, self.after = between, after

    def forward(self, x):
        return {"y": self.after(self.three(self.between(self.two(self.one(x)))))}


def widths(net: nn.Module, x: Tensor | None = None) -> list[int]:
    graph = traced(net, torch.randn(3, 4) if x is None else x)
    return [len(layer.groups) * layer.width for layer in graph.layers]


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        (lambda x: x, [6, 8]),
        (lambda x: x * torch.arange(8.0), [6]),
        (lambda x: x * torch.rand(3, 1)[: len(x)], [6, 8]),
        (lambda x: x[:, torch.arange(8)], [6]),
        (lambda x: x.softmax(-1), [6]),
        (lambda x: x.unsqueeze(1).softmax(1).squeeze(1), [6, 8]),
        (lambda x: x - x.mean(1, keepdim=True), [6]),
        (lambda x: x - x.mean(), [6]),
        (lambda x: nn.functional.pad(x, (-1, 1)), [6]),
        (lambda x: nn.functional.layer_norm(x, (x.shape[1],)), [6]),
        (lambda x: torch.stack([x, x], 1).mean(1), [6, 8]),
        (lambda x: torch.stack([x, torch.ones(len(x), 8)], 1).mean(1), [6]),
        (lambda x: torch.cat([x[:, :3], x[:, 3:]], 1), [6]),
        (lambda x: x.unsqueeze_(1).squeeze_(1), [6]),
        (lambda x: x.view(torch.int32).view(torch.float32), [6]),
        (lambda x: torch.add(x, 1, out=torch.empty(len(x), 8)), [6]),
        (lambda x: x.repeat(1, 2)[:, :8], [6]),
        (lambda x: torch.full_like(x, 2.0) * x.to(torch.float32), [6, 8]),
        (lambda x: x * float(x.max()), [6]),
        (lambda x: x.view(-1, 4, 2).flip(2).flatten(1), [6]),
        (lambda x: (x.unsqueeze(2) * torch.ones(2)).sum(2), [6, 8]),
        (lambda x: x.T.T, [6, 8]),
        (lambda x: x + torch.zeros(len(x), 1) * x[:, :1], [6]),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_followed_stays(between, expected):
    assert widths(Small(between)) == expected


def test_what_reaches_the_outputs_stays():
    assert widths(Small()) == [6, 8]
    net = Small()
    net.forward = lambda x: {"y": net.three(net.two(net.one(x))), "features": (net.one(x),)}
    assert widths(net) == [8]


def test_only_layers_that_may_lose_channels_do():
    net = Small()
    graph = trace(net, [torch.randn(3, 4)], prunable=[net.one])
    assert [len(layer.groups) for layer in graph.layers] == [6]
    assert trace(net, [torch.randn(3, 4)], prunable=[]).layers == ()


def test_tied_weights_lose_the_same():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.inner, self.out = nn.Embedding(7, 6), nn.Linear(6, 6), nn.Linear(6, 7)
            self.out.weight = self.words.weight

        def forward(self, x):
            return {"y": self.out(self.inner(self.words(x)).relu() + self.words(x)).mean(1)}

    net, x = Tied(), torch.randint(0, 7, (3, 5))
    graph = traced(net, x)
    assert [len(layer.groups) for layer in graph.layers] == [6]
    smaller = replay(copy.deepcopy(net), graph.plan(graph.layers[0].groups[:2]))
    assert smaller.out.weight is smaller.words.weight
    assert smaller.out.weight.shape == (7, 4)
    assert (smaller.words.embedding_dim, smaller.out.in_features, smaller.out.out_features) == (4, 4, 7)


def test_weights_that_are_computed_stay_as_they_are():
    net = Small()
    nn.utils.parametrizations.weight_norm(net.two)
    assert widths(net) == []
    net = Small()
    net.forward = lambda x: {"y": nn.functional.linear(net.two(net.one(x)), net.three.weight * 2)}
    assert widths(net) == [6]


def test_recurrent_and_attention_layers_stay_whole_and_the_rest_goes():
    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(6, 6, batch_first=True)
            self.layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
            self.conv, self.one, self.out = nn.Conv1d(4, 6, 1), nn.Linear(6, 9), nn.Linear(9, 3)

        def forward(self, x):
            x = self.conv(x.transpose(1, 2)).transpose(1, 2)
            return {"y": self.out(self.one(self.layer(self.lstm(x)[0])))}

    net = Sequence()
    assert widths(net, torch.randn(3, 5, 4)) == [8, 9]


def test_the_model_is_left_as_it_was():
    net = network(["plain", "padded"]).train()
    net.blocks[0].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    traced(net)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_a_model_that_fails_says_so_itself():
    with pytest.raises(RuntimeError, match="no such luck"):
        traced(Small(lambda x: (_ for _ in ()).throw(RuntimeError("no such luck"))), torch.randn(3, 4))


def test_one_sample_is_enough():
    net = network(["chunked"])
    assert len(traced(net, samples(1)).layers) == len(traced(net).layers)


def test_a_module_that_resizes_itself_is_told_once_it_matters():
    net = network(["padded"])
    graph = traced(net)
    (four,) = [layer for layer in graph.layers if len(layer.groups) == 4]
    smaller = replay(copy.deepcopy(net), graph.plan(four.groups[:1]))
    (pad,) = [module for module in smaller.modules() if isinstance(module, ZeroPad)]
    assert (pad.before, pad.after) == (2, 3)
    (five,) = [
        layer for layer in graph.layers if len(layer.groups) == 5 and layer.width == 1 and layer is not graph.layers[-1]
    ]
    smaller = replay(copy.deepcopy(net), graph.plan(five.groups[:1]))
    (pad,) = [module for module in smaller.modules() if isinstance(module, ZeroPad)]
    assert (pad.before, pad.after) == (1, 3)
