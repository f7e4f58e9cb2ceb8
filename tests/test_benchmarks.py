"""The benchmark's inputs are what it says they are, and it measures; how fast it was is no business of a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from genzqa.media.video import open_video, uniform_times

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def repeated(tmp_path_factory):
    """Two seconds, three times one after another."""
    folder = tmp_path_factory.mktemp("clips")
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import clips

        clips.encode(folder / "once.mp4", 2, 96, 54)
        clips.repeat(folder / "once.mp4", folder / "thrice.mp4", 3)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return folder / "thrice.mp4"


def test_a_repeated_sequence_is_one_sound_video(repeated):
    with open_video(repeated) as video:
        assert video.facts.duration == pytest.approx(6.0, abs=0.01)
        assert video.facts.frames_declared == 180
        moments = list(video.moments(uniform_times(6.0, 180)))
        assert video.tally.decoded == 180
        assert video.tally.corrupt == 0
        assert video.notes == ()
    for first, second in zip(moments[:60], moments[60:120], strict=True):
        assert (first.pixels == second.pixels).all()
    assert (moments[0].pixels != moments[30].pixels).any()


def test_one_measurement(repeated, small_scorer):
    command = [sys.executable, BENCHMARKS / "video.py", "--measure", repeated, "--model", f"local-dir:{small_scorer}"]
    measured = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert (measured["frames_sampled"], measured["frames_declared"]) == (8, 180)
    assert 8 <= measured["frames_decoded"] <= 180
    assert measured["peak_mib"] >= measured["loaded_peak_mib"] > 50
    assert min(measured["load_seconds"], measured["score_seconds"]) > 0
