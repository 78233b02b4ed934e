"""Stores a graph's numbers in 8 bits, except where a measured score says that it must not. Knows graphs, no task.

What is measured here decides two settings that no user has to know:

- Weights are kept within 7 bits (`reduce_range`). Processors without VNNI instructions add products of 8-bit numbers
  in 16 bits, which overflows: on an AVX2 machine that cost `resnet20` 17 dB of its logits' signal-to-noise ratio and
  1.1 points of accuracy, ResNet-18 14 dB and 3.3 points. The bit less costs up to 4.4 dB where nothing overflows, at
  most 0.1 points, and no time. The file then says the same on every processor.
- Layers stay in float because the score drops with them in 8 bits, never because of their name.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias

import numpy as np

from modelwright.bundle.runtime import Graph
from modelwright.compression.int8 import Dynamic, Static, Weights, Writer
from modelwright.compression.sensitivity import fewest, joined, signal_to_noise
from modelwright.errors import CompressionError

Kind: TypeAlias = Literal["static", "dynamic", "weights"]
Arrays: TypeAlias = Sequence[np.ndarray]
SAMPLES = 64
"""Samples on which the effect of a single layer is measured."""


@dataclass(frozen=True)
class Kept:
    """A layer that stayed in float.

    Attributes:
        name: of the node.
        operator: what it does.
        decibels: signal-to-noise ratio of the outputs with this layer alone in 8 bits; None: not measured.
        reason: why it stayed.
    """

    name: str
    operator: str
    decibels: float | None
    reason: str


@dataclass(frozen=True)
class Quantized:
    """What was done to a graph.

    Attributes:
        kind: static, dynamic or weights.
        layers: names of the nodes in 8 bits.
        kept: those that could be, but stayed in float; the worst first.
        samples: behind the ranges of activations (static).
        reduce_range: whether weights of integer arithmetic are within 7 bits.
        drop: of the score, from the float graph; None: not asked for.
        drop_of_all: the same with every layer in 8 bits.
    """

    kind: Kind
    layers: list[str]
    kept: list[Kept] = field(default_factory=list[Kept])
    samples: int = 0
    reduce_range: bool = True
    drop: float | None = None
    drop_of_all: float | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON values; a ratio that is not finite becomes None."""
        values = asdict(self)
        for each in values["kept"]:
            if each["decibels"] is not None and not math.isfinite(each["decibels"]):
                each["decibels"] = None
        return values


def quantize(
    source: Path,
    target: Path,
    *,
    kind: Kind = "static",
    calibration: Iterable[Arrays] = (),
    score: Callable[[Path], float] | None = None,
    max_drop: float | None = None,
    reduce_range: bool = True,
) -> Quantized:
    """Writes a float graph in 8 bits.

    Args:
        source: an ONNX file in float32.
        target: where the new one goes; what is there is replaced.
        kind: static (activations in 8 bits, their ranges from `calibration`), dynamic (ranges at run time, linear and
            recurrent layers only) or weights (arithmetic in float: smaller, not faster).
        calibration: batches of training samples, each the graph's inputs in order; also what single layers are
            measured on.
        score: a graph's score, more is better. With `max_drop` it decides which layers stay in float.
        max_drop: the most that the score may lose; None: every layer goes into 8 bits.
        reduce_range: see above; False where all processors are known to have VNNI.

    Raises:
        CompressionError: no samples to calibrate on, or no layer that can be in 8 bits (within `max_drop`).
    """
    batches = [batch for batch in calibration if len(batch) and len(batch[0])]
    samples = sum(len(batch[0]) for batch in batches)
    judged = score is not None and max_drop is not None
    if not batches and (kind == "static" or judged):
        raise CompressionError("there are no samples to calibrate on: raise calibrate, or give training data")
    with TemporaryDirectory(prefix="modelwright-int8-") as name:
        folder = Path(name)
        writer = _writer(kind, source, folder, batches, reduce_range=reduce_range)
        everything = writer.possible(writer.layers)
        if not everything:
            raise CompressionError(f"{source} has no layer that can be in 8 bits: leave out the stage quantize")
        kept = [Kept(name, writer.operators[name], None, reason) for name, reason in writer.apart.items()]
        drop = drop_of_all = None
        layers, written = everything, folder / "written.onnx"
        writer.write(written, layers)
        if score is not None:
            before = score(source)
            drop = drop_of_all = before - score(written)
            if max_drop is not None and not drop <= max_drop:
                search = _Search(writer, source, folder, batches, lambda path: before - score(path), max_drop)
                layers, written, drop, further = search(everything, drop)
                kept += further
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(written, target)
    return Quantized(kind, layers, kept, samples if kind == "static" else 0, reduce_range, drop, drop_of_all)


def _writer(kind: Kind, source: Path, folder: Path, batches: Sequence[Arrays], *, reduce_range: bool) -> Writer:
    if kind == "static":
        return Static(source, folder, batches, reduce_range=reduce_range)
    return Dynamic(source, folder, reduce_range=reduce_range) if kind == "dynamic" else Weights(source, folder)


class _Search:
    """Looks for the fewest layers that must stay in float."""

    def __init__(
        self,
        writer: Writer,
        source: Path,
        folder: Path,
        batches: Sequence[Arrays],
        drop: Callable[[Path], float],
        max_drop: float,
    ) -> None:
        self._writer, self._folder, self._drop, self._max_drop = writer, folder, drop, max_drop
        self._batches = _some(batches, SAMPLES)
        self._reference = self._outputs(source)

    def __call__(self, layers: Sequence[str], worst: float) -> tuple[list[str], Path, float, list[Kept]]:
        """Layers in 8 bits, the file, its drop, and what stayed in float."""
        ratios = {name: self._alone(name) for name in layers}
        ranked = sorted(layers, key=lambda name: ratios[name])
        drops: dict[int, float] = {}

        def enough(kept: Sequence[str]) -> bool:
            left = self._left(layers, kept)
            if not left:
                return False
            self._writer.write(self._folder / f"without-{len(kept)}.onnx", left)
            drops[len(kept)] = self._drop(self._folder / f"without-{len(kept)}.onnx")
            return drops[len(kept)] <= self._max_drop

        kept = fewest(ranked, enough)
        if kept is None:
            least = min([worst, *drops.values()])
            raise CompressionError(
                f"no layer can be in 8 bits with max_drop={self._max_drop:g}: the score drops by {worst:.4g} with all "
                f"of them and by {least:.4g} at best; raise max_drop, or use kind=weights"
            )
        reason = f"the score drops by {worst:.4g} with all layers in 8 bits"
        records = [Kept(name, self._writer.operators[name], round(ratios[name], 1), reason) for name in kept]
        return self._left(layers, kept), self._folder / f"without-{len(kept)}.onnx", drops[len(kept)], records

    def _left(self, layers: Sequence[str], kept: Sequence[str]) -> list[str]:
        return self._writer.possible([name for name in layers if name not in kept])

    def _alone(self, layer: str) -> float:
        path = self._folder / "alone.onnx"
        self._writer.write(path, [layer])
        return signal_to_noise(self._reference, self._outputs(path))

    def _outputs(self, path: Path) -> dict[str, np.ndarray]:
        graph = Graph(path)
        return joined([graph(*batch) for batch in self._batches])


def _some(batches: Sequence[Arrays], samples: int) -> list[Arrays]:
    """The first batches, as many as hold so many samples; at least one."""
    counts = np.cumsum([len(batch[0]) for batch in batches])
    return list(batches[: int(np.searchsorted(counts, samples)) + 1])
