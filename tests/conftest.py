"""Bases every test may read: built once per session from names and seeds, never changed in place."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFORMANCE = Path(__file__).parent / "conformance"


@pytest.fixture(scope="session")
def conformance_base(tmp_path_factory) -> Path:
    """Stable Diffusion 2.1's topology at width 64, in diffusers layout, with ``reference/`` beside it."""
    out = tmp_path_factory.mktemp("bases") / "conformance"
    command = [sys.executable, str(CONFORMANCE / "build.py"), str(CONFORMANCE / "sd21-small"), str(out)]
    subprocess.run(command, check=True, capture_output=True)
    return out


@pytest.fixture(scope="session")
def sd15_small_base(tmp_path_factory) -> Path:
    """Stable Diffusion 1.5's topology: convolutional projections, 8 heads, quick GELU, padding with end-of-text."""
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    out = tmp_path_factory.mktemp("bases") / "sd15"
    shutil.copytree(CONFORMANCE / "sd21-small" / "configs" / "tokenizer", out / "tokenizer")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        settings = json.loads((out / "tokenizer" / name).read_text())
        (out / "tokenizer" / name).write_text(json.dumps(settings | {"pad_token": "<|endoftext|>"}))
    with torch.random.fork_rng():
        torch.manual_seed(15)
        down, up = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
        UNet2DConditionModel(
            sample_size=64, block_out_channels=(32, 64, 64, 64), down_block_types=(down, down, down, "DownBlock2D"),
            up_block_types=("UpBlock2D", up, up, up), attention_head_dim=8, cross_attention_dim=64,
        ).save_pretrained(out / "unet")  # fmt: skip
        AutoencoderKL(
            block_out_channels=(16, 16, 32, 32), down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, norm_num_groups=8, sample_size=512,
        ).save_pretrained(out / "vae")  # fmt: skip
        CLIPTextModel(
            CLIPTextConfig(
                vocab_size=540, hidden_size=64, intermediate_size=128, projection_dim=64, num_hidden_layers=2,
                num_attention_heads=4, hidden_act="quick_gelu", bos_token_id=538, eos_token_id=539, pad_token_id=539,
            )
        ).save_pretrained(out / "text_encoder")  # fmt: skip
    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    ).save_pretrained(out / "scheduler")
    return out


@pytest.fixture(scope="session")
def wide_scorer(sd15_small_base, tmp_path_factory) -> Path:
    """An adapter folder on a base of random weights with as many channels as a Stable Diffusion's encoder, and few layers: wide
    enough to be run in bf16. The context is drawn too, the calibration made up."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from genzqa.model.adapter import save_adapter
    from genzqa.model.config import Calibration, ScorerConfig

    out = tmp_path_factory.mktemp("scorers") / "wide"
    base = Path(shutil.copytree(sd15_small_base, out / "base", ignore=shutil.ignore_patterns("unet", "vae")))
    with torch.random.fork_rng():
        torch.manual_seed(128)
        UNet2DConditionModel(
            sample_size=8, block_out_channels=(128, 128), down_block_types=("CrossAttnDownBlock2D",) * 2,
            up_block_types=("CrossAttnUpBlock2D",) * 2, layers_per_block=1, attention_head_dim=4, cross_attention_dim=64,
        ).save_pretrained(base / "unet")  # fmt: skip
        AutoencoderKL(
            block_out_channels=(128, 128), down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, sample_size=64,
        ).save_pretrained(base / "vae")  # fmt: skip
        context = torch.randn(16, 64)
    calibration = Calibration(
        raw_knots=[-300, 300], score_knots=[0, 100], interval_knots=[0, 100], interval_low=[-9, -9], interval_high=[9, 9],
        reference_quantiles=[0, 25, 50, 75, 100], source="made up for tests",
    )  # fmt: skip
    config = ScorerConfig(name="wide", base="local-dir:../base", timesteps=2, lora_rank=0, calibration=calibration,
                          preprocessing={"size": 64}, training_data=["none; random weights"])  # fmt: skip
    save_adapter(out / "adapter", {"context": context}, config)
    return out / "adapter"


@pytest.fixture
def base_copy(sd15_small_base, tmp_path) -> Path:
    """A base to damage. Files are links to the session's: replace them, do not write into them."""
    return Path(shutil.copytree(sd15_small_base, tmp_path / "base", copy_function=os.link))


@pytest.fixture(scope="session")
def small_scorer(conformance_base, tmp_path_factory) -> Path:
    """An adapter folder on the conformance base that can score: small, one timestep, with a made-up calibration."""
    from genzqa.model.reference import import_reference

    out = tmp_path_factory.mktemp("scorers") / "small"
    reference = conformance_base / "reference"
    import_reference(base=f"local-dir:{conformance_base}", unet_lora=reference / "pytorch_model.bin",
                     context=reference / "coop_Model_state_dict.pth", out=out, offline=True)  # fmt: skip
    config = json.loads((out / "config.json").read_text())
    config["timesteps"] = 1
    config["preprocessing"]["size"] = 128
    config["calibration"] = {
        "raw_knots": [-300, 300], "score_knots": [0, 100], "interval_knots": [0, 100], "interval_low": [-9, -9],
        "interval_high": [9, 9], "reference_quantiles": [0, 25, 50, 75, 100], "source": "made up for tests",
    }  # fmt: skip
    (out / "config.json").write_text(json.dumps(config))
    return out


@pytest.fixture(scope="session")
def small_video_scorer(small_scorer, tmp_path_factory) -> Path:
    """``small_scorer`` with a temporal modulator and a tiny motion network, both of random weights."""
    import torch
    from safetensors.torch import load_file

    from genzqa.model.adapter import save_adapter
    from genzqa.model.config import MotionSizes, VideoConfig, read_config
    from genzqa.model.genziqa import GenzIQA
    from genzqa.model.genzvqa import GenzVQA
    from genzqa.model.slowfast import SlowFast, SlowFastConfig

    out = tmp_path_factory.mktemp("scorers") / "video"
    sizes = MotionSizes(width=8, ratio=8, depths=(1, 1, 1, 1), frames=16, slow_frames=4)
    video = VideoConfig(frames=4, timesteps=1, tqm="ordered", motion=sizes, motion_size=32)
    network_config = SlowFastConfig(**sizes.model_dump(), classes=1)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = SlowFast(network_config)
        image = GenzIQA.from_pretrained(f"local-dir:{small_scorer}")
        model = GenzVQA(image, video, slow_features=network_config.slow_features,
                        fast_features=network_config.fast_features)  # fmt: skip
        for layer in model.modulator.linear.values():
            torch.nn.init.normal_(layer.weight, std=0.1)
    weights = load_file(small_scorer / "adapter.safetensors")
    weights |= {f"tqm.{name}": value for name, value in model.modulator.state_dict().items()}
    weights |= {f"motion.{name}": value for name, value in network.state_dict().items()}
    config = read_config(small_scorer / "config.json").model_copy(update={"video": video, "name": "small-video"})
    save_adapter(out, weights, config)
    return out


@pytest.fixture(scope="session")
def served_model(small_scorer, tmp_path_factory) -> str:
    """The name of ``small_scorer`` at half the side, so that many requests take little time.

    Its scale is stretched until pictures differ by points, and the same picture in other company by less than 0.001.
    """
    out = tmp_path_factory.mktemp("scorers") / "served"
    shutil.copytree(small_scorer, out)
    config = json.loads((out / "config.json").read_text())
    config["preprocessing"]["size"] = 64
    config["calibration"]["raw_knots"] = [17, 19]
    (out / "config.json").write_text(json.dumps(config))
    return f"local-dir:{out}"


@pytest.fixture(scope="session")
def service(served_model, tmp_path_factory):
    """A running ``genzqa serve`` with default settings, for tests that leave it as it was."""
    from serving import serving

    with serving(served_model, tmp_path_factory.mktemp("service")) as running:
        yield running
