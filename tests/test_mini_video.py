"""The embedded model on videos: faults that no single frame shows lower its score."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import genzqa
from videos import encode

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT / "examples" / "photos"
CLIPS = ROOT.parent / "shared" / "data" / "clips"
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
    assert len(result.gamma) == 7
    assert 0 < result.score < 100


LADDERS = (
    "frame_rate",
    "repeats",
    "freeze",
    "judder",
    "shake",
    "flicker",
    "temporal_noise",
    "h264",
    "hevc",
    "vp9",
    "av1",
)


@pytest.fixture(scope="module")
def ladders() -> Iterator[dict[str, list[list[bytes]]]]:
    """Of every ladder the intact video and three steps down, of real clips and of a camera that moves over a photo."""
    if not CLIPS.is_dir():
        pytest.skip("the clips are not here")
    folder = str(ROOT / "training" / "video")
    sys.path.insert(0, folder)
    try:
        from encoders import CODECS, NEARLY_LOSSLESS, encoded
        from faults import FAULTS
        from ladders import clip_frames

        made: dict[str, list[list[bytes]]] = {}
        for frames in (
            clip_frames(CLIPS / "bikes.mp4"),
            clip_frames(CLIPS / "carphone_pristine.mp4"),
            panned("parrots.jpg"),
        ):
            intact = encoded(frames, *NEARLY_LOSSLESS)
            for name, fault in FAULTS.items():
                steps = [fault(frames, strength, np.random.default_rng(7))[0] for strength in (0.25, 0.5, 1.0)]
                made.setdefault(name, []).append([intact, *(encoded(step, *NEARLY_LOSSLESS) for step in steps)])
            for name, (codec, options, rates) in CODECS.items():
                coded = [encoded(frames, codec, options, crf) for crf in (rates[1], rates[2], rates[4])]
                made.setdefault(name, []).append([intact, *coded])
        yield made
    finally:
        sys.path.remove(folder)


@pytest.mark.parametrize("ladder", LADDERS)
def test_the_mean_score_falls_along_every_ladder(
    scorer: genzqa.Scorer, ladders: dict[str, list[list[bytes]]], ladder: str
) -> None:
    means = np.mean([[scorer.score(video).score for video in videos] for videos in ladders[ladder]], 0)
    assert len(ladders[ladder]) == 3
    assert (np.diff(means) < 0).all(), means
