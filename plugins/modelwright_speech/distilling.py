"""How far a recognizer is from its teacher, frame by frame. Knows logits; no batches, no settings.

The divergence of the tokens' distributions in each frame (Hinton et al. 2015, https://arxiv.org/abs/1503.02531; for
speech Li et al. 2014, "Learning small-size DNN with output-distribution-based criteria").
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from modelwright.errors import ConfigError
from modelwright.task import Losses
from modelwright_speech.features import inside


def distill_loss(outputs: Mapping[str, Tensor], teacher: Mapping[str, Tensor], *, temperature: float) -> Losses:
    """The divergence summed over frames, as CTC's loss is a sum over them; weight: utterances.

    Args:
        outputs, teacher: `logits` (B, T, tokens) and `frames` (B,); a teacher with more or fewer frames is asked at the
            nearest one.
        temperature: softens both sides.

    Raises:
        ConfigError: the two write other tokens.
    """
    said, taught = outputs["logits"].float(), teacher["logits"].float()
    if said.shape[2] != taught.shape[2]:
        raise ConfigError(
            f"the teacher writes {taught.shape[2]} tokens and the student {said.shape[2]}: train both on the same "
            "texts with the same model.tokens"
        )
    frames = outputs["frames"]
    if not torch.equal(frames, teacher["frames"]):
        share = teacher["frames"].float() / frames.float()
        place = (torch.arange(said.shape[1], device=said.device)[None] + 0.5) * share[:, None]
        place = place.long().clamp(max=taught.shape[1] - 1)
        taught = taught.gather(1, place[:, :, None].expand(-1, -1, taught.shape[2]))
    taught = taught[:, : said.shape[1]]
    ours, theirs = ((each / temperature).log_softmax(dim=2) for each in (said, taught))
    apart = (theirs.exp() * (theirs - ours)).sum(dim=2) * inside(frames, said.shape[1])
    total = apart.sum() * temperature**2
    return Losses(total, float(len(said)), {"frames": total})
