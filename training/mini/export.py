"""Write the embedded model from a finished training: calibration on the validation photos, half precision, manifest.

``python training/mini/export.py --biq2021 DIR --out TRAINING_DIR --embedded src/genzqa/embedded/mini``
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from genzqa.model.adapter import WEIGHTS, load_scorer, save_adapter, trained_parameters, with_prompts
from genzqa.model.base import base_sha256
from genzqa.model.config import ScorerConfig
from genzqa.scoring.calibration import fit_calibration
from photos import open_biq2021
from score import ScoreStage, build_scorer, save_base
from train import as_pixels

HALF = torch.float16


def write_model(training: Path, embedded: Path, config: ScorerConfig) -> ScorerConfig:
    """Base and adapter folders in half precision; the base's digest goes into the config."""
    tokenizer = CLIPTokenizer.from_pretrained(training / "tokenizer")
    stage1 = load_file(training / "stage1.safetensors")
    stage = ScoreStage(build_scorer(tokenizer, stage1, config))
    stage.load_state_dict(load_file(training / "stage4.safetensors"))
    shutil.rmtree(embedded, ignore_errors=True)
    weights = {name: value.detach().to(HALF) for name, value in trained_parameters(stage.model).items()}
    save_base(stage.model, training / "tokenizer", embedded / "base", HALF)
    config = config.model_copy(update={"base_sha256": base_sha256(embedded / "base")})
    save_adapter(embedded / "adapter", weights, config)
    # the prompts as the halved weights on disk make them
    weights = with_prompts(load_scorer(f"local-dir:{embedded / 'adapter'}").model, weights)
    save_adapter(embedded / "adapter", weights, config)
    write_manifest(embedded)
    return config


def write_manifest(embedded: Path) -> None:
    """``manifest.json``: every file's sha256, for ``genzqa verify``."""
    files = sorted(path for path in embedded.rglob("*") if path.is_file() and path.name != "manifest.json")
    sums = {path.relative_to(embedded).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    (embedded / "manifest.json").write_text(json.dumps(sums, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--biq2021", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="where train.py wrote")
    parser.add_argument("--embedded", type=Path, required=True)
    arguments = parser.parse_args()
    settings = tomllib.loads((Path(__file__).parent / "mini.toml").read_text())
    scorer = ScorerConfig.model_validate({"base": "mini", "lora_rank": 0, **settings["scorer"]})
    config = write_model(arguments.out, arguments.embedded, scorer)
    photos = open_biq2021(arguments.biq2021, arguments.out, settings["validation"], settings["seed"])
    model = load_scorer("mini").model
    chosen = photos.indices("validation")
    size = config.preprocessing.size
    with torch.inference_mode():
        parts = np.array_split(chosen, len(chosen) // 4)
        raw = torch.cat([model(as_pixels(photos, part, size)).raw for part in parts])
    source = f"BIQ2021, {len(chosen)} photos of the official training split that no weight was trained on"
    calibration = fit_calibration(raw.double().numpy(), photos.mos[chosen].astype(np.float64), source=source)
    config = config.model_copy(update={"calibration": calibration})
    save_adapter(arguments.embedded / "adapter", load_file(arguments.embedded / "adapter" / WEIGHTS), config)
    write_manifest(arguments.embedded)


if __name__ == "__main__":
    main()
