"""What stands for the MOS of photos that nobody has scored: a plain reading of their latents."""

from __future__ import annotations

import numpy as np
import torch

from genzqa.training.mini.latents import Latents

_RIDGE = 0.05  # of the mean square of a column


@torch.no_grad()
def opinions(latents: Latents) -> torch.Tensor:
    """Ridge regression of MOS on mean and deviation over positions of the photos' latents; ``(N,)``, of the row's photo."""
    rows = np.flatnonzero((latents.kind == 0).numpy())
    pooled = torch.cat([_pooled(latents.rows(part)) for part in np.array_split(rows, max(1, len(rows) // 256))])
    pooled = torch.cat([pooled, pooled.new_ones(len(pooled), 1)], 1)
    mos = latents.mos[rows].double()
    known = ~mos.isnan()
    table, target = pooled[known], mos[known]
    square = table.T @ table
    weight = torch.linalg.solve(square + _RIDGE * torch.diag(square.diagonal()), table.T @ (target - target.mean()))
    found = (pooled @ weight + target.mean()).clamp(5, 95).float()
    photo = torch.from_numpy(
        np.searchsorted(rows, np.arange(len(latents)), side="right") - 1
    )  # the row it is a copy of
    return found[photo]


def _pooled(latents: torch.Tensor) -> torch.Tensor:
    return torch.cat([latents.mean((2, 3)), latents.std((2, 3))], 1).double()
