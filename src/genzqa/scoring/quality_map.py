"""The quality map: where the photo gains or loses its score, in score points (formula in docs/method.md).

The score q is a function of two kinds of pooled quantities of every cross-attention layer: LSE[c, h, l], pooled over
positions from the logits S[c, h, n, l], and, in the learned readout, the mean query phi[c] of the queries phi[c, n].
Their first-order shares per position are

    m_p(n) = sum_{c,h,l} dq/dLSE * N_p * w[n] * (S[n] - sum_m w[m] S[m])  +  sum_c dq/dphi . (phi[n] - mean_m phi[m])

with w[n] = softmax_n(lambda S[n]), the exact derivative of the log-sum-exp. Every layer's map averages to zero over
the positions, so the map q + sum_p upsample(m_p) has the photo's own score as its mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from genzqa.engine.engine import FEW
from genzqa.engine.torch_engine import memory_errors, single_precision_kept
from genzqa.errors import ModelError
from genzqa.model.genziqa import level_of

if TYPE_CHECKING:
    from genzqa.model.genziqa import GenzIQA


def quality_maps(model: GenzIQA, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Raw scores ``(B,)`` and their maps ``(B, h, w)`` on the latent grid, in raw score points.

    A map needs the logits of every layer and timestep, so only a few photos are drawn together; where memory runs out, fewer.

    Args:
        model: A trained scorer.
        pixels: ``(B, 3, H, W)`` in [-1, 1].

    Raises:
        ModelError: If there is too little memory for a single one.
    """
    parts: list[tuple[Tensor, Tensor]] = []
    done, together = 0, FEW
    while done < len(pixels):
        few = pixels[done : done + together]
        try:
            with memory_errors(), single_precision_kept():
                parts.append(_maps(model, few))
        except MemoryError:
            if together == 1:
                raise ModelError(
                    "there is too little memory to draw the map of one photo", hint="score without maps"
                ) from None
            together //= 2
            continue
        done += len(few)
    raws, maps = zip(*parts, strict=True)
    return torch.cat(raws), torch.cat(maps)


def _maps(model: GenzIQA, pixels: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        scored = model(pixels.to(model.alphas_cumprod.device), keep_logits=True)
    trace = scored.trace
    height, width = trace.eps.shape[-2:]
    with torch.enable_grad():
        trace.lse = [lse.detach().requires_grad_(True) for lse in trace.lse]
        trace.queries = [query.detach().requires_grad_(True) for query in trace.queries]
        trace.block_scores = torch.stack([lse.mean((2, 3, 4)) for lse in trace.lse], 2)
        raw = model.score_trace(trace, (height, width)).raw
        count = len(trace.lse)
        gradients = torch.autograd.grad(raw.sum(), [*trace.lse, *trace.queries], allow_unused=True)
    total = torch.zeros(len(pixels), height, width, device=raw.device)
    for index in range(count):
        share = _layer_map(trace.logits[index], gradients[index], model.config.lse_temperature)
        slope = gradients[count + index]
        if slope is not None:
            queries = trace.position_queries[index]
            share = share + ((queries - queries.mean(3, keepdim=True)) * slope.unsqueeze(3)).sum((1, 2, 4))
        grid = _grid(trace.positions[index], height, width)
        total += F.interpolate(share.view(-1, 1, *grid).float(), (height, width), mode="bilinear")[:, 0]
    total -= total.mean((1, 2), keepdim=True)  # interpolation moves the mean by a trace
    raw = raw.detach().cpu()
    return raw, raw[:, None, None] + total.cpu()


def _layer_map(logits: Tensor, slope: Tensor | None, temperature: float) -> Tensor:
    """First-order share of every position ``(B, N)`` from logits ``(B, T, 2, heads, N, 77)``."""
    if slope is None:
        return logits.new_zeros(len(logits), logits.shape[4])
    weight = (logits * temperature).softmax(4)
    centred = logits - (weight * logits).sum(4, keepdim=True)
    share: Tensor = (slope.unsqueeze(4) * weight * centred).sum((1, 2, 3, 5)) * logits.shape[4]
    return share


def _grid(positions: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a layer with so many positions on an ``height`` x ``width`` latent."""
    step = 2 ** level_of(positions, height, width)
    return -(-height // step), -(-width // step)
