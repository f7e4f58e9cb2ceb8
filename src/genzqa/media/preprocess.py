"""From decoded pixels to the network's input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32]


def resize_square(pixels: Pixels, size: int) -> npt.NDArray[np.float32]:
    """Antialiased bicubic resize to ``size`` x ``size``, aspect ratio not kept: the paper's protocol.

    Channel by channel in floating point, so that nothing is rounded or clipped on the way and 8-bit and deeper sources
    of the same picture agree.

    Args:
        pixels: ``(H, W, 3)``, uint8 0..255 or float32 0..1.

    Returns:
        ``(size, size, 3) float32`` in [0, 1].
    """
    scale = np.float32(1 / 255 if pixels.dtype == np.uint8 else 1)
    resized = np.empty((size, size, 3), np.float32)
    for channel in range(3):
        plane = Image.fromarray(np.ascontiguousarray(pixels[..., channel], dtype=np.float32))
        resized[..., channel] = np.asarray(plane.resize((size, size), Image.Resampling.BICUBIC))
    scaled: npt.NDArray[np.float32] = np.clip(resized * scale, np.float32(0), np.float32(1))
    return scaled


def to_planes(resized: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """``(H, W, 3)`` in [0, 1] -> ``(3, H, W)`` in [-1, 1], contiguous; what the network sees, without torch."""
    planes: npt.NDArray[np.float32] = np.ascontiguousarray(resized.transpose(2, 0, 1)) * np.float32(2) - np.float32(1)
    return planes


def to_network(resized: npt.NDArray[np.float32]) -> Tensor:
    """`to_planes` as a tensor."""
    import torch  # late: a process that only decodes photos does without it

    return torch.from_numpy(to_planes(resized))
