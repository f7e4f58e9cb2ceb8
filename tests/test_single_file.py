"""One-file checkpoints: small bases are written in the original layout here and must come back unchanged."""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from genzqa.errors import ModelCorruptError
from genzqa.model.base import load_base
from genzqa.model.folder import base_sha256
from genzqa.model.single_file import CONFIGS, load_single_file

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
STEMS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}


def ldm_unet_key(key: str) -> str:
    stem, kind = key.rsplit(".", 1)
    if stem in STEMS:
        return f"{STEMS[stem]}.{kind}"
    place, rest = re.fullmatch(r"((?:down_blocks\.\d|up_blocks\.\d|mid_block)\.[a-z]+\.\d)\.(.+)", key).groups()
    *block, group, number = place.replace("mid_block", "mid_block.0").split(".")
    level, number = int(block[1]), int(number)
    if group == "resnets":
        rest = ".".join([RESNET[rest.rsplit(".", 1)[0]], kind])
    if block[0] == "mid_block":
        return f"middle_block.{2 * number if group == 'resnets' else 1}.{rest}"
    if group == "downsamplers":
        return f"input_blocks.{3 * (level + 1)}.0.op.{kind}"
    if group == "upsamplers":  # the lowest level has no attention before it
        return f"output_blocks.{3 * level + 2}.{1 if level == 0 else 2}.conv.{kind}"
    side, first = ("input_blocks", 1) if block[0] == "down_blocks" else ("output_blocks", 0)
    return f"{side}.{3 * level + number + first}.{0 if group == 'resnets' else 1}.{rest}"


def ldm_vae_key(key: str) -> str:
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    key = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}", key)
    key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", key)
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    if "mid_block.attentions.0." in key:
        head, tail = key.split("mid_block.attentions.0.")
        stem, kind = tail.rsplit(".", 1)
        key = f"{head}mid.attn_1.{VAE_ATTENTION[stem]}.{kind}"
    return key


def ldm_text(state: dict, open_clip: bool) -> dict:
    if not open_clip:
        weights = {f"cond_stage_model.transformer.text_model.{key}": value for key, value in state.items()}
        return weights | {"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None]}
    weights = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "text_projection": torch.eye(len(state["final_layer_norm.bias"])),
    }
    for key, value in state.items():
        if found := re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", key):
            layer, inner, kind = f"transformer.resblocks.{found[1]}", found[2], found[3]
            if inner == "self_attn.q_proj":
                packed = [state[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
                weights[f"{layer}.attn.in_proj_{kind}"] = torch.cat(packed)
            elif inner == "self_attn.out_proj":
                weights[f"{layer}.attn.out_proj.{kind}"] = value
            elif not inner.startswith("self_attn"):
                weights[f"{layer}.{OPEN_CLIP[inner]}.{kind}"] = value
    return {f"cond_stage_model.model.{key}": value for key, value in weights.items()}


def ldm_checkpoint(base, *, open_clip: bool) -> dict:
    unet = {f"model.diffusion_model.{ldm_unet_key(key)}": value for key, value in base.unet.state_dict().items()}
    vae = {}
    for key, value in base.vae.state_dict().items():
        name = ldm_vae_key(key)
        is_projection = "mid.attn_1" in name and value.ndim == 2
        vae[f"first_stage_model.{name}"] = value[:, :, None, None] if is_projection else value
    weights = unet | vae | ldm_text(base.text_encoder.state_dict(), open_clip)
    return {key: value.clone().contiguous() for key, value in weights.items()}


@pytest.fixture(params=["conformance_base", "sd15_small_base"])
def folder_and_checkpoint(request, tmp_path):
    folder = request.getfixturevalue(request.param)
    base = load_base(f"local-dir:{folder}")
    return base, ldm_checkpoint(base, open_clip=request.param == "conformance_base"), tmp_path / "x.safetensors"


def test_outputs_equal_those_of_the_folder(folder_and_checkpoint, capsys):
    base, weights, path = folder_and_checkpoint
    save_file(weights, path)
    single = load_single_file(path, base.folder)
    generator = torch.Generator().manual_seed(0)
    image, latent = (torch.randn(shape, generator=generator) for shape in ((1, 3, 64, 64), (1, 4, 16, 16)))
    tokens = base.tokenizer("good photo.", padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        prompt = base.text_encoder(tokens).last_hidden_state
        assert torch.equal(single.text_encoder(tokens).last_hidden_state, prompt)
        assert torch.equal(single.vae.encode(image).latent_dist.mode(), base.vae.encode(image).latent_dist.mode())
        outputs = [each.unet(latent, 50, encoder_hidden_states=prompt).sample for each in (single, base)]
    assert torch.equal(*outputs)
    for part in ("unet", "vae", "text_encoder"):
        ours, theirs = getattr(single, part).state_dict(), getattr(base, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert not getattr(single, part).training
    assert torch.equal(single.alphas_cumprod, base.alphas_cumprod)
    assert single.folder is None
    printed = capsys.readouterr()
    assert printed.out + printed.err == ""


def test_digest_is_that_of_the_file_and_of_given_configs(folder_and_checkpoint):
    base, weights, path = folder_and_checkpoint
    save_file(weights, path)
    moved = path.with_name("moved.safetensors")
    moved.write_bytes(path.read_bytes())
    assert base_sha256(moved) == base_sha256(path)
    assert load_single_file(path, base.folder).sha256 == load_single_file(moved, base.folder).sha256


@pytest.mark.parametrize(
    ("drop", "reason"),
    [
        ("model.diffusion_model.", "no Stable Diffusion UNet"),
        ("first_stage_model.", "VAE is missing"),
        ("cond_stage_model.", "text encoder is missing"),
        ("model.diffusion_model.middle_block.1.proj_in", "weights of the unet are missing"),
        ("first_stage_model.encoder.mid.attn_1.q", "weights of the vae are missing"),
        ("cond_stage_model.transformer.text_model.final_layer_norm", "weights of the text_encoder are missing"),
    ],
)
def test_incomplete_checkpoints(sd15_small_base, tmp_path, drop, reason):
    base = load_base(f"local-dir:{sd15_small_base}")
    weights = ldm_checkpoint(base, open_clip=False)
    save_file({key: value for key, value in weights.items() if not key.startswith(drop)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelCorruptError, match=reason):
        load_single_file(tmp_path / "x.safetensors", sd15_small_base)


def test_other_families_and_widths(sd15_small_base, tmp_path):
    path = tmp_path / "x.safetensors"
    weights = ldm_checkpoint(load_base(f"local-dir:{sd15_small_base}"), open_clip=False)
    save_file(weights, path)
    with pytest.raises(ModelCorruptError, match="text width 64 is neither"):
        load_base(f"file:{path}")
    save_file(weights | {"conditioner.embedders.0.x": torch.zeros(1)}, path)
    with pytest.raises(ModelCorruptError, match="XL"):
        load_base(f"file:{path}")
    save_file(weights | {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(32, 9, 3, 3)}, path)
    with pytest.raises(ModelCorruptError, match="reads 9 channels"):
        load_base(f"file:{path}")
    path.write_bytes(np.random.default_rng(0).bytes(1000))
    with pytest.raises(ModelCorruptError, match="not a readable safetensors file"):
        load_base(f"file:{path}")


@pytest.mark.parametrize(
    ("name", "unet_size", "text_size"), [("sd15", 859_520_964, 123_060_480), ("sd21", 865_910_724, 340_387_840)]
)
def test_packaged_configs_describe_the_published_models(name, unet_size, text_size):
    """The numbers of parameters are the published ones; nothing is allocated."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = CONFIGS / name
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae"))
        text = CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder"))
    assert [sum(weight.numel() for weight in module.parameters()) for module in (unet, vae, text)] == [
        unet_size, 83_653_863, text_size,
    ]  # fmt: skip
