"""Stage 3: the readout on whole photos, as scoring sees them.

Stages 1 and 2 learn from small views, which carry the photo's MOS only roughly. Here the network stays as it is; its
captured quantities are computed once for whole photos and for degraded copies of some, and the readout's two layers
are trained on them. The epoch with the best validation SRCC is kept, the starting point included.
"""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from torch import nn

from degradations import DEGRADATIONS, graded_target
from genzqa.media.preprocess import resize_square, to_network
from genzqa.model.genziqa import GenzIQA
from latent import score_losses
from photos import DRAW_SHARE, KINDS, Batch, Photos

BATCH = 8


@dataclass
class Captured:
    """Readout features ``(N, T, F)`` and targets ``(N,)``; rows come as photo, or as photo, mild copy, strong copy."""

    features: torch.Tensor
    target: torch.Tensor


def captured(model: GenzIQA, photos: Photos, indices: npt.NDArray[np.int64], copies: bool, seed: int) -> Captured:
    """Score whole photos, each with two degraded copies if ``copies``, and keep what the readout reads."""
    rows, targets = [], []
    for pixels, target in _ahead(photos, indices, copies, seed, model.config.preprocessing.size):
        with torch.no_grad():
            trace = model(pixels).trace
            shift = model.resolution_shift(trace.positions, trace.eps.shape[-2:])
            rows.append(_readout(model).features(trace, shift))
        targets.append(target)
    return Captured(torch.cat(rows), torch.cat(targets))


def _readout(model: GenzIQA) -> Any:
    assert model.readout is not None
    return model.readout


def _ahead(
    photos: Photos, indices: npt.NDArray[np.int64], copies: bool, seed: int, size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of pixels and targets, made by a thread while the network runs."""
    ready: queue.Queue[tuple[torch.Tensor, torch.Tensor] | None] = queue.Queue(maxsize=4)

    def produce() -> None:
        rng = np.random.default_rng(seed)
        pixels: list[torch.Tensor] = []
        targets: list[float] = []
        for index in indices:
            photo, mos = photos.pixels[index], float(photos.mos[index])
            shown, wanted = [photo], [mos]
            if copies:
                kind = KINDS[int(rng.choice(len(KINDS), p=DRAW_SHARE))]
                mild = float(rng.uniform(0, 0.8))
                for strength in (mild, float(rng.uniform(mild + 0.1, 1.0))):
                    shown.append(DEGRADATIONS[kind](np.ascontiguousarray(photo), strength, rng))
                    wanted.append(graded_target(mos, kind, strength))
            pixels += [to_network(resize_square(one, size)) for one in shown]
            targets += wanted
            if len(pixels) >= BATCH:
                ready.put((torch.stack(pixels), torch.tensor(targets)))
                pixels, targets = [], []
        if pixels:
            ready.put((torch.stack(pixels), torch.tensor(targets)))
        ready.put(None)

    threading.Thread(target=produce, daemon=True).start()
    while (batch := ready.get()) is not None:
        yield batch


def fit_readout(model: GenzIQA, plain: Captured, laddered: Captured, validation: Captured, config: dict[str, Any],
                seed: int) -> list[float]:  # fmt: skip
    """Train the readout's two layers in place; returns validation SRCC before and after every epoch."""
    torch.manual_seed(seed)
    readout = _readout(model)
    layers = nn.ModuleList([readout.hidden, readout.score]).requires_grad_(True)
    optimizer = torch.optim.AdamW(layers.parameters(), lr=config["rate"], weight_decay=config["weight_decay"])
    groups = len(laddered.target) // 3

    def score(features: torch.Tensor) -> torch.Tensor:
        return 100 * readout.score(readout.hidden(features)).squeeze(2).sigmoid().mean(1)

    def srcc() -> float:
        layers.eval()
        with torch.no_grad():
            return round(float(spearmanr(score(validation.features).numpy(), validation.target.numpy()).statistic), 4)

    history = [srcc()]
    best = copy.deepcopy(layers.state_dict())
    pairs = config["pairs"]
    for _ in range(config["epochs"]):
        layers.train()
        for chosen in torch.randperm(len(plain.target)).split(config["clean"] - pairs):
            ladders = 3 * torch.randint(0, groups, (pairs,))
            copies = (ladders[:, None] + torch.tensor([1, 2])).flatten()
            features = torch.cat([laddered.features[ladders], plain.features[chosen], laddered.features[copies]])
            target = torch.cat([laddered.target[ladders], plain.target[chosen], laddered.target[copies]])
            none = torch.zeros(len(target))
            batch = Batch(none, target, none.long(), none, pairs + len(chosen), pairs)
            loss = torch.stack(list(score_losses(score(features), batch).values())).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        history.append(srcc())
        if history[-1] >= max(history):
            best = copy.deepcopy(layers.state_dict())
    layers.load_state_dict(best)
    layers.eval()
    return history
