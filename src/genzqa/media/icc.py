"""Colour profiles: from the colours of a file to sRGB."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

from genzqa.notes import Note

CMYK_NOTE = Note("cmyk_converted", "Converted from CMYK; colours may differ from print.")

_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


Conversion = Callable[[Image.Image], Image.Image]
"""An image to a new one in mode ``RGB``, pixel by pixel."""


def to_srgb(mode: str, profile: object, notes: list[Note]) -> Conversion:
    """What takes ``L``, ``RGB``, ``CMYK`` or ``LAB`` to sRGB in mode ``RGB``; a profile that cannot be used is noted."""
    if mode == "LAB":
        notes.append(Note("lab_converted", "Converted from CIELAB to sRGB."))
        return _plainly
    if mode == "CMYK":
        notes.append(CMYK_NOTE)
    if isinstance(profile, bytes) and profile:
        try:
            convert, name = _by_profile(mode, profile)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            notes.append(Note("icc_ignored", "The embedded colour profile is damaged or does not fit and was ignored."))
        else:
            if convert is not None:
                notes.append(Note("icc_converted", f"Converted from the embedded colour profile{name} to sRGB."))
                return convert
    return _plainly


def _plainly(colour: Image.Image) -> Image.Image:
    return colour.convert("RGB")


def _by_profile(mode: str, data: bytes) -> tuple[Conversion | None, str]:
    """What takes an image of this mode to sRGB, or None when the profile is sRGB already; and its name for a note."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
    space = profile.profile.xcolor_space.strip()
    # Common: grey JPEGs that carry the profile of their RGB original.
    used = "RGB" if space == "RGB" and mode == "L" else mode
    if _SPACES.get(space) != used:
        raise ValueError(f"a profile for {space}, not {mode}")
    # lcms approximates a grey curve by a coarse table, up to 7 code values off in the shadows, unless told not to.
    flags = ImageCms.Flags.NOOPTIMIZE if used == "L" else ImageCms.Flags.NONE
    intent = ImageCms.Intent.PERCEPTUAL
    if ImageCms.isIntentSupported(profile, intent, ImageCms.Direction.INPUT) != 1:
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        flags |= ImageCms.Flags.BLACKPOINTCOMPENSATION
    target = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(profile, target, used, "RGB", intent, flags)
    if _is_identity(transform, used):
        return None, ""
    title = "".join(c for c in profile.profile.profile_description or "" if c.isprintable())[:60].strip()
    name = f" “{title}”" if title else ""
    if used != "L":
        return lambda colour: transform.apply(colour.convert(used)), name
    # Without its optimisation lcms is slow, so it converts the 256 grey values once and the pixels look them up.
    curves = [list(channel.tobytes()) for channel in transform.apply(grey_ramp()).split()]
    return lambda grey: Image.merge("RGB", [grey.point(curve) for curve in curves]), name


def grey_ramp() -> Image.Image:
    """Every grey of 8 bits, in one row."""
    return Image.frombytes("L", (256, 1), bytes(range(256)))


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether a profile is sRGB in effect, whatever its name; its many editions differ by a code value or two."""
    if mode == "CMYK":
        return False
    if mode == "L":
        image = grey_ramp()
    else:
        steps = np.linspace(0, 255, 9).astype(np.uint8)
        image = Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3))
    before = np.asarray(image.convert("RGB"), dtype=np.int16)
    after = np.asarray(transform.apply(image), dtype=np.int16)
    return bool(np.abs(before - after).max() <= 2)
