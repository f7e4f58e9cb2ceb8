"""A base as large as Stable Diffusion 2.1, with random weights, and an adapter on it: for measuring speed and memory.

    python benchmarks/full_size.py FOLDER                      # 5.2 GB; --precision bf16 for half of it

UNet 866 M, VAE 84 M and text encoder 340 M parameters, in diffusers layout, with the libraries' own initialisation from a
fixed seed, so that activations stay finite in every precision. Scores made with it mean nothing.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzqa.model.registry import embedded_folder

SEED = 21
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
CONTEXT, RANK = 16, 4  # vectors; of the LoRA
# The published configuration of stable-diffusion-2-1-base; what it leaves out is the classes' default.
_DOWN, _UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
UNET: dict[str, Any] = {
    "sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024, "use_linear_projection": True, "down_block_types": (_DOWN, _DOWN, _DOWN, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", _UP, _UP, _UP),
}  # fmt: skip
VAE: dict[str, Any] = {
    "sample_size": 768, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "scaling_factor": 0.18215,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "vocab_size": 49408, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
    "projection_dim": 512, "hidden_act": "gelu", "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 0,
}  # fmt: skip
SCHEDULE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def build(folder: Path, precision: str = "fp32") -> Path:
    """Write ``folder/base`` and ``folder/adapter`` unless they are there; the adapter folder, which is written last.

    Args:
        folder: Of this precision alone.
        precision: Of the weights as stored.

    Raises:
        OSError: It cannot be written.
    """
    base, adapter = folder.resolve() / "base", folder.resolve() / "adapter"
    if not (adapter / "config.json").exists():
        shutil.rmtree(base, ignore_errors=True)  # of a run that was stopped half-way
        _write_base(base, PRECISIONS[precision])
        _write_adapter(base, adapter)
    return adapter


def _write_base(base: Path, dtype: torch.dtype) -> None:
    """One part after another, so that no more than one is in memory."""
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    parts: dict[str, Callable[[], Any]] = {
        "unet": lambda: UNet2DConditionModel(**UNET),
        "vae": lambda: AutoencoderKL(**VAE),
        "text_encoder": lambda: CLIPTextModel(CLIPTextConfig(**TEXT)),
    }
    mini = embedded_folder("mini")
    assert mini is not None
    shutil.copytree(mini / "base" / "tokenizer", base / "tokenizer")  # CLIP's own vocabulary
    PNDMScheduler(**SCHEDULE, skip_prk_steps=True, steps_offset=1).save_pretrained(base / "scheduler")
    (base / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}\n')
    device = "cuda" if torch.cuda.is_available() else "cpu"  # many times faster, and other weights from the same seed
    with torch.random.fork_rng(), torch.device(device):
        for number, (name, make) in enumerate(parts.items()):
            torch.manual_seed(SEED + number)
            torch.nn.Module.to(make(), dtype).save_pretrained(base / name)  # diffusers' own `to` warns about nothing


def _write_adapter(base: Path, adapter: Path) -> None:
    """LoRA of all cross-attention layers, context, and the prompts' embeddings, as training writes them."""
    from genzqa.model.adapter import PROMPTS, save_adapter
    from genzqa.model.base import base_sha256
    from genzqa.model.config import Calibration, ScorerConfig

    drawn = torch.Generator().manual_seed(SEED)
    context = 0.02 * torch.randn(CONTEXT, TEXT["hidden_size"], generator=drawn)
    weights = {"context": context, PROMPTS: _prompt_embeds(base, context), **_lora(drawn)}
    calibration = Calibration(
        raw_knots=[0, 100], score_knots=[0, 100], interval_knots=[0, 100], interval_low=[-10, -10], interval_high=[10, 10],
        reference_quantiles=[0, 25, 50, 75, 100], source="made up for benchmarks",
    )  # fmt: skip
    config = ScorerConfig(
        name="full-size", base=f"local-dir:{base}", base_sha256=base_sha256(base), timesteps=2, lora_rank=RANK,
        calibration=calibration, training_data=["none; random weights"],
    )  # fmt: skip
    save_adapter(adapter, weights, config)


def _prompt_embeds(base: Path, context: Tensor) -> Tensor:
    from transformers import CLIPTextModel, CLIPTokenizer

    from genzqa.model.prompts import QualityPrompts

    encoder = CLIPTextModel.from_pretrained(str(base / "text_encoder"), dtype=torch.float32).eval()
    prompts = QualityPrompts(encoder, CLIPTokenizer.from_pretrained(str(base / "tokenizer")), length=len(context))
    with torch.inference_mode():
        prompts.context.copy_(context)
        return prompts().clone()


def _lora(drawn: torch.Generator) -> dict[str, Tensor]:
    """Random, and small beside the weights it is added to; the shapes come from a UNet that holds none."""
    from diffusers import UNet2DConditionModel

    from genzqa.model.cross_attention import find_blocks
    from genzqa.model.lora import cross_attention_targets

    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNET)
    weights = {}
    for name in cross_attention_targets(block.path for block in find_blocks(unet)):
        layer: Any = unet.get_submodule(name)
        weights[f"lora.{name}.down"] = torch.randn(RANK, layer.in_features, generator=drawn) / layer.in_features**0.5
        weights[f"lora.{name}.up"] = (
            0.1 * torch.randn(layer.out_features, RANK, generator=drawn) / layer.out_features**0.5
        )
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    options = parser.parse_args()
    print(build(options.folder, options.precision))


if __name__ == "__main__":
    main()
