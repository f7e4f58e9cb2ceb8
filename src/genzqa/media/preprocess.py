"""From decoded pixels to the network's input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from genzqa.media.pixels import Pixels

if TYPE_CHECKING:
    from torch import Tensor


_ROWS = 512  # resized together; changes memory, not the result


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
    height = len(pixels)
    for channel in range(3):
        # first the columns, some rows at a time, then the rows: as Pillow does it, without a whole plane in floating point
        narrow = np.empty((height, size), np.float32)
        for first in range(0, height, _ROWS):
            part = Image.fromarray(np.ascontiguousarray(pixels[first : first + _ROWS, :, channel], dtype=np.float32))
            narrow[first : first + _ROWS] = np.asarray(part.resize((size, part.height), Image.Resampling.BICUBIC))
        resized[..., channel] = np.asarray(Image.fromarray(narrow).resize((size, size), Image.Resampling.BICUBIC))
    scaled: npt.NDArray[np.float32] = np.clip(resized * scale, np.float32(0), np.float32(1))
    return scaled


def to_network(resized: npt.NDArray[np.float32]) -> Tensor:
    """``(H, W, 3)`` in [0, 1] -> ``(3, H, W)`` in [-1, 1]."""
    import torch  # here, so that processes that only decode do without it

    return torch.from_numpy(resized).permute(2, 0, 1).contiguous() * 2 - 1
