from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("sklearn")

from modelwright_risk import calibration, settling
from modelwright_risk.config import ScoreConfig


def validation() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    logit = rng.normal(-2, 1, 2000).astype(np.float32)
    return logit, (rng.random(2000) < calibration.sigmoid(logit)).astype(np.float32)


@pytest.mark.parametrize("kind", ["none", "platt", "isotonic", "temperature"])
def test_what_is_settled_is_json_and_fits_together(kind: str) -> None:
    logit, bad = validation()
    found = settling.settled(logit, bad, weight=None, config=ScoreConfig.model_validate({"calibration": kind}))
    assert json.loads(json.dumps(found)) == found
    assert found["calibrator"]["kind"] == kind
    # Costs of 5 and 1 suggest 1 / 6 for probabilities that can be trusted.
    assert found["cutoff"] == pytest.approx(1 / 6, abs=0.06)
    assert len(found["score_shares"]) == len(found["score_edges"]) + 1 == 10
    assert found["score_shares"] == pytest.approx(np.full(10, 0.1), abs=0.002)


def test_a_cutoff_that_was_asked_for_stays() -> None:
    assert settling.settled(*validation(), weight=np.ones(2000), config=ScoreConfig(cutoff=0.3))["cutoff"] == 0.3
