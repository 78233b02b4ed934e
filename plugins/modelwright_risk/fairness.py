"""How decisions differ between groups of applicants. Knows numpy and codes of categories, no names of people.

The figures are those of fairlearn (Bird et al. 2020), in the terms of a lender: what is wanted is to be accepted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from modelwright_risk.schema import FIRST, MISSING, UNSEEN


def codes_of(codes: np.ndarray, levels: Sequence[str]) -> dict[str, int]:
    """The groups that occur among `codes`, by name; no value, and values unseen in training, are groups too."""
    names = {UNSEEN: "unseen", MISSING: "missing"} | {FIRST + i: level for i, level in enumerate(levels)}
    return {names[code]: code for code in np.unique(codes).tolist() if code in names}


def compare(
    codes: np.ndarray, *, bad: np.ndarray, refused: np.ndarray, weight: np.ndarray | None = None
) -> dict[str, float]:
    """Figures over all groups that have a name; not a number where there are fewer than two.

    demographic_parity_ratio: the smallest share of accepted applicants over the largest (the "four-fifths rule" asks
    for 0.8). demographic_parity_difference: the largest less the smallest. equalized_odds_difference: the same among
    good and among bad applicants alone, the worse of the two (Hardt, Price, Srebro: Equality of Opportunity in
    Supervised Learning, NeurIPS 2016); a group without any such applicants has no say.

    Args:
        codes: N, groups as codes of categories.
        bad: N, 1 or 0.
        refused: bool, N.
        weight: N.
    """
    size = int(codes.max(initial=FIRST)) + 1
    accepted = np.where(refused, 0.0, 1.0) if weight is None else np.where(refused, 0.0, weight)
    # One number for group, outcome and decision.
    cell = codes.astype(np.intp) * 2 + (bad > 0)
    rows = np.bincount(cell, weights=weight, minlength=2 * size).reshape(size, 2)[FIRST:]
    taken = np.bincount(cell, weights=accepted, minlength=2 * size).reshape(size, 2)[FIRST:]
    shares = _shares(taken.sum(axis=1), rows.sum(axis=1))
    if len(shares) < 2:
        return dict.fromkeys(
            ("demographic_parity_ratio", "demographic_parity_difference", "equalized_odds_difference"), math.nan
        )
    within = [_shares(taken[:, outcome], rows[:, outcome]) for outcome in (0, 1)]
    return {
        "demographic_parity_ratio": float(shares.min() / shares.max()) if shares.max() > 0 else math.nan,
        "demographic_parity_difference": float(np.ptp(shares)),
        "equalized_odds_difference": max(float(np.ptp(each)) if len(each) else 0.0 for each in within),
    }


def _shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Of the groups that have any rows."""
    return part[whole > 0] / whole[whole > 0]
