"""bilstm-ctc: recurrent layers in both directions over convolved features. Knows features; no text, no settings.

Graves, Mohamed, Hinton: Speech Recognition with Deep Recurrent Neural Networks, ICASSP 2013. The reverse direction
would begin in the padding: each utterance is turned round within its own frames, so that both begin in sound.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modelwright_speech.conv import Strided
from modelwright_speech.features import LogMel, inside


def _run(lstm: nn.LSTM, x: Tensor) -> Tensor:
    """(B, T, size) -> (B, T, width).

    For torch's exporter an LSTM is a loop over its frames, unrolled for minutes: ONNX's own operator stands in for it,
    which takes the gates in another order.
    """
    if not torch.compiler.is_exporting():
        return lstm(x)[0]
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    inputs, states, first, second = (_gates(lstm.get_parameter(name))[None] for name in names)
    batch, frames, width = x.shape[0], x.shape[1], lstm.hidden_size
    found = torch.onnx.ops.symbolic_multi_out(
        "LSTM",
        (x.transpose(0, 1), inputs, states, torch.cat([first, second], dim=1)),
        attrs={"hidden_size": width},
        dtypes=(x.dtype,) * 3,
        shapes=((frames, 1, batch, width), (1, batch, width), (1, batch, width)),
        version=14,
    )
    return found[0].squeeze(1).transpose(0, 1)


def _gates(weights: Tensor) -> Tensor:
    """Input, forget, cell, output, as torch has them -> input, output, forget, cell."""
    entered, forgotten, cell, given = weights.chunk(4)
    return torch.cat([entered, given, forgotten, cell])


class Layer(nn.Module):
    """One LSTM forwards and one backwards; their outputs side by side, normalised."""

    def __init__(self, size: int, width: int, dropout: float) -> None:
        super().__init__()
        self.forwards = nn.LSTM(size, width, batch_first=True)
        self.backwards = nn.LSTM(size, width, batch_first=True)
        self.norm = nn.LayerNorm(2 * width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, turned: Tensor) -> Tensor:
        """(B, T, size) -> (B, T, 2 x width); `turned` int64 (B, T): where each frame lies in the reversed utterance."""
        ahead = _run(self.forwards, x)
        back = _run(self.backwards, _taken(x, turned))
        return self.dropout(self.norm(torch.cat([ahead, _taken(back, turned)], dim=2)))


def _taken(x: Tensor, places: Tensor) -> Tensor:
    return x.gather(1, places[:, :, None].expand(-1, -1, x.shape[2]))


class BiLstmCtc(Strided):
    """Log-mel, two strided convolutions, bidirectional LSTMs, and a score for each token at each frame.

    Args:
        features: the front end.
        tokens: how many, the blank included.
        width: units of each direction.
        blocks: layers.
        dropout: after each layer.
    """

    def __init__(self, features: LogMel, *, tokens: int, width: int, blocks: int, dropout: float) -> None:
        super().__init__(features, width)
        sizes = [width, *(2 * width for _ in range(blocks - 1))]
        self.layers = nn.ModuleList(Layer(size, width, dropout) for size in sizes)
        self.head = nn.Linear(2 * width, tokens)

    def forward(
        self, samples: Tensor, lengths: Tensor, keep_frames: Tensor | None = None, keep_mels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """`logits` (B, T, tokens) and `frames` (B,): how many of the T hold sound.

        Args:
            samples, lengths, keep_frames, keep_mels: as for `LogMel`.
        """
        x, frames = self.front(*self.features(samples, lengths, keep_frames, keep_mels))
        places = torch.arange(x.shape[1], device=x.device)[None]
        turned = torch.where(inside(frames, x.shape[1]), frames[:, None] - 1 - places, places)
        for layer in self.layers:
            x = layer(x, turned)
        return {"logits": self.head(x), "frames": frames}
