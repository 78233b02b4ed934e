"""Checks that channels can be taken out of a task's model. Knows pruning and plans; knows no stage and no trainer."""

from __future__ import annotations

import json
import math

from modelwright.compression.plan import Plan, replay
from modelwright.compression.prune import prune
from modelwright.errors import CompressionError
from modelwright.testing.kit import Failed, NotOffered
from modelwright.testing.subject import Subject, same
from modelwright.training import checkpoint as checkpoints
from modelwright.training.steps import Supervised

STEPS = 4


def check_pruned_model_reloads_and_trains(subject: Subject) -> None:
    """Without half of its channels the model loads from safetensors and JSON, says the same again and trains on."""
    model, batch = subject.model(), subject.batch(subject.some(8))
    shapes = {name: value.shape for name, value in subject.outputs(model, batch).items()}
    prunable = subject.task.prunable(model)
    if prunable is None:
        raise NotOffered("the task offers no pruning")
    try:
        plan = prune(model, batch.inputs, keep=0.5, scope="layer", prunable=prunable)
    except CompressionError as reason:
        raise NotOffered(str(reason)) from reason
    expected = subject.outputs(model, batch)

    tensors, extra = checkpoints.module_state(model)
    checkpoints.write_tensors(subject.folder / "model.safetensors", tensors)
    record = json.loads(json.dumps(plan.as_json()))
    again = replay(subject.model(seed=1), Plan.from_json(record))
    tensors = checkpoints.read_tensors(subject.folder / "model.safetensors")
    checkpoints.load_module(again, tensors, extra, what="the pruned model")
    found = subject.outputs(again, batch)
    if not same(expected, found, tolerance=1e-5):
        raise Failed("a pruned model says something else after loading: something that matters is not in state_dict")
    if {name: value.shape for name, value in found.items()} != shapes:
        raise Failed("the outputs of a pruned model have another shape")

    # What is wrong in training mode only cannot be seen when the channels are chosen.
    try:
        losses = list(subject.fitted(Supervised(subject.task, again), batch, steps=STEPS))
    except (RuntimeError, IndexError) as error:
        raise Failed(
            f"a pruned model cannot be trained ({' '.join(str(error).split())[:120]}): ask a tensor for its size, "
            "not the settings, or leave the layer out of `prunable`"
        ) from error
    if not all(math.isfinite(loss) for loss in losses):
        raise Failed(f"the losses of a pruned model are {losses}")
