"""From pixels to readings in one pass of tensors: what the fast engines run, and what is exported."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from genzqa.engine.unet import UNetPass
from genzqa.model.colour import soften_chroma
from genzqa.model.diffusion import diffuse, fixed_noise, noise_from_prediction, scoring_timesteps
from genzqa.model.feature_encoder import latent_mode
from genzqa.model.genziqa import Trace

if TYPE_CHECKING:
    from genzqa.model.genziqa import GenzIQA


class ScoringPass(nn.Module):
    """Scores square images of one size at fixed timesteps, all timesteps and both prompts in one UNet call.

    It shares the model's layers and gives its scores (`GenzIQA.forward`; tested), and saves what does not change them; see
    `genzqa.engine.unet`.

    Args:
        model: With its LoRA merged (`load_scorer` with ``trainable=False`` does that).
        timesteps: S, by default the model's own.
        queries: Over which timesteps the queries for a video are taken; as `VideoConfig.tqm_queries`.

    Raises:
        ConfigError: If the UNet is not of Stable Diffusion's topology.
    """

    def __init__(self, model: GenzIQA, timesteps: int | None = None, queries: Literal["mean", "last"] = "mean") -> None:
        super().__init__()
        self.model, self.last_queries = model, queries == "last"
        self.encodes: int | None = None
        self.predicts = model.config.use_bias or model.readout is not None
        steps = torch.tensor(scoring_timesteps(timesteps or model.config.timesteps), device=model.alphas_cumprod.device)
        side = model.config.preprocessing.size // model.latent_factor
        with torch.no_grad():
            self.unet = UNetPass(model.unet, model.prompts(), model.config.lse_temperature, predicts=self.predicts)
            times = time_embeddings(model.unet, steps)
        self.register_buffer("times", times, persistent=False)
        self.register_buffer("alpha_bar", model.alphas_cumprod[steps].view(-1, 1, 1, 1), persistent=False)
        noise = fixed_noise(len(steps), (model.unet.config.in_channels, side, side), model.config.seed)
        self.register_buffer("noise", noise.to(steps.device), persistent=False)

    times: Tensor
    alpha_bar: Tensor
    noise: Tensor

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """``(B, 3, size, size)`` in [-1, 1] -> raw ``(B,)``, quality per block ``(B, P)``, queries: P of ``(B, 2, C)``."""
        parts = torch.split(pixels, self.encodes) if self.encodes else [pixels]
        return self.read(torch.cat([self.encode(part) for part in parts]))

    def read(self, latents: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The rest of `forward`, from latents ``(B, 4, h, w)`` on."""
        steps = len(self.noise)
        noisy = diffuse(latents[:, None], self.noise, self.alpha_bar)  # (B, T, 4, h, w)
        reading = self.unet(noisy.flatten(0, 1), self.times.expand(latents.shape[0], -1, -1).flatten(0, 1))
        lse = [one.unflatten(0, (-1, steps)) for one in reading.lse]
        queries = [one.unflatten(0, (-1, steps)) for one in reading.queries]
        bias = torch.zeros_like(noisy[:, :, 0, 0, 0])
        if reading.prediction is not None:
            bias = self.bias(reading.prediction.unflatten(0, (-1, steps)), noisy)
        scores = torch.stack([one.mean((2, 3, 4)) for one in lse], 2)
        trace = Trace(
            scores, bias, lse, queries, bias, self.times, reading.positions
        )  # eps and embeddings are not read
        scored = self.model.score_trace(trace, latents.shape[2:])
        quality = scored.block_quality if self.model.readout is None else scored.raw[:, None].expand(-1, len(lse))
        return scored.raw, quality, [one[:, -1] if self.last_queries else one.mean(1) for one in queries]

    def encode(self, pixels: Tensor) -> Tensor:
        """As `GenzIQA.encode`, in the encoder's precision, back in single precision."""
        softened = soften_chroma(pixels.float(), self.model.config.preprocessing.chroma_blur)
        vae = self.model.vae
        return latent_mode(vae, softened.to(vae.dtype, memory_format=torch.channels_last)).float()

    def bias(self, prediction: Tensor, noisy: Tensor) -> Tensor:
        """b(t) ``(B, T)`` from predictions ``(B, T, 2, 4, h, w)``.

        The norms nearly cancel, so their difference is taken as (|a|^2 - |b|^2) / (|a| + |b|) with the numerator as the
        product of a - b and a + b, which loses no digits.
        """
        eps = noise_from_prediction(prediction, noisy[:, :, None], self.alpha_bar[:, None], self.model.prediction_type)
        off = (self.noise[None, :, None] - eps).flatten(3)  # (B, T, 2, values)
        good, bad = off[:, :, 0], off[:, :, 1]
        distance: Tensor = ((good - bad) * (good + bad)).sum(2) / (good.norm(dim=2) + bad.norm(dim=2)).clamp(min=1e-12)
        return distance


def time_embeddings(unet: Any, timesteps: Tensor) -> Tensor:
    """``(T, width)`` in the UNet's precision, computed in single precision."""
    embedding = copy.deepcopy(unet.time_embedding).float()
    sinusoid = unet.time_proj(timesteps).float()
    times: Tensor = embedding(sinusoid)
    return times.to(next(unet.parameters()).dtype)
