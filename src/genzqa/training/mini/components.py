"""The embedded model's base at its small size: the classes of Stable Diffusion, fewer and narrower layers.

Channels, levels and head counts are the only things that differ; everything downstream reads them from the configs.
"""

from __future__ import annotations

from pathlib import Path

from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from genzqa.model.registry import embedded_folder

TEXT_WIDTH = 64


def embedded_tokenizer() -> Path:
    """The folder of CLIP's byte-pair vocabulary (OpenAI, MIT licence), as the embedded model carries it."""
    embedded = embedded_folder("mini")
    assert embedded is not None
    return embedded / "base" / "tokenizer"


def build_unet(channels: int, side: int) -> UNet2DConditionModel:
    """The denoiser on latents ``(channels, side, side)``, with seven cross-attention layers at its side, a half and a quarter."""
    down, up = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(64, 96, 128),
        down_block_types=(down, down, "DownBlock2D"),
        up_block_types=("UpBlock2D", up, up),
        layers_per_block=1,
        norm_num_groups=2,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=(1, 2, 2),  # number of heads per level (the library's historical name)
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
