"""Runs an ONNX graph and counts the calls. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelwright.bundle.runtime import Graph


class TallyGraph(Graph):
    """As ONNX Runtime runs it.

    Attributes:
        calls: so many.
    """

    runtime = "the tally"
    calls = 0

    def run(self, arrays: Sequence[np.ndarray]) -> Sequence[Any]:
        """Counts."""
        self.calls += 1
        return super().run(arrays)
