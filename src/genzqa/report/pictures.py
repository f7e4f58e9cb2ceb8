"""Small pictures for the page: a photo or frame, and its quality map drawn over it, as data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from genzqa.errors import InputError
from genzqa.media.overlay import Pixels, colour_range, draw_over, shrunk
from genzqa.media.still import read_still

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from genzqa.limits import Limits
    from genzqa.media.image import ImageSource

SIDE = 480  # pixels, longest side
_QUALITY = 78


@dataclass(frozen=True)
class Picture:
    """A photo or frame of one size, plain and with its map over it.

    Attributes:
        plain: Data URI.
        overlay: Data URI, None without a map.
        low, high: Score points of the map's strongest and of its weakest colour.
        width, height: Of both, in pixels.
    """

    plain: str
    overlay: str | None
    low: float
    high: float
    width: int
    height: int


def picture_of(pixels: Pixels, quality_map: npt.NDArray[np.float32] | None) -> Picture:
    """Reduce pixels ``(H, W, 3)`` and draw their map over them."""
    small = shrunk(pixels, SIDE)
    low, high = colour_range(quality_map) if quality_map is not None else (0.0, 100.0)
    overlay = _data_uri(draw_over(small, quality_map, low, high)) if quality_map is not None else None
    return Picture(_data_uri(small), overlay, low, high, *small.size)


def read_picture(source: ImageSource, quality_map: npt.NDArray[np.float32] | None, limits: Limits) -> Picture | None:
    """The picture of a scored photo, which is read again since results keep no pixels; None if it cannot be any more."""
    try:
        return picture_of(read_still(source, limits), quality_map)
    except InputError:
        return None


def _data_uri(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
