"""The embedded model on ladders of degradations: over the Kodak photos its mean score falls at every step."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import genzqa
from genzqa.media.image import decode_image
from genzqa.training.mini.degradations import DEGRADATIONS

ROOT = Path(__file__).parents[1]
KODAK = ROOT.parent / "shared" / "data" / "kodak"


@pytest.fixture(scope="module")
def degradations():
    folder = str(ROOT / "training" / "mini")
    sys.path.insert(0, folder)
    try:
        import evaluate

        yield DEGRADATIONS, evaluate.LADDER
    finally:
        sys.path.remove(folder)


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    if not KODAK.is_dir():
        pytest.skip("the Kodak photos are not here")
    return [np.asarray(decode_image(path).pixels) for path in sorted(KODAK.glob("*.png"))]


@pytest.mark.parametrize("kind", ["blur", "noise", "jpeg", "downscale"])
def test_the_mean_score_falls_at_every_step(kind: str, photos: list[np.ndarray], degradations) -> None:
    degrade, ladder = degradations[0][kind], degradations[1]
    scorer = genzqa.load()

    def mean(pictures: list[np.ndarray]) -> float:
        results = list(scorer.score_many(pictures))
        assert all(isinstance(result, genzqa.ImageResult) for result in results)
        return float(np.mean([result.score for result in results]))

    means = [mean(photos)]
    for strength in ladder:
        rng = np.random.default_rng(7)
        means.append(mean([degrade(photo, strength, rng) for photo in photos]))
    assert len(photos) == 24
    assert (np.diff(means) < 0).all(), means
