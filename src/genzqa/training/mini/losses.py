"""What the embedded model's recipe minimises: MOS of the photos, graded targets and order of their degraded copies."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from genzqa.training.mini.photos import Batch


def score_losses(score: torch.Tensor, batch: Batch, order: float = 1.0) -> dict[str, torch.Tensor]:
    """MOS regression and correlation on the photos; graded targets and order on their degraded copies. Scores 0..100.

    ``order`` weighs the order of the copies. What a mild JPEG compression changes is small beside what tells one photo from
    another; only the difference of a photo and its copy, where the photo itself falls out, teaches it.
    """
    aim = batch.target if batch.taught is None else batch.taught
    clean, target = score[: batch.clean], batch.target[: batch.clean]
    copies = score[batch.clean :].view(batch.pairs, 2)
    graded = batch.target[batch.clean :].view(batch.pairs, 2)
    ladder = torch.cat([clean[: batch.pairs, None], copies], 1)
    # a step of the ladder is owed a third of the graded fall at least, whatever the photo's own score came out as
    owed = (torch.cat([target[: batch.pairs, None], graded], 1)).diff(dim=1).neg() / 3
    if batch.taught is None:
        fit = {"mos": F.mse_loss(clean, target) / 400, "graded": 0.5 * F.mse_loss(copies, graded) / 400}
    else:  # teachers differ less from each other than people do, and have seen the copies
        fit = {"taught": F.mse_loss(score, batch.taught) / 100}
    return {
        **fit,
        "plcc": 0.5 * (1 - torch.corrcoef(torch.stack([clean, aim[: batch.clean]]))[0, 1]),
        "order": order * F.relu(owed + ladder.diff(dim=1)).mean() / 20,
    }


def degradation_losses(kind: torch.Tensor, strength: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
    """Name the kind ``(N, kinds)`` and tell the strength ``(N, 1)`` of the synthetic degradation."""
    return {
        "kind": 0.3 * F.cross_entropy(kind, batch.kind),
        "strength": F.mse_loss(strength.squeeze(1), batch.strength),
    }
