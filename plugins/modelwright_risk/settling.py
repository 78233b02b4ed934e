"""What is found on validation data once weights are final. Knows log-odds and outcomes, no model."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelwright_risk import calibration, decision, stability
from modelwright_risk.config import ScoreConfig


def settled(logit: np.ndarray, bad: np.ndarray, *, weight: np.ndarray | None, config: ScoreConfig) -> dict[str, Any]:
    """Calibrator, cut-off, and how calibrated probabilities are spread.

    Args:
        logit, bad, weight: N, of the validation rows; log-odds are uncalibrated.

    Returns:
        JSON values: calibrator (see `calibration.apply`), cutoff, score_edges (inner edges of probability, ascending)
        and score_shares (one more: shares of rows between them, each above the lower edge and up to the upper one).
    """
    calibrator = calibration.fit(config.calibration, logit, bad, weight=weight)
    probability = calibration.apply(calibrator, logit)
    cutoff = config.cutoff
    if cutoff is None:
        cutoff = decision.best_cutoff(
            probability, bad, cost_bad=config.cost_bad, cost_good=config.cost_good, weight=weight
        )
    edges = stability.even_edges(probability, weight=weight)
    shares = stability.shares(probability, edges, weight=weight)
    return {
        "calibrator": calibrator,
        "cutoff": float(cutoff),
        "score_edges": edges.tolist(),
        "score_shares": shares.tolist(),
    }
