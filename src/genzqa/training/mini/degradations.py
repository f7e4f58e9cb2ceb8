"""Synthetic degradations with a graded strength, for training targets and for the monotone ladders.

Every function takes an sRGB crop ``(H, W, 3) uint8`` and a strength in ``[0, 1]`` and returns a crop of the same
shape. Strength 0 is barely visible, strength 1 is plainly ruined. The scales are ours: they put equal steps of
strength at roughly equal steps of visibility, which is all that the graded target and the rank loss need.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

Crop = npt.NDArray[np.uint8]
Degradation = Callable[[Crop, float, np.random.Generator], Crop]


def _to_uint8(values: npt.NDArray[np.floating]) -> Crop:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def blur(crop: Crop, strength: float, rng: np.random.Generator) -> Crop:
    """Gaussian blur, sigma 0.5 to 5 px."""
    sigma = 0.5 + 4.5 * strength**1.5
    return _to_uint8(ndimage.gaussian_filter(crop.astype(np.float32), (sigma, sigma, 0), mode="reflect"))


def motion_blur(crop: Crop, strength: float, rng: np.random.Generator) -> Crop:
    """Straight motion blur along a random direction, 2 to 24 px."""
    length = 2 + 22 * strength**1.5
    angle = rng.uniform(0, np.pi)
    radius = int(np.ceil(length / 2)) + 1
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float32)
    along, across = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    kernel = np.clip(length / 2 + 0.5 - np.abs(along), 0, 1) * np.clip(1 - np.abs(across), 0, 1)
    kernel /= kernel.sum()
    source = crop.astype(np.float32)
    return _to_uint8(np.stack([ndimage.convolve(source[..., c], kernel, mode="reflect") for c in range(3)], -1))


def noise(crop: Crop, strength: float, rng: np.random.Generator) -> Crop:
    """White Gaussian noise, per channel or luminance only, sigma 2 to 60 of 255."""
    sigma = 2 + 58 * strength**1.5
    channels = 3 if rng.random() < 0.7 else 1
    field = rng.standard_normal((*crop.shape[:2], channels), dtype=np.float32)
    return _to_uint8(crop.astype(np.float32) + sigma * field)


def sensor_noise(crop: Crop, strength: float, rng: np.random.Generator) -> Crop:
    """Signal-dependent noise smoothed as a camera's denoiser leaves it: coarse grain and colour blotches."""
    sigma = 3 + 50 * strength**1.3
    field = rng.standard_normal(crop.shape, dtype=np.float32)
    grain = rng.uniform(0.5, 1.2)
    field = ndimage.gaussian_filter(field, (grain, grain, 0))
    field /= field.std() + 1e-6
    source = crop.astype(np.float32)
    return _to_uint8(source + sigma * field * np.sqrt(0.3 + source / 255 * 0.7))


def jpeg(crop: Crop, strength: float, rng: np.random.Generator) -> Crop:
    """JPEG, quality 90 down to 4."""
    quality = round(90 - 86 * strength**0.7)
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "JPEG", quality=quality, subsampling=2 if rng.random() < 0.8 else 0)
    return np.asarray(Image.open(buffer).convert("RGB"))


def webp(crop: Crop, strength: float, rng: np.random.Generator) -> Crop:
    """WebP, quality 80 down to 0."""
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "WEBP", quality=round(80 - 80 * strength**0.7), method=2)
    return np.asarray(Image.open(buffer).convert("RGB"))


def downscale(crop: Crop, strength: float, rng: np.random.Generator) -> Crop:
    """Reduced by 1.2 to 8 and enlarged again, as a small photo shown large."""
    height, width = crop.shape[:2]
    factor = 1.2 * (8 / 1.2) ** strength
    small = (max(2, round(width / factor)), max(2, round(height / factor)))
    enlarge = Image.Resampling.BICUBIC if rng.random() < 0.7 else Image.Resampling.BILINEAR
    image = Image.fromarray(crop).resize(small, Image.Resampling.BICUBIC)
    return np.asarray(image.resize((width, height), enlarge))


def exposure(crop: Crop, strength: float, rng: np.random.Generator) -> Crop:
    """Under- or over-exposure by 0.3 to 3 stops in approximately linear light, clipped."""
    stops = (0.3 + 2.7 * strength) * (1 if rng.random() < 0.5 else -1)
    linear = (crop.astype(np.float32) / 255) ** 2.2
    return _to_uint8(255 * np.clip(linear * 2.0**stops, 0, 1) ** (1 / 2.2))


def contrast(crop: Crop, strength: float, rng: np.random.Generator) -> Crop:
    """Contrast and colour washed out towards grey, as haze does."""
    keep = 0.85 - 0.7 * strength
    source = crop.astype(np.float32)
    haze = rng.uniform(110, 200)
    return _to_uint8(haze + (source - haze) * keep)


DEGRADATIONS: dict[str, Degradation] = {
    "blur": blur,
    "motion_blur": motion_blur,
    "noise": noise,
    "sensor_noise": sensor_noise,
    "jpeg": jpeg,
    "webp": webp,
    "downscale": downscale,
    "exposure": exposure,
    "contrast": contrast,
}

# How often each kind is drawn and how much of the photo's MOS strength 1 takes away. Compression, blur, noise and
# resolution loss are what pipelines are gated on; tone faults cost observers less (KADID-10k and TID2013 agree).
DRAW_WEIGHT = {"blur": 1.5, "motion_blur": 0.8, "noise": 1.3, "sensor_noise": 0.7, "jpeg": 5.0, "webp": 1.2,
               "downscale": 1.7, "exposure": 0.5, "contrast": 0.4}  # fmt: skip
FULL_LOSS = {"blur": 0.8, "motion_blur": 0.8, "noise": 0.75, "sensor_noise": 0.7, "jpeg": 0.8, "webp": 0.7,
             "downscale": 0.8, "exposure": 0.55, "contrast": 0.45}  # fmt: skip
# What strength 0 takes away. Grain of two grey levels is easy to measure and hard to see; asked for too much, the network
# rewards whatever removes it, a first mild JPEG compression above all.
FIRST_LOSS = {"noise": 0.015, "sensor_noise": 0.03, "jpeg": 0.04}


def graded_target(mos: float, kind: str, strength: float) -> float:
    """The MOS we ask of a degraded photo: its own, less 1.5 to 6 % at strength 0 and ``FULL_LOSS`` at strength 1."""
    first = FIRST_LOSS.get(kind, 0.06)
    return mos * (1 - (first + (FULL_LOSS[kind] - first) * strength))


def grain(crop: Crop, rng: np.random.Generator) -> Crop:
    """A film's or a sensor's own faint grain, sigma 0.3 to 3 of 255: part of the photo, not a fault of it."""
    field = rng.standard_normal((*crop.shape[:2], 3 if rng.random() < 0.5 else 1), dtype=np.float32)
    if rng.random() < 0.5:
        coarse = rng.uniform(0.3, 0.9)
        field = ndimage.gaussian_filter(field, (coarse, coarse, 0))
    return _to_uint8(crop.astype(np.float32) + rng.uniform(0.3, 3.0) / (field.std() + 1e-6) * field)
