"""Frame posteriors: nothing to learn from an equal, whatever lies in the padding; other tokens are refused."""

from __future__ import annotations

import pytest
import torch

from modelwright.errors import ConfigError
from modelwright_speech.distilling import distill_loss


def outputs(frames, *, size=10, tokens=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"logits": torch.randn(len(frames), size, tokens, generator=generator), "frames": torch.tensor(frames)}


def test_an_equal_teaches_nothing():
    own = outputs([10, 6])
    assert float(distill_loss(own, own, temperature=2.0).sum) == pytest.approx(0, abs=1e-5)


def test_padding_does_not_count_and_halves_add_up():
    own, teacher = outputs([10, 6]), outputs([10, 6], seed=1)
    whole = distill_loss(own, teacher, temperature=1.5)
    parts = [
        distill_loss(*({k: v[row : row + 1] for k, v in each.items()} for each in (own, teacher)), temperature=1.5)
        for row in range(2)
    ]
    assert float(whole.sum) == pytest.approx(sum(float(part.sum) for part in parts), rel=1e-5)
    assert whole.weight == 2.0
    spoilt = {**teacher, "logits": teacher["logits"].clone()}
    spoilt["logits"][1, 6:] = 99.0
    assert float(distill_loss(own, spoilt, temperature=1.5).sum) == pytest.approx(float(whole.sum), rel=1e-5)


def test_a_teacher_with_twice_the_frames_is_asked_at_the_nearest():
    own = outputs([10, 6])
    teacher = {"logits": own["logits"].repeat_interleave(2, dim=1), "frames": own["frames"] * 2}
    assert float(distill_loss(own, teacher, temperature=1.0).sum) == pytest.approx(0, abs=1e-5)


def test_other_tokens_are_refused():
    with pytest.raises(ConfigError, match="the teacher writes 6 tokens and the student 5"):
        distill_loss(outputs([10]), outputs([10], tokens=6), temperature=1.0)
