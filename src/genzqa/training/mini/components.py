"""The embedded model's base at its small size: the classes of Stable Diffusion, fewer and narrower layers.

Channels, levels and head counts are the only things that differ; everything downstream reads them from the configs.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from genzqa.model.registry import embedded_folder

TEXT_WIDTH = 64


def embedded_tokenizer() -> Path:
    """The folder of CLIP's byte-pair vocabulary (OpenAI, MIT licence), as the embedded model carries it."""
    embedded = embedded_folder("mini")
    assert embedded is not None
    return embedded / "base" / "tokenizer"


def build_vae() -> AutoencoderKL:
    """512x512 pixels to 64x64x4 latents in 0.16 M encoder parameters; narrow at full size, where the time goes."""
    vae = AutoencoderKL(
        block_out_channels=(8, 16, 32, 48),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=1,  # more groups would normalise away each filter's energy, which is what quality is read from
        latent_channels=4,
        sample_size=512,
        mid_block_add_attention=False,
    )
    _start_from_known_filters(vae.encoder.conv_in)
    return vae


def _start_from_known_filters(conv: torch.nn.Conv2d) -> None:
    """Luma, two opponent colours, Laplacian and gradients: what no-reference quality measures have always started from."""
    luma, blue, red = (
        torch.tensor([0.299, 0.587, 0.114]),
        torch.tensor([-0.17, -0.33, 0.5]),
        torch.tensor([0.5, -0.42, -0.08]),
    )
    point = torch.zeros(3, 3)
    point[1, 1] = 1
    laplace = torch.tensor([[-1.0, -2, -1], [-2, 12, -2], [-1, -2, -1]]) / 8
    across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4
    corner = torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]]) / 4
    filters = [(luma, point), (blue, point), (red, point), (luma, laplace), (luma, across), (luma, across.T), (luma, corner),
               (red, laplace)]  # fmt: skip
    with torch.no_grad():
        for row, (colour, shape) in enumerate(filters):
            conv.weight[row] = colour[:, None, None] * shape
        conv.bias.zero_()


def build_unet() -> UNet2DConditionModel:
    """The denoiser, with ten cross-attention layers."""
    down, up = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
    return UNet2DConditionModel(
        sample_size=64,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64, 96, 128),
        down_block_types=("DownBlock2D", down, down, down),
        up_block_types=(up, up, up, "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=2,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=(1, 2, 3, 4),  # number of heads per level (the library's historical name)
        use_linear_projection=True,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """CLIP's, of two layers and width `TEXT_WIDTH`."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH, projection_dim=TEXT_WIDTH,
            num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=77, hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
