"""Write a finished training as base and adapter folders: calibration on the validation photos, half precision, manifest.

``python -m genzqa.training.mini.export --config configs/mini.yaml --biq2021 DIR --out RUN --embedded src/genzqa/embedded/mini``
makes it the embedded model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from genzqa.files import write_atomically
from genzqa.media.preprocess import resize_square, to_network
from genzqa.model.adapter import WEIGHTS, load_scorer, save_adapter, trained_parameters, with_prompts
from genzqa.model.base import base_sha256
from genzqa.model.config import ScorerConfig
from genzqa.model.feature_encoder import FeatureEncoder
from genzqa.scoring.calibration import fit_calibration
from genzqa.training.mini.photos import Photos, open_biq2021
from genzqa.training.mini.plan import read_mini_plan
from genzqa.training.mini.score import ScoreStage, build_scorer, save_base

HALF = torch.float16


def write_model(training: Path, folder: Path, config: ScorerConfig) -> ScorerConfig:
    """Folders ``base`` and ``adapter`` in half precision, from ``scorer.safetensors``; the base's digest goes into the config."""
    tokenizer = CLIPTokenizer.from_pretrained(training / "tokenizer")
    encoder = FeatureEncoder.from_pretrained(training / "encoder", torch_dtype=torch.float32).eval()
    stage = ScoreStage(build_scorer(tokenizer, encoder, config))
    stage.load_state_dict(load_file(training / "scorer.safetensors"))
    shutil.rmtree(folder, ignore_errors=True)
    weights = {name: value.detach().to(HALF) for name, value in trained_parameters(stage.model).items()}
    save_base(stage.model, training / "tokenizer", folder / "base", HALF)
    config = config.model_copy(update={"base_sha256": base_sha256(folder / "base")})
    save_adapter(folder / "adapter", weights, config)
    # the prompts as the halved weights on disk make them
    weights = with_prompts(load_scorer(f"local-dir:{folder / 'adapter'}").model, weights)
    save_adapter(folder / "adapter", weights, config)
    write_manifest(folder)
    return config


def as_pixels(photos: Photos, index: npt.NDArray[np.int64], size: int) -> torch.Tensor:
    """Whole photos ``(n, 3, size, size)`` in [-1, 1], as scoring sees them."""
    return torch.stack([to_network(resize_square(photos.pixels[i], size)) for i in index])


@torch.inference_mode()
def calibrate(folder: Path, config: ScorerConfig, photos: Photos, model: str) -> None:
    """Fit the calibration of what `write_model` wrote, loaded as ``model``, on the photos set aside."""
    scorer, chosen = load_scorer(model).model, photos.indices("validation")
    parts = np.array_split(chosen, max(1, len(chosen) // 4))
    raw = torch.cat([scorer(as_pixels(photos, part, config.preprocessing.size)).raw for part in parts])
    source = f"BIQ2021, {len(chosen)} photos of the official training split that no weight was trained on"
    calibration = fit_calibration(raw.double().numpy(), photos.mos[chosen].astype(np.float64), source=source)
    config = config.model_copy(update={"calibration": calibration})
    save_adapter(folder / "adapter", load_file(folder / "adapter" / WEIGHTS), config)
    write_manifest(folder)


def write_manifest(folder: Path) -> None:
    """``manifest.json``: every file's sha256, for ``genzqa verify``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    sums = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    write_atomically(folder / "manifest.json", (json.dumps(sums, indent=2) + "\n").encode())


def main() -> None:
    """Of the command above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the recipe's plan")
    parser.add_argument("--biq2021", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="where the recipe was run")
    parser.add_argument("--embedded", type=Path, required=True)
    arguments = parser.parse_args()
    plan = read_mini_plan(arguments.config)
    config = write_model(arguments.out, arguments.embedded, plan.scorer.model_copy(update={"base": "mini"}))
    photos = open_biq2021(arguments.biq2021, arguments.out, plan.validation, plan.seed)
    calibrate(arguments.embedded, config, photos, "mini")


if __name__ == "__main__":
    main()
