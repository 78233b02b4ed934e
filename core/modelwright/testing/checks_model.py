"""Checks of model and loss: independence, structure, state, gradients. Knows no files and no ranks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from modelwright.task import Batch, map_tensors
from modelwright.testing.kit import Failed, NotOffered
from modelwright.testing.subject import FIT_STEPS, Subject, same, tensors_in
from modelwright.training.steps import Supervised

CLOSE = 1e-4
"""How far apart outputs may lie that differ only in how they were batched."""


def check_neighbours_do_not_matter(subject: Subject) -> None:
    """In eval mode what is said of a sample does not depend on the others in its batch."""
    model, batch = subject.model(), subject.batch(subject.some(3))
    together = subject.predictions(model, batch)
    for index in np.unique(batch.ids).tolist():
        rows = np.flatnonzero(batch.ids == index)
        alone = subject.predictions(model, subject.batch([index]))
        for name in together:
            if not same(together.select(rows)[name], alone[name], tolerance=CLOSE):
                raise Failed(f"'{name}' of a sample differs alone and beside others: padding or statistics leak")


def check_train_and_eval_give_one_structure(subject: Subject) -> None:
    """The model gives a dict of tensors with the same names in train and in eval mode."""
    model, batch = subject.model(), subject.batch(subject.some(3))
    found: list[set[str]] = []
    for train in (True, False):
        model.train(train)
        with torch.no_grad():
            outputs = model(*batch.inputs, **(batch.hints if train else {}))
        if not isinstance(outputs, dict) or not all(isinstance(value, Tensor) for value in outputs.values()):
            raise Failed(f"the model gives {type(outputs).__name__}; a dict of named tensors is needed")
        found.append(set(outputs))
    if found[0] != found[1]:
        raise Failed(f"the outputs are {sorted(found[0])} in train mode and {sorted(found[1])} in eval mode")


def check_weights_round_trip(subject: Subject) -> None:
    """A model that was trained a little, saved and loaded into a new one gives the same outputs."""
    step, batch = subject.step(seed=0), subject.batch(subject.some(4))
    _train_a_little(subject, step, batch)
    other = subject.model(seed=1)
    other.load_state_dict(step.model.state_dict())
    if not same(subject.outputs(step.model, batch), subject.outputs(other, batch)):
        raise Failed("the outputs differ after loading: something that matters is not in state_dict")


def check_no_buffer_is_forgotten(subject: Subject) -> None:
    """Tensors that model or loss keep are saved and moved with them: parameters and buffers, or as good as such."""
    step, other, batch = subject.step(), subject.step(seed=1), subject.batch(subject.some(4))
    _train_a_little(subject, step, batch)
    other.load_state_dict(step.state_dict())
    for each in (step, other):  # what a module only computes once and keeps is the same after the same batch
        subject.outputs(each.model, batch)
    kept, loaded = _plain_tensors(step), _plain_tensors(other)
    for name, tensors in kept.items():
        if not same(tensors, loaded.get(name, [])):
            raise Failed(f"'{name}' changes in training and no checkpoint holds it: use register_buffer")
    for name, tensors in _plain_tensors(other.to("meta")).items():
        if any(tensor.device.type != "meta" for tensor in tensors):
            raise Failed(f"'{name}' stays behind when the model moves to a device: use register_buffer")


def check_loss_is_finite(subject: Subject) -> None:
    """The loss of an augmented batch is one finite number with a positive weight (or None)."""
    step = subject.step()
    losses = subject.losses(step, subject.augmented(subject.batch(subject.some())))
    if losses.sum.ndim or not bool(losses.sum.isfinite()):
        raise Failed(f"the summed loss is {losses.sum}")
    if losses.weight is not None and not float(losses.weight) > 0:
        raise Failed(f"the loss's weight is {float(losses.weight)}")


def check_gradients_reach_every_parameter(subject: Subject) -> None:
    """Every trainable parameter of model and loss gets a gradient."""
    step = subject.step()
    step.train()
    losses = subject.losses(step, subject.augmented(subject.batch(subject.some())))
    losses.sum.backward()
    without = [name for name, p in step.named_parameters() if p.requires_grad and p.grad is None]
    if without:
        raise Failed(f"no gradient reaches {', '.join(without[:5])}: use them, or set requires_grad_(False)")


def check_inputs_stay_unchanged(subject: Subject) -> None:
    """Augmentation, model and loss change neither the batch they are given nor the data behind it."""
    indices = subject.some()
    batch, step = subject.batch(indices), subject.step()
    before = map_tensors(Tensor.clone, _given(batch))
    subject.losses(step, subject.augmented(batch)).sum.backward()
    if not same(before, _given(batch)):
        raise Failed("the batch is changed in place: return a new one")
    if not same(before, _given(subject.batch(indices))):
        raise Failed("the data are changed in place: the same samples, read again, are others")


def check_losses_add_up(subject: Subject) -> None:
    """Sum and weight of a batch are those of its halves together, so that micro-batches and ranks change nothing."""
    step, indices = subject.step(), subject.some(6)
    step.eval()  # what a batch shares by nature (statistics, dropout) stays outside this promise
    with torch.no_grad():
        whole = subject.losses(step, subject.batch(indices))
        if whole.weight is None:
            raise NotOffered("the loss is normalised over its batch (weight=None)")
        cut = max(1, 2 * len(indices) // 3)
        halves = [subject.losses(step, subject.batch(part)) for part in (indices[:cut], indices[cut:]) if part]
    for what, total, parts in (
        ("sums", float(whole.sum), [float(half.sum) for half in halves]),
        ("weights", float(whole.weight), [float(half.weight or 0) for half in halves]),
    ):
        if abs(total - sum(parts)) > 1e-3 * max(abs(total), 1.0):
            raise Failed(f"the {what} of two halves add up to {sum(parts):.6g}, the whole has {total:.6g}")


def check_one_batch_is_learned(subject: Subject) -> None:
    """Trained on one small batch again and again, the loss falls to half."""
    losses = subject.learned.losses
    last = sum(losses[-5:]) / 5
    if not last < losses[0] / 2:
        raise Failed(f"after {FIT_STEPS} steps on one batch the loss went from {losses[0]:.4g} to {last:.4g} only")


def _train_a_little(subject: Subject, step: Supervised, batch: Batch) -> None:
    for _ in subject.fitted(step, batch, steps=3):
        pass


def _given(batch: Batch) -> list[object]:
    """What a batch holds for model and loss."""
    return [list(batch.inputs), batch.targets, batch.hints]


def _plain_tensors(module: nn.Module) -> dict[str, list[Tensor]]:
    """Tensors that are attributes of a module or of one in it, also in containers; parameters and buffers are none."""
    found: dict[str, list[Tensor]] = {}
    for name, part in module.named_modules():
        for attribute, value in vars(part).items():
            if attribute in ("_parameters", "_buffers", "_modules"):
                continue
            if isinstance(value, (Tensor, dict, list, tuple)) and (tensors := list(tensors_in(value))):
                found[f"{name}.{attribute}".removeprefix("model.")] = tensors
    return found
