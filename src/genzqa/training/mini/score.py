"""Stage 2: GenzIQA itself on the latent of stage 1: denoiser, quality prompts and readout, trained on MOS and the
teacher's opinions.

The two prompts are made to mean what they say: the good prompt is asked to denoise good photos, the bad prompt bad
ones, each in proportion to the photo's MOS; that is what gives the bias b(t) its sign.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTokenizer

from genzqa.model.base import Base
from genzqa.model.colour import soften_chroma
from genzqa.model.config import ScorerConfig
from genzqa.model.diffusion import fixed_noise, scoring_timesteps
from genzqa.model.genziqa import GenzIQA, join_steps
from genzqa.model.readout import LearnedReadout
from genzqa.training.mini.components import TEXT_WIDTH, build_text_encoder, build_unet, build_vae
from genzqa.training.mini.latent import degradation_losses, imitation_losses, score_losses
from genzqa.training.mini.photos import KINDS, Batch
from genzqa.training.mini.teacher import HIDDEN

SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "prediction_type": "epsilon", "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}  # fmt: skip


def build_scorer(tokenizer: CLIPTokenizer, stage1: dict[str, torch.Tensor], config: ScorerConfig) -> GenzIQA:
    """GenzIQA on the small base; with stage 1's VAE, and its latent scale in the VAE's config."""
    vae, unet, text_encoder = build_vae(), build_unet(), build_text_encoder(tokenizer)
    vae.load_state_dict({k.removeprefix("vae."): v for k, v in stage1.items() if k.startswith("vae.")})
    vae.register_to_config(scaling_factor=float(stage1["latent_moments.var"].item() ** -0.5))
    scheduler = DDIMScheduler(**SCHEDULE)
    base = Base(vae=vae, unet=unet, text_encoder=text_encoder, tokenizer=tokenizer,
                alphas_cumprod=scheduler.alphas_cumprod, name="mini", sha256="", prediction_type="epsilon", folder=None)  # fmt: skip
    model = GenzIQA(base, config)
    with torch.no_grad():  # only the words of the prompts are ever looked up; the rest of the table stays empty
        table = text_encoder.get_input_embeddings().weight
        used = torch.unique(model.prompts.input_ids)
        kept = torch.randn(len(used), TEXT_WIDTH) * 0.3
        table.zero_()
        table[used] = kept
        model.prompts.context.normal_(std=0.3)
    return model


class ScoreStage(nn.Module):
    """The scorer on frozen latents, with auxiliary heads on its readout's hidden layer; only the scorer stays."""

    def __init__(self, model: GenzIQA) -> None:
        super().__init__()
        self.model = model
        width = self.readout.score.in_features
        self.kind, self.strength = nn.Linear(width, 1 + len(KINDS)), nn.Linear(width, 1)
        self.imitate = nn.Linear(width, HIDDEN)
        self.frozen: list[nn.Module] = []  # what an ablation leaves as it is

    @property
    def readout(self) -> LearnedReadout:
        """The learned readout, which this stage always has."""
        assert self.model.readout is not None
        return self.model.readout

    def trained(self) -> list[nn.Parameter]:
        """The parameters to train: never the token table, nor the VAE, which is stage 1's."""
        self.requires_grad_(True)
        self.model.vae.requires_grad_(False)
        self.model.prompts.text_encoder.get_input_embeddings().requires_grad_(False)
        for part in self.frozen:
            part.requires_grad_(False)
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def losses(self, batch: Batch, as_scored: float = 0.0, order: float = 1.0) -> dict[str, torch.Tensor]:
        """The terms to sum, for a batch whose inputs are latents ``(N, 4, h, w)``; ``order`` as in `score_losses`.

        A share ``as_scored`` of the rows sees the timestep and the noise of scoring, the others random ones.
        """
        model, latents, count = self.model, batch.inputs, len(batch.inputs)
        noise, times = torch.randn_like(latents), torch.randint(0, 100, (count,), device=latents.device)
        scored = torch.rand(count, device=latents.device) < as_scored
        if scored.any():
            noise[scored] = fixed_noise(1, (*latents.shape[1:],), model.config.seed).to(latents)
            times[scored] = scoring_timesteps(1)[0]
        # copies share their photo's noise and timestep, so that nothing but the degradation tells them apart
        photo = torch.arange(batch.pairs).repeat_interleave(2)
        noise[batch.clean :], times[batch.clean :] = noise[photo], times[photo]
        embeds = model.prompts()
        trace = join_steps([model.step(latents, noise, times, embeds)], embeds)
        hidden = self.readout.hidden(
            self.readout.features(trace, model.resolution_shift(trace.positions, latents.shape[2:]))
        )[:, 0]
        score = 100 * self.readout.score(hidden).squeeze(1).sigmoid()
        good = (batch.target / 100).clamp(0.02, 0.98)
        error = ((trace.eps[:, 0] - noise[:, None]) ** 2).mean((2, 3, 4))  # (B, 2)
        return {
            **score_losses(score, batch, order),
            **imitation_losses(score, self.imitate(hidden), batch),
            **degradation_losses(self.kind(hidden), self.strength(hidden), batch),
            "denoise": 0.2 * (good * error[:, 0] + (1 - good) * error[:, 1]).mean(),
        }


class WholeStage(nn.Module):
    """Stage 4: everything at once, from pixels to score; the VAE still has to reconstruct a part of every batch."""

    def __init__(self, stage: ScoreStage) -> None:
        super().__init__()
        self.stage = stage

    @property
    def hidden(self) -> nn.Sequential:
        """The readout's first layer."""
        return self.stage.readout.hidden

    @property
    def read(self) -> int:
        """How many numbers that layer reads."""
        first = self.hidden[0]
        assert isinstance(first, nn.Linear)
        return first.in_features

    def to_keep(self) -> dict[str, torch.Tensor]:
        """The state of `ScoreStage`, which every stage writes."""
        return self.stage.state_dict()

    def raw(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scores ``(N,)`` of pixels."""
        return self.stage.model(pixels).raw

    def trained(self) -> list[nn.Parameter]:
        """All but the token table."""
        self.stage.trained()
        self.stage.model.vae.requires_grad_(True)
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def losses(self, batch: Batch, as_scored: float, order: float, reconstruct: int) -> dict[str, torch.Tensor]:
        """The terms to sum, for a batch of pixels."""
        vae, preprocessing = self.stage.model.vae, self.stage.model.config.preprocessing
        batch = replace(batch, inputs=soften_chroma(batch.inputs, preprocessing.chroma_blur))
        mean, logvar = vae.quant_conv(vae.encoder(batch.inputs)).chunk(2, 1)
        latents = replace(batch, inputs=mean * vae.config.scaling_factor)
        rebuilt = vae.decoder(vae.post_quant_conv(mean[:reconstruct]))
        logvar = logvar.clamp(-10, 5)
        return {
            **self.stage.losses(latents, as_scored, order),
            "reconstruction": 0.3 * F.l1_loss(rebuilt, batch.inputs[:reconstruct]),
            "kl": 1e-3 * 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean(),
        }


def save_base(model: GenzIQA, tokenizer_folder: Path, out: Path, dtype: torch.dtype) -> None:
    """The base in diffusers layout, half precision on disk."""
    model.vae.to(dtype).save_pretrained(out / "vae")
    model.unet.to(dtype).save_pretrained(out / "unet")
    model.prompts.text_encoder.to(dtype).save_pretrained(out / "text_encoder")
    shutil.copytree(tokenizer_folder, out / "tokenizer", dirs_exist_ok=True)
    DDIMScheduler(**SCHEDULE).save_pretrained(out / "scheduler")
    index = {"_class_name": "StableDiffusionPipeline", "vae": ["diffusers", "AutoencoderKL"],
             "unet": ["diffusers", "UNet2DConditionModel"], "text_encoder": ["transformers", "CLIPTextModel"],
             "tokenizer": ["transformers", "CLIPTokenizer"], "scheduler": ["diffusers", "DDIMScheduler"]}  # fmt: skip
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
