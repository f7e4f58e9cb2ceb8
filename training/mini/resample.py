"""Views cut on the device: crop, mirror and resize of many photos at once, as products with small matrices.

A resize is linear and separable. A photo's rows and columns each get a matrix that holds Pillow's antialiased bicubic weights,
the crop and the mirroring, so that a batch in which every photo is cut differently is two products.
"""

from __future__ import annotations

import torch
from torch import Tensor

BICUBIC, BILINEAR = "bicubic", "bilinear"


def _weights(distance: Tensor, kind: str) -> Tensor:
    """The filter at this distance from its centre; bicubic with a = -0.5 (Keys 1981), as Pillow has it."""
    x = distance.abs()
    if kind == BILINEAR:
        return (1 - x).clamp_min(0)
    near = ((1.5 * x - 2.5) * x) * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def resize_matrix(start: Tensor, length: Tensor, inside: int, outside: int, kind: str = BICUBIC) -> Tensor:
    """Matrices ``(B, outside, inside)`` that shrink or enlarge ``length`` pixels from ``start`` on to ``outside`` pixels.

    Args:
        start, length: ``(B,)`` in pixels of the side of ``inside`` pixels.
        inside, outside: Pixels of the side before and after.
        kind: Of the filter.
    """
    scale = (length / outside).view(-1, 1, 1)
    stretch = scale.clamp_min(1)  # antialiasing: the filter grows with the reduction
    centre = start.view(-1, 1, 1) + (torch.arange(outside, device=start.device).view(1, -1, 1) + 0.5) * scale
    at = torch.arange(inside, device=start.device).view(1, 1, -1) + 0.5
    beyond = (at < start.view(-1, 1, 1)) | (at > (start + length).view(-1, 1, 1))  # nothing from outside the crop
    weights = _weights((at - centre) / stretch, kind).masked_fill(beyond, 0)
    return weights / weights.sum(2, keepdim=True)


def gauss_matrix(sigma: Tensor, side: int) -> Tensor:
    """Matrices ``(B, side, side)`` of a Gaussian blur of ``sigma`` ``(B,)`` pixels, renormalised at the border."""
    at = torch.arange(side, device=sigma.device)
    weights = torch.exp(-0.5 * ((at[:, None] - at[None]) / sigma.view(-1, 1, 1)) ** 2)
    return weights / weights.sum(2, keepdim=True)


def apply(rows: Tensor, columns: Tensor, images: Tensor) -> Tensor:
    """Images ``(B, 3, h, w)`` through a matrix for their rows and one for their columns, in single precision."""
    return rows[:, None] @ images @ columns[:, None].transpose(2, 3)
