"""GenzIQA itself on the frozen latents: denoiser, quality prompts and readout, trained on MOS.

The two prompts are made to mean what they say: the good prompt is asked to denoise good photos, the bad prompt bad
ones, each in proportion to the photo's MOS; that is what gives the bias b(t) its sign.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from torch import nn
from transformers import CLIPTokenizer

from genzqa.model.base import Base
from genzqa.model.config import ScorerConfig
from genzqa.model.diffusion import fixed_noise, scoring_timesteps
from genzqa.model.feature_encoder import FACTOR, FeatureEncoder
from genzqa.model.genziqa import GenzIQA, join_steps
from genzqa.model.readout import LearnedReadout
from genzqa.training.mini.components import TEXT_WIDTH, build_text_encoder, build_unet
from genzqa.training.mini.losses import degradation_losses, score_losses
from genzqa.training.mini.photos import KINDS, Batch

SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "prediction_type": "epsilon", "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}  # fmt: skip


def build_scorer(tokenizer: CLIPTokenizer, encoder: FeatureEncoder, config: ScorerConfig) -> GenzIQA:
    """GenzIQA on the small base, its denoiser, text encoder, prompts and readout not yet trained."""
    unet = build_unet(encoder.config.latent_channels, config.preprocessing.size // FACTOR)
    text_encoder = build_text_encoder(tokenizer)
    scheduler = DDIMScheduler(**SCHEDULE)
    base = Base(vae=encoder, unet=unet, text_encoder=text_encoder, tokenizer=tokenizer,
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
        self.frozen: list[nn.Module] = []  # what an ablation leaves as it is

    @property
    def readout(self) -> LearnedReadout:
        """The learned readout, which this stage always has."""
        assert self.model.readout is not None
        return self.model.readout

    def trained(self) -> list[nn.Parameter]:
        """The parameters to train: never the token table, nor the encoder."""
        self.requires_grad_(True)
        self.model.vae.requires_grad_(False)
        self.model.prompts.text_encoder.get_input_embeddings().requires_grad_(False)
        for part in self.frozen:
            part.requires_grad_(False)
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def losses(self, batch: Batch, as_scored: float = 0.0, order: float = 1.0) -> dict[str, torch.Tensor]:
        """The terms to sum, for a batch of latents; ``order`` as in `score_losses`.

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
            **degradation_losses(self.kind(hidden), self.strength(hidden), batch),
            "denoise": 0.2 * (good * error[:, 0] + (1 - good) * error[:, 1]).mean(),
        }


def save_base(model: GenzIQA, tokenizer_folder: Path, out: Path, dtype: torch.dtype) -> None:
    """The base in diffusers layout, half precision on disk."""
    # a fresh one: an encoder that was read from a folder would name it in its configuration, and so in the base's digest
    encoder = FeatureEncoder(**{name: value for name, value in model.vae.config.items() if not name.startswith("_")})
    encoder.load_state_dict(model.vae.state_dict())
    encoder.to(dtype).save_pretrained(out / "vae")
    model.unet.to(dtype).save_pretrained(out / "unet")
    model.prompts.text_encoder.to(dtype).save_pretrained(out / "text_encoder")
    shutil.copytree(tokenizer_folder, out / "tokenizer", dirs_exist_ok=True)
    DDIMScheduler(**SCHEDULE).save_pretrained(out / "scheduler")
    index = {"_class_name": "StableDiffusionPipeline", "vae": ["genzqa.model.feature_encoder", "FeatureEncoder"],
             "unet": ["diffusers", "UNet2DConditionModel"], "text_encoder": ["transformers", "CLIPTextModel"],
             "tokenizer": ["transformers", "CLIPTokenizer"], "scheduler": ["diffusers", "DDIMScheduler"]}  # fmt: skip
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
