"""Precision: bf16 where a model keeps its scores in it, and single precision where it would not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import genzqa
from genzqa.batch.run import identity_of
from genzqa.engine.scoring_pass import ScoringPass
from genzqa.model.adapter import load_scorer

PHOTOS = Path(__file__).parents[1] / "examples" / "photos"


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_bf16_moves_no_score_by_more_than_a_fifth_of_a_point(wide_scorer: Path, backend: str) -> None:
    photos, name = sorted(PHOTOS.iterdir())[:4], f"local-dir:{wide_scorer}"
    exact, rounded = genzqa.load(name), genzqa.load(name, backend=backend, precision="bf16")  # type: ignore[arg-type]
    told = [(one.provenance.backend, one.provenance.precision) for one in (exact, rounded)]
    assert told == [("torch", "fp32"), (backend, "bf16")]  # and so does every record
    differences = [rounded.score(photo).score - exact.score(photo).score for photo in photos]
    assert 0 < np.abs(differences).max() < 0.2


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_model_too_narrow_for_bf16_stays_in_single_precision_and_says_so(backend: str) -> None:
    photo = sorted(PHOTOS.iterdir())[0]
    exact, asked = (genzqa.load(backend=backend, precision=one) for one in ("fp32", "bf16"))  # type: ignore[arg-type]
    assert asked.provenance == exact.provenance
    assert asked.score(photo).score == exact.score(photo).score


def test_another_precision_is_another_model_to_a_batch(wide_scorer: Path) -> None:
    name = f"local-dir:{wide_scorer}"
    exact, rounded, elsewhere = (identity_of(genzqa.load(name, **options))[1]  # type: ignore[arg-type]
                                 for options in ({}, {"precision": "bf16"}, {"device": "cpu"}))  # fmt: skip
    assert exact != rounded
    assert exact == elsewhere


def test_in_bf16_the_keys_of_the_prompts_are_not_rounded_once_more(wide_scorer: Path) -> None:
    model = load_scorer(f"local-dir:{wide_scorer}", trainable=False, dtype=torch.bfloat16).model
    plan = ScoringPass(model).unet
    layer = model.unet.get_submodule(plan.blocks[0].path)
    with torch.no_grad():
        wanted = model.prompts().float() @ layer.to_k.weight.float().T * layer.scale
    found = plan.key_0[0].permute(0, 3, 1, 2).flatten(2)  # (2, 77, heads x width)
    torch.testing.assert_close(found, wanted)
