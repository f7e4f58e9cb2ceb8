"""The degradations of ``degradations.py`` for a batch on a device, each image with its own strength; JPEG and WebP stay on the CPU.

Images are ``(B, 3, h, w)`` in 0..255; strengths ``(B,)`` in 0..1. Scales are those of ``degradations.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from resample import BICUBIC, BILINEAR, apply, gauss_matrix, resize_matrix

Fault = Callable[[Tensor, Tensor], Tensor]


def _each(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def blur(images: Tensor, strength: Tensor) -> Tensor:
    matrix = gauss_matrix(0.5 + 4.5 * strength**1.5, images.shape[2])
    return apply(matrix, matrix, images)


def motion_blur(images: Tensor, strength: Tensor) -> Tensor:
    """Copies of one photo, which lie side by side, are blurred along the same direction."""
    count = len(images)
    length = (2 + 22 * strength**1.5).view(-1, 1, 1)
    angle = (math.pi * torch.rand((count + 1) // 2, device=images.device)).repeat_interleave(2)[:count].view(-1, 1, 1)
    reach = 14
    at = torch.arange(-reach, reach + 1, device=images.device).float()
    y, x = at.view(1, -1, 1), at.view(1, 1, -1)
    along, across = x * angle.cos() + y * angle.sin(), -x * angle.sin() + y * angle.cos()
    kernel = (length / 2 + 0.5 - along.abs()).clamp(0, 1) * (1 - across.abs()).clamp(0, 1)
    kernel = kernel / kernel.sum((1, 2), keepdim=True)
    # in the frequency domain, for kernels this large
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    size = padded.shape[2:]
    placed = torch.zeros(count, *size, device=images.device)
    placed[:, : 2 * reach + 1, : 2 * reach + 1] = kernel
    placed = placed.roll((-reach, -reach), (1, 2))
    blurred = torch.fft.irfft2(torch.fft.rfft2(padded) * torch.fft.rfft2(placed)[:, None], s=size)
    return blurred[..., reach:-reach, reach:-reach]


def noise(images: Tensor, strength: Tensor) -> Tensor:
    field = torch.randn_like(images)
    grey = _each(torch.rand(len(images), device=images.device) >= 0.7)
    return images + _each(2 + 58 * strength**1.5) * torch.where(grey, field[:, :1], field)


def sensor_noise(images: Tensor, strength: Tensor) -> Tensor:
    matrix = gauss_matrix(torch.empty(len(images), device=images.device).uniform_(0.5, 1.2), images.shape[2])
    field = apply(matrix, matrix, torch.randn_like(images))
    field = field / field.std((1, 2, 3), keepdim=True)
    return images + _each(3 + 50 * strength**1.3) * field * (0.3 + images.clamp(0, 255) / 255 * 0.7).sqrt()


def downscale(images: Tensor, strength: Tensor) -> Tensor:
    done, side = [], images.shape[2]
    nothing, whole = torch.zeros(1, device=images.device), torch.full((1,), float(side), device=images.device)
    for image, one in zip(images.split(1), strength.tolist(), strict=True):
        small = max(2, round(side / (1.2 * (8 / 1.2) ** one)))
        kind = BICUBIC if torch.rand(()).item() < 0.7 else BILINEAR
        little = torch.full((1,), float(small), device=images.device)
        matrix = resize_matrix(nothing, little, small, side, kind) @ resize_matrix(nothing, whole, side, small)
        done.append(apply(matrix, matrix, image))
    return torch.cat(done)


def exposure(images: Tensor, strength: Tensor) -> Tensor:
    pairs = (len(images) + 1) // 2
    sign = (torch.rand(pairs, device=images.device) < 0.5).float().mul(2).sub(1).repeat_interleave(2)[: len(images)]
    linear = (images / 255).clamp(0, 1) ** 2.2
    return 255 * (linear * _each(2.0 ** (sign * (0.3 + 2.7 * strength)))).clamp(0, 1) ** (1 / 2.2)


def contrast(images: Tensor, strength: Tensor) -> Tensor:
    pairs = (len(images) + 1) // 2
    haze = _each(torch.empty(pairs, device=images.device).uniform_(110, 200).repeat_interleave(2)[: len(images)])
    return haze + (images - haze) * _each(0.85 - 0.7 * strength)


FAULTS: dict[str, Fault] = {
    "blur": blur, "motion_blur": motion_blur, "noise": noise, "sensor_noise": sensor_noise, "downscale": downscale,
    "exposure": exposure, "contrast": contrast,
}  # fmt: skip


def grain(images: Tensor) -> Tensor:
    """As `degradations.grain`: a film's or a sensor's own faint grain."""
    field = torch.randn_like(images)
    matrix = gauss_matrix(torch.empty(len(images), device=images.device).uniform_(0.3, 0.9), images.shape[2])
    coarse = _each(torch.rand(len(images), device=images.device) < 0.5)
    field = torch.where(coarse, apply(matrix, matrix, field), field)
    field = torch.where(_each(torch.rand(len(images), device=images.device) < 0.5), field, field[:, :1])
    sigma = torch.empty(len(images), device=images.device).uniform_(0.3, 3.0)
    return images + _each(sigma) * field / field.std((1, 2, 3), keepdim=True)
