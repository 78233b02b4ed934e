"""SpecAugment: what is blanked, from random numbers. Knows torch; knows no features and no settings.

Park et al. 2019, https://arxiv.org/abs/1904.08779, without warping in time; the widest stretch is a share of the
utterance, as in its sequel (https://arxiv.org/abs/1912.05533), so that short ones keep most of themselves.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def blanked(draws: np.ndarray, sizes: Tensor, *, size: int, width: float) -> Tensor:
    """(B, size) bool: what is blanked. What a row gets depends on its own numbers alone.

    Args:
        draws: (B, 2 x masks), uniform in [0, 1): of each mask how wide it is and where it begins.
        sizes: (B,): what can be blanked of each row.
        size: of the widest row.
        width: of the widest mask, as a share of a row's size.
    """
    drawn = torch.from_numpy(draws).to(sizes.device)
    own = sizes.to(drawn.dtype)[:, None]
    wide, place = drawn.chunk(2, dim=1)
    widths = torch.round(wide * width * own)
    first = torch.floor(place * (own - widths + 1))
    positions = torch.arange(size, device=sizes.device)[None, None]
    masks = (positions >= first[:, :, None]) & (positions < (first + widths)[:, :, None])
    return masks.any(dim=1)
