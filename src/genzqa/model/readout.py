"""From what the cross-attention layers show to one number: the published mean, or a small learned readout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from genzqa.model.cross_attention import Block
    from genzqa.model.genziqa import Trace


def published_block_quality(block_scores: Tensor, bias: Tensor | None) -> Tensor:
    """q_p: mean over timesteps of a_p(t) + b(t) (paper Section 3.1).

    Args:
        block_scores: ``(B, T, P)``.
        bias: ``(B, T)``, or None for the variant without it.

    Returns:
        ``(B, P)``; their mean over P is the score.
    """
    return block_scores.mean(1) if bias is None else (block_scores + bias[..., None]).mean(1)


class LearnedReadout(nn.Module):
    """A two-layer network on the captured quantities; a variant for bases too small for the published mean.

    Of every layer p it reads, per timestep, the log-sum-exp of each prompt and token (mean over heads, shifted for
    resolution) and the mean query of both prompts, each normalised; beside them the bias. The score is the mean over
    timesteps, in 0..100.

    Args:
        blocks: The base's cross-attention layers.
        width: Hidden units.
    """

    def __init__(self, blocks: Sequence[Block], width: int, tokens: int = 77) -> None:
        super().__init__()
        self.lse_norms = nn.ModuleList(nn.LayerNorm(2 * tokens) for _ in blocks)
        self.query_norms = nn.ModuleList(nn.LayerNorm(2 * block.width) for block in blocks)
        features = len(blocks) + 1 + sum(2 * tokens + 2 * block.width for block in blocks)
        self.hidden = nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Dropout(0.2))
        self.score = nn.Linear(width, 1)

    def features(self, trace: Trace, shift: Tensor) -> Tensor:
        """``(B, T, features)``."""
        parts = [trace.bias[..., None] / 10]
        for index, (lse, query) in enumerate(zip(trace.lse, trace.queries, strict=True)):
            levels = (lse - shift[index]).mean(3)  # (B, T, 2, 77)
            parts.append(levels.mean((2, 3))[..., None] / 10)
            parts.append(self.lse_norms[index](levels.flatten(2)))
            parts.append(self.query_norms[index](query.flatten(2)))
        return torch.cat(parts, 2)

    def forward(self, trace: Trace, shift: Tensor) -> Tensor:
        """Score ``(B,)`` in 0..100; ``shift`` is the correction for resolution ``(P,)``."""
        logit: Tensor = self.score(self.hidden(self.features(trace, shift))).squeeze(2)
        return 100 * logit.sigmoid().mean(1)
