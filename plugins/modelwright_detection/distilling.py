"""How far a detector is from its teacher, place by place. Knows raw maps of YOLO detectors; no batches, no settings.

Classes: cross-entropy with the teacher's probabilities, as in Chen et al., Learning Efficient Object Detection Models
with Knowledge Distillation, NeurIPS 2017. Distances: the divergence of their distributions, as in Zheng et al.,
Localization Distillation for Dense Object Detection, CVPR 2022. Places count by how sure the teacher is that there is
something, or the many empty ones would drown the others.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from modelwright.task import Losses

SIDES = 4
"""Distances of a box, from its place to each of its sides."""
HEADS = (("maps", "logits"), ("one_maps", "one_logits"))
GAINS = {"classes": 0.5, "distances": 1.5}
"""As the parts of the YOLO loss weigh."""


def distill_loss(outputs: Mapping[str, Tensor], teacher: Mapping[str, Tensor], *, temperature: float) -> Losses | None:
    """The loss of a batch, times its pictures as the detectors' own; None: these outputs have no such maps.

    Args:
        outputs, teacher: with `maps` (B, 4 x bins, N) and `logits` (B, classes, N); where both have two heads, those of
            the second as well.
        temperature: softens classes and distributions of distances.
    """
    heads = [names for names in HEADS if all(name in each for name in names for each in (outputs, teacher))]
    if not heads:
        return None
    parts = {"classes": outputs["logits"].new_zeros(()), "distances": outputs["logits"].new_zeros(())}
    for maps, logits in heads:
        taught = torch.sigmoid(teacher[logits].float() / temperature)
        sure = torch.sigmoid(teacher[logits].float()).amax(dim=1)
        share = sure / sure.sum().clamp_min(1.0)
        said = outputs[logits].float() / temperature
        # Less the teacher's own entropy, so that agreement costs nothing.
        crossed = F.binary_cross_entropy_with_logits(said, taught, reduction="none")
        crossed = crossed - F.binary_cross_entropy(taught, taught, reduction="none")
        parts["classes"] = parts["classes"] + (crossed.sum(dim=1) * share).sum() * temperature**2
        parts["distances"] = (
            parts["distances"] + (_distances(outputs[maps].float(), teacher[maps].float(), temperature) * share).sum()
        )
    count = len(outputs["logits"])
    scaled = {name: GAINS[name] * count * value for name, value in parts.items()}
    return Losses(sum(scaled.values(), outputs["logits"].new_zeros(())), None, scaled)


def _distances(said: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Of each place, (B, N): the divergence of the distributions; of plain distances their difference."""
    said, taught = (each.unflatten(1, (SIDES, -1)) for each in (said, taught))
    if said.shape[2] == 1:
        return (said - taught).abs().mean(dim=(1, 2))
    ours, theirs = ((each / temperature).log_softmax(dim=2) for each in (said, taught))
    divergence = F.kl_div(ours, theirs, reduction="none", log_target=True)
    return divergence.sum(dim=2).mean(dim=1) * temperature**2
