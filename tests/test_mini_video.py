"""The embedded model on videos: faults that no single frame shows lower its score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import genzqa
from videos import encode

PHOTOS = Path(__file__).parents[1] / "examples" / "photos"
COUNT = 76  # frames, at 30 a second


@pytest.fixture(scope="module")
def scorer() -> genzqa.Scorer:
    return genzqa.load()


def panned(name: str) -> np.ndarray:
    """A camera that moves steadily over a photo."""
    with Image.open(PHOTOS / name) as photo:
        picture = photo.convert("RGB")
    width, height = 288, 192
    room = np.array([picture.width - width, picture.height - height])
    places = np.linspace([0.1, 0.3], [0.9, 0.7], COUNT) * room
    return np.stack([np.asarray(picture.resize((width, height), box=(x, y, x + width, y + height))) for x, y in places])


def every(frames: np.ndarray, step: int) -> np.ndarray:
    return frames[np.arange(COUNT) // step * step]


def frozen(frames: np.ndarray) -> np.ndarray:
    """Still for the last 24 of every 30 frames."""
    second, frame = np.divmod(np.arange(COUNT), 30)
    return frames[30 * second + np.minimum(frame, 6)]


def trembling(frames: np.ndarray) -> np.ndarray:
    way = np.random.default_rng(2).integers(-8, 9, (COUNT, 2))
    return np.stack([np.roll(frame, tuple(move), (0, 1)) for frame, move in zip(frames, way, strict=True)])


def flickering(frames: np.ndarray) -> np.ndarray:
    light = 1 + 0.3 * np.sin(2 * np.pi * 7 * np.arange(COUNT) / 30)
    return np.clip(frames * light[:, None, None, None], 0, 255).astype(np.uint8)


FAULTS = {
    "5 frames a second": lambda frames: every(frames, 6),
    "freezes": frozen,
    "shake": trembling,
    "flicker": flickering,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_time_lowers_the_score(scorer: genzqa.Scorer, fault: str) -> None:
    scores = []
    for alter in (lambda frames: frames, FAULTS[fault]):
        results = [
            scorer.score(encode(list(alter(panned(name))), rate=30)) for name in ("parrots.jpg", "lighthouse.jpg")
        ]
        assert all("frames_only" not in {note.code for note in result.notes} for result in results)
        scores.append(np.mean([result.score for result in results]))
    intact, faulty = scores
    assert faulty < intact - 2


def test_it_says_that_its_scale_is_one_of_photos(scorer: genzqa.Scorer) -> None:
    result = scorer.score(encode(list(panned("portrait.jpg")), rate=30))
    assert isinstance(result, genzqa.VideoResult)
    assert {"photo_calibration"} <= {note.code for note in result.notes}
    assert len(result.gamma) == 10
    assert 0 < result.score < 100
