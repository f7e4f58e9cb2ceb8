"""The readout's two layers, once the network under them is trained: what they read is computed once, and they learn from it for
many epochs. The epoch with the best rank correlation on the photos set aside is kept, the starting point included."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from genzqa.model.diffusion import fixed_noise, scoring_timesteps
from genzqa.model.genziqa import GenzIQA
from genzqa.model.readout import LearnedReadout
from genzqa.training.mini.fitting import Progress, learning_rate
from genzqa.training.mini.latents import Latents
from genzqa.training.mini.losses import score_losses
from genzqa.training.mini.photos import Batch
from genzqa.training.mini.plan import ReadoutPart

AT_ONCE = 20  # photos in one call
LEAST = 0.02  # deviation; what varies less is noise
SPREAD = 0.25  # deviation of what the readout's first layer sees; two thousand numbers of 1 would move its units too far at a step


def readout_of(model: GenzIQA) -> LearnedReadout:
    """The learned readout, which a model of this recipe always has."""
    assert model.readout is not None
    return model.readout


@torch.no_grad()
def captured(model: GenzIQA, parts: Iterator[Tensor]) -> Tensor:
    """What the readout reads, ``(N, T, F)``, of latents ``(n, C, h, w)`` as scoring sees them."""
    device, found = model.alphas_cumprod.device, []
    steps = scoring_timesteps(model.config.timesteps)
    for latents in parts:
        shape = (latents.shape[1], latents.shape[2], latents.shape[3])
        trace = model.trace(latents.to(device), fixed_noise(len(steps), shape, model.config.seed).to(device), steps)
        found.append(readout_of(model).features(trace, model.resolution_shift(trace.positions, shape[1:])).cpu())
    return torch.cat(found)


@torch.no_grad()
def standardise(readout: LearnedReadout, features: Tensor, *, keep: bool) -> tuple[Tensor, Tensor]:
    """Set the gains and offsets of the readout's norms so that every number they give varies alike from photo to photo.

    What cross-attention says of one photo differs little from what it says of the next; a layer on the plain norms has to learn
    these differences against constants many times as large.

    Args:
        readout: Changed in place.
        features: What it reads of some hundred photos, ``(N, T, F)``.
        keep: Change its first layer too, so that it gives the same scores as before.

    Returns:
        What is taken from every feature, and by what the rest is divided, ``(F,)`` each.
    """
    mean, deviation = features.mean((0, 1)), features.std((0, 1)).clamp_min(LEAST) / SPREAD
    shift, scale = torch.zeros_like(mean), torch.ones_like(deviation)
    first = readout.hidden[0]
    assert isinstance(first, nn.Linear)
    at = 1  # after the bias; of every layer a mean, the levels, the queries
    for pair in zip(readout.lse_norms, readout.query_norms, strict=True):
        at += 1
        for norm in pair:
            assert isinstance(norm, nn.LayerNorm)
            span = slice(at, at + norm.normalized_shape[0])
            norm.weight.div_(deviation[span])
            norm.bias.sub_(mean[span]).div_(deviation[span])
            if keep:
                first.bias.add_(first.weight[:, span] @ mean[span])
                first.weight[:, span].mul_(deviation[span])
            shift[span], scale[span] = mean[span], deviation[span]
            at = span.stop
    return shift, scale


def fit_readout(model: GenzIQA, latents: Latents, unseen: npt.NDArray[np.float16], mos: npt.NDArray[np.float32],
                part: ReadoutPart, seed: int, progress: Progress) -> list[float]:  # fmt: skip
    """Train the readout's two layers in place.

    Returns:
        Rank correlation with the MOS of the unseen photos, before and after every epoch.
    """
    rows = np.array_split(np.arange(len(latents)), -(-len(latents) // AT_ONCE))
    features = captured(model, (latents.rows(one) for one in rows))
    parts = np.array_split(unseen, -(-len(unseen) // AT_ONCE))
    looked_at = captured(model, (torch.from_numpy(one).float() for one in parts))
    torch.manual_seed(seed)
    readout = readout_of(model).cpu()
    photos_alone = features[torch.from_numpy(np.flatnonzero((latents.kind == 0).numpy()))]
    shift, scale = standardise(readout, photos_alone, keep=True)
    features, looked_at = (features - shift) / scale, (looked_at - shift) / scale
    layers = nn.ModuleList([readout.hidden, readout.score]).requires_grad_(True)
    optimizer = torch.optim.AdamW(layers.parameters(), lr=part.rate, weight_decay=part.weight_decay)
    photos = len(latents) - 2 * latents.groups
    steps = part.epochs * -(-photos // part.clean)

    def score(read: Tensor) -> Tensor:
        return 100 * readout.score(readout.hidden(read)).squeeze(2).sigmoid().mean(1)

    def srcc() -> float:
        layers.eval()
        with torch.no_grad():
            return round(float(spearmanr(score(looked_at).numpy(), mos.tolist()).statistic), 4)

    history, best = [srcc()], copy.deepcopy(layers.state_dict())
    for step, drawn in enumerate(latents.draws(clean=part.clean, pairs=part.pairs, steps=steps, seed=seed), 1):
        layers.train()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step - 1, steps, part.rate)
        target = latents.mos[drawn] * latents.share[drawn]
        batch = Batch(features[drawn], target, latents.kind[drawn], latents.strength[drawn], part.clean, part.pairs)
        loss = torch.stack(list(score_losses(score(batch.inputs), batch, part.order).values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % (steps // part.epochs) == 0:
            history.append(srcc())
            progress(step, steps, {"validation_srcc": history[-1]})
            if history[-1] >= max(history):
                best = copy.deepcopy(layers.state_dict())
    layers.load_state_dict(best)
    layers.eval()
    return history
