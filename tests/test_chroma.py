"""Colour is seen as finely as the eye sees it, when a model's configuration says so."""

from __future__ import annotations

from pathlib import Path

import torch

from genzqa.model.adapter import load_scorer
from genzqa.model.colour import LUMA, soften_chroma
from genzqa.model.config import Preprocessing


def luma(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels * torch.tensor(LUMA).view(3, 1, 1)).sum(1)


def test_luma_and_flat_colour_stay() -> None:
    pixels = torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    softened = soften_chroma(pixels, 1.5)
    assert softened.shape == pixels.shape
    torch.testing.assert_close(luma(softened), luma(pixels), atol=1e-6, rtol=0)
    assert (softened - softened.mean((2, 3), keepdim=True)).std() < (pixels - pixels.mean((2, 3), keepdim=True)).std()
    flat = torch.tensor([0.8, -0.4, 0.1]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    torch.testing.assert_close(soften_chroma(flat, 1.5), flat, atol=1e-6, rtol=0)


def test_nothing_is_done_as_published() -> None:
    pixels = torch.rand(1, 3, 16, 16)
    assert soften_chroma(pixels, Preprocessing().chroma_blur) is pixels
    assert Preprocessing().name == "bicubic-antialias-512x512"
    assert Preprocessing(size=64, chroma_blur=1.5).name == "bicubic-antialias-64x64-chroma1.5"


def test_a_model_told_so_does_not_see_fine_colour(small_scorer: Path) -> None:
    model = load_scorer(f"local-dir:{small_scorer}").model
    generator = torch.Generator().manual_seed(1)
    grey = torch.rand(1, 1, 64, 64, generator=generator).expand(1, 3, 64, 64) - 0.5
    speckle = torch.randn(1, 3, 64, 64, generator=generator) * 0.2
    coloured = grey + speckle - luma(speckle)[:, None]  # the same luma, and colour that changes at every pixel
    moved = {}
    for sigma in (0.0, 1.5):
        model.config = model.config.model_copy(
            update={"preprocessing": model.config.preprocessing.model_copy(update={"chroma_blur": sigma})}
        )
        with torch.no_grad():
            moved[sigma] = (model.encode(coloured) - model.encode(grey)).abs().mean().item()
    assert 0 < moved[1.5] < 0.5 * moved[0.0]
