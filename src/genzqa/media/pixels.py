"""What every conversion to pixels shares: the type of its result, the grey behind it, and a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from genzqa.notes import Note

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32]

GREY = 128
"""Mid-grey, as an sRGB code value of 8 bits, behind everything that is not opaque."""

ALPHA_NOTE = Note("alpha_over_grey", "Transparent parts were placed over mid-grey.")

STRIP_PIXELS = 1 << 20
"""Converted together: a photo at the limit of pixels would else be held three or four times over."""


def strips(width: int, height: int) -> Iterator[slice]:
    """The rows of a picture, a few at a time."""
    step = max(1, STRIP_PIXELS // width)
    for top in range(0, height, step):
        yield slice(top, min(height, top + step))


def rows_of(image: Image.Image, rows: slice) -> Image.Image:
    """A copy of some rows of a loaded image, palette and info included.

    As `Image.crop` does it, without its check against the process-wide `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    return image._new(image.im.crop((0, rows.start, image.width, rows.stop)))
