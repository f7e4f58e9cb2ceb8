"""The temporal quality modulator: how much each cross-attention layer's quality counts, given the motion (paper Section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from genzqa.model.cross_attention import Block

HEAD_WIDTH = 64
BOTTLENECK = 64
Form = Literal["published", "ordered"]


@dataclass(frozen=True)
class Modulation:
    """What the modulator found for one video; every tensor ``(P,)``."""

    sim_slow: Tensor
    sim_fast: Tensor
    gamma: Tensor


class TemporalQualityModulator(nn.Module):
    """gamma per layer from the agreement of its queries with the clip's motion features.

    The published form sees the mean agreement with each pathway alone, so neither the order of the clips nor how they
    differ. The ``ordered`` form, ours, sees beside the two means how the agreement varies over the clips: its standard
    deviation and its mean change from one clip to the next.

    Args:
        blocks: The base's cross-attention layers.
        slow_features, fast_features: Width of the motion vectors.
        form: ``published`` or ``ordered``.
        scale: Of the dot products; ``1/sqrt(64)``, or 8 as in the research script.
    """

    def __init__(self, blocks: Sequence[Block], slow_features: int, fast_features: int, *, form: Form = "published",
                 scale: float = HEAD_WIDTH**-0.5) -> None:  # fmt: skip
        super().__init__()
        self.form, self.scale, self.names = form, scale, [block.name for block in blocks]
        self.feature_sizes = slow_features, fast_features
        self.heads = [max(1, block.width // HEAD_WIDTH) for block in blocks]
        self.slow = nn.ModuleDict({block.name: _Keys(slow_features, block.width) for block in blocks})
        self.fast = nn.ModuleDict({block.name: _Keys(fast_features, block.width) for block in blocks})
        seen = 2 if form == "published" else 6
        self.linear = nn.ModuleDict({block.name: nn.Linear(seen, 1) for block in blocks})
        for layer in self.linear.values():  # gamma starts at 1; the default would leave half the layers dead
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)
            nn.init.ones_(layer.bias)

    def forward(self, queries: Sequence[Tensor], slow: Tensor, fast: Tensor) -> Modulation:
        """Modulate one video.

        Args:
            queries: Per layer ``(frames, 2, C)``: mean query of every frame and prompt.
            slow: ``(clips, 2048)``; fast: ``(clips, 256)``, in the order of the clips.
        """
        sims: list[list[Tensor]] = [[], []]
        gammas = []
        for name, heads, query in zip(self.names, self.heads, queries, strict=True):
            # the mean over frames, prompts and heads of products that are linear in the query is that of its mean
            mean_query = query.mean((0, 1)) * (self.scale / heads)
            agreement = [self.slow[name](slow) @ mean_query, self.fast[name](fast) @ mean_query]
            seen = [one.mean() for one in agreement]
            for kept, value in zip(sims, seen, strict=True):
                kept.append(value)
            if self.form == "ordered":
                seen += [one.std(unbiased=False) for one in agreement]
                seen += [one.diff().abs().mean() if len(one) > 1 else one.new_zeros(()) for one in agreement]
            gammas.append(F.relu(self.linear[name](torch.stack(seen))).squeeze(0))
        return Modulation(torch.stack(sims[0]), torch.stack(sims[1]), torch.stack(gammas))

    def neutral(self, like: Tensor) -> Modulation:
        """What leaves a video's score to its frames: gamma 1."""
        nothing = like.new_zeros(len(self.names))
        return Modulation(nothing, nothing, torch.ones_like(nothing))


class _Keys(nn.Module):
    """Motion vectors ``(clips, features)`` -> keys ``(clips, C)`` through a bottleneck."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.k_down, self.k_up = nn.Linear(features, BOTTLENECK), nn.Linear(BOTTLENECK, width)

    def forward(self, motion: Tensor) -> Tensor:
        keys: Tensor = self.k_up(self.k_down(self.norm(motion)))
        return keys
