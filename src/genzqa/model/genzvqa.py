"""GenzVQA: the quality of a video from a few of its frames and its motion (paper Section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from genzqa.model.diffusion import fixed_noise, scoring_timesteps
from genzqa.model.modulator import TemporalQualityModulator

if TYPE_CHECKING:
    from genzqa.model.config import VideoConfig
    from genzqa.model.genziqa import GenzIQA, ImageScore, Trace

FRAMES_AT_ONCE = 4  # of a video in one UNet call; bounds memory, never changes a score


@dataclass(frozen=True)
class FrameReadings:
    """What a video's score needs of F frames; small, so that frames themselves need not be kept.

    Attributes:
        raw: Quality of each frame as an image, ``(F,)``, MOS units.
        block_scores: q_p of each frame, ``(F, P)``. With a learned readout, which has no quality of its own for a layer,
            every layer carries the frame's quality.
        queries: P tensors ``(F, 2, C)``.
    """

    raw: Tensor
    block_scores: Tensor
    queries: list[Tensor]

    @staticmethod
    def joined(parts: Sequence[FrameReadings]) -> FrameReadings:
        """The readings of consecutive groups of frames as one."""
        queries = [torch.cat(layer) for layer in zip(*(part.queries for part in parts), strict=True)]
        return FrameReadings(
            torch.cat([part.raw for part in parts]), torch.cat([part.block_scores for part in parts]), queries
        )

    def split(self, counts: Sequence[int]) -> list[FrameReadings]:
        """The readings of several videos' frames, one video after another, taken apart; ``counts`` are their frames."""
        sizes = list(counts)
        layers = list(zip(*(torch.split(query, sizes) for query in self.queries), strict=True)) or [()] * len(sizes)
        columns = zip(torch.split(self.raw, sizes), torch.split(self.block_scores, sizes), layers, strict=True)
        return [FrameReadings(raw, blocks, list(queries)) for raw, blocks, queries in columns]


@dataclass(frozen=True)
class VideoTrace:
    """What the method computes for one video of F frames over P cross-attention layers.

    Attributes:
        frame_block_scores: q_p(u_i), ``(F, P)``.
        block_scores: q_p(v), their mean over the frames, ``(P,)``.
        sim_slow, sim_fast: Mean agreement of the queries with the slow and fast motion features, ``(P,)``.
        gamma: Weight of each layer, ``(P,)``, at least 0.
        score: q(v), a scalar, MOS units.
        frames: The frames' own readings.
    """

    frame_block_scores: Tensor
    block_scores: Tensor
    sim_slow: Tensor
    sim_fast: Tensor
    gamma: Tensor
    score: Tensor
    frames: FrameReadings


class GenzVQA(nn.Module):
    """Video quality: GenzIQA on every frame with one shared noise per timestep, modulated by the motion.

    Args:
        image: The image model, shared with image scoring.
        config: Frames, timesteps and the modulator's form.
        slow_features, fast_features: Width of the motion vectors; 2048 and 256 for SlowFast-R50.
    """

    def __init__(
        self, image: GenzIQA, config: VideoConfig, *, slow_features: int = 2048, fast_features: int = 256
    ) -> None:
        super().__init__()
        self.image, self.config = image, config
        self.modulator = TemporalQualityModulator(image.blocks, slow_features, fast_features, form=config.tqm,
                                                  scale=config.tqm_scale)  # fmt: skip

    @classmethod
    def from_pretrained(cls, name: str, *, offline: bool = False) -> GenzVQA:
        """Load an adapter folder (``local-dir:ADAPTER``) that has a temporal quality modulator, with its base.

        Raises:
            NotTrainedError: If the adapter was trained for images alone.
            ModelError, ConfigError: See `genzqa.errors`.
        """
        from genzqa.errors import NotTrainedError
        from genzqa.model.adapter import load_scorer

        loaded = load_scorer(name, offline=offline)
        if loaded.video is None:
            raise NotTrainedError("this adapter has no temporal quality modulator", subject=name,
                                  hint="train it on videos, or score the frames as images")  # fmt: skip
        return loaded.video

    def read_frames(self, pixels: Tensor) -> FrameReadings:
        """Read frames ``(F, 3, H, W)`` in [-1, 1]."""
        parts = []
        for frames in torch.split(pixels, FRAMES_AT_ONCE):
            latents = self.image.encode(frames)
            timesteps = scoring_timesteps(self.config.timesteps)
            shape = (latents.shape[1], latents.shape[2], latents.shape[3])
            noise = fixed_noise(len(timesteps), shape, self.image.config.seed).to(latents)
            parts.append(self._read(latents, noise, timesteps))
        return FrameReadings.joined(parts)

    def _read(self, latents: Tensor, noise: Tensor, timesteps: Sequence[int] | Tensor) -> FrameReadings:
        return self.readings(self.image.trace(latents, noise, timesteps), latents.shape[2:])

    def readings(self, trace: Trace, latent_size: Sequence[int]) -> FrameReadings:
        """What a video's score needs of what the image model computed for frames with latents of this size."""
        scored = self.image.score_trace(trace, latent_size)
        return readings(self.image, scored, last_queries=self.config.tqm_queries == "last")

    def modulate(self, frames: FrameReadings, slow: Tensor, fast: Tensor) -> VideoTrace:
        """The score of a video from its frames' readings and motion vectors ``(clips, 2048)``, ``(clips, 256)``; without any
        clip, gamma is 1."""
        return modulate(self.modulator, frames, slow, fast)

    def trace(
        self, frame_latents: Tensor, slow: Tensor, fast: Tensor, noise: Tensor, timesteps: Sequence[int] | Tensor
    ) -> VideoTrace:
        """Everything the method computes for one video.

        Args:
            frame_latents: ``(F, 4, h, w)``, already scaled.
            slow: ``(clips, 2048)``; fast: ``(clips, 256)``.
            noise: ``(T, 4, h, w)``, the same for every frame.
            timesteps: T integers in 0..999.
        """
        parts = [self._read(latents, noise, timesteps) for latents in torch.split(frame_latents, FRAMES_AT_ONCE)]
        return self.modulate(FrameReadings.joined(parts), slow, fast)


def readings(image: GenzIQA, scored: ImageScore, *, last_queries: bool) -> FrameReadings:
    """What a video's score needs of scored frames; queries of the last timestep alone, or the mean over all."""
    trace = scored.trace
    blocks = scored.block_quality if image.readout is None else scored.raw[:, None].expand(-1, len(trace.queries))
    queries = [query[:, -1] if last_queries else query.mean(1) for query in trace.queries]
    return FrameReadings(scored.raw, blocks, queries)


def modulate(modulator: TemporalQualityModulator, frames: FrameReadings, slow: Tensor, fast: Tensor) -> VideoTrace:
    """See `GenzVQA.modulate`."""
    found = modulator(frames.queries, slow, fast) if len(slow) else modulator.neutral(frames.raw)
    block_scores = frames.block_scores.mean(0)
    score = (found.gamma * block_scores).mean()
    return VideoTrace(frames.block_scores, block_scores, found.sim_slow, found.sim_fast, found.gamma, score, frames)
