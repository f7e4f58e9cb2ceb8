"""Timesteps, noise and the forward diffusion: what is fixed so that a score is the same tomorrow."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from genzqa.errors import ConfigError

SCORING_TIMESTEPS: dict[int, tuple[int, ...]] = {
    1: (50,),
    2: (40, 80),
    4: (9, 34, 59, 84),
    8: (9, 21, 33, 45, 57, 69, 81, 93),
}
"""Number of timesteps S -> the fixed timesteps scoring uses; training draws from 0..99."""


def scoring_timesteps(count: int) -> tuple[int, ...]:
    """The fixed list for S timesteps.

    Raises:
        ConfigError: If ``count`` is not 1, 2, 4 or 8.
    """
    if count not in SCORING_TIMESTEPS:
        raise ConfigError(f"{count} timesteps are not defined", hint="use 1, 2, 4 or 8")
    return SCORING_TIMESTEPS[count]


def fixed_noise(count: int, shape: tuple[int, int, int], seed: int) -> Tensor:
    """Noise ``(count, 4, h, w)``, one tensor per timestep index, standard normal.

    Row i depends on the seed, i and the shape alone: not on the count, the batch, the device or the process. NumPy
    draws it, because its bit stream is the same on every processor, which vectorised torch kernels do not promise.
    """
    rows = [np.random.default_rng((seed, index)).standard_normal(shape, dtype=np.float32) for index in range(count)]
    return torch.from_numpy(np.stack(rows))


def diffuse(latents: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """``sqrt(abar) z0 + sqrt(1 - abar) eps``; ``alpha_bar`` broadcasts against ``(B, 4, h, w)``."""
    return alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise


def noise_from_prediction(prediction: Tensor, noisy: Tensor, alpha_bar: Tensor, kind: str) -> Tensor:
    """The UNet's output as noise: itself for an epsilon base, converted for a v-prediction base (Salimans & Ho 2022).

    Raises:
        ConfigError: If the base predicts something else.
    """
    if kind == "epsilon":
        return prediction
    if kind == "v_prediction":
        return alpha_bar.sqrt() * prediction + (1 - alpha_bar).sqrt() * noisy
    raise ConfigError(f"a base that predicts {kind!r} is not supported", hint="use an epsilon or v_prediction base")
