"""The stage of the embedded model's recipe that wants a GPU, run on a CPU at a tiny size."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from genzqa.training.mini.degradations import DEGRADATIONS
from genzqa.training.mini.photos import open_biq2021
from recipes import miniature_biq2021

ROOT = Path(__file__).parents[1]
TOKENIZER = ROOT / "src" / "genzqa" / "embedded" / "mini" / "base" / "tokenizer"


@pytest.fixture(scope="module")
def recipe():
    """The modules of ``training/mini``, which are scripts beside each other and not a package."""
    sys.path.insert(
        0, str(ROOT / "training" / "mini")
    )  # for as long as the tests run: worker processes import them too
    try:
        import ablate
        import device
        import device_faults
        import device_views
        import resample

        modules = (ablate, device, device_faults, device_views, resample)
        yield {module.__name__: module for module in modules}
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return miniature_biq2021(tmp_path_factory.mktemp("biq2021"))


def sharp(count: int) -> np.ndarray:
    """Pictures ``(count, 512, 512, 3)`` with detail at every scale."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (count, 64, 64, 3)).repeat(8, 1).repeat(8, 2)
    return (coarse // 2 + rng.integers(0, 128, coarse.shape)).astype(np.uint8)


def as_images(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float()


def test_views_cut_by_matrices_are_those_of_scoring(recipe) -> None:
    from genzqa.media.preprocess import resize_square

    resample, pixels = recipe["resample"], sharp(2)
    whole = resample.resize_matrix(torch.zeros(2), torch.full((2,), 512.0), 512, 448)
    wanted = np.stack([255 * resize_square(one, 448) for one in pixels])
    found = resample.apply(whole, whole, as_images(pixels)).clamp(0, 255).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found.numpy(), wanted, atol=0.02)
    part = resample.resize_matrix(torch.full((2,), 100.0), torch.full((2,), 400.0), 512, 200)
    wanted = np.stack([255 * resize_square(one[100:500, 100:500], 200) for one in pixels])
    found = resample.apply(part, part, as_images(pixels)).clamp(0, 255).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found.numpy(), wanted, atol=0.02)


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("kind", ["blur", "motion_blur", "noise", "sensor_noise", "downscale", "exposure", "contrast"])
def test_faults_on_a_device_are_as_strong_as_those_on_the_processor(recipe, kind: str, strength: float) -> None:
    pixels = sharp(6)
    images, rng = as_images(pixels), np.random.default_rng(5)
    torch.manual_seed(5)
    ours = recipe["device_faults"].FAULTS[kind](images, torch.full((6,), strength)).round().clamp(0, 255)
    theirs = as_images(np.stack([DEGRADATIONS[kind](one, strength, rng) for one in pixels]))
    changed = [(one - images).abs().mean().item() for one in (ours, theirs)]
    spread = {"exposure": 0.4, "contrast": 0.4}.get(kind, 0.15)  # their direction, and their haze, are drawn
    assert changed[0] == pytest.approx(changed[1], rel=spread), changed
    if kind == "blur":
        assert (ours - theirs)[:, :, 32:-32, 32:-32].abs().max() <= 1


class PlainFeatures(torch.nn.Module):
    """Stands in for the pretrained network: 2,304 numbers of a picture of 48x48."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pixels, (24, 32)).flatten(1)


def test_the_stage_for_a_gpu_trains_and_ablates(
    recipe, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = recipe["device"]
    monkeypatch.setattr(recipe["device_views"], "pretrained_network", PlainFeatures)
    settings = (ROOT / "training" / "mini" / "device.toml").read_text()
    smaller = {"clean = 96": "clean = 4", "codec_pairs = 15": "codec_pairs = 1", "fault_pairs = 15": "fault_pairs = 2",
               "batches = 100": "batches = 1"}  # fmt: skip
    for was, becomes in smaller.items():
        assert was in settings
        settings = settings.replace(was, becomes)
    (tmp_path / "small.toml").write_text(settings)
    plan = yaml.safe_load((ROOT / "configs" / "mini.yaml").read_text()) | {"validation": 8}
    plan["scorer"]["preprocessing"]["size"] = 64
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(plan))
    for folder, suffix in (("pristine", "png"), ("unscored", "jpg")):
        (tmp_path / folder).mkdir()
        for number, pixels in enumerate(sharp(2)):
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.{suffix}")
    command = ["device.py", "--biq2021", str(database), "--pristine", str(tmp_path / "pristine"), "--unscored",
               str(tmp_path / "unscored"), "--out", str(tmp_path), "--start", "mini", "--minutes", "0.02", "--ablations", "0.01",
               "--processes", "1", "--device", "cpu", "--recipe", str(tmp_path / "small.yaml"),
               "--plan", str(tmp_path / "small.toml")]  # fmt: skip
    monkeypatch.setattr(sys, "argv", command)
    device.main()
    before, after = (load_file(tmp_path / f"stage{number}.safetensors") for number in (3, 5))
    assert after.keys() == before.keys()
    changed = {name.split(".")[1] for name in after if not torch.equal(after[name], before[name])}
    assert changed >= {"vae", "unet", "prompts", "readout"}
    assert json.loads((tmp_path / "stage5.jsonl").read_text().splitlines()[-1])["step"] > 0
    assert json.loads((tmp_path / "ablations.json").read_text()).keys() == device.VARIANTS.keys()
    published, frozen = (
        load_file(tmp_path / f"ablation-{name}.safetensors") for name in ("as published", "no learned prompts")
    )
    assert not torch.equal(
        published["model.prompts.context"], frozen["model.prompts.context"]
    )  # one seed: the other was trained


def test_variants_start_alike_and_differ_in_what_they_say(recipe) -> None:
    ablate = recipe["ablate"]
    chances = torch.Generator().manual_seed(0)
    data = ablate.Data(torch.randn(2, 9, 4, 8, 8, generator=chances), 100 * torch.rand(9, generator=chances),
                       torch.randn(10, 4, 8, 8, generator=chances), np.arange(10.0))  # fmt: skip
    options = argparse.Namespace(epochs=1, pretraining=1, batch=4, rate=1e-3, seed=1)
    threads = torch.get_num_threads()
    made = {name: ablate.trained_variant(name, data, options) for name in ablate.VARIANTS}
    torch.set_num_threads(threads)
    assert made["as published"] | {"seconds": 0} == ablate.trained_variant("as published", data, options) | {
        "seconds": 0
    }
    for name, found in made.items():
        assert set(found["scores"]) == ({"none"} if ablate.VARIANTS[name].plain else {"1", "2", "4", "8"})
        assert np.isfinite(list(found["scores"].values())).all()
        assert len({tuple(one) for one in found["scores"].values()}) == len(found["scores"])
    firsts = [tuple(next(iter(found["scores"].values()))) for found in made.values()]
    assert len(set(firsts)) == len(firsts)  # every change changes the scores
    sizes = [found["parameters"] for found in made.values()]
    assert max(sizes) < 1.35 * min(sizes)
    told = ablate.report(made["no bias"]["scores"], made, data)
    assert told["1"]["srcc"][1] <= told["1"]["srcc"][0] <= told["1"]["srcc"][2]
    assert len(told["srcc_gain"]) == 3
    assert "srcc_gain" not in ablate.report(made["as published"]["scores"], made, data)
    one, other = (list(ablate.drawn(data, 1, 4, seed)) for seed in (1, 1))
    assert all(
        torch.equal(a, b) for first, second in zip(one, other, strict=True) for a, b in zip(first, second, strict=True)
    )


def test_finished_variants_are_kept_for_the_same_settings_alone(recipe, tmp_path: Path) -> None:
    finished, kept = recipe["ablate"].finished, tmp_path / "scores.json"
    assert finished(kept, {"epochs": 3}) == {}
    kept.write_text(json.dumps({"settings": {"epochs": 3}, "variants": {"no bias": {"seconds": 1}}}))
    assert finished(kept, {"epochs": 3}) == {"no bias": {"seconds": 1}}
    assert finished(kept, {"epochs": 4}) == {}


def test_a_subset_that_is_left_out_is_never_trained_on(recipe, database: Path, tmp_path: Path) -> None:
    photos = open_biq2021(database, tmp_path, 8, 2406)
    subset = str(photos.name[0])[:4].lower()
    parts = recipe["ablate"].without(subset, photos, 1)
    mine = {name: {str(one)[:4].lower() for one in photos.name[rows]} for name, rows in parts.items()}
    assert mine["validation"] == {subset}
    assert subset not in mine["train"]
    assert len(parts["train"]) > 0
    assert not {"test", "validation"} & set(photos.split[parts["train"]])
    assert "test" not in photos.split[parts["validation"]]
