"""A photo made ready for the network: decoded, resized, looked over. Needs no model and no torch, so that a process of
its own can do it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genzqa.limits import Limits
from genzqa.media.domain import domain_notes
from genzqa.media.image import ImageSource, decode_image
from genzqa.media.preprocess import resize_square, to_planes
from genzqa.notes import Note


@dataclass(frozen=True, eq=False)
class PreparedPhoto:
    """A decoded photo on its way to the network.

    Attributes:
        name: As the result will call it.
        width, height: Of the photo as seen, in pixels.
        notes: What a user should know about it.
        planes: ``(3, size, size) float32`` in [-1, 1].
        seconds: What it took.
    """

    name: str
    width: int
    height: int
    notes: tuple[Note, ...]
    planes: npt.NDArray[np.float32]
    seconds: float


def prepare_photo(source: ImageSource, size: int, limits: Limits) -> PreparedPhoto:
    """Decode a photo and resize it to ``size`` x ``size`` pixels.

    Raises:
        InputError: If it cannot be read or is over a limit.
    """
    started = time.perf_counter()
    photo = decode_image(source, limits=limits)
    planes = to_planes(resize_square(photo.pixels, size))
    notes = (*photo.notes, *domain_notes(photo.pixels))
    return PreparedPhoto(photo.name, photo.width, photo.height, notes, planes, time.perf_counter() - started)
