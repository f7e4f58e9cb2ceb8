"""From any Pillow mode to three sRGB channels: colour profiles, deep samples, and alpha over mid-grey."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from genzqa.errors import CorruptInputError
from genzqa.notes import Note

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32]

GREY = 128
"""Mid-grey, as an sRGB code value of 8 bits, behind everything that is not opaque."""

ALPHA_NOTE = Note("alpha_over_grey", "Transparent parts were placed over mid-grey.")
CMYK_NOTE = Note("cmyk_converted", "Converted from CMYK; colours may differ from print.")

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_HIGH_BYTE = re.compile(r"(LA|RGB[AaX]?|CMYK);16[BLN]")
"""Packings of which Pillow keeps the high byte; not ``BGR;16``, which is 5, 6 and 5 bits."""

_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def to_pixels(image: Image.Image, packing: str = "") -> tuple[Pixels, list[Note]]:
    """Convert a loaded image; the image is not changed.

    Args:
        image: Any mode of Pillow.
        packing: What `raw_modes` said before loading; empty when unknown.

    Returns:
        ``(H, W, 3)`` pixels, uint8 in 0..255 or float32 in 0..1, and what was done.

    Raises:
        CorruptInputError: Floating-point samples of which none is finite.
    """
    notes: list[Note] = []
    signed_byte = image.mode == "L" and _tag(image, _SAMPLE_FORMAT) == 2
    if signed_byte or image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep_grey(image, notes), notes
    if _HIGH_BYTE.search(packing):
        notes.append(Note("sixteen_bit", "16-bit colour was read at 8 bits per channel."))
    colour, alpha = _split_alpha(image, packing)
    rgb = _to_srgb(colour, image.info.get("icc_profile"), notes)
    if alpha is not None and alpha.getextrema() != (255, 255):
        notes.append(ALPHA_NOTE)
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, (GREY, GREY, GREY)), alpha)
    return np.array(rgb), notes


def _split_alpha(image: Image.Image, packing: str) -> tuple[Image.Image, Image.Image | None]:
    """The colour channels, and the alpha channel as an ``L`` image or None."""
    if image.mode in ("P", "PA") and image.has_transparency_data:
        image = image.copy().convert("RGBA")  # on a copy, since Pillow writes the alpha into the palette it converts
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


def _to_srgb(colour: Image.Image, profile: object, notes: list[Note]) -> Image.Image:
    """``L``, ``RGB``, ``CMYK`` or ``LAB`` to sRGB in mode ``RGB``; a profile that cannot be used is noted."""
    if colour.mode == "LAB":
        notes.append(Note("lab_converted", "Converted from CIELAB to sRGB."))
        return colour.convert("RGB")
    if colour.mode == "CMYK":
        notes.append(CMYK_NOTE)
    if isinstance(profile, bytes) and profile:
        try:
            converted, name = _apply_profile(colour, profile)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            notes.append(Note("icc_ignored", "The embedded colour profile is damaged or does not fit and was ignored."))
        else:
            if converted is not None:
                notes.append(Note("icc_converted", f"Converted from the embedded colour profile{name} to sRGB."))
                return converted
    return colour.convert("RGB")


def _apply_profile(colour: Image.Image, data: bytes) -> tuple[Image.Image | None, str]:
    """The image in sRGB, or None when the profile is sRGB already; and the profile's name for a note."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
    space = profile.profile.xcolor_space.strip()
    if space == "RGB" and colour.mode == "L":  # common: grey JPEGs that carry the profile of their RGB original
        colour = colour.convert("RGB")
    if _SPACES.get(space) != colour.mode:
        raise ValueError(f"a profile for {space}, not {colour.mode}")
    # lcms approximates a grey curve by a coarse table, up to 7 code values off in the shadows, unless told not to.
    flags = ImageCms.Flags.NOOPTIMIZE if colour.mode == "L" else ImageCms.Flags.NONE
    intent = ImageCms.Intent.PERCEPTUAL
    if ImageCms.isIntentSupported(profile, intent, ImageCms.Direction.INPUT) != 1:
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        flags |= ImageCms.Flags.BLACKPOINTCOMPENSATION
    target = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(profile, target, colour.mode, "RGB", intent, flags)
    if _is_identity(transform, colour.mode):
        return None, ""
    title = "".join(c for c in profile.profile.profile_description or "" if c.isprintable())[:60].strip()
    name = f" “{title}”" if title else ""
    if colour.mode != "L":
        return transform.apply(colour), name
    # Without its optimisation lcms is slow, so it converts the 256 grey values once and the pixels look them up.
    ramp = transform.apply(_grey_ramp())
    return Image.merge("RGB", [colour.point(list(channel.tobytes())) for channel in ramp.split()]), name


def _grey_ramp() -> Image.Image:
    return Image.frombytes("L", (256, 1), bytes(range(256)))


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether a profile is sRGB in effect, whatever its name; its many editions differ by a code value or two."""
    if mode == "CMYK":
        return False
    if mode == "L":
        image = _grey_ramp()
    else:
        steps = np.linspace(0, 255, 9).astype(np.uint8)
        image = Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3))
    before = np.asarray(image.convert("RGB"), dtype=np.int16)
    after = np.asarray(transform.apply(image), dtype=np.int16)
    return bool(np.abs(before - after).max() <= 2)


def _deep_grey(image: Image.Image, notes: list[Note]) -> npt.NDArray[np.float32]:
    """One channel of more than 8 bits to ``(H, W, 3)`` float32; Pillow's own conversion would clip at 255."""
    stored: npt.NDArray[Any] = np.asarray(image)
    holes: npt.NDArray[np.bool_] | None = None
    if image.mode.startswith("I;16"):
        full_scale = 4095 if _tag(image, _BITS_PER_SAMPLE) == 12 else 65535
        grey = stored.astype(np.float32) / np.float32(full_scale)
        notes.append(Note("sixteen_bit", "Grey of more than 8 bits was kept at full depth."))
        key = image.info.get("transparency")
        if isinstance(key, int):
            holes = stored == key
    elif image.mode == "F":
        grey = _from_floats(stored, notes)
    else:
        if image.mode == "L":
            stored = stored.view(np.int8)
        elif _tag(image, _SAMPLE_FORMAT) == 1:
            stored = stored.view(np.uint32)  # Pillow keeps unsigned samples of 32 bits in a signed type
        grey = _scale_range(stored)
        notes.append(Note("integer_range_scaled", "Integer samples were scaled from their smallest and largest value."))
    if _tag(image, _PHOTOMETRIC) == 0:  # WhiteIsZero, which Pillow undoes only up to 8 bits
        grey = np.float32(1) - grey
    if image.mode == "F":
        grey[~np.isfinite(stored)] = 0
    rgb = _deep_to_srgb(grey, image.info.get("icc_profile"), notes)
    if holes is not None and holes.any():
        rgb[holes] = GREY / 255
        notes.append(ALPHA_NOTE)
    return rgb


def _deep_to_srgb(grey: npt.NDArray[np.float32], profile: object, notes: list[Note]) -> npt.NDArray[np.float32]:
    """Apply a profile as a curve of 256 points with linear interpolation, since Pillow transforms 8 bits only."""
    rgb = np.empty((*grey.shape, 3), dtype=np.float32)
    ramp = _to_srgb(_grey_ramp(), profile, notes)
    curve = np.asarray(ramp, dtype=np.float64)[0] / 255
    for channel in range(3):
        if any(note.code == "icc_converted" for note in notes):
            rgb[..., channel] = np.interp(grey, np.linspace(0, 1, 256), curve[:, channel])
        else:
            rgb[..., channel] = grey
    return rgb


def _from_floats(stored: npt.NDArray[np.float32], notes: list[Note]) -> npt.NDArray[np.float32]:
    """Values in 0..1 as they are, any other range scaled to it; the caller blackens what is not finite."""
    finite = np.isfinite(stored)
    if not finite.any():
        raise CorruptInputError("no sample is a finite number", hint="save the photo again from its source")
    if not finite.all():
        notes.append(Note("non_finite_zeroed", "Samples that are not finite numbers were set to black."))
        stored = np.where(finite, stored, stored[finite].min())
    if stored.min() >= 0 and stored.max() <= 1:
        return stored.astype(np.float32)
    notes.append(Note("float_range_scaled", "Samples outside 0..1 were scaled from their smallest and largest value."))
    return _scale_range(stored)


def _scale_range(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Smallest value to 0, largest to 1; a flat picture becomes mid-grey, as its level means nothing."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.full(values.shape, GREY / 255, dtype=np.float32)
    # float64, because the difference of two float32 or int32 extremes overflows their own type.
    return ((values.astype(np.float64) - low) / (high - low)).astype(np.float32)


def _tag(image: Image.Image, number: int) -> object:
    """A TIFF tag's first value, or None when the image is no TIFF or has no such tag."""
    value = getattr(image, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) and value else value
