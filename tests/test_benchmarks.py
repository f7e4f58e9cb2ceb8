"""The benchmark's inputs are what it says they are, and it measures; how fast it was is no business of a test."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

import genzqa
from genzqa import GenzIQA
from genzqa.media.prepare import prepare_photo
from genzqa.media.preprocess import to_network
from genzqa.media.video import open_video, uniform_times
from genzqa.model.registry import embedded_folder

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PHOTO = Path(__file__).parents[1] / "examples" / "photos" / "parrots.jpg"


@pytest.fixture(scope="module")
def modules():
    """A benchmark's file by name, as its neighbours import it."""
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def repeated(modules, tmp_path_factory):
    """Two seconds, three times one after another."""
    folder = tmp_path_factory.mktemp("clips")
    clips = modules("clips")
    clips.encode(folder / "once.mp4", 2, 96, 54)
    clips.repeat(folder / "once.mp4", folder / "thrice.mp4", 3)
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
def plain(modules):
    return modules("plain")


@pytest.fixture(scope="module")
def contestants(modules):
    return modules("contestants")


@pytest.fixture(scope="module")
def full_size(modules):
    return modules("full_size")


@pytest.fixture(scope="module")
def plots(modules):
    return modules("plots")


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


def test_speed_of_both_in_one_run(tmp_path):
    """Real processes and real models at the smallest size, and what is over the budget named, not run."""
    command = [sys.executable, BENCHMARKS / "speed.py", "--size", "mini", "--side", "64", "--timesteps", "1", "--batches", "2",
               "1000000", "--repeats", "1", "--budget", "500", "--frames", "1", "--out", tmp_path / "new" / "speed.json"]  # fmt: skip
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    record = json.loads((tmp_path / "new" / "speed.json").read_text())
    slow, ours, skipped = record["photos"]
    assert (slow["contestant"], slow["batch"], ours["contestant"], ours["batch"]) == ("plain", 1, "genzqa", 2)
    assert "more than the budget of 500 s" in skipped["skipped"]
    assert skipped["skipped"] in printed
    assert "seconds" not in skipped
    assert ours["largest_difference"] < 1e-3  # raw score of the same photo
    for row in (slow, ours):
        assert row["photos_per_second"] == pytest.approx(row["batch"] / row["seconds"])
        assert row["tflops"] == pytest.approx(row["tflop_per_photo"] * row["photos_per_second"])
        assert row["of_ceiling"] == pytest.approx(row["tflops"] * 1e12 / max(record["ceiling_flop_per_second"]["fp32"]))
        assert 0 < row["of_ceiling"] < 1
        assert row["peak_mib"] > 100
    assert ours["times_plain"] == pytest.approx(ours["photos_per_second"] / slow["photos_per_second"])
    assert len(record["ceiling_flop_per_second"]["fp32"]) == 2
    assert record["machine"]["cores"] >= 1
    assert record["machine"]["torch"] == torch.__version__
    assert [row["frames"] for row in record["videos"]] == [1]
    assert record["videos"][0]["seconds"] > 0


@pytest.mark.parametrize("wrong", [["--side", "100"], ["--batches", "0"], ["--size", "sd21", "--frames", "2"],
                                   ["--size", "sd21", "--precision", "int8"]])  # fmt: skip
def test_speed_refuses_before_it_measures(wrong):
    done = subprocess.run([sys.executable, BENCHMARKS / "speed.py", *wrong], capture_output=True, text=True)
    assert done.returncode == 2
    assert wrong[-2] in done.stderr
    assert done.stdout == ""


def test_flop_are_those_of_the_products_and_convolutions(contestants, plain, small_scorer):
    """They grow with the area as they must, do not depend on the photo, and add up to those of a whole scoring."""
    model = plain.Plain.from_adapter(small_scorer)
    small, large = (contestants._count_flop(model, network_input(side, 1)[0]) for side in (64, 128))
    assert small["prompts"] == large["prompts"] > 0
    # convolutions and projections grow by the area, attention maps by its square; small maps are little
    assert 4 < large["encode"] / small["encode"] < 4.5
    assert 4 * 0.9 < large["step"] / small["step"] < 6
    counted = contestants._count_flop(model, network_input(64, 2)[0])
    assert counted == small
    with FlopCounterMode(display=False) as counter:
        model.score(network_input(128, 1)[0])
    assert counter.get_total_flops() == large["prompts"] + large["encode"] + model.config.timesteps * large["step"]


def test_speed_in_integers(contestants, plain, wide_scorer, tmp_path):
    """An export that is made once, and scores what the plain procedure scores."""
    folder = tmp_path / "int8"
    adapter = with_config(wide_scorer, tmp_path / "adapter", base=f"local-dir:{wide_scorer.parent / 'base'}")
    told = contestants.export(str(adapter), str(folder))
    assert 0 < told["score"] < 0.2
    measured = contestants.engine(str(folder), "cpu", "openvino", "int8", batch=2, first=0)
    exact = contestants.plain(str(adapter), "cpu", first=0)
    assert measured["raw"][0] == pytest.approx(exact["raw"][0], abs=1.2)  # of the 600 units that are 100 points
    assert len(measured["raw"]) == 2


def test_photos_of_a_round_are_different_ones(contestants):
    prepared = contestants.photos(3, 8, 64)
    assert len({one.pixels.tobytes() for one in prepared}) == 8
    assert (contestants.photos(4, 1, 64)[0].pixels == prepared[1].pixels).all()


def test_the_large_base_has_the_size_it_says(full_size):
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        parts = (UNet2DConditionModel(**full_size.UNET), AutoencoderKL(**full_size.VAE),
                 CLIPTextModel(CLIPTextConfig(**full_size.TEXT)))  # fmt: skip
    assert [sum(value.numel() for value in part.parameters()) for part in parts] == [
        865_910_724,
        83_653_863,
        340_387_840,
    ]
    assert sum(value.numel() for value in full_size._lora(torch.Generator()).values()) == 430_592  # METHOD


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_base_of_random_weights_scores(full_size, plain, tmp_path, monkeypatch, precision):
    """The same at a small size: it loads, its prompts are those its text encoder makes, and it is built once."""
    monkeypatch.setattr(full_size, "UNET", full_size.UNET | {
        "block_out_channels": (32, 64, 64, 64), "attention_head_dim": (1, 2, 2, 2), "cross_attention_dim": 64})  # fmt: skip
    monkeypatch.setattr(full_size, "VAE", full_size.VAE | {"block_out_channels": (32, 32, 64, 64)})
    monkeypatch.setattr(full_size, "TEXT", full_size.TEXT | {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4})  # fmt: skip
    adapter = full_size.build(tmp_path / "large", precision)
    unet = adapter.parent / "base" / "unet" / "diffusion_pytorch_model.safetensors"
    assert {value.dtype for value in load_file(unet).values()} == {full_size.PRECISIONS[precision]}
    written = unet.stat().st_mtime_ns
    assert full_size.build(tmp_path / "large", precision) == adapter
    assert unet.stat().st_mtime_ns == written

    folder = with_config(adapter, tmp_path / "small", preprocessing={"size": 64})
    scorer = genzqa.load(f"local-dir:{folder}")
    photo = prepare_photo(PHOTO, 64)
    raw = scorer.score_prepared([photo])[0].raw
    assert plain.Plain.from_adapter(folder).score(to_network(photo.pixels)) == pytest.approx(raw, abs=1e-4)
    base = adapter.parent / "base"
    shutil.rmtree(base / "unet")
    (adapter / "config.json").unlink()  # as a run that was stopped leaves it
    full_size.build(tmp_path / "large", precision)
    assert genzqa.load(f"local-dir:{folder}").score_prepared([photo])[0].raw == raw


def test_plots_of_growth(plots, tmp_path):
    rows = [{"contestant": name, "backend": "torch", "precision": "fp32", "side": side, "timesteps": steps, "batch": batch,
             "seconds": batch * steps * side / 100, "photos_per_second": 1.0, "peak_mib": 500 + side, "run": 0}
            for name, side, steps, batch in (("plain", 64, 1, 1), ("genzqa", 64, 1, 1), ("genzqa", 64, 1, 4), ("plain", 128, 1, 1),
                                             ("genzqa", 128, 1, 1), ("genzqa", 64, 2, 4))]  # fmt: skip
    assert [row["side"] for row in plots.growth(rows, "side")] == [64, 64, 128, 128]
    assert [row["batch"] for row in plots.growth(rows, "batch")] == [1, 1, 4]
    assert [row["timesteps"] for row in plots.growth(rows, "timesteps")] == [1, 2]
    assert plots.growth(rows[:2], "side") == []
    another_day = [row | {"run": 1} for row in rows[3:5]]
    assert plots.growth(rows + another_day, "side") == plots.growth(rows, "side")  # the days are not mixed
    mixed = plots.growth([*rows[:2], *another_day, rows[0] | {"run": 2}], "side")
    assert mixed == [*rows[:2], *another_day]  # but where they must be, and then nothing counts twice
    record = {"asked": {"size": "mini", "device": "cpu"}, "videos": [], "photos": [*rows, {"skipped": "too long"}]}
    (tmp_path / "speed.json").write_text(json.dumps(record))
    command = [sys.executable, BENCHMARKS / "plots.py", tmp_path / "speed.json", "--images", tmp_path / "images"]
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert table.count("\n|") == len(rows) + 1
    first = (tmp_path / "images" / "speed-mini-cpu.svg").read_bytes()
    assert b"<svg" in first
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "images" / "speed-mini-cpu.svg").read_bytes() == first  # no change without a change of figures
