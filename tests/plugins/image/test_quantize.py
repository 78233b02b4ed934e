"""Classifiers in 8 bits: what a runtime makes of them, and what training with rounding regains."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import modelwright as mw
from modelwright.bundle.export import write_graph
from modelwright.bundle.runtime import Graph
from modelwright.compression.aware import QuantizationAware
from modelwright.compression.quantize import quantize
from modelwright.compression.sensitivity import signal_to_noise
from modelwright.config import build_config, nest
from modelwright.evaluation.evaluator import evaluate
from modelwright.run import load_model
from modelwright.task import Keys
from modelwright.training.loading import fetch
from modelwright.training.trainer import Trainer
from modelwright_image.config import ImageConfig
from modelwright_image.task import ImageTask

CPU = torch.device("cpu")
SETTINGS = {"data.name": "digits", "train.threads": 1, "observers": [], "evaluate.resamples": 0}


def task_of(**further: object) -> ImageTask:
    task = ImageTask(build_config(ImageConfig, layers=[nest(SETTINGS | further)]))
    task.facts = task.find_facts(task.datasets())
    return task


def pictures(task: ImageTask, count: int = 64) -> torch.Tensor:
    batch = fetch(task, task.datasets()["train"], Keys(0, 0, 1, np.arange(count)))
    assert batch is not None
    return batch.inputs[0]


@pytest.mark.parametrize(("name", "convolutions", "joins"), [("cnn", 2, 0), ("resnet20", 18, 9)])
def test_a_network_runs_in_integers_behind_its_first_layer(name, convolutions, joins, tmp_path):
    torch.manual_seed(0)
    task = task_of(**{"model.name": name})
    model = task.model()
    images = pictures(task)
    model.train()(images)  # statistics of batch norms that are not those of a fresh model
    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    write_graph(task, model, task.datasets()["train"], source)
    made = quantize(source, target, calibration=[(images.numpy(),)])
    assert len(made.layers) == convolutions + joins + 1
    assert [each.operator for each in made.kept] == ["Conv"]  # on three channels: slower in 8 bits
    assert signal_to_noise(Graph(source)(images), Graph(target)(images)) > 20
    assert target.stat().st_size < 0.3 * source.stat().st_size

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])
    ran = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert (ran["QLinearConv"], ran["QLinearAdd"], ran["QGemm"]) == (convolutions, joins, 1)
    assert ran["Conv"] + ran["FusedConv"] == 1
    assert not {"Gemm", "BatchNormalization"} & set(ran)


@pytest.mark.slow
def test_training_at_3_bits_regains_what_rounding_costs(tmp_path):
    settings = {**SETTINGS, "model.name": "cnn", "train.optimizer.lr": 0.05, "train.epochs": 15}
    mw.train("image-classification", out=tmp_path / "run", settings=settings)
    task = task_of(**settings | {"train.epochs": 15, "train.optimizer.lr": 0.001})
    datasets = task.datasets()

    def accuracy(model: nn.Module) -> float:
        scores = evaluate(task, model.eval(), datasets["test"], batch_size=128)
        return scores.metrics["accuracy"].value

    def aware() -> QuantizationAware:
        model, _ = load_model(task, tmp_path / "run", task.config, CPU, warn=lambda message: None)
        return QuantizationAware(task, model, [pictures(task)], bits=3)

    rounded, trained = aware(), aware()
    rounded.finish()
    Trainer(
        task,
        task.config,
        trained,
        train=datasets["train"],
        valid=None,
        folder=tmp_path / "aware",
        name="aware",
        device=CPU,
        observer=lambda event: None,
        warn=lambda message: None,
    ).fit()
    trained.finish()
    without, after = accuracy(rounded.model), accuracy(trained.model)
    assert after > without + 0.005, (without, after)
