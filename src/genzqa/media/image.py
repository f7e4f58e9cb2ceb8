"""The one way from a photo, wherever it is, to pixels: `decode_image`.

The steps, in order: read the bytes (`files`), tell the format (`sniff`), check the limits on the header, let Pillow
decode (`pillow`), convert to sRGB over grey (`colour`), and turn upright. Arrays and tensors enter at `arrays`.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from genzqa.errors import CorruptInputError, InputError, InputTooLargeError, UnsupportedFormatError
from genzqa.limits import DEFAULT_LIMITS, MEGAPIXEL, Limits
from genzqa.media.arrays import array_to_hwc, hwc_to_pixels, tensor_to_hwc
from genzqa.media.colour import to_pixels
from genzqa.media.deep_tiff import deep_page, read_deep_page
from genzqa.media.files import check_bytes, read_photo_file
from genzqa.media.pillow import frames_note, open_image, orientation, pillow_errors, raw_modes
from genzqa.media.pixels import Pixels
from genzqa.media.sniff import HEAD_BYTES, check_png, declared_size, sniff
from genzqa.notes import Note

if TYPE_CHECKING:
    import torch

__all__ = ["SUPPORTED_SUFFIXES", "ImageSource", "Photo", "decode_image"]

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[Any] | torch.Tensor"
"""A path, the bytes of a file, a Pillow image, a numpy array ``(H, W[, C])``, or a torch tensor ``([C, ]H, W)``."""

SUPPORTED_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".apng",
    ".webp",
    ".avif",
    ".tif",
    ".tiff",
    ".bmp",
    ".gif",
)
"""Which files of a folder are taken for photos. A file named directly is told by its content alone."""


@dataclass(frozen=True, eq=False)
class Photo:
    """One decoded photo.

    Attributes:
        pixels: ``(H, W, 3)``, sRGB-encoded, sharing no memory with the source: contiguous uint8 in 0..255 for sources of
            8 bits, float32 in 0..1 for deeper ones, never NaN. Deep grey is one plane seen three times, read-only.
        name: The path as given, or ``"<bytes>"``, ``"<PIL image>"``, ``"<array>"``, ``"<tensor>"``.
        format: ``"jpeg"``, ``"png"``, ``"webp"``, ``"avif"``, ``"tiff"``, ``"bmp"``, ``"gif"``, or ``"memory"``.
        width: Columns, after the EXIF orientation was applied.
        height: Rows, likewise.
        notes: What was done on the way that a user should know.
    """

    pixels: Pixels
    name: str
    format: str
    width: int
    height: int
    notes: tuple[Note, ...]


def decode_image(source: ImageSource, *, limits: Limits = DEFAULT_LIMITS) -> Photo:
    """Decode one photo to upright sRGB pixels.

    Args:
        source: See `ImageSource`. A Pillow image is neither changed nor closed.
        limits: Bounds on bytes and pixels, checked before the work they bound.

    Raises:
        InputNotFoundError: The path does not exist. URLs are not fetched.
        InputUnreadableError: A directory, no regular file, no permission, or an I/O error.
        UnsupportedFormatError: Not a supported format, shape, or range.
        CorruptInputError: Empty, truncated, damaged, of zero size, or NaN.
        InputTooLargeError: Over a limit.

    Example:
        >>> photo = decode_image(np.zeros((2, 3), dtype=np.uint8))
        >>> photo.pixels.shape, photo.format
        ((2, 3, 3), 'memory')
    """
    name = _name_of(source)
    try:
        image_format, pixels, notes = _decode(source, limits)
    except InputError as error:
        raise type(error)(error.reason, subject=name, hint=error.hint) from error.__cause__
    height, width, _ = pixels.shape
    return Photo(pixels, name, image_format, width, height, tuple(notes))


def _name_of(source: ImageSource) -> str:
    if isinstance(source, bytes):
        return "<bytes>"
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    if isinstance(source, Image.Image):
        return "<PIL image>"
    if isinstance(source, np.ndarray):
        return "<array>"
    return "<tensor>" if _is_tensor(source) else f"<{type(source).__name__}>"


def _is_tensor(source: object) -> bool:
    """Without importing torch: where it is not imported, there is no tensor."""
    torch_module = sys.modules.get("torch")
    return torch_module is not None and isinstance(source, torch_module.Tensor)


def _decode(source: ImageSource, limits: Limits) -> tuple[str, Pixels, list[Note]]:
    if isinstance(source, bytes):
        check_bytes(len(source), limits)
        return _decode_bytes(source, limits)
    if isinstance(source, str | os.PathLike):
        return _decode_bytes(read_photo_file(os.fsdecode(source), limits), limits)
    if isinstance(source, Image.Image):
        return "memory", *_decode_pillow(source, limits)
    if isinstance(source, np.ndarray):
        array = array_to_hwc(source)
    elif _is_tensor(source):
        array = tensor_to_hwc(source)
    else:
        raise UnsupportedFormatError(
            f"a {type(source).__name__} is not a photo",
            hint="give a path, the bytes of a file, a Pillow image, a numpy array or a torch tensor",
        )
    _check_size(array.shape[1], array.shape[0], limits)
    return "memory", *hwc_to_pixels(array)


def _decode_bytes(data: bytes, limits: Limits) -> tuple[str, Pixels, list[Note]]:
    head = data[:HEAD_BYTES]
    image_format = sniff(head)
    with pillow_errors():
        if (size := declared_size(image_format, head)) is not None:
            _check_size(*size, limits)
        if image_format == "png":
            check_png(data)
        if image_format == "tiff" and (page := deep_page(data)) is not None:
            _check_size(page.width, page.height, limits)
            pixels, notes = read_deep_page(data, page)
            return image_format, _upright(pixels, notes, page.orientation, None), notes
        with open_image(data, image_format) as image:
            _check_size(*image.size, limits)
            packing = raw_modes(image)
            several = frames_note(image, data, image_format)
            # Pillow turns a TIFF upright while loading and then forgets that it did.
            turned = image_format == "tiff" and orientation(image)[0] != 1
            image.load()
            pixels, notes = to_pixels(image, packing)
            upright = orientation(image)
    # Outside, where Pillow's own pixels are gone.
    pixels = _upright(pixels, notes, *upright, turned=turned)
    return image_format, pixels, [several, *notes] if several else notes


def _decode_pillow(image: Image.Image, limits: Limits) -> tuple[Pixels, list[Note]]:
    _check_size(*image.size, limits)
    with pillow_errors():
        packing = raw_modes(image)
        image.load()
        pixels, notes = to_pixels(image, packing)
        return _upright(pixels, notes, *orientation(image)), notes


def _upright(pixels: Pixels, notes: list[Note], value: int, damaged: Note | None, *, turned: bool = False) -> Pixels:
    if damaged:
        notes.append(damaged)
    if value >= 5:
        pixels = pixels.transpose(1, 0, 2)
    # What is left after the transpose, per EXIF 2.32 section 4.6.4: a flip of columns, of rows, or of both.
    if value in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if value in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if turned or value != 1:
        notes.append(Note("orientation_applied", "Turned upright as the EXIF orientation says."))
    pixels = cast("Pixels", np.ascontiguousarray(pixels))
    if pixels.shape[2] == 1:
        pixels = cast("Pixels", np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
    return pixels


def _check_size(width: int, height: int, limits: Limits) -> None:
    if width <= 0 or height <= 0:
        raise CorruptInputError(f"a picture of {width} x {height} pixels", hint="copy or download it again")
    if width * height > limits.max_pixels:
        raise InputTooLargeError(
            f"{width} x {height} pixels are over the limit of {limits.max_pixels / MEGAPIXEL:g} megapixels",
            hint="downscale it, or allow more: --max-megapixels, Limits.max_pixels",
        )
    if max(width, height) > limits.max_side:
        raise InputTooLargeError(
            f"{width} x {height} pixels: a side is over the limit of {limits.max_side:,}",
            hint="downscale it, or raise Limits.max_side",
        )
