"""The stages that the core offers, as records. Imports no torch; what they do stands in `work.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from modelwright.compression.stages import DistillConfig, PruneConfig, QuantizeConfig
from modelwright.hookspecs import CompressorEntry, hookimpl

if TYPE_CHECKING:
    from modelwright.compression.context import Made, Stage


def prune(stage: Stage, settings: PruneConfig) -> Made:
    """Imports torch."""
    from modelwright.compression import work

    return work.prune(stage, settings)


def distill(stage: Stage, settings: DistillConfig) -> Made:
    """Imports torch."""
    from modelwright.compression import work

    return work.distill(stage, settings)


def quantize(stage: Stage, settings: QuantizeConfig) -> Made:
    """Imports torch."""
    from modelwright.compression import work

    return work.quantize(stage, settings)


@hookimpl
def modelwright_compressors() -> Iterator[CompressorEntry]:
    """Prune, distill, quantize."""
    yield CompressorEntry("prune", "take channels out, then train what is left", config=PruneConfig, run=prune)
    yield CompressorEntry("distill", "train the model to say what a teacher says", config=DistillConfig, run=distill)
    yield CompressorEntry("quantize", "store numbers in 8 bits", config=QuantizeConfig, run=quantize)
