"""The benchmark's inputs are what it says they are, and it measures; how fast it was is no business of a test."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import genzqa
from genzqa import GenzIQA
from genzqa.media.prepare import prepare_photo
from genzqa.media.preprocess import to_network
from genzqa.media.video import open_video, uniform_times
from genzqa.model.registry import embedded_folder

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PHOTO = Path(__file__).parents[1] / "examples" / "photos" / "parrots.jpg"


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


@pytest.fixture(scope="module")
def plain():
    """The module of the plain implementation."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import plain

        yield plain
    finally:
        sys.path.remove(str(BENCHMARKS))


def with_config(scorer: Path, out: Path, **changes) -> Path:
    """A copy of an adapter folder, some fields of its configuration changed."""
    shutil.copytree(scorer, out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | changes))
    return out


def network_input(side: int, seed: int) -> torch.Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize(("timesteps", "side", "changes"), [
    (1, 192, {}), (2, 128, {}), (4, 64, {"resolution_invariant": True}), (8, 128, {"use_bias": False}),
    (2, 64, {"prompt_padding_mask": False, "seed": 5, "lse_temperature": 0.5}),
])  # fmt: skip
def test_the_plain_procedure_scores_as_the_package_does(plain, small_scorer, tmp_path, timesteps, side, changes):
    folder = with_config(small_scorer, tmp_path / "adapter", timesteps=timesteps, **changes)
    slow, fast = plain.Plain.from_adapter(folder), GenzIQA.from_pretrained(f"local-dir:{folder}")
    for seed in (1, 2):
        pixels = network_input(side, seed)
        with torch.inference_mode():
            wanted = float(fast(pixels).raw)
        assert slow.score(pixels[0]) == pytest.approx(wanted, abs=1e-4)


def test_the_plain_procedure_reads_the_adapter(plain, small_scorer, tmp_path):
    """LoRA and context matter, so that leaving one out would show in the comparison above."""
    pixels = network_input(64, 1)[0]
    score = plain.Plain.from_adapter(small_scorer).score(pixels)
    for number, part in enumerate(("lora.", "context")):
        folder = with_config(small_scorer, tmp_path / str(number))
        weights = load_file(folder / "adapter.safetensors")
        save_file({name: value * (0 if name.startswith(part) else 1) for name, value in weights.items()},
                  folder / "adapter.safetensors")  # fmt: skip
        assert abs(plain.Plain.from_adapter(folder).score(pixels) - score) > 1e-2


def test_the_plain_procedure_scores_as_mini_does(plain):
    """With what `mini` adds: a learned readout and a blur of chroma."""
    scorer = genzqa.load()
    folder = embedded_folder("mini") / "adapter"
    photo = prepare_photo(PHOTO, scorer.config.preprocessing.size)
    raw = plain.Plain.from_adapter(folder).score(to_network(photo.pixels))
    assert raw == pytest.approx(scorer.score_prepared([photo])[0].raw, abs=1e-3)


def test_the_plain_procedure_forms_every_map(plain, small_scorer):
    slow = plain.Plain.from_adapter(small_scorer)
    kept = []
    slow.unet.register_forward_hook(lambda *_: kept.extend(tuple(part.shape) for part in slow.seen.maps))
    slow.score(network_input(64, 1)[0])
    assert len(kept) == 32  # 16 of self-attention, 16 of cross-attention
    assert sum(shape[2:] == (64, 64) for shape in kept) == 5  # at 8 x 8 positions, of two down and three up blocks
    assert all(shape[0] == 2 and shape[3] in (shape[2], 77) for shape in kept)
    assert slow.seen.maps == []
