"""Toy tasks for the contract kit's own tests: a good one, and for each check one that breaks it. Imports no torch.

The broken tasks themselves stand in `broken.py`; here are their entries, as a plugin's cheap entry module offers them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import ConfigDict, field_validator

from modelwright.config import DataConfig, ModelConfig, TaskConfig
from modelwright.hookspecs import TaskEntry


class Data(DataConfig):
    """As the toy's."""

    samples: int = 90
    noise: float = 0.05


class Model(ModelConfig):
    """As the toy's."""

    hidden: int = 16
    dropout: float = 0.1


class Config(TaskConfig):
    """As the toy's."""

    data: Data = Data()
    model: Model = Model()


def build(config: Any) -> Any:
    """The toy task; imports torch."""
    from modelwright.testing.toy import ToyTask

    return ToyTask(config)


GOOD = TaskEntry("toy", "say which spiral a point lies on", config=Config, build=build)
KIT = {"train.batch_size": 16, "train.optimizer.lr": 0.02}


# Broken ---------------------------------------------------------------------------------------------------------------


class Growing(Data):
    """Not the same when read back."""

    samples: int = 90

    @field_validator("samples")
    @classmethod
    def grow(cls, samples: int) -> int:
        return samples + 1


class GrowingConfig(Config):
    data: Growing = Growing()


class Lax(Data):
    """Takes any key."""

    model_config = ConfigDict(extra="ignore")


class LaxConfig(Config):
    data: Lax = Lax()


def build_broken(kind: str, config: Any) -> Any:
    """The task of that name in `broken.py`; imports torch."""
    from tests.core import broken

    return getattr(broken, kind)(config)


def broken(kind: str) -> TaskEntry:
    """The entry of a task in `broken.py`."""
    return TaskEntry("toy", f"a toy task: {kind}", config=Config, build=partial(build_broken, kind))


BROKEN: list[tuple[str, TaskEntry]] = [
    ("name_is_valid", TaskEntry("Toy_Task", "shouts", config=Config, build=build)),
    ("name_is_valid", TaskEntry("toy", "says\ntoo much", config=Config, build=build)),
    ("defaults_round_trip", TaskEntry("toy", "grows", config=GrowingConfig, build=build)),
    ("unknown_setting_is_refused", TaskEntry("toy", "takes everything", config=LaxConfig, build=build)),
    ("no_network_no_stray_files", broken("Writes")),
    ("no_network_no_stray_files", broken("Connects")),
    ("splits_are_not_empty", broken("TrainsOnly")),
    ("splits_are_disjoint", broken("ValidatesOnTrain")),
    ("samples_depend_on_their_key_only", broken("Draws")),
    ("workers_change_nothing", broken("Unpicklable")),
    ("workers_change_nothing", broken("LooksAtWorkers")),
    ("batches_are_as_declared", broken("OtherShape")),
    ("batches_are_as_declared", broken("OtherType")),
    ("nothing_to_find_is_a_sample", broken("FallsOverNothing")),
    ("moving_keeps_the_structure", broken("HidesTensors")),
    ("neighbours_do_not_matter", broken("ComparesInBatch")),
    ("train_and_eval_give_one_structure", broken("SaysMoreInTraining")),
    ("weights_round_trip", broken("KeepsANumber")),
    ("no_buffer_is_forgotten", broken("KeepsATensor")),
    ("no_buffer_is_forgotten", broken("KeepsAConstant")),
    ("loss_is_finite", broken("WeighsNothing")),
    ("gradients_reach_every_parameter", broken("UnusedParameter")),
    ("inputs_stay_unchanged", broken("AugmentsInPlace")),
    ("losses_add_up", broken("DividesTwice")),
    ("one_batch_is_learned", broken("NeverBelowFive")),
    ("one_prediction_per_sample", broken("TruthsOfPadding")),
    ("metrics_are_pure", broken("LooksAtOrder")),
    ("metrics_are_pure", broken("CountsCalls")),
    ("metrics_are_pure", broken("SortsInPlace")),
    ("metrics_are_pure", broken("GivesArrays")),
    ("objective_is_measured", broken("OtherObjective")),
    ("learning_improves_the_objective", broken("TakesTheWorst")),
    ("the_truth_scores_best", broken("NotPerfect")),
    ("codec_round_trips", broken("HasAForgetfulCodec")),
    ("codec_round_trips", broken("HasItsCodecBesideTorch")),
    ("export_agrees", broken("LoopsOverSamples")),
    ("pruned_model_reloads_and_trains", broken("CountsItsUnits")),
    ("int8_model_scores", broken("DrownsItsUnits")),
    ("resume_is_exact", broken("CountsItself")),
    ("ranks_agree", broken("DrawsPerRank")),
]
"""The check that fails, and the task that breaks it and no other. One more is in test_kit.py: it imports torch."""
