"""What training minimises, over a whole batch whatever it was cut into."""

from __future__ import annotations

import torch
from torch import Tensor

from genzqa.training.plan import Losses

_SCALE = 100.0  # squared points to about one
_MARGIN = 0.1  # share of a pair's difference in MOS that its scores owe


def batch_losses(scores: Tensor, mos: Tensor, weights: Losses) -> dict[str, Tensor]:
    """The weighted terms, to be summed.

    Args:
        scores, mos: ``(B,)`` on 0..100.
        weights: Terms of weight 0 are left out.
    """
    found: dict[str, Tensor] = {}
    if weights.mse:
        found["mse"] = weights.mse * ((scores - mos) ** 2).mean()
    if weights.plcc:
        found["plcc"] = weights.plcc * _SCALE * (1 - correlation(scores, mos))
    if weights.rank:
        found["rank"] = weights.rank * misordered(scores, mos)
    return found


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's; 0 where a side is constant."""
    one, other = one - one.mean(), other - other.mean()
    found: Tensor = (one * other).sum() / (one.norm() * other.norm()).clamp_min(1e-6)
    return found


def misordered(scores: Tensor, mos: Tensor) -> Tensor:
    """Mean over the pairs of how far each is from its order, in points."""
    better = mos[:, None] - mos[None]
    ahead = scores[:, None] - scores[None]
    pairs = better > 0
    return torch.relu(_MARGIN * better - ahead)[pairs].sum() / pairs.sum().clamp_min(1)
