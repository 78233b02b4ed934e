"""Names for channels, and which of them hang together. Knows numbers only: no layer, no operation.

A label is a whole number that names one channel of one layer. Channels that can only go together have their labels
united; a channel that must stay has its label frozen, and with it all that are united with it, now or later.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NONE = -1
"""Stands for a channel that no layer can leave out: of the model's inputs, or made by padding."""


@dataclass(frozen=True)
class Channels:
    """Whose channels lie along an axis of an activation.

    Attributes:
        axis: counted from the front.
        labels: int64, as long as that axis; the same label may stand there more than once (flattened pixels).
    """

    axis: int
    labels: Tensor


class Labels:
    """Labels that can be united and frozen (a union-find forest).

    >>> labels = Labels()
    >>> a, b, c = labels.fresh(3), labels.fresh(3), labels.fresh(2)
    >>> labels.unite(a, b)
    >>> labels.freeze(b[:1])
    >>> labels.roots(a).tolist() == labels.roots(b).tolist(), labels.frozen(a), labels.frozen(c)
    (True, [True, False, False], [False, False])
    """

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._frozen: list[bool] = []

    def fresh(self, count: int) -> Tensor:
        """New labels, each by itself."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        self._frozen.extend([False] * count)
        return torch.arange(start, start + count)

    def unite(self, some: Tensor, others: Tensor) -> None:
        """These go together, pair by pair. What meets `NONE` must stay."""
        for a, b in zip(some.tolist(), others.tolist(), strict=True):
            if a < 0 or b < 0:
                if max(a, b) >= 0:
                    self._frozen[self._root(max(a, b))] = True
                continue
            a, b = self._root(a), self._root(b)
            if a != b:
                self._parent[b] = a
                self._frozen[a] |= self._frozen[b]

    def freeze(self, labels: Tensor) -> None:
        """These must stay."""
        for label in labels.unique().tolist():
            if label >= 0:
                self._frozen[self._root(label)] = True

    def roots(self, labels: Tensor) -> Tensor:
        """One label for all that are united; `NONE` stays `NONE`."""
        return torch.tensor([NONE if label < 0 else self._root(label) for label in labels.tolist()], dtype=torch.int64)

    def frozen(self, labels: Tensor) -> list[bool]:
        """Whether each must stay."""
        return [label < 0 or self._frozen[self._root(label)] for label in labels.tolist()]

    def _root(self, label: int) -> int:
        while self._parent[label] != label:
            self._parent[label] = self._parent[self._parent[label]]
            label = self._parent[label]
        return label
