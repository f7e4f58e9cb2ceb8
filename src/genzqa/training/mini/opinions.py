"""Plain readings of latents by the mean and the deviation of their channels: what stands for the MOS of photos that nobody has
scored, and heads that the denoiser learns from. No model needs them once it is trained."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from genzqa.errors import TrainingError
from genzqa.training.mini.fitting import Progress, learning_rate, unseen
from genzqa.training.mini.latents import Latents
from genzqa.training.mini.losses import score_losses
from genzqa.training.mini.photos import Batch
from genzqa.training.mini.plan import HeadsPart

_RIDGE = 0.05  # of the mean square of a column


@torch.no_grad()
def opinions(latents: Latents) -> torch.Tensor:
    """Ridge regression of MOS on mean and deviation over positions of the photos' latents; ``(N,)``, of the row's photo."""
    rows = np.flatnonzero((latents.kind == 0).numpy())
    pooled = _pooled(latents, rows)
    pooled = torch.cat([pooled, pooled.new_ones(len(pooled), 1)], 1)
    mos = latents.mos[rows].double()
    known = ~mos.isnan()
    table, target = pooled[known], mos[known]
    square = table.T @ table
    weight = torch.linalg.solve(square + _RIDGE * torch.diag(square.diagonal()), table.T @ (target - target.mean()))
    found = (pooled @ weight + target.mean()).clamp(5, 95).float()
    everywhere = torch.zeros(len(latents))
    everywhere[rows] = found
    return everywhere[latents.photo]


def _pooled(latents: Latents, rows: npt.NDArray[np.int64]) -> Tensor:
    """``(n, 2 C)`` in double precision."""
    parts = [latents.rows(part) for part in np.array_split(rows, max(1, len(rows) // 256))]
    return torch.cat([torch.cat([part.mean((2, 3)), part.std((2, 3))], 1).double() for part in parts])


def heads_say(latents: Latents, part: HeadsPart, seed: int, progress: Progress = unseen) -> Tensor:
    """Train the heads on MOS, graded targets and order, as the denoiser is.

    Returns:
        What they say of every row on the mean, ``(N,)`` 0..100.

    Raises:
        TrainingError: If a loss is not finite.
    """
    read = _pooled(latents, np.arange(len(latents)))
    photos = read[latents.kind == 0]
    read = ((read - photos.mean(0)) / photos.std(0).clamp_min(1e-6)).float()
    found, steps = torch.zeros(len(latents)), part.count * part.steps
    for number in range(part.count):
        torch.manual_seed(seed + number)
        head = nn.Sequential(nn.Linear(read.shape[1], 256), nn.GELU(), nn.Dropout(0.5), nn.Linear(256, 64), nn.GELU(),
                             nn.Linear(64, 1))  # fmt: skip
        optimizer = torch.optim.AdamW(head.parameters(), lr=part.rate, weight_decay=0.05)
        drawn = latents.draws(clean=part.clean, pairs=part.pairs, steps=part.steps, seed=seed + number)
        for step, rows in enumerate(drawn):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, part.steps, part.rate)
            target = latents.mos[rows] * latents.share[rows]
            batch = Batch(read[rows], target, latents.kind[rows], latents.strength[rows], part.clean, part.pairs)
            score = 100 * head(batch.inputs).squeeze(1).sigmoid()
            loss = torch.stack(list(score_losses(score, batch, part.order).values())).sum()
            if not torch.isfinite(loss):
                raise TrainingError(f"the loss became {loss.item()} at step {step + 1}", subject=f"head {number + 1}")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            progress(number * part.steps + step + 1, steps, {"loss": float(loss.detach())})
        with torch.no_grad():
            found += 100 * head.eval()(read).squeeze(1).sigmoid() / part.count
    return found
