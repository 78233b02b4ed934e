"""Costs: counted by hand and by torch's counter alike."""

from __future__ import annotations

import torch
from torch import nn

from modelwright.compression.cost import Cost, cost


def test_a_convolution_and_a_linear_layer_cost_what_one_counts_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 25, 4))
    found = cost(net, [torch.zeros(2, 3, 5, 5)])
    assert found.macs == 25 * 8 * 3 * 9 + 200 * 4
    assert found.parameters == (8 * 27 + 8) + 16 + (200 * 4 + 4)


def test_recurrent_layers_and_attention_are_counted():
    lstm = nn.LSTM(4, 8, batch_first=True)
    assert cost(lstm, [torch.zeros(1, 5, 4)]).macs == 5 * 4 * 8 * (4 + 8)
    attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert cost(attention, [torch.zeros(1, 5, 8)]).macs == 5 * 8 * 8 * 4 + 2 * 5 * 5 * 8 + 2 * 5 * 8 * 16


def test_batch_size_and_mode_change_nothing_and_shared_weights_count_once():
    layer = nn.Linear(4, 4)
    net = nn.Sequential(layer, nn.Dropout(0.5), layer)
    net.train()
    assert cost(net, [torch.zeros(1, 4)]) == cost(net, [torch.zeros(7, 4)]) == Cost(20, 32)
    assert net.training
    assert net[1].training
