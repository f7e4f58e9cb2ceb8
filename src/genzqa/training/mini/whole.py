"""Stage 3: the readout on whole photos, as scoring sees them.

The network stays as it is; its captured quantities are computed once for whole photos and for degraded copies of some,
and the readout's two layers are trained on them. The epoch with the best validation SRCC is kept, the starting point
included.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F

from genzqa.model.genziqa import GenzIQA
from genzqa.model.readout import LearnedReadout
from genzqa.training.mini.bank import Bank
from genzqa.training.mini.latent import score_losses

BATCH = 8


@torch.no_grad()
def captured(model: GenzIQA, views: Callable[[npt.NDArray[np.int64]], torch.Tensor], count: int) -> torch.Tensor:
    """What the readout reads, ``(count, T, F)``, of photos that ``views`` gives by their rows."""
    found = []
    for rows in np.array_split(np.arange(count), -(-count // BATCH)):
        trace = model(views(rows)).trace
        shift = model.resolution_shift(trace.positions, trace.eps.shape[-2:])
        found.append(_readout(model).features(trace, shift))
    return torch.cat(found)


def _readout(model: GenzIQA) -> LearnedReadout:
    assert model.readout is not None
    return model.readout


def fit_readout(model: GenzIQA, bank: Bank, features: torch.Tensor, unseen: torch.Tensor, mos: npt.NDArray[np.float32],
                plan: dict[str, Any], seed: int) -> list[float]:  # fmt: skip
    """Train the readout's two layers in place on the bank's rows; returns SRCC on the unseen photos, before and after
    every epoch."""
    torch.manual_seed(seed)
    readout = _readout(model)
    layers = nn.ModuleList([readout.hidden, readout.score]).requires_grad_(True)
    optimizer = torch.optim.AdamW(layers.parameters(), lr=plan["rate"], weight_decay=plan["weight_decay"])
    clean, pairs = plan["clean"], plan["pairs"]
    steps = -(-(len(bank.target) - 2 * bank.groups) // clean)

    def score(rows: torch.Tensor) -> torch.Tensor:
        return 100 * readout.score(readout.hidden(rows)).squeeze(2).sigmoid().mean(1)

    def srcc() -> float:
        layers.eval()
        with torch.no_grad():
            return round(float(spearmanr(score(unseen).numpy(), mos).statistic), 4)

    history = [srcc()]
    best = copy.deepcopy(layers.state_dict())
    for epoch in range(plan["epochs"]):
        layers.train()
        for rows in bank.draws(clean=clean, pairs=pairs, seed=seed + epoch, steps=steps):
            batch = bank.batch(rows, clean, pairs, features[rows])
            guess = score(batch.inputs)
            losses = score_losses(guess, batch) | {"opinion": F.mse_loss(guess[:clean], batch.opinion[:clean]) / 400}
            loss = torch.stack(list(losses.values())).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        history.append(srcc())
        if history[-1] >= max(history):
            best = copy.deepcopy(layers.state_dict())
    layers.load_state_dict(best)
    layers.eval()
    return history
