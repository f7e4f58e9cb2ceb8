"""What the engine leaves out because no score depends on it, seen by what its layers are asked to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from genzqa.engine.engine import EngineOptions
from genzqa.engine.open import open_model
from genzqa.engine.scoring_pass import ScoringPass
from genzqa.engine.torch_engine import TorchEngine
from genzqa.model.adapter import LoadedScorer, load_scorer

IMAGES, TIMESTEPS = 3, 2


@pytest.fixture
def loaded(small_scorer: Path) -> LoadedScorer:
    return load_scorer(f"local-dir:{small_scorer}", trainable=False)


def pixels(loaded: LoadedScorer) -> torch.Tensor:
    side = loaded.config.preprocessing.size
    return torch.rand(IMAGES, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_layers_before_the_first_cross_attention_see_a_photo_once_for_both_prompts(loaded: LoadedScorer) -> None:
    plan = ScoringPass(loaded.model, TIMESTEPS)
    unet, rows = loaded.model.unet, {}

    def count(path: str) -> None:
        layer = unet.get_submodule(path)
        layer.register_forward_hook(lambda _, given, __: rows.setdefault(path, []).append(len(given[0])))

    first = "down_blocks.0.attentions.0.transformer_blocks.0"
    shared = ("conv_in", "down_blocks.0.resnets.0", f"{first}.attn1")
    apart = (f"{first}.ff", "down_blocks.0.resnets.1", "mid_block.resnets.0")
    for path in (*shared, *apart):
        count(path)
    with torch.inference_mode():
        plan(pixels(loaded))
    together = IMAGES * TIMESTEPS  # all timesteps and all photos in one call
    assert rows == {**{path: [together] for path in shared}, **{path: [2 * together] for path in apart}}


def test_keys_and_values_of_the_prompts_are_computed_when_a_model_is_opened_and_never_again(
    loaded: LoadedScorer,
) -> None:
    plan, images = ScoringPass(loaded.model), pixels(loaded)
    with torch.inference_mode():
        wanted = plan(images)[0]
    with torch.no_grad():
        for block in plan.unet.blocks:  # whoever computed them again would find nothing there
            layer = loaded.model.unet.get_submodule(block.path)
            layer.to_k.weight.zero_()
            layer.to_v.weight.zero_()
    with torch.inference_mode():
        assert torch.equal(plan(images)[0], wanted)
        assert not torch.allclose(ScoringPass(loaded.model)(images)[0], wanted)


def test_convolutions_are_laid_out_with_channels_last(small_scorer: Path) -> None:
    engine = open_model(f"local-dir:{small_scorer}", EngineOptions(backend="torch")).photos
    assert isinstance(engine, TorchEngine)
    kernels = [weight for part in (engine._pass.model.vae.encoder, engine._pass.model.unet)
               for weight in part.parameters() if weight.dim() == 4 and weight.shape[1] > 1 and weight.shape[2] > 1]  # fmt: skip
    assert kernels
    for kernel in kernels:
        assert kernel.is_contiguous(memory_format=torch.channels_last)
        assert not kernel.is_contiguous()
