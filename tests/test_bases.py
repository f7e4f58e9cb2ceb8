import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from genzqa.errors import ConfigError, ModelCorruptError, ModelNotFoundError
from genzqa.model.base import base_sha256, load_base, locate_base, training_schedule

CONFORMANCE = Path(__file__).parent / "conformance"
UNET, VAE, TEXT = (
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
)


@pytest.fixture(autouse=True)
def no_connections(monkeypatch):
    """Nothing in this file may open a connection: all names are local."""

    def refuse(*args, **kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def replace(path: Path, content: bytes) -> None:
    """Copied bases are links; a new file keeps the original as it is."""
    path.unlink()
    path.write_bytes(content)


def edit(path: Path, **changes) -> None:
    replace(path, json.dumps(json.loads(path.read_text()) | changes).encode())


def rewrite(path: Path, change) -> None:
    weights = change(load_file(path))
    content = {name: tensor.clone() for name, tensor in weights.items()}
    path.unlink()
    save_file(content, path, metadata={"format": "pt"})


# Loading


def test_conformance_base_loads_whole_and_frozen(conformance_base, capsys):
    base = load_base(f"local-dir:{conformance_base}")
    stored = {part: load_file(conformance_base / file) for part, file in (("unet", UNET), ("text_encoder", TEXT))}
    assert set(base.unet.state_dict()) == set(stored["unet"])
    # transformers 5 has no `text_model.` level; the weights on disk still carry it.
    for name, weight in base.text_encoder.state_dict().items():
        assert torch.equal(weight, stored["text_encoder"][f"text_model.{name}"])
    for module in (base.unet, base.vae, base.text_encoder):
        assert not module.training
        assert not any(weight.requires_grad for weight in module.parameters())
        assert {weight.dtype for weight in module.parameters()} == {torch.float32}
    assert base.prediction_type == "epsilon"
    assert base.folder == conformance_base
    assert base.name == f"local-dir:{conformance_base}"
    assert base.sha256 == base_sha256(conformance_base)
    assert base.tokenizer.pad_token_id == 0
    printed = capsys.readouterr()
    assert printed.out + printed.err == ""


def test_text_encoder_computes_the_golden_prompt_embeddings(conformance_base):
    golden = np.load(CONFORMANCE / "sd21-small" / "golden.npz")
    encoder = load_base(f"local-dir:{conformance_base}").text_encoder
    embeds = torch.from_numpy(golden["prompts_embed_in"])
    encoder.get_input_embeddings().register_forward_hook(lambda *_: embeds)
    tokens, mask = (torch.from_numpy(golden[name]) for name in ("input_ids", "attention_mask"))
    got = encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
    assert torch.allclose(got, torch.from_numpy(golden["prompt_embeds"]), atol=1e-4)


def test_sd15_topology_loads(sd15_small_base):
    base = load_base(f"local-dir:{sd15_small_base}")
    blocks = [name for name, _ in base.unet.named_modules() if name.endswith("attn2")]
    assert len(blocks) == 16
    assert base.unet.get_submodule(blocks[0]).heads == 8
    assert base.tokenizer.pad_token_id == base.tokenizer.eos_token_id == 539
    latent, prompt = torch.zeros(1, 4, 8, 8), torch.zeros(1, 77, 64)
    assert base.unet(latent, 0, encoder_hidden_states=prompt).sample.shape == latent.shape


def test_dtype_is_the_callers(sd15_small_base):
    base = load_base(f"local-dir:{sd15_small_base}", dtype=torch.bfloat16)
    for module in (base.unet, base.vae, base.text_encoder):
        assert {weight.dtype for weight in module.parameters()} == {torch.bfloat16}
    assert base.alphas_cumprod.dtype == torch.float32


def test_half_precision_files_only_where_the_plain_ones_are_missing(base_copy):
    plain = load_base(f"local-dir:{base_copy}")
    for file in (UNET, VAE, TEXT):
        half = base_copy / file.replace(".safetensors", ".fp16.safetensors")
        save_file({name: weight.half() for name, weight in load_file(base_copy / file).items()}, half, {"format": "pt"})
    assert base_sha256(base_copy) == plain.sha256
    for file in (UNET, VAE, TEXT):
        (base_copy / file).unlink()
    half = load_base(f"local-dir:{base_copy}")
    assert half.sha256 != plain.sha256
    assert half.unet.conv_in.weight.dtype == torch.float32
    assert torch.equal(half.unet.conv_in.weight, plain.unet.conv_in.weight.half().float())


def test_sharded_weights(base_copy, sd15_small_base):
    plain = load_base(f"local-dir:{base_copy}")
    (base_copy / UNET).unlink()
    plain.unet.save_pretrained(base_copy / "unet", max_shard_size="1MB")
    sharded = load_base(f"local-dir:{base_copy}")
    assert all(torch.equal(a, b) for a, b in zip(plain.unet.parameters(), sharded.unet.parameters(), strict=True))
    next((base_copy / "unet").glob("*-00001-of-*")).unlink()
    with pytest.raises(ModelCorruptError, match="names weights that are missing"):
        load_base(f"local-dir:{base_copy}")


def test_leftovers_of_old_libraries_are_no_damage(base_copy):
    rewrite(base_copy / TEXT, lambda w: w | {"text_model.embeddings.position_ids": torch.arange(77)[None]})
    load_base(f"local-dir:{base_copy}")


def test_outputs_do_not_depend_on_where_weights_lie_in_the_file(base_copy, sd15_small_base):
    """A longer header moves every weight; the kernels' order of summation must not follow."""
    content = load_file(base_copy / UNET)
    (base_copy / UNET).unlink()
    save_file(content, base_copy / UNET, metadata={"format": "pt", "note": "x" * 17})
    generator = torch.Generator().manual_seed(0)
    latent, prompt = (torch.randn(shape, generator=generator) for shape in ((1, 4, 16, 16), (1, 77, 64)))
    with torch.no_grad():
        outputs = [
            load_base(f"local-dir:{folder}").unet(latent, 50, encoder_hidden_states=prompt).sample
            for folder in (base_copy, sd15_small_base)
        ]
    assert torch.equal(*outputs)


# The schedule


@pytest.mark.parametrize("schedule", ["scaled_linear", "linear", "squaredcos_cap_v2"])
def test_training_schedule(schedule):
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": schedule, "num_train_timesteps": 1000}
    sampler = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing", "steps_offset": 1}
    alphas = training_schedule(config | sampler)
    assert alphas.shape == (1000,)
    assert bool((alphas.diff() < 0).all())
    if schedule == "scaled_linear":
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        assert torch.allclose(alphas.double(), (1 - betas).cumprod(0), atol=1e-6)


def test_prediction_type_is_reported(base_copy):
    edit(base_copy / "scheduler/scheduler_config.json", prediction_type="v_prediction")
    assert load_base(f"local-dir:{base_copy}").prediction_type == "v_prediction"


# What is refused


@pytest.mark.parametrize(
    ("file", "changes", "reason"),
    [
        ("unet/config.json", {"_class_name": "UNet2DModel"}, "is a UNet2DModel"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "Stable Diffusion XL"),
        ("unet/config.json", {"in_channels": 9}, "inpainting"),
        ("unet/config.json", {"num_class_embeds": 1000}, "class labels"),
        ("unet/config.json", {"cross_attention_dim": 768}, "text width 64 does not fit"),
        ("unet/config.json", {"quantization_config": {"quant_method": "x"}}, "not plain weights"),
        ("unet/config.json", {"block_out_channels": [32, 64]}, "cannot be loaded"),
        ("unet/config.json", {"block_out_channels": "x"}, "cannot be loaded"),
        ("unet/config.json", {"layers_per_block": 3}, "unet cannot be loaded"),
        ("vae/config.json", {"_class_name": "AutoencoderTiny"}, "is a AutoencoderTiny"),
        ("vae/config.json", {"latent_channels": 16}, "16 channels"),
        ("vae/config.json", {"layers_per_block": 1}, "unexpected weights in the vae"),
        ("text_encoder/config.json", {"architectures": ["T5EncoderModel"]}, "T5EncoderModel"),
        ("text_encoder/config.json", {"num_hidden_layers": 3}, "missing weights in the text_encoder"),
        ("text_encoder/config.json", {"num_hidden_layers": 1}, "unexpected weights in the text_encoder"),
        ("text_encoder/config.json", {"vocab_size": 500}, "text_encoder"),
        ("text_encoder/config.json", {"transformers_weights": "other.safetensors"}, "not plain weights"),
        ("scheduler/scheduler_config.json", {"beta_start": None}, "lacks beta_start"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "sigmoid"}, "sigmoid"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": -1}, "num_train_timesteps"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "flow"),
    ],
)
def test_other_topologies_and_broken_configs_are_refused(base_copy, file, changes, reason, capsys):
    edit(base_copy / file, **changes)
    with pytest.raises(ModelCorruptError, match=reason):
        load_base(f"local-dir:{base_copy}")
    assert capsys.readouterr().err == ""


def test_unet_without_cross_attention_is_refused(base_copy):
    edit(
        base_copy / "unet/config.json",
        down_block_types=["DownBlock2D"] * 4, up_block_types=["UpBlock2D"] * 4, mid_block_type="UNetMidBlock2D",
    )  # fmt: skip
    with pytest.raises(ModelCorruptError, match="no cross-attention"):
        load_base(f"local-dir:{base_copy}")


def test_folders_of_other_families_are_named(base_copy):
    (base_copy / "text_encoder_2").mkdir()
    with pytest.raises(ModelCorruptError, match="Stable Diffusion XL"):
        load_base(f"local-dir:{base_copy}")
    (base_copy / "text_encoder_2").rmdir()
    (base_copy / "unet").rename(base_copy / "transformer")
    with pytest.raises(ModelCorruptError, match="transformer"):
        load_base(f"local-dir:{base_copy}")


@pytest.mark.parametrize(
    "missing",
    [
        "unet",
        "vae",
        "text_encoder",
        "scheduler",
        "tokenizer",
        UNET,
        VAE,
        TEXT,
        "vae/config.json",
        "tokenizer/vocab.json",
    ],
)
def test_missing_parts_are_named(base_copy, missing):
    path = base_copy / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ModelCorruptError, match=missing.split("/")[0]):
        load_base(f"local-dir:{base_copy}")


def test_an_empty_folder_names_all_parts(tmp_path):
    with pytest.raises(ModelCorruptError, match=r"missing: unet/config.json, vae/config.json, text_encoder"):
        load_base(f"local-dir:{tmp_path}")


@pytest.mark.parametrize("file", [UNET, VAE, TEXT])
@pytest.mark.parametrize("damage", ["truncated", "empty", "header", "key"])
def test_damaged_weights_are_refused(base_copy, file, damage):
    path = base_copy / file
    content = path.read_bytes()
    if damage == "key":
        rewrite(path, lambda weights: dict(list(weights.items())[1:]))
    else:
        header = b"\xff" * 16 + content[16:]
        replace(path, {"truncated": content[: len(content) // 2], "empty": b"", "header": header}[damage])
    with pytest.raises(ModelCorruptError, match=file.split("/")[0]):
        load_base(f"local-dir:{base_copy}")


def test_weights_of_another_shape_are_refused(base_copy):
    rewrite(base_copy / UNET, lambda w: w | {"conv_in.weight": torch.zeros(16, 4, 3, 3)})
    with pytest.raises(ModelCorruptError, match="unet"):
        load_base(f"local-dir:{base_copy}")


def test_pickle_weights_are_refused_with_the_way_out(base_copy):
    (base_copy / UNET).rename(base_copy / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(ModelCorruptError, match="only pickle weights") as error:
        load_base(f"local-dir:{base_copy}")
    assert "save_pretrained" in error.value.hint


def test_config_that_is_no_json_object(base_copy):
    for content in (b"[]", b"{", b"\xff\xfe", b"[" * 100_000):
        replace(base_copy / "vae/config.json", content)
        with pytest.raises(ModelCorruptError, match=r"vae/config\.json"):
            load_base(f"local-dir:{base_copy}")


def test_an_adapter_in_the_text_encoder_is_refused(base_copy):
    (base_copy / "text_encoder/adapter_config.json").write_text('{"base_model_name_or_path": "org/other"}')
    with pytest.raises(ModelCorruptError, match=r"adapter_config\.json"):
        load_base(f"local-dir:{base_copy}")


def test_local_paths_that_are_not_what_their_prefix_says(tmp_path, sd15_small_base):
    with pytest.raises(ModelNotFoundError):
        locate_base(f"local-dir:{tmp_path / 'nothing'}")
    with pytest.raises(ModelNotFoundError):
        locate_base(f"file:{tmp_path / 'x.safetensors'}")
    with pytest.raises(ConfigError, match="write file:"):
        locate_base(f"local-dir:{sd15_small_base / UNET}")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(ConfigError, match="write local-dir:"):
        locate_base(f"file:{tmp_path / 'folder.safetensors'}")
    os.mkfifo(tmp_path / "fifo.safetensors")
    for prefix in ("file", "local-dir"):
        with pytest.raises(ConfigError):
            load_base(f"{prefix}:{tmp_path / 'fifo.safetensors'}")


def test_a_fifo_in_place_of_weights_does_not_wait(base_copy):
    (base_copy / VAE).unlink()
    os.mkfifo(base_copy / VAE)
    with pytest.raises(ModelCorruptError, match="vae"):
        load_base(f"local-dir:{base_copy}")


def test_home_is_understood(base_copy, monkeypatch):
    monkeypatch.setenv("HOME", str(base_copy.parent))
    assert locate_base("local-dir:~/base") == base_copy


# The digest


def test_digest_follows_content_not_place(base_copy, sd15_small_base, conformance_base):
    digest = base_sha256(sd15_small_base)
    assert base_sha256(base_copy) == digest
    moved = base_copy.rename(base_copy.with_name("moved"))
    (moved / "README.md").write_text("not part of a score")
    (moved / "unet/diffusion_pytorch_model.bin").write_bytes(b"not loaded")
    assert base_sha256(moved) == digest
    assert base_sha256(conformance_base) != digest


@pytest.mark.parametrize(
    "file", [UNET, VAE, TEXT, "unet/config.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json"]
)
def test_digest_follows_every_byte(base_copy, file):
    digest = base_sha256(base_copy)
    content = bytearray((base_copy / file).read_bytes())
    if file.endswith(".safetensors"):
        content[-1] ^= 1
    else:
        content += b" "
    replace(base_copy / file, bytes(content))
    assert base_sha256(base_copy) != digest


def test_digest_of_nothing(tmp_path):
    with pytest.raises(ModelNotFoundError):
        base_sha256(tmp_path / "nothing")
