"""From any Pillow mode to three sRGB channels: colour profiles, deep samples, and alpha over mid-grey."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from genzqa.media.deep import deep_grey, is_deep
from genzqa.media.icc import Conversion, to_srgb
from genzqa.media.pixels import ALPHA_NOTE, GREY, Pixels, rows_of, strips
from genzqa.notes import Note

_HIGH_BYTE = re.compile(r"(LA|RGB[AaX]?|CMYK);16[BLN]")
"""Packings of which Pillow keeps the high byte; not ``BGR;16``, which is 5, 6 and 5 bits."""


def to_pixels(image: Image.Image, packing: str = "") -> tuple[Pixels, list[Note]]:
    """Convert a loaded image; the image is not changed.

    Args:
        image: Any mode of Pillow.
        packing: What `raw_modes` said before loading; empty when unknown.

    Returns:
        Pixels that share no memory with the image, and what was done: ``(H, W, 3)`` uint8 in 0..255 or float32 in 0..1;
        ``(H, W, 1)`` float32 where the three channels would be the same.

    Raises:
        CorruptInputError: Floating-point samples of which none is finite.
    """
    notes: list[Note] = []
    if is_deep(image):
        return deep_grey(image, notes), notes
    if _HIGH_BYTE.search(packing):
        notes.append(Note("sixteen_bit", "16-bit colour was read at 8 bits per channel."))
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    convert: Conversion | None = None
    transparent = False
    for rows in strips(image.width, image.height):
        strip, alpha = _split_alpha(rows_of(image, rows), packing)
        if convert is None:
            convert = to_srgb(strip.mode, image.info.get("icc_profile"), notes)
        rgb = convert(strip)
        if alpha is not None and alpha.getextrema() != (255, 255):
            transparent = True
            rgb = Image.composite(rgb, Image.new("RGB", rgb.size, (GREY, GREY, GREY)), alpha)
        pixels[rows] = np.asarray(rgb)
    if transparent:
        notes.append(ALPHA_NOTE)
    return pixels, notes


def _split_alpha(image: Image.Image, packing: str) -> tuple[Image.Image, Image.Image | None]:
    """The colour channels, and the alpha channel as an ``L`` image or None."""
    if image.mode in ("P", "PA") and image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.mode in ("LA", "RGBA"):
        return image.convert(image.mode[:-1]), image.getchannel("A")
    if image.mode == "1":
        image = _with_info(image.convert("L"), image)
    elif image.mode not in ("L", "RGB", "CMYK", "LAB"):
        image = image.convert("RGB")
    key = image.info.get("transparency")
    if image.mode == "L" and isinstance(key, int):
        # Pillow widens grey of 2 or 4 bits to 8 but leaves the transparent value as it stands in the file.
        key = key * (85 if "L;2" in packing else 17 if "L;4" in packing else 1)
        return image, Image.fromarray(np.where(np.asarray(image) == key, 0, 255).astype(np.uint8))
    if image.mode == "RGB" and isinstance(key, tuple) and len(key) == 3:
        # Of a 16-bit value only the high byte can be compared, as only that is in the pixels.
        wanted = np.array(key) >> 8 if _HIGH_BYTE.search(packing) else np.array(key)
        hit = (np.asarray(image) == wanted).all(axis=-1)
        return image, Image.fromarray(np.where(hit, 0, 255).astype(np.uint8))
    return image, None


def _with_info(image: Image.Image, source: Image.Image) -> Image.Image:
    """Pillow drops or rewrites the transparent value in some conversions; put back the one of the source."""
    image.info = dict(source.info)
    return image
