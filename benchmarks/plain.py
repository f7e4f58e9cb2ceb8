"""The published procedure (arXiv 2406.04654, Section 3.1), written down plainly: what this package's speed is held against.

Naive on purpose, where the package is not: one photo at a time in fp32; the text encoder runs for every photo; one UNet call per
timestep, for the two prompts; LoRA stays beside the weights, as peft puts it there; every attention layer, self-attention
too, forms its whole map, and all maps of a UNet call are kept until its scores are taken; the log-sum-exp is taken in
self-attention layers too, where nobody reads it. The latent is the distribution's mode, so that scores can be compared.

The models are diffusers' and transformers' own. From the package come only the written form of an adapter, the noise (which
is what a score agrees on), and, for bases as small as `mini`, the two things that are no part of the published procedure:
`chroma_blur` and the learned readout.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from peft import LoraConfig
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from genzqa.model.base import ENCODERS, locate_base
from genzqa.model.colour import soften_chroma
from genzqa.model.config import ScorerConfig, read_config
from genzqa.model.cross_attention import find_blocks
from genzqa.model.diffusion import fixed_noise
from genzqa.model.feature_encoder import FACTOR
from genzqa.model.readout import LearnedReadout

TIMESTEPS = {1: (50,), 2: (40, 80), 4: (9, 34, 59, 84), 8: (9, 21, 33, 45, 57, 69, 81, 93)}
REFERENCE = 512  # pixels along a side, which the correction for resolution refers to
LORA_PARTS = {"down": "lora_A", "up": "lora_B"}


@dataclass
class Seen:
    """What the attention layers of one UNet call leave behind, in the order they run in.

    ``maps`` are those of all layers; ``lse`` ``(2, heads, 77)``, ``queries`` ``(2, C)`` and ``positions`` of the
    cross-attention layers.
    """

    maps: list[Tensor] = field(default_factory=list)
    lse: list[Tensor] = field(default_factory=list)
    queries: list[Tensor] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)


class PlainAttention:
    """softmax(Q K^T) V in so many words, with the log-sum-exp over positions of Q K^T on the way."""

    def __init__(self, seen: Seen, temperature: float) -> None:
        self.seen, self.temperature = seen, temperature

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
                 attention_mask: Tensor | None = None, temb: Tensor | None = None, **_: Any) -> Tensor:  # fmt: skip
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        projected = (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        query, key, value = (part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in projected)
        similarity = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        lse = (self.temperature * similarity).exp().sum(2).log() / self.temperature
        if encoder_hidden_states is not None:
            self.seen.lse.append(lse)
            self.seen.queries.append(projected[0].mean(1))
            self.seen.positions.append(query.shape[2])
        attention = similarity.softmax(-1)
        self.seen.maps.append(attention)
        attended = (attention @ value).transpose(1, 2).flatten(2)
        out: Tensor = attn.to_out[1](attn.to_out[0](attended))
        return out


class Plain:
    """A scorer of one photo at a time.

    Args:
        base: A base in diffusers layout.
        config: As in the adapter's ``config.json``.
        weights: The adapter's tensors.
        device: ``cpu`` or ``cuda``.

    Raises:
        ValueError: The base does not predict noise.
    """

    def __init__(self, base: Path, config: ScorerConfig, weights: dict[str, Tensor], device: str = "cpu") -> None:
        self.config, self.device = config, device
        kind = json.loads((base / "vae" / "config.json").read_text())["_class_name"]
        self.vae = ENCODERS[kind].from_pretrained(base / "vae", torch_dtype=torch.float32)
        self.unet = UNet2DConditionModel.from_pretrained(base / "unet", torch_dtype=torch.float32)
        self.text_encoder = CLIPTextModel.from_pretrained(
            str(base / "text_encoder"), dtype=torch.float32, attn_implementation="eager"
        )
        self.tokenizer = CLIPTokenizer.from_pretrained(str(base / "tokenizer"))
        scheduler = json.loads((base / "scheduler" / "scheduler_config.json").read_text())
        if scheduler.get("prediction_type", "epsilon") != "epsilon":
            raise ValueError(f"{base}: only bases that predict noise")
        self.alphas_cumprod = DDPMScheduler(
            beta_start=scheduler["beta_start"], beta_end=scheduler["beta_end"], beta_schedule=scheduler["beta_schedule"]
        ).alphas_cumprod.to(device)
        self.context = weights["context"].float().to(device)
        self.readout = self._learned_readout(weights) if config.readout == "learned" else None
        self._add_lora(weights)
        if isinstance(self.vae, AutoencoderKL):
            self.vae.set_attn_processor(AttnProcessor())
        self.seen = Seen()
        self.unet.set_attn_processor(PlainAttention(self.seen, config.lse_temperature))
        for model in (self.vae, self.unet, self.text_encoder):
            model.eval().requires_grad_(False).to(device)

    @classmethod
    def from_adapter(cls, folder: Path, device: str = "cpu") -> Plain:
        """From an adapter folder whose base is named absolutely."""
        config = read_config(folder / "config.json")
        return cls(locate_base(config.base), config, load_file(folder / "adapter.safetensors"), device)

    @torch.inference_mode()
    def score(self, pixels: Tensor) -> float:
        """The raw score of one photo ``(3, H, W)`` in [-1, 1]; sides are multiples of 64."""
        latent = self.encode(pixels)
        prompts = self.prompts()
        timesteps = TIMESTEPS[self.config.timesteps]
        noise = fixed_noise(len(timesteps), tuple(latent.shape[1:]), self.config.seed).to(self.device)
        steps = [self.step(latent, prompts, noise[i : i + 1], timestep) for i, timestep in enumerate(timesteps)]
        shift = self._shift(steps[0].positions, latent.shape[2] * latent.shape[3])
        if self.readout is not None:
            return self._read(steps, shift)
        quality = [
            lse.mean() - shift[p] + (step.bias if self.config.use_bias else 0)
            for step in steps
            for p, lse in enumerate(step.lse)
        ]
        return float(torch.stack(quality).mean())

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """z0, ``(1, 4, H/8, W/8)`` of a VAE."""
        photo = soften_chroma(pixels[None].to(self.device), self.config.preprocessing.chroma_blur)
        latent: Tensor = (
            self.vae.encode(photo).latent_dist.mode() if isinstance(self.vae, AutoencoderKL) else self.vae(photo)
        )
        return latent * float(self.vae.config.scaling_factor)

    @torch.inference_mode()
    def prompts(self) -> Tensor:
        """Embeddings ``(2, 77, width)`` of "[v1]..[v16] Good Photo." and "[v1]..[v16] Bad Photo."."""
        length = len(self.context)
        places = "X " * length
        tokens = self.tokenizer([f"{places}Good Photo.", f"{places}Bad Photo."], padding="max_length", max_length=77,
                                return_tensors="pt").to(self.device)  # fmt: skip

        def put_context(_: Any, __: Any, embedded: Tensor) -> Tensor:
            return torch.cat([embedded[:, :1], self.context.expand(2, -1, -1), embedded[:, 1 + length :]], 1)

        hook = self.text_encoder.get_input_embeddings().register_forward_hook(put_context)
        mask = tokens.attention_mask if self.config.prompt_padding_mask else None
        encoded: Tensor = self.text_encoder(input_ids=tokens.input_ids, attention_mask=mask).last_hidden_state
        hook.remove()
        return encoded

    @torch.inference_mode()
    def step(self, latent: Tensor, prompts: Tensor, noise: Tensor, timestep: int) -> SimpleNamespace:
        """One timestep: what its UNet call left behind in the cross-attention layers, and b(t)."""
        kept = self.alphas_cumprod[timestep]
        noisy = kept.sqrt() * latent + (1 - kept).sqrt() * noise
        predicted = self.unet(noisy.expand(2, -1, -1, -1), timestep, encoder_hidden_states=prompts).sample
        # in double precision: two large norms that nearly cancel
        distance = (noise - predicted).flatten(1).double().norm(dim=1)
        step = SimpleNamespace(bias=(distance[0] - distance[1]).float(), lse=list(self.seen.lse),
                               queries=list(self.seen.queries), positions=list(self.seen.positions))  # fmt: skip
        for left in (self.seen.maps, self.seen.lse, self.seen.queries, self.seen.positions):
            left.clear()
        return step

    def _shift(self, positions: list[int], latent_positions: int) -> Tensor:
        """(log N_p - log N_p(512)) / lambda of every cross-attention layer."""
        if not self.config.resolution_invariant:
            return torch.zeros(len(positions), device=self.device)
        levels = [round(math.log(latent_positions / count, 4)) for count in positions]
        halved = len(self.vae.config.block_out_channels) - 1
        side = REFERENCE // (2**halved if isinstance(self.vae, AutoencoderKL) else FACTOR)
        references = [(side // 2**level) ** 2 for level in levels]
        shifts = [
            math.log(n / n_512) / self.config.lse_temperature for n, n_512 in zip(positions, references, strict=True)
        ]
        return torch.tensor(shifts, device=self.device)

    def _read(self, steps: list[SimpleNamespace], shift: Tensor) -> float:
        """The learned readout, which wants a photo and a timestep axis."""
        trace: Any = SimpleNamespace(
            bias=torch.stack([step.bias for step in steps])[None],
            lse=[torch.stack(parts)[None] for parts in zip(*(step.lse for step in steps), strict=True)],
            queries=[torch.stack(parts)[None] for parts in zip(*(step.queries for step in steps), strict=True)],
        )
        assert self.readout is not None
        return float(self.readout(trace, shift))

    def _learned_readout(self, weights: dict[str, Tensor]) -> LearnedReadout:
        readout = LearnedReadout(find_blocks(self.unet), self.config.readout_width)
        readout.load_state_dict({
            name.removeprefix("readout."): value for name, value in weights.items() if name.startswith("readout.")
        })  # fmt: skip
        return readout.eval().to(self.device)

    def _add_lora(self, weights: dict[str, Tensor]) -> None:
        lora = {name.removeprefix("lora."): value for name, value in weights.items() if name.startswith("lora.")}
        if not lora:
            return
        rank = self.config.lora_rank
        targets = sorted({name.rpartition(".")[0] for name in lora})
        self.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), "plain")
        for name, value in lora.items():
            layer, _, part = name.rpartition(".")
            holder: Any = getattr(self.unet.get_submodule(layer), LORA_PARTS[part])
            holder["plain"].weight.data.copy_(value)
