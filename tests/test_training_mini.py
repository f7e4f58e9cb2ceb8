"""The recipe of the embedded model, run whole at a tiny size: it must not rot between trainings."""

from __future__ import annotations

import csv
import gzip
import sys
import tomllib
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
    sys.path.insert(0, str(ROOT / "training" / "mini"))
    try:
        import components
        import degradations
        import export
        import photos
        import train
    finally:
        sys.path.pop(0)
    return {"components": components, "degradations": degradations, "export": export, "photos": photos, "train": train}


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


def test_whole_recipe_makes_a_model_that_scores(recipe, database: Path, tmp_path: Path, monkeypatch) -> None:
    train, export = recipe["train"], recipe["export"]
    config = tomllib.loads((ROOT / "training" / "mini" / "mini.toml").read_text())
    small = {"size": 64, "scoring_size": 64, "steps": 2, "clean": 3, "pairs": 1, "check_every": 1}
    config["stage1"], config["stage2"] = ([part | small for part in config[stage]] for stage in ("stage1", "stage2"))
    config["scorer"]["preprocessing"]["size"] = 64
    photos = recipe["photos"].open_biq2021(database, tmp_path, 8, config["seed"])
    assert [len(photos.indices(split)) for split in ("train", "validation", "test")] == [12, 8, 4]
    train.train_stage1(photos, config, tmp_path, 0)
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    train.train_stage2(photos, config, tokenizer, tmp_path, 0)
    config["stage3"] |= {"plain": 4, "laddered": 2, "clean": 4, "pairs": 1, "epochs": 1}
    train.train_stage3(photos, config, tokenizer, tmp_path)
    state = load_file(tmp_path / "stage3.safetensors")
    assert all(value.isfinite().all() for value in state.values())

    from genzqa.model.config import ScorerConfig

    written = export.write_model(tmp_path, tmp_path / "mini", ScorerConfig.model_validate(
        {"base": "local-dir:../base", "lora_rank": 0, **config["scorer"]}))  # fmt: skip
    assert len(written.base_sha256) == 64
    model = genzqa.GenzIQA.from_pretrained(f"local-dir:{tmp_path / 'mini' / 'adapter'}")
    with torch.inference_mode():
        raw = model(torch.zeros(1, 3, 64, 64)).raw
    assert 0 <= float(raw) <= 100


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
