"""Settings of the stages that the core offers. Knows no torch and no task; `recipe.py` reads lists of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from modelwright.config import Settings

Share = Annotated[float, Field(gt=0, lt=1)]


class StageConfig(Settings):
    """Base of all stages' settings; `stage` in a recipe is the compressor's name."""

    def requires(self) -> Mapping[str, str]:
        """Modules that these settings ask for, each with what pip is told to install; looked up before any work."""
        return {}


class PruneConfig(StageConfig):
    """Takes channels out of layers, then trains what is left."""

    keep: Share = 0.5
    """Share that stays."""
    of: Literal["channels", "macs", "parameters"] = "channels"
    """What `keep` is a share of."""
    scope: Literal["global", "layer"] = "global"
    """Compare channels over the whole network, or take the same share from every layer."""
    importance: Literal["magnitude", "taylor"] = "magnitude"
    """Which channels matter: by the size of their weights, or by weight times gradient (Molchanov et al. 2019)."""
    structured: bool = True
    """False: single weights become zero and none goes, for study; that makes nothing faster."""
    rounds: Annotated[int, Field(ge=1)] = 1
    """Prune a little and train, so many times."""
    multiple: Annotated[int, Field(ge=1)] = 1
    """Keep channels in multiples of this; 8 suits most processors."""
    train: dict[str, Any] | None = {"epochs": 2}
    """Settings of the training after each round, on top of the run's own; empty: no training."""


class DistillConfig(StageConfig):
    """Trains the model to say what a teacher says."""

    teacher: str = "original"
    """original (the run's own model), one of the task's own, a run's folder, a bundle, or a .npz by sample id."""
    temperature: Annotated[float, Field(gt=0)] = 4.0
    """Softens both sides (Hinton, Vinyals, Dean 2015)."""
    mix: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Share of the teacher's loss; the rest is the task's own."""
    student: dict[str, Any] = {}
    """Settings of another model to train from fresh weights, for example {model.name: x}; empty: go on with ours."""
    train: dict[str, Any] = {}
    """Settings of the training, on top of the run's own."""


class QuantizeConfig(StageConfig):
    """Stores weights, and mostly activations too, as 8-bit numbers."""

    kind: Literal["static", "dynamic", "weights", "aware"] = "static"
    """static (ranges from training samples), dynamic (ranges at run time), weights only, or static after training
    with simulated rounding (aware)."""
    calibrate: Annotated[int, Field(ge=1)] = 512
    """Training samples that the ranges are taken from."""
    max_drop: Annotated[float, Field(ge=0)] | None = 0.005
    """Loss of the objective, beyond chance, from which on the layers that hurt most stay in float; empty: none does."""
    train: dict[str, Any] = {"epochs": 1}
    """Settings of the training (aware), on top of the run's own; a tenth of its rate where none is given."""
    runtime: Literal["onnxruntime", "openvino"] = "onnxruntime"
    """What will run it, quantized by that runtime's own method: openvino (static and aware) by NNCF."""

    @model_validator(mode="after")
    def _offered(self) -> QuantizeConfig:
        if self.runtime == "openvino" and self.kind in ("dynamic", "weights"):
            raise ValueError(f"runtime openvino has the kinds static and aware; {self.kind} has runtime onnxruntime")
        return self

    def requires(self) -> Mapping[str, str]:
        return dict.fromkeys(("openvino", "nncf"), "modelwright[openvino]") if self.runtime == "openvino" else {}
