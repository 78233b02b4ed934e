"""Stores a graph's numbers in 8 bits for OpenVINO, by NNCF's post-training quantization. Knows both; knows no task.

Which layers, and how they are rounded, is NNCF's choice; where the score then drops too far, its accuracy control puts
layers back, those first that change the outputs most. Two of its defaults are not kept:

- Weights keep to 7 bits everywhere (`OverflowFix.ENABLE`), not in first convolutions only. Without VNNI, OpenVINO adds
  products of 8-bit numbers in 16 bits, as ONNX Runtime does (`quantize.py`). On an AVX2 machine that left plain linear
  layers 14 dB of signal-to-noise ratio in place of 36, attention 5 dB in place of 28; ResNet-18 pays 0.7 dB for it.
- Activations range from the least to the greatest value seen, not to the mean of each sample's, which cuts what is
  rare: ResNet-18 has 21.6 dB that way and 14.4 dB with the mean.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from modelwright.bundle.agreement import reason_of
from modelwright.bundle.export import quiet
from modelwright.bundle.openvino_export import read, save
from modelwright.bundle.openvino_graph import OpenVINOGraph, silent_import
from modelwright.bundle.runtime import Graph
from modelwright.compression.quantize import Kept, Quantized
from modelwright.compression.sensitivity import signal_to_noise
from modelwright.errors import CompressionError, ModelwrightError

Arrays: TypeAlias = Sequence[np.ndarray]
Predictor: TypeAlias = Callable[..., dict[str, np.ndarray]]

RANKED_ON = 64
"""Samples on which the effect of single layers is measured."""
LAYERS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")
"""Operators that can be in 8 bits and cost time."""
PASSED = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "MaxPool", "Convert", "Subtract", "Multiply")
"""Operators between what is rounded (a weight's constant too) and the layer that takes it."""


def quantize(
    source: Path,
    target: Path,
    *,
    calibration: Sequence[Arrays],
    drop: Callable[[Predictor], float],
    max_drop: float | None = None,
) -> Quantized:
    """Writes a float ONNX graph as an OpenVINO graph in 8 bits.

    Args:
        target: model.xml; its weights go beside it.
        calibration: batches of training samples, each the graph's inputs in order.
        drop: how much worse the score of a predictor is than the float graph's.
        max_drop: the most that may be; None: every layer that NNCF chooses goes into 8 bits.

    Raises:
        CompressionError: no samples to calibrate on, or no layer that can be in 8 bits (within `max_drop`).
        ExportError: OpenVINO does not take the graph.
    """
    if not calibration:
        raise CompressionError("there are no samples to calibrate on: raise calibrate, or give training data")
    nncf, model = _nncf(), read(source)
    names = [port.get_any_name() for port in model.inputs]
    batches = [dict(zip(names, arrays, strict=True)) for arrays in calibration]
    advanced = nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix.ENABLE, activations_range_estimator_params=_least_to_greatest(nncf)
    )
    settings = {"subset_size": len(batches), "model_type": nncf.ModelType.TRANSFORMER if _attends(model) else None}
    judge = None
    try:
        with quiet():
            if max_drop is None:
                made = nncf.quantize(model, nncf.Dataset(batches), advanced_parameters=advanced, **settings)
            else:
                judge = _Judge(source, calibration, drop, [port.get_any_name() for port in model.outputs])
                control = nncf.AdvancedAccuracyRestorerParameters(
                    num_ranking_workers=1, ranking_subset_size=len(judge.items) - 1
                )
                made = nncf.quantize_with_accuracy_control(
                    model,
                    nncf.Dataset(batches),
                    nncf.Dataset(judge.items),
                    judge,
                    max_drop=max_drop,
                    advanced_quantization_parameters=advanced,
                    advanced_accuracy_restorer_parameters=control,
                    **settings,
                )
    except ModelwrightError:
        raise
    except Exception as error:
        raise CompressionError(
            f"NNCF cannot quantize this model ({reason_of(error)}): quantize it for runtime onnxruntime"
        ) from error
    layers, kept = _sorted(made)
    if not layers:
        within = "" if max_drop is None else f" with max_drop={max_drop:g}: raise it, or leave out the stage quantize"
        raise CompressionError(f"no layer can be in 8 bits{within or ': leave out the stage quantize'}")
    save(made, target)
    found = drop(OpenVINOGraph(target))
    samples = sum(len(arrays[0]) for arrays in calibration)
    return Quantized("static", layers, kept, samples, drop=found, drop_of_all=judge.drops[1] if judge else found)


class _Judge:
    """NNCF's validation function: more is better.

    Of all items it gives the task's score. NNCF asks for a part of them to rank layers by, once for each: there it
    gives how near the outputs are to the float graph's, which is cheaper and tells layers apart that a score cannot.
    (Left to rank by outputs itself, NNCF 3.4 begins with the layers that matter least.)

    Attributes:
        items: samples, as NNCF is to hand them out.
        drops: of the score, of each model that was asked for; the float one, the one with all layers in 8 bits, ...
    """

    def __init__(
        self, source: Path, batches: Sequence[Arrays], drop: Callable[[Predictor], float], outputs: Sequence[str]
    ) -> None:
        self.drops: list[float] = []
        self._drop, self._outputs = drop, outputs
        rows = ([array[row : row + 1] for array in arrays] for arrays in batches for row in range(len(arrays[0])))
        graph = Graph(source)
        self.items = [_Item(arrays, graph(*arrays)) for arrays in islice(rows, RANKED_ON)]
        if len(self.items) == 1:  # a part has to be less than all
            self.items *= 2

    def __call__(self, compiled: Any, items: Iterable[_Item]) -> tuple[float, list[float]]:
        def predict(*arrays: Any) -> dict[str, np.ndarray]:
            found = compiled([np.asarray(array, order="C") for array in arrays])
            return {name: found[number] for number, name in enumerate(self._outputs)}

        given = list(items)
        near = [float(np.clip(signal_to_noise(each.said, predict(*each.arrays)), -200, 200)) for each in given]
        if len(given) < len(self.items):
            return float(np.mean(near)), near
        self.drops.append(self._drop(predict))
        # NNCF divides by the float graph's score, which must not be zero.
        return 1 - self.drops[-1], near


@dataclass(frozen=True)
class _Item:
    """A sample, and what the float graph says of it."""

    arrays: Arrays
    said: Mapping[str, np.ndarray]


def _nncf() -> Any:
    with quiet():
        nncf = silent_import("nncf")
    nncf.set_log_level(logging.ERROR)
    return nncf


def _least_to_greatest(nncf: Any) -> Any:
    estimator = nncf.quantization.range_estimator
    kinds, aggregators = estimator.StatisticsType, estimator.AggregatorType
    return estimator.RangeEstimatorParameters(
        min=estimator.StatisticsCollectorParameters(statistics_type=kinds.MIN, aggregator_type=aggregators.MIN),
        max=estimator.StatisticsCollectorParameters(statistics_type=kinds.MAX, aggregator_type=aggregators.MAX),
    )


def _attends(model: Any) -> bool:
    """Whether there is attention in a network: a softmax that is multiplied with something."""
    for node in model.get_ops():
        if node.get_type_name() == "ScaledDotProductAttention":
            return True
        if node.get_type_name() == "Softmax":
            users = [each.get_node().get_type_name() for each in node.output(0).get_target_inputs()]
            if "MatMul" in users:
                return True
    return False


def _sorted(model: Any) -> tuple[list[str], list[Kept]]:
    """The layers in 8 bits, and those in float."""
    layers: list[str] = []
    kept: list[Kept] = []
    for node in model.get_ordered_ops():
        if node.get_type_name() not in LAYERS:
            continue
        name = node.get_friendly_name()
        if all(_rounded(node.input_value(place).get_node()) for place in (0, 1)):
            layers.append(name)
        else:
            kept.append(Kept(name, node.get_type_name(), None, "NNCF left it in float"))
    return layers, kept


def _rounded(node: Any) -> bool:
    """Whether an operator's result is numbers of 8 bits."""
    while node.get_type_name() in PASSED:
        node = node.input_value(0).get_node()
    if node.get_type_name() == "Constant":
        return node.get_element_type().get_type_name() in ("i8", "u8")
    return node.get_type_name() == "FakeQuantize"
