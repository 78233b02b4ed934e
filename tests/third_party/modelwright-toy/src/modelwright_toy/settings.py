"""The settings of tide forecasting. Knows no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from modelwright import DataConfig, ModelConfig, TaskConfig
from modelwright.compression.stages import StageConfig


class TideData(DataConfig):
    """A harbour that does not exist."""

    days: Annotated[int, Field(ge=60)] = 400
    """How long the level was recorded, one value an hour."""
    noise: Annotated[float, Field(ge=0)] = 0.03
    """Deviation of the gauge, in metres."""


class TideModel(ModelConfig):
    """Two hidden layers."""

    hidden: Annotated[int, Field(ge=1)] = 64
    """Units of each."""


class TideConfig(TaskConfig):
    """All settings of a run."""

    data: TideData = TideData()
    model: TideModel = TideModel()


class LullConfig(StageConfig):
    """A stage of compression."""

    below: Annotated[float, Field(gt=0)] = 0.01
    """Weights nearer to zero than this become zero."""
