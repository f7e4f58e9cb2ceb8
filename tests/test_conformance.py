"""The numbers every implementation of the method must reproduce (tests/conformance/README.md)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from genzqa import GenzIQA, GenzVQA
from genzqa.model.adapter import trained_parameters
from genzqa.model.reference import import_reference

MODEL = Path(__file__).parent / "conformance" / "sd21-small"
BLOCKS = list(json.loads((MODEL / "block_order.json").read_text()))
TOLERANCE = 1e-4
SIZES = ("s16", "s32", "s24x16")
TIMESTEPS = (5, 40, 80)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(MODEL / "golden.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def model(conformance_base: Path, tmp_path_factory: pytest.TempPathFactory) -> GenzIQA:
    out = tmp_path_factory.mktemp("adapter") / "reference"
    reference = conformance_base / "reference"
    import_reference(base=f"local-dir:{conformance_base}", unet_lora=reference / "pytorch_model.bin",
                     context=reference / "coop_Model_state_dict.pth", out=out)  # fmt: skip
    return GenzIQA.from_pretrained(f"local-dir:{out}")


def close(value: torch.Tensor, wanted: np.ndarray, tolerance: float = TOLERANCE) -> None:
    assert tuple(value.shape) == wanted.shape
    np.testing.assert_allclose(value.detach().numpy(), wanted, rtol=0, atol=tolerance)


def test_blocks_come_in_the_order_of_the_method(model: GenzIQA) -> None:
    assert [block.name for block in model.blocks] == BLOCKS


def test_prompts(model: GenzIQA, golden: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(model.prompts.input_ids.numpy(), golden["input_ids"])
    np.testing.assert_array_equal(model.prompts.attention_mask.numpy(), golden["attention_mask"])
    close(model.prompts.context, golden["ctx"], 0)
    close(model.prompts(), golden["prompt_embeds"])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("timestep", TIMESTEPS)
def test_one_timestep(model: GenzIQA, golden: dict[str, np.ndarray], size: str, timestep: int) -> None:
    at = f"{size}/t{timestep}"
    latents, noise = (torch.from_numpy(golden[key]) for key in (f"{size}/latents", f"{at}/noise"))
    with torch.inference_mode():
        trace = model.trace(latents, noise, [timestep])
    close(trace.eps[0, 0, 0], golden[f"{at}/eps_pos"][0])
    close(trace.eps[0, 0, 1], golden[f"{at}/eps_neg"][0])
    close(trace.block_scores[0, 0], golden[f"{at}/block_score"])
    close(trace.bias[0, 0].expand(len(BLOCKS)), golden[f"{at}/bias"])
    close(trace.block_scores[0, 0] + trace.bias[0, 0], golden[f"{at}/dbscore"])
    close((trace.block_scores + trace.bias[..., None]).mean(), golden[f"{at}/score"])
    for index, name in enumerate(BLOCKS):
        # the research code stores one row per (prompt, head)
        close(trace.lse[index][0, 0].flatten(0, 1), golden[f"{at}/lse_{name}"])
        close(trace.queries[index][0, 0], golden[f"{at}/query_{name}"])


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_three_images_at_once(model: GenzIQA, golden: dict[str, np.ndarray], count: int) -> None:
    latents, noise = (torch.from_numpy(golden[f"pipe/{key}"]) for key in ("latents", "noise_samples"))
    timesteps = golden[f"pipe/T{count}/timesteps"].astype(int).tolist()
    with torch.inference_mode():
        trace = model.trace(latents, noise[:count], timesteps)
        alone = [model.trace(latents[i : i + 1], noise[:count], timesteps) for i in range(len(latents))]
    quality = (trace.block_scores + trace.bias[..., None]).mean(1)
    close(quality, golden[f"pipe/T{count}/block_scores"])
    close(quality.mean(1), golden[f"pipe/T{count}/scores"])
    for index, name in enumerate(BLOCKS):
        close(trace.queries[index][:, -1], golden[f"pipe/T{count}/query_{name}"])
    for row, one in enumerate(alone):  # batch = one by one
        close(trace.block_scores[row], one.block_scores[0].numpy(), 1e-5)
        close(trace.bias[row], one.bias[0].numpy(), 1e-5)


def test_from_pixels(model: GenzIQA, golden: dict[str, np.ndarray]) -> None:
    """The research code feeds CLIP-normalised pixels and samples the latent; both are put in by hand here."""
    posterior = model.vae.encode(torch.from_numpy(golden["e2e/pixel_values"])).latent_dist
    close(posterior.mean, golden["e2e/vae_mean"])
    close(posterior.logvar, golden["e2e/vae_logvar"])
    sampled = posterior.mean + posterior.std * torch.from_numpy(golden["e2e/vae_eps"])
    latents = sampled * model.vae.config.scaling_factor
    close(latents, golden["e2e/latents"])
    mode = model.encode(torch.from_numpy(golden["e2e/pixel_values"]))
    close(mode, golden["e2e/vae_mean"] * model.vae.config.scaling_factor)


def test_gradients(model: GenzIQA, golden: dict[str, np.ndarray]) -> None:
    latents, noise = (torch.from_numpy(golden[key]) for key in ("s16/latents", "s16/t40/noise"))
    trace = model.trace(latents, noise, [40])
    loss = ((trace.block_scores + trace.bias[..., None]).mean() - 3) ** 2
    close(loss, golden["grad/loss"], 1e-3 * float(golden["grad/loss"]))
    parameters = trained_parameters(model)
    gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    close(gradients["context"], golden["grad/ctx"], TOLERANCE * np.abs(golden["grad/ctx"]).max())
    wanted = load_file(MODEL / "lora_grad.safetensors")
    largest = max(float(value.abs().max()) for value in wanted.values())
    compared = 0
    for name, value in wanted.items():
        layer, _, rest = name.partition(".processor.")
        projection, _, part = rest.removesuffix(".weight").partition("_lora.")
        ours = f"lora.{layer}.{projection.replace('to_out', 'to_out.0')}.{part}"
        if ours in gradients:
            close(gradients[ours], value.numpy(), TOLERANCE * largest)
            compared += 1
        else:  # never applied by the research code
            assert ".attn1." in name
            assert float(value.abs().max()) == 0.0
    assert compared == len(parameters) - 1


def test_lora_on_self_attention_but_for_the_query_changes_nothing(
    conformance_base: Path, tmp_path: Path, golden: dict[str, np.ndarray]
) -> None:
    reference = conformance_base / "reference"
    lora = torch.load(reference / "pytorch_model.bin", weights_only=True)
    for name in lora:
        if ".attn1." in name and "to_q_lora" not in name:
            lora[name] = torch.full_like(lora[name], 0.5)
    torch.save(lora, tmp_path / "trap.bin")
    import_reference(base=f"local-dir:{conformance_base}", unet_lora=tmp_path / "trap.bin",
                     context=reference / "coop_Model_state_dict.pth", out=tmp_path / "out")  # fmt: skip
    model = GenzIQA.from_pretrained(f"local-dir:{tmp_path / 'out'}")
    latents, noise = (torch.from_numpy(golden[key]) for key in ("s16/latents", "s16/t40/noise"))
    with torch.inference_mode():
        trace = model.trace(latents, noise, [40])
    close((trace.block_scores + trace.bias[..., None])[0, 0], golden["trap/dbscore_with_nonzero_attn1_kvo_lora"])


@pytest.fixture(scope="module")
def video_model(conformance_base: Path, tmp_path_factory: pytest.TempPathFactory) -> GenzVQA:
    out = tmp_path_factory.mktemp("video-adapter") / "reference"
    reference = conformance_base / "reference"
    import_reference(base=f"local-dir:{conformance_base}", unet_lora=reference / "pytorch_model.bin",
                     context=reference / "coop_Model_state_dict.pth", slow=reference / "slowAttn.pth",
                     fast=reference / "fastAttn.pth", linear=reference / "linearBlocks.pth", out=out)  # fmt: skip
    return GenzVQA.from_pretrained(f"local-dir:{out}")


def test_video(video_model: GenzVQA, golden: dict[str, np.ndarray]) -> None:
    latents, slow, fast, noise = (
        torch.from_numpy(golden[f"vqa/{key}"]) for key in ("frame_latents", "slow", "fast", "noise_samples")
    )
    timesteps = golden["vqa/timesteps"].astype(int).tolist()
    with torch.inference_mode():
        trace = video_model.trace(latents, slow, fast, noise[: len(timesteps)], timesteps)
    close(trace.frame_block_scores, golden["vqa/frame_block_scores"])
    close(trace.block_scores, golden["vqa/video_block_scores"])
    close(trace.sim_slow, golden["vqa/sim_slow"])
    close(trace.sim_fast, golden["vqa/sim_fast"])
    close(trace.gamma, golden["vqa/gamma"])
    close(trace.score, golden["vqa/score"])
    assert (trace.gamma == 0).any()  # some layers are switched off whole
    for index, name in enumerate(BLOCKS):
        close(trace.frames.queries[index], golden[f"vqa/query_{name}"])
