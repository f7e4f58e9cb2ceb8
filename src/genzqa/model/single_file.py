"""One-file checkpoints in the layout of the original Latent Diffusion code (Stable Diffusion 1.x and 2.x).

diffusers converts the weights; such a file has no configuration, so those of Stable Diffusion 1.5 and 2.1-base come
with this package and the checkpoint's text width chooses. What the weights cannot tell is what the UNet predicts: a
v-prediction checkpoint (2.1 at 768 pixels) must be converted to a folder, whose scheduler configuration says so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from genzqa.errors import ModelCorruptError
from genzqa.model.base import LOADING_ERRORS, Base, assemble, first_line, loading
from genzqa.model.folder import base_sha256, check_configs, combined_sha256, config_files, file_digests, read_config
from genzqa.model.registry import lookup

CONFIGS = Path(__file__).with_name("configs")

_UNET_IN = "model.diffusion_model.input_blocks.0.0.weight"
_TEXT_TO_UNET = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_VAE_IN = "first_stage_model.encoder.conv_in.weight"
_CLIP = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"  # Stable Diffusion 1.x
_OPEN_CLIP = "cond_stage_model.model.token_embedding.weight"  # Stable Diffusion 2.x
_HINT = "give a full Stable Diffusion 1.x or 2.x checkpoint, or the model's folder as local-dir:FOLDER"


def load_single_file(path: Path, configs: Path | None = None, *, dtype: torch.dtype = torch.float32) -> Base:
    """Load a one-file checkpoint.

    Args:
        path: A ``.safetensors`` file; it is memory-mapped.
        configs: A base folder of which only the configurations and the tokenizer are read; by default those in the
            package that fit the checkpoint's text width.
        dtype: Of all weights.

    Raises:
        ModelCorruptError: Unreadable, a part missing, another family, or weights that do not fit the configuration.
    """
    text_width = _check_header(path)
    digest = base_sha256(path)
    if configs is None:
        known = {768: "sd15", 1024: "sd21"}
        if text_width not in known:
            reason = f"text width {text_width} is neither Stable Diffusion 1.x (768) nor 2.x (1024)"
            raise ModelCorruptError(reason, subject=str(path), hint=_HINT)
        configs = CONFIGS / known[text_width]
    else:
        check_configs(configs)
        digest = combined_sha256({"checkpoint": digest, **file_digests(configs, config_files(configs))})
    scheduler = read_config(configs, "scheduler/scheduler_config.json")
    with loading(str(path)):
        checkpoint = load_file(path)
        unet = _convert(UNet2DConditionModel.from_single_file, "unet", checkpoint, configs, dtype)
        vae = _convert(AutoencoderKL.from_single_file, "vae", checkpoint, configs, dtype)
        convert_text = partial(create_diffusers_clip_model_from_ldm, CLIPTextModel)
        text = _convert(convert_text, "text_encoder", checkpoint, configs, dtype)
        return assemble(vae, unet, text, _tokenizer(configs), scheduler, f"file:{path}", digest, None)


def _convert(
    convert: Callable[..., Any], part: str, checkpoint: dict[str, torch.Tensor], configs: Path, dtype: torch.dtype
) -> Any:
    """One component by diffusers' own conversion. Raises `ModelCorruptError` when the file does not fill all of it."""
    incomplete = ModelCorruptError(f"weights of the {part} are missing", hint=_HINT)
    try:
        model = convert(checkpoint, config=str(configs), subfolder=part, local_files_only=True, torch_dtype=dtype)
    except LOADING_ERRORS as error:
        if "meta tensor" in str(error):  # what the file did not fill has no storage, and cannot be placed
            raise incomplete from error
        raise ModelCorruptError(f"the {part} cannot be loaded: {first_line(error)}", hint=_HINT) from error
    if any(weight.is_meta for weight in model.state_dict().values()):
        raise incomplete
    return model


def _check_header(path: Path) -> int:
    """Look at names and shapes only; returns the width of the prompt embeddings."""
    try:
        with safe_open(path, framework="pt") as checkpoint:
            names = set(checkpoint.keys())
            shapes = {key: checkpoint.get_slice(key).get_shape() for key in (_UNET_IN, _TEXT_TO_UNET) if key in names}
    except LOADING_ERRORS as error:
        raise ModelCorruptError(f"not a readable safetensors file: {error}", subject=str(path)) from error
    reason = ""
    if any(name.startswith("conditioner.embedders.") for name in names):
        reason = "this is a Stable Diffusion XL checkpoint"
    elif _UNET_IN not in names or _TEXT_TO_UNET not in names:
        reason = "no Stable Diffusion UNet in the original layout"
    elif shapes[_UNET_IN][1] != 4:
        reason = f"the UNet reads {shapes[_UNET_IN][1]} channels (inpainting, depth or editing), not 4"
    elif _VAE_IN not in names:
        reason = "the VAE is missing (first_stage_model)"
    elif _CLIP not in names and _OPEN_CLIP not in names:
        reason = "the text encoder is missing (cond_stage_model)"
    if reason:
        raise ModelCorruptError(reason, subject=str(path), hint=_HINT)
    return int(shapes[_TEXT_TO_UNET][1])


def _tokenizer(configs: Path) -> CLIPTokenizer:
    """CLIP's vocabulary is the embedded model's; 1.x pads with end-of-text, 2.x with ``!`` (id 0) as OpenCLIP does."""
    own = configs / "tokenizer"
    if own.is_dir():
        return CLIPTokenizer.from_pretrained(str(own), local_files_only=True)
    padding = "<|endoftext|>" if configs.name == "sd15" else "!"
    shared = lookup("mini").folder / "base" / "tokenizer"
    return CLIPTokenizer.from_pretrained(str(shared), local_files_only=True, pad_token=padding)
