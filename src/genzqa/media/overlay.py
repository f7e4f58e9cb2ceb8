"""The quality map drawn over its photo: bad areas in strong colour, good ones left clear, with a legend."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32]

LONG_SIDE = 1024
MIN_WIDTH = 360  # what the legend needs
MIN_SPAN = 20.0  # one ACR grade: a photo that is even all over shall not look patchy

# Lightness falls evenly from good to bad while the hue goes yellow, orange, red, magenta: the order can be read without
# telling red from green, and in grey print. sRGB, worst first.
SCALE = np.array(
    [(160, 0, 125), (204, 20, 108), (234, 62, 76), (248, 112, 52), (253, 164, 58), (254, 208, 110), (255, 244, 180)],
    np.float32,
)
_STRONGEST = 0.78  # opacity of the worst places: the photo stays recognisable
_GROUND, _INK, _FAINT = (250, 250, 250), (25, 25, 28), (110, 110, 118)


def overlay_png(pixels: Pixels, quality_map: npt.NDArray[np.float32], *, score: float, grade: str) -> bytes:
    """Draw a quality map over its photo.

    The colours span the map's own 1 to 99 % range, at least 20 points wide and within 0..100; the legend says which.

    Args:
        pixels: The photo ``(H, W, 3)``, uint8 0..255 or float32 0..1.
        quality_map: ``(h, w)`` in score points, for the whole photo at any size.
        score: The photo's score, for the legend.
        grade: Its ACR category, for the legend.

    Returns:
        A PNG file: the photo, at most 1024 pixels on its long side, above a legend.
    """
    photo = shrunk(pixels, LONG_SIDE)
    low, high = colour_range(quality_map)
    legend = _legend(max(MIN_WIDTH, photo.width), low, high, score, grade)
    canvas = Image.new("RGB", (legend.width, photo.height + legend.height), _GROUND)
    canvas.paste(draw_over(photo, quality_map, low, high), ((legend.width - photo.width) // 2, 0))
    canvas.paste(legend, (0, photo.height))
    file = io.BytesIO()
    canvas.save(file, "PNG")
    return file.getvalue()


def colour_range(quality_map: npt.NDArray[np.float32]) -> tuple[float, float]:
    """The score points that get the strongest colour and none at all: (low, high) within 0..100, 20 or more apart."""
    low, middle, high = (float(value) for value in np.clip(np.quantile(quality_map, (0.01, 0.5, 0.99)), 0, 100))
    if high - low < MIN_SPAN:
        low = min(max(0.0, middle - MIN_SPAN / 2), 100.0 - MIN_SPAN)
        high = low + MIN_SPAN
    return low, high


def draw_over(photo: Image.Image, quality_map: npt.NDArray[np.float32], low: float, high: float) -> Image.Image:
    """The photo with its map, of any size, drawn over it: strongest colour at ``low`` points, none from ``high`` up."""
    field = Image.fromarray(np.asarray(quality_map, np.float32)).resize(photo.size, Image.Resampling.BICUBIC)
    badness = np.clip((high - np.asarray(field, np.float32)) / np.float32(high - low), 0, 1)
    return Image.fromarray(_blend(np.asarray(photo, np.float32), badness))


def legend_colours(count: int) -> npt.NDArray[np.uint8]:
    """``(count, 3)``: what the map looks like over light grey, from its worst to its best points."""
    over = np.full((1, count, 3), 205, np.float32)
    return _blend(over, np.linspace(1, 0, count, dtype=np.float32)[None]).reshape(count, 3)


def shrunk(pixels: Pixels, long_side: int) -> Image.Image:
    """At most ``long_side`` pixels; a tiny picture is enlarged by whole pixels, to be seen at all."""
    if pixels.dtype != np.uint8:
        pixels = np.asarray(np.clip(pixels.astype(np.float32) * 255 + 0.5, 0, 255), np.uint8)
    photo = Image.fromarray(np.asarray(pixels, np.uint8))
    long = max(photo.size)
    if long > long_side:
        size = tuple(max(1, round(side * long_side / long)) for side in photo.size)
        return photo.resize((size[0], size[1]), Image.Resampling.BICUBIC, reducing_gap=2.0)
    factor = max(1, MIN_WIDTH // long)
    return photo.resize((photo.width * factor, photo.height * factor), Image.Resampling.NEAREST)


def _colours(badness: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """``(...)`` in 0..1 -> ``(..., 3)`` in 0..255, linear between the entries of the scale."""
    at = np.linspace(1, 0, len(SCALE))[::-1]
    return np.stack([np.interp(badness, at, SCALE[::-1, channel]) for channel in range(3)], -1).astype(np.float32)


def _blend(photo: npt.NDArray[np.float32], badness: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Colour over photo; the photo loses its own colour where the scale's is strong, so that the two do not mix up."""
    opacity = (_STRONGEST * badness**1.3)[..., None]
    luma = photo @ np.array([[0.299], [0.587], [0.114]], np.float32)
    ground = photo + (luma - photo) * np.minimum(1, 1.5 * badness[..., None])
    # Some of the photo's relief is kept inside the colour, or strong areas would be plain blots.
    relief = 0.85 + 0.3 * luma / 255
    blended = ground * (1 - opacity) + np.clip(_colours(badness) * relief, 0, 255) * opacity
    return np.asarray(np.clip(blended + 0.5, 0, 255), np.uint8)


def _legend(width: int, low: float, high: float, score: float, grade: str) -> Image.Image:
    """A strip: the photo's score at the left, the colour scale with five numbers at the right."""
    height, margin = 58, 14
    legend = Image.new("RGB", (width, height), _GROUND)
    draw = ImageDraw.Draw(legend)
    large, small = ImageFont.load_default(22), ImageFont.load_default(13)
    draw.text((margin, 8), f"{score:.1f}", _INK, large)
    draw.text((margin, 34), grade, _FAINT, small)
    left, right, top = margin + 110, width - margin - 12, 14
    bar = np.broadcast_to(legend_colours(right - left), (14, right - left, 3))
    legend.paste(Image.fromarray(np.ascontiguousarray(bar)), (left, top))
    draw.rectangle((left - 1, top - 1, right, top + 14), outline=_FAINT)
    for fraction in (0, 0.25, 0.5, 0.75, 1):
        x = left + fraction * (right - left - 1)
        draw.line((x, top + 14, x, top + 18), _FAINT)
        draw.text((x, top + 20), f"{low + fraction * (high - low):.0f}", _INK, small, anchor="ma")
    draw.text((left - 10, top + 7), "points", _FAINT, small, anchor="rm")
    return legend
