"""Degraded copies of photos, for a student to see what its teacher says of faults; drawn at random, with Pillow and NumPy.

Each takes ``(H, W, 3) uint8`` and a strength, 0 hardly visible and 1 plainly ruined, and gives the same shape. They are
exercises, not a scale: what a copy is worth, the teacher says.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Picture = npt.NDArray[np.uint8]
Degradation = Callable[[Picture, float, np.random.Generator], Picture]


def jpeg(picture: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """JPEG, quality 92 down to 5."""
    return _through(picture, "JPEG", quality=round(92 - 87 * strength**0.7), subsampling=2 if rng.random() < 0.8 else 0)


def webp(picture: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """WebP, quality 85 down to 1."""
    return _through(picture, "WEBP", quality=round(85 - 84 * strength**0.7), method=2)


def blur(picture: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """Gaussian blur, sigma 0.4 to 5 pixels."""
    sigma = 0.4 + 4.6 * strength**1.5
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(sigma)))


def noise(picture: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """White Gaussian noise, in colour or in grey, sigma 1.5 to 60 of 255."""
    channels = 3 if rng.random() < 0.7 else 1
    field = rng.standard_normal((*picture.shape[:2], channels), dtype=np.float32)
    return _rounded(picture + (1.5 + 58.5 * strength**1.5) * field)


def downscale(picture: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """Reduced by 1.2 to 8 and enlarged again, as a small photo shown large."""
    height, width = picture.shape[:2]
    factor = 1.2 * (8 / 1.2) ** strength
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    enlarge = Image.Resampling.BICUBIC if rng.random() < 0.7 else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(picture).resize(small, Image.Resampling.BICUBIC).resize((width, height), enlarge))


def exposure(picture: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """Under- or over-exposed by 0.3 to 3 stops in about linear light, clipped."""
    stops = (0.3 + 2.7 * strength) * (1 if rng.random() < 0.5 else -1)
    levels = (np.arange(256, dtype=np.float32) / 255) ** 2.2 * 2.0**stops
    return np.asarray(_rounded(255 * np.clip(levels, 0, 1) ** (1 / 2.2))[picture])


DEGRADATIONS: dict[str, Degradation] = {
    "jpeg": jpeg, "webp": webp, "blur": blur, "noise": noise, "downscale": downscale, "exposure": exposure,
}  # fmt: skip
_SHARES = (0.3, 0.12, 0.18, 0.18, 0.14, 0.08)  # of the kinds, in that order: what photos meet most is drawn most


def degraded(picture: Picture, rng: np.random.Generator) -> Picture:
    """A copy with one kind of fault, mild ones more often than strong ones."""
    kind = list(DEGRADATIONS)[int(rng.choice(len(_SHARES), p=_SHARES))]
    return DEGRADATIONS[kind](picture, float(rng.random()) ** 1.5, rng)


def _through(picture: Picture, codec: str, **settings: int) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, codec, **settings)
    with Image.open(buffer) as opened:
        return np.asarray(opened.convert("RGB"))


def _rounded(values: npt.NDArray[np.floating]) -> Picture:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
