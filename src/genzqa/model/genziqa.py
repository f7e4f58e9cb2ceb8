"""GenzIQA: the quality of an image from the cross-attention of a latent diffusion model (paper Figure 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genzqa.model import cross_attention
from genzqa.model.colour import soften_chroma
from genzqa.model.diffusion import diffuse, fixed_noise, noise_from_prediction, scoring_timesteps
from genzqa.model.feature_encoder import FACTOR, FeatureEncoder, latent_mode
from genzqa.model.prompts import QualityPrompts, StoredPrompts
from genzqa.model.readout import LearnedReadout, published_block_quality

if TYPE_CHECKING:
    from genzqa.model.base import Base
    from genzqa.model.config import ScorerConfig

REFERENCE_SIDE = 512  # pixels; the resolution the published log-sum-exp is tied to


@dataclass
class Trace:
    """What the method computes for B images at T timesteps over P cross-attention layers, in METHOD's block order.

    Attributes:
        block_scores: a_p(t), ``(B, T, P)``, without bias and without any shift for resolution.
        bias: b(t), ``(B, T)``.
        lse: P tensors ``(B, T, 2, heads, 77)``; prompt 0 is good, 1 is bad.
        queries: P tensors ``(B, T, 2, C)``, mean over latent positions of the ``to_q`` output, LoRA included.
        eps: predicted noise ``(B, T, 2, 4, h, w)``.
        prompt_embeds: ``(2, 77, width)``.
        positions: N_p, number of latent positions of each layer.
        logits: with ``keep_logits`` P tensors ``(B, T, 2, heads, N_p, 77)``, else empty.
        position_queries: with ``keep_logits`` P tensors ``(B, T, 2, N_p, C)``, else empty.
    """

    block_scores: Tensor
    bias: Tensor
    lse: list[Tensor]
    queries: list[Tensor]
    eps: Tensor
    prompt_embeds: Tensor
    positions: list[int] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    position_queries: list[Tensor] = field(default_factory=list)


@dataclass
class ImageScore:
    """Raw score ``(B,)`` in MOS units, quality per block ``(B, P)``, and the trace they come from."""

    raw: Tensor
    block_quality: Tensor
    trace: Trace


class GenzIQA(nn.Module):
    """Image quality from a base with Stable Diffusion's topology, two learned prompts and LoRA.

    Args:
        base: VAE, UNet, text encoder, tokenizer and noise schedule.
        config: Everything a score depends on besides weights.
        prompts: The prompts as stored, for a base without text encoder; by default they are computed, and trainable.
    """

    def __init__(self, base: Base, config: ScorerConfig, prompts: StoredPrompts | None = None) -> None:
        super().__init__()
        self.config, self.prediction_type = config, base.prediction_type
        self.vae, self.unet = base.vae, base.unet
        self.prompts = prompts or QualityPrompts(base.text_encoder, base.tokenizer, length=config.context_length,
                                                 padding_mask=config.prompt_padding_mask)  # fmt: skip
        self.register_buffer("alphas_cumprod", base.alphas_cumprod.float(), persistent=False)
        self.blocks = cross_attention.find_blocks(self.unet)
        self._processors = cross_attention.install(self.unet)
        self.recomputes = False
        self.readout = LearnedReadout(self.blocks, config.readout_width) if config.readout == "learned" else None

    alphas_cumprod: Tensor

    @classmethod
    def from_pretrained(cls, name: str, *, offline: bool = False) -> GenzIQA:
        """Load an adapter folder (``local-dir:ADAPTER``) or a registered scorer (``mini``) with its base.

        Raises:
            ModelError, ConfigError: See `genzqa.errors`.
        """
        from genzqa.model.adapter import load_scorer

        return load_scorer(name, offline=offline).model

    def recompute_activations(self) -> None:
        """Keep no activations of the UNet's blocks for the backward pass, but compute them again: less memory, same result."""
        self.recomputes = True
        self.unet.enable_gradient_checkpointing()

    @property
    def latent_factor(self) -> int:
        """Pixels per latent position along a side; 8 in Stable Diffusion, 32 with a `FeatureEncoder`."""
        if isinstance(self.vae, FeatureEncoder):
            return FACTOR
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def forward(self, pixels: Tensor, *, timesteps: int | None = None, keep_logits: bool = False) -> ImageScore:
        """Score images ``(B, 3, H, W)`` in [-1, 1]; H, W multiples of the latent factor. S may be another than the model's own."""
        latents = self.encode(pixels)
        steps = scoring_timesteps(timesteps or self.config.timesteps)
        shape = (latents.shape[1], latents.shape[2], latents.shape[3])
        noise = fixed_noise(len(steps), shape, self.config.seed).to(latents)
        trace = self.trace(latents, noise, steps, keep_logits=keep_logits)
        return self.score_trace(trace, shape[1:])

    def encode(self, pixels: Tensor) -> Tensor:
        """z0: the mode of the VAE's distribution, scaled; ``(B, 4, H/8, W/8)``. Another encoder gives its own latent."""
        pixels = soften_chroma(pixels, self.config.preprocessing.chroma_blur)
        return latent_mode(self.vae, pixels.to(self.vae.dtype)).to(pixels.dtype)

    def trace(
        self, latents: Tensor, noise: Tensor, timesteps: Sequence[int] | Tensor, *, keep_logits: bool = False
    ) -> Trace:
        """Run every timestep with both prompts and keep what the method reads.

        Args:
            latents: ``(B, 4, h, w)``, already scaled; any h, w the base can take.
            noise: ``(T, 4, h, w)``, one tensor per timestep index.
            timesteps: T integers in 0..999.
            keep_logits: Also keep logits and queries of every position (for the quality map).
        """
        prompt_embeds = self.prompts()
        steps = [self.step(latents, noise[i], int(t), prompt_embeds, keep_logits) for i, t in enumerate(timesteps)]
        return join_steps(steps, prompt_embeds)

    def step(self, latents: Tensor, noise: Tensor, timestep: int | Tensor, prompt_embeds: Tensor,
             keep_logits: bool = False) -> Trace:  # fmt: skip
        """One timestep for B images; a `Trace` without its T axis.

        ``timestep`` and ``noise`` may be shared (a number; ``(4, h, w)``) or, as in training, differ per image
        (``(B,)``; ``(B, 4, h, w)``).
        """
        count = len(latents)
        alpha_bar = self.alphas_cumprod[timestep].view(-1, 1, 1, 1)
        noisy = diffuse(latents, noise, alpha_bar)
        rows = noisy.to(self.unet.dtype).repeat_interleave(
            2, 0
        )  # row 2i is image i with the good prompt, 2i + 1 with the bad one
        context = prompt_embeds.to(rows.dtype).repeat(count, 1, 1)
        times = torch.as_tensor(timestep, device=rows.device).expand(count).repeat_interleave(2)
        with cross_attention.recording(self._processors, self.config.lse_temperature, keep_logits=keep_logits,
                                       recomputed=self.recomputes and torch.is_grad_enabled()) as seen:  # fmt: skip
            prediction = self.unet(rows, times, encoder_hidden_states=context, return_dict=False)[0]
        by_prompt = _pairs(prediction.float())
        eps = noise_from_prediction(by_prompt, noisy[:, None], alpha_bar[:, None], self.prediction_type)
        # two large norms that nearly cancel: double precision keeps the last digits of their difference
        error = (noise - eps.transpose(0, 1)).flatten(2)
        distance = (
            (error.cpu() if error.device.type == "mps" else error).double().norm(dim=2)
        )  # (2, B); MPS has no such numbers
        lse = [_pairs(part) for part in seen.lse]
        return Trace(
            block_scores=torch.stack([part.mean((1, 2, 3)) for part in lse], 1),
            bias=(distance[0] - distance[1]).float().to(eps.device),
            lse=lse,
            queries=[_pairs(part) for part in seen.queries],
            eps=eps,
            prompt_embeds=prompt_embeds,
            positions=seen.positions,
            logits=[_pairs(part) for part in seen.logits],
            position_queries=[_pairs(part) for part in seen.position_queries],
        )

    def score_trace(self, trace: Trace, latent_size: tuple[int, int] | Sequence[int]) -> ImageScore:
        """The readout: published (mean over layers and timesteps) or learned, see `genzqa.model.readout`."""
        shift = self.resolution_shift(trace.positions, latent_size)
        quality = published_block_quality(trace.block_scores - shift, trace.bias if self.config.use_bias else None)
        raw = quality.mean(1) if self.readout is None else self.readout(trace, shift)
        return ImageScore(raw, quality, trace)

    def resolution_shift(self, positions: Sequence[int], latent_size: Sequence[int]) -> Tensor:
        """``(log N_p - log N_p(512)) / lambda``, ``(P,)``; exactly 0 at 512x512 or with ``resolution_invariant`` off."""
        device = self.alphas_cumprod.device
        if not self.config.resolution_invariant:
            return torch.zeros(len(positions), device=device)
        height, width = latent_size
        reference = REFERENCE_SIDE // self.latent_factor
        shifts = []
        for count in positions:
            there = math.ceil(reference / 2 ** level_of(count, height, width)) ** 2
            shifts.append((math.log(count) - math.log(there)) / self.config.lse_temperature)
        return torch.tensor(shifts, device=device)


def level_of(positions: int, height: int, width: int) -> int:
    """How often an ``height`` x ``width`` latent was halved, odd sides rounded up, for a layer with so many positions."""
    level = 0
    while math.ceil(height / 2**level) * math.ceil(width / 2**level) > positions:
        level += 1
    return level


def _pairs(rows: Tensor) -> Tensor:
    """``(2B, ...)`` with good and bad prompt in turn -> ``(B, 2, ...)``."""
    return rows.view(-1, 2, *rows.shape[1:])


def join_steps(steps: Sequence[Trace], prompt_embeds: Tensor) -> Trace:
    """Join the traces of T timesteps along a new axis 1."""
    joined: dict[str, Any] = {"prompt_embeds": prompt_embeds, "positions": steps[0].positions}
    for name in (f.name for f in fields(Trace) if f.name not in joined):
        values = [getattr(step, name) for step in steps]
        if isinstance(values[0], list):
            joined[name] = [torch.stack(parts, 1) for parts in zip(*values, strict=True)]
        else:
            joined[name] = torch.stack(values, 1)
    return Trace(**joined)
