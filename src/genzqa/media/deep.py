"""Samples of more than 8 bits, which Pillow's own conversions would clip, to float32 in 0..1."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from genzqa.errors import CorruptInputError
from genzqa.media.icc import grey_ramp, to_srgb
from genzqa.media.pixels import ALPHA_NOTE, GREY, rows_of, strips
from genzqa.notes import Note

Samples = npt.NDArray[Any]
Scaling = Callable[[Samples], npt.NDArray[np.float32]]
"""Samples as stored to float32 in 0..1, of the same shape."""

DEPTH_NOTE = Note("sixteen_bit", "Grey of more than 8 bits was kept at full depth.")

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339


def is_deep(image: Image.Image) -> bool:
    """Whether this is grey of more than 8 bits, or of signed bytes."""
    signed_byte = image.mode == "L" and _tag(image, _SAMPLE_FORMAT) == 2
    return signed_byte or image.mode in ("I", "F") or image.mode.startswith("I;16")


def deep_grey(image: Image.Image, notes: list[Note]) -> npt.NDArray[np.float32]:
    """``(H, W, 1)`` of such an image, or ``(H, W, 3)`` where a colour profile or transparent parts tint it.

    Raises:
        CorruptInputError: Floating-point samples of which none is finite.
    """
    if image.mode.startswith("I;16"):
        full_scale = np.float32(4095 if _tag(image, _BITS_PER_SAMPLE) == 12 else 65535)
        scale: Scaling = lambda stored: stored.astype(np.float32) / full_scale  # noqa: E731
        notes.append(DEPTH_NOTE)
    elif image.mode == "F":
        scale = float_scaling(_stored(image), notes)
    else:
        scale = integer_scaling(_stored(image), notes)
    inverted = _tag(image, _PHOTOMETRIC) == 0  # WhiteIsZero, which Pillow undoes only up to 8 bits
    tint = grey_tint(image.info.get("icc_profile"), notes)
    key = image.info.get("transparency") if image.mode.startswith("I;16") else None
    channels = 1 if tint is None and not isinstance(key, int) else 3
    pixels = np.empty((image.height, image.width, channels), dtype=np.float32)
    holed = False
    for rows, stored in zip(strips(*image.size), _stored(image), strict=True):
        grey = scale(stored)
        if inverted:
            grey = blackened(np.float32(1) - grey, stored)
        pixels[rows] = grey[..., None] if tint is None else tint(grey)
        if isinstance(key, int) and (holes := stored == key).any():
            pixels[rows][holes] = GREY / 255
            holed = True
    if holed:
        notes.append(ALPHA_NOTE)
    return pixels


def _stored(image: Image.Image) -> Iterator[Samples]:
    """The samples ``(rows, W)`` as the file means them, strip by strip."""
    for rows in strips(*image.size):
        samples: Samples = np.asarray(rows_of(image, rows))
        if image.mode == "L":
            samples = samples.view(np.int8)
        elif image.mode == "I" and _tag(image, _SAMPLE_FORMAT) == 1:
            samples = samples.view(np.uint32)  # Pillow keeps unsigned samples of 32 bits in a signed type
        yield samples


def grey_tint(profile: object, notes: list[Note]) -> Scaling | None:
    """What takes grey ``(...)`` in 0..1 to sRGB ``(..., 3)`` by a colour profile; None where there is nothing to do.

    A curve of 256 points with linear interpolation, since Pillow transforms 8 bits only.
    """
    done = len(notes)
    ramp = to_srgb("L", profile, notes)(grey_ramp())
    if not any(note.code == "icc_converted" for note in notes[done:]):
        return None
    points, curve = np.linspace(0, 1, 256), np.asarray(ramp, dtype=np.float64)[0] / 255

    def tint(grey: Samples) -> npt.NDArray[np.float32]:
        channels = [np.interp(grey, points, curve[:, channel]) for channel in range(3)]
        return np.stack(channels, axis=-1).astype(np.float32)

    return tint


def colour_tint(profile: object, notes: list[Note]) -> Scaling | None:
    """As `grey_tint`, for colours ``(H, W, 3)`` in 0..1: linear interpolation between the 256 values of each channel."""
    done = len(notes)
    convert = to_srgb("RGB", profile, notes)
    if not any(note.code == "icc_converted" for note in notes[done:]):
        return None

    def tint(colour: Samples) -> npt.NDArray[np.float32]:
        at = colour * np.float32(255)
        low = np.minimum(at, 254).astype(np.uint8)
        share = at - low
        tinted = np.zeros(colour.shape, np.float32)
        for corner in itertools.product((0, 1), repeat=3):
            weight = np.where(corner, share, 1 - share).prod(axis=-1, keepdims=True)
            tinted += weight * np.asarray(convert(Image.fromarray(low + np.array(corner, np.uint8))))
        tinted /= np.float32(255)
        return tinted

    return tint


def float_scaling(samples: Iterable[Samples], notes: list[Note]) -> Scaling:
    """Values in 0..1 as they are, any other range scaled to it, and what is not finite black.

    Args:
        samples: All of the picture, in parts.
        notes: Gets what is done.

    Raises:
        CorruptInputError: None is finite.
    """
    low, high, whole = np.inf, -np.inf, True
    for part in samples:
        finite = np.isfinite(part)
        whole = whole and bool(finite.all())
        if (sound := part[finite]).size:
            low, high = min(low, float(sound.min())), max(high, float(sound.max()))
    if low > high:
        raise CorruptInputError("no sample is a finite number", hint="save the photo again from its source")
    if not whole:
        notes.append(Note("non_finite_zeroed", "Samples that are not finite numbers were set to black."))
    if low >= 0 and high <= 1:
        return lambda part: blackened(part.astype(np.float32), part)
    notes.append(Note("float_range_scaled", "Samples outside 0..1 were scaled from their smallest and largest value."))
    return lambda part: blackened(_scaled(np.where(np.isfinite(part), part, low), low, high), part)


def integer_scaling(samples: Iterable[Samples], notes: list[Note]) -> Scaling:
    """The smallest value to black, the largest to white, for integers whose white is not known."""
    ranges = [(float(part.min()), float(part.max())) for part in samples]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    notes.append(Note("integer_range_scaled", "Integer samples were scaled from their smallest and largest value."))
    return lambda part: _scaled(part, low, high)


def blackened(scaled: npt.NDArray[np.float32], stored: Samples) -> npt.NDArray[np.float32]:
    """``scaled``, with 0 where what was stored is not a finite number."""
    if stored.dtype.kind == "f":
        scaled[~np.isfinite(stored)] = 0
    return scaled


def _scaled(values: Samples, low: float, high: float) -> npt.NDArray[np.float32]:
    """Smallest value to 0, largest to 1; a flat picture becomes mid-grey, as its level means nothing."""
    if low == high:
        return np.full(values.shape, GREY / 255, dtype=np.float32)
    # float64, because the difference of two float32 or int32 extremes overflows their own type; halves, as that of two float64 does.
    return ((values.astype(np.float64) / 2 - low / 2) / (high / 2 - low / 2)).astype(np.float32)


def _tag(image: Image.Image, number: int) -> object:
    """A TIFF tag's first value, or None when the image is no TIFF or has no such tag."""
    value = getattr(image, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) and value else value
