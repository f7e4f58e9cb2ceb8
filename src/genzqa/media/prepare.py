"""From one photo to what the network needs of it, without torch: this is what decoding processes run."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genzqa.limits import DEFAULT_LIMITS, Limits
from genzqa.media.domain import domain_notes
from genzqa.media.image import ImageSource, Photo, decode_image
from genzqa.media.preprocess import resize_square
from genzqa.notes import Note


@dataclass(frozen=True, eq=False)
class PreparedPhoto:
    """A decoded photo on its way to the network.

    Attributes:
        name: As `Photo.name`.
        width: Columns of the photo itself, upright.
        height: Rows, likewise.
        notes: What was done on the way, and how it differs from the training photos.
        pixels: ``(size, size, 3) float32`` in [0, 1].
        seconds: Time spent on it so far.
    """

    name: str
    width: int
    height: int
    notes: tuple[Note, ...]
    pixels: npt.NDArray[np.float32]
    seconds: float


def prepare_photo(source: ImageSource, size: int, *, limits: Limits = DEFAULT_LIMITS) -> PreparedPhoto:
    """Decode, look at and resize one photo.

    Args:
        source: See `genzqa.media.image.ImageSource`.
        size: Side of the network's square input in pixels, `ScorerConfig.preprocessing.size`.
        limits: Bounds on bytes and pixels.

    Raises:
        InputError: If it cannot be read or is over a limit.
    """
    started = time.perf_counter()
    return prepared(decode_image(source, limits=limits), size, since=started)


def prepared(photo: Photo, size: int, *, since: float) -> PreparedPhoto:
    """A photo that is decoded already; ``since`` is the `time.perf_counter` at which work on it began."""
    notes = (*photo.notes, *domain_notes(photo.pixels))
    resized = resize_square(photo.pixels, size)
    return PreparedPhoto(photo.name, photo.width, photo.height, notes, resized, time.perf_counter() - since)
