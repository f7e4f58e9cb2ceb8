"""A miniature of the database that the recipes of `mini` are run on."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from genzqa.model.feature_encoder import FeatureEncoder


def miniature_biq2021(root: Path) -> Path:
    """The official folder and tables, 24 small noisy pictures."""
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


def random_encoder(channels: int) -> FeatureEncoder:
    """Stands in for the pretrained network, which the tests do not install: random weights, whose features tell pictures apart."""
    torch.manual_seed(0)
    encoder = FeatureEncoder(latent_channels=channels).eval().requires_grad_(False)
    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv2d):  # so that signals neither die nor grow over the layers
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            torch.nn.init.zeros_(module.bias)
    return encoder
