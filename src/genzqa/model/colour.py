"""Colour as the eye resolves it."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def soften_chroma(pixels: Tensor, sigma: float) -> Tensor:
    """Blur what is not luma, and leave luma as it is.

    The eye resolves colour far less finely than light, which is why JPEG and every video codec store it at half the
    resolution. A network does see that fine colour is gone, and one that learned what colour noise looks like takes its
    absence for a gain.

    Args:
        pixels: ``(B, 3, h, w)`` RGB.
        sigma: Of the Gaussian, in pixels; 0 changes nothing.
    """
    if sigma == 0:
        return pixels
    radius = math.ceil(3 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=pixels.device) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(pixels.dtype).expand(3, 1, 1, -1)
    luma = (pixels * pixels.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    padded = F.pad(pixels - luma, (radius,) * 4, mode="reflect")
    return luma + F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)
