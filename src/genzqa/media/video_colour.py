"""From a decoded frame to upright, square-pixel sRGB.

swscale turns Y'CbCr of any matrix, range and depth into R'G'B' and scales it. What is left to do depends on the curve:

- SDR: the code values are shown as they are, as players do. BT.2020 and Display P3 primaries are converted to those of
  sRGB in linear light.
- PQ (SMPTE ST 2084) and HLG (ARIB STD-B67, ITU-R BT.2100) are tone-mapped: to display light in cd/m2, the highlights
  rolled off by the curve of ITU-R BT.2390 section 5.4.1 from a peak of `HDR_PEAK` to the reference white of 203 cd/m2
  (ITU-R BT.2408), which becomes the white of sRGB, then to its primaries.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from genzqa.errors import UnsupportedFormatError
from genzqa.media.colour import Pixels

Float = npt.NDArray[np.float32]
Transfer = Literal["sdr", "pq", "hlg"]

REFERENCE_WHITE = 203.0
"""cd/m2 of a sheet of white paper in HDR video (ITU-R BT.2408 table 1)."""

HDR_PEAK = 1000.0
"""cd/m2 up to which highlights are told apart; the nominal peak of HLG, and of most masters in PQ."""

_QUALITY = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
_EXACT = _QUALITY | Interpolation.BITEXACT  # the same pixels whatever the processor

# Numbers of ITU-T H.273, as FFmpeg keeps them.
_MATRICES = {
    1: ("bt709", Colorspace.ITU709),
    4: ("fcc", Colorspace.FCC),
    5: ("bt601", Colorspace.ITU601),
    6: ("bt601", Colorspace.ITU601),
    7: ("smpte240m", Colorspace.SMPTE240M),
    9: ("bt2020", Colorspace.BT2020),
}
_UNKNOWN_MATRICES = {8: "YCgCo", 10: "BT.2020 constant luminance", 12: "derived, non-constant", 14: "ICtCp"}
_TRANSFERS: dict[int, Transfer] = {16: "pq", 18: "hlg"}
_UNTAGGED, _BT2020, _DISPLAY_P3 = 2, 9, 12

HD_LINES = 720
"""From this many lines up, video that names no matrix is taken for BT.709, below for BT.601, as players do."""

# Linear RGB to linear sRGB; both sides have the white point D65 (ITU-R BT.2087 for BT.2020, SMPTE EG 432-1 for P3).
_TO_SRGB = {
    _BT2020: ((1.660491, -0.587641, -0.072850), (-0.124550, 1.132900, -0.008349), (-0.018151, -0.100579, 1.118730)),
    _DISPLAY_P3: ((1.224940, -0.224940, 0.0), (-0.042057, 1.042057, 0.0), (-0.019638, -0.078636, 1.098274)),
}


@dataclass(frozen=True)
class Colour:
    """How the samples of a frame are to be read.

    Attributes:
        matrix: ``"bt601"``, ``"bt709"``, ``"bt2020"``, ``"fcc"``, ``"smpte240m"``, or ``"rgb"``.
        full_range: 0 to 255 at 8 bits, not 16 to 235.
        transfer: ``"sdr"``, ``"pq"`` or ``"hlg"``.
        primaries: Number of H.273; only 9 (BT.2020) and 12 (Display P3) are converted, others taken for sRGB's.
        bits: Per sample.
        alpha: Whether the frame has an alpha channel, which is ignored.
    """

    matrix: str
    full_range: bool
    transfer: Transfer
    primaries: int
    bits: int
    alpha: bool

    @property
    def converts(self) -> bool:
        """Whether more is to be done than what swscale does."""
        return self.transfer != "sdr" or self.primaries in _TO_SRGB


def colour_of(frame: Any) -> Colour:
    """Read the tags of a frame, and fill in what they leave open.

    Raises:
        UnsupportedFormatError: A matrix that swscale does not know.
    """
    layout = frame.format
    transfer = _TRANSFERS.get(frame.color_trc, "sdr")
    primaries = frame.color_primaries
    if primaries == _UNTAGGED and (transfer != "sdr" or frame.colorspace == _BT2020):
        primaries = _BT2020
    if layout.is_rgb or layout.has_palette:
        matrix = "rgb"
    elif frame.colorspace in _UNKNOWN_MATRICES:
        reason = f"the colour matrix {_UNKNOWN_MATRICES[frame.colorspace]} is not supported"
        raise UnsupportedFormatError(reason, hint="convert it to BT.709")
    elif frame.colorspace in _MATRICES:
        matrix = _MATRICES[frame.colorspace][0]
    elif primaries == _BT2020:
        matrix = "bt2020"
    else:
        matrix = "bt709" if frame.height >= HD_LINES else "bt601"
    # FFmpeg takes grey without a tag for full range too.
    full = matrix == "rgb" or layout.name.startswith("yuvj") or frame.color_range == int(ColorRange.JPEG)
    if frame.color_range == int(ColorRange.UNSPECIFIED) and layout.name.startswith(("gray", "ya")):
        full = True
    bits = max(component.bits for component in layout.components)
    alpha = any(component.is_alpha for component in layout.components)
    return Colour(matrix, full, transfer, primaries, bits, alpha)


class Painter:
    """Frames to sRGB arrays; keeps swscale's state between frames of one size, so use one per size wanted."""

    def __init__(self) -> None:
        self._scaler = VideoReformatter()

    def paint(self, frame: Any, colour: Colour, width: int, height: int, *, deep: bool) -> Pixels:
        """Convert and scale one frame.

        Args:
            frame: A decoded frame.
            colour: Of the frame.
            width: Wanted columns, before any turn.
            height: Wanted rows.
            deep: Float32 in 0..1 at full depth rather than uint8.

        Returns:
            ``(height, width, 3)`` sRGB.
        """
        rgb = self._rgb(frame, colour, width, height, deep=deep or colour.converts)
        if not colour.converts:
            return np.divide(rgb, np.float32(65535), dtype=np.float32) if deep else cast("npt.NDArray[np.uint8]", rgb)
        result = to_srgb(cast("npt.NDArray[np.uint16]", rgb), colour.transfer, colour.primaries)
        return result if deep else np.rint(result * np.float32(255)).astype(np.uint8)

    def _rgb(self, frame: Any, colour: Colour, width: int, height: int, *, deep: bool) -> npt.NDArray[Any]:
        shrinks = width * height < frame.width * frame.height
        matrix = next((space for name, space in _MATRICES.values() if name == colour.matrix), None)
        scaled = self._scaler.reformat(
            frame,
            width=width,
            height=height,
            format="rgb48le" if deep else "rgb24",
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=ColorRange.JPEG if colour.full_range else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=_EXACT | (Interpolation.AREA if shrinks else Interpolation.BICUBIC),
            threads=1,
        )
        return cast("npt.NDArray[Any]", scaled.to_ndarray())


def to_srgb(rgb: npt.NDArray[np.uint16], transfer: Transfer, primaries: int) -> Float:
    """R'G'B' of 16 bits to sRGB in 0..1; values outside its gamut are clipped.

    Args:
        rgb: ``(H, W, 3)``.
        transfer: ``"sdr"``, ``"pq"`` or ``"hlg"``.
        primaries: Number of H.273.
    """
    light = _curve(transfer)[rgb]
    if transfer == "hlg":
        # BT.2100 table 5: the system gamma acts on the luminance of the scene, not on each channel.
        luminance = light @ np.array([0.2627, 0.6780, 0.0593], np.float32)
        light *= (np.float32(HDR_PEAK / REFERENCE_WHITE) * luminance**0.2)[..., None]
    if transfer != "sdr":
        brightest = light.max(axis=-1)
        light *= np.interp(brightest, *_roll_off()).astype(np.float32)[..., None]
    if primaries in _TO_SRGB:
        light = light @ np.array(_TO_SRGB[primaries], np.float32).T
    return _encode(np.clip(light, 0, 1))


@cache
def _curve(transfer: Transfer) -> Float:
    """What each of 65,536 code values means: light relative to the reference white; for HLG that of the scene, 0..1."""
    code = np.linspace(0, 1, 65536)
    if transfer == "pq":
        return (pq_to_light(code) / REFERENCE_WHITE).astype(np.float32)
    if transfer == "hlg":  # inverse of the curve of ARIB STD-B67, as in BT.2100 table 5
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12).astype(np.float32)
    # The curve of sRGB on both sides, so that greys of wide-gamut SDR keep their code values.
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _encode(light: Float) -> Float:
    """IEC 61966-2-1."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055).astype(np.float32)


_M1, _M2, _C1, _C2, _C3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875


def pq_to_light(code: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """SMPTE ST 2084: code in 0..1 to cd/m2."""
    power = code ** (1 / _M2)
    return 10000 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)


def light_to_pq(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """SMPTE ST 2084: cd/m2 to code in 0..1."""
    power = (light / 10000) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


@cache
def _roll_off() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The curve of BT.2390 as the factor for each level of light, both relative to the reference white.

    Below the knee, near 93 cd/m2, nothing changes; from there a Hermite spline in PQ leads to the reference white,
    which `HDR_PEAK` and all above it become. The factor for the brightest channel is used for all three: hue stays.
    """
    level = np.concatenate(([1e-6], np.linspace(0.3, HDR_PEAK / REFERENCE_WHITE, 1024), [10000 / REFERENCE_WHITE]))
    scale = float(light_to_pq(np.array(HDR_PEAK)))
    target = float(light_to_pq(np.array(REFERENCE_WHITE))) / scale
    knee = 1.5 * target - 0.5
    code = np.minimum(light_to_pq(level * REFERENCE_WHITE) / scale, 1)
    t = np.maximum((code - knee) / (1 - knee), 0)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * target
    mapped = np.where(code < knee, level, pq_to_light(spline * scale) / REFERENCE_WHITE)
    return level, mapped / level


@dataclass(frozen=True)
class Turn:
    """One of the eight ways to lay a picture: first transposed or not, then mirrored in columns, rows, or both."""

    transpose: bool = False
    columns: bool = False
    rows: bool = False

    @property
    def degrees(self) -> int:
        """Clockwise turn in 0, 90, 180, 270; a mirrored picture counts as its turn before the mirror of columns."""
        return {(False, False): 0, (True, False): 90, (False, True): 180, (True, True): 270}[
            (self.transpose, self.rows)
        ]

    def apply(self, pixels: Pixels) -> Pixels:
        """Lay ``(H, W, 3)`` pixels upright; contiguous."""
        if self.transpose:
            pixels = pixels.transpose(1, 0, 2)
        if self.columns:
            pixels = pixels[:, ::-1]
        if self.rows:
            pixels = pixels[::-1]
        return cast("Pixels", np.ascontiguousarray(pixels))


def turn_of(frame: Any) -> tuple[Turn, bool]:
    """The turn that the display matrix of a frame asks for, and whether it is exactly that.

    The matrix maps column p and row q to ``a p + c q`` and ``b p + d q`` (ISO/IEC 14496-12 section 8.3.2). An angle
    between the quarters becomes the nearest quarter.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Turn(), True
    a, b, _, c, d = struct.unpack_from("=5i", bytes(data))
    if a == b == c == d == 0:
        return Turn(), False
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Turn(False, a < 0, d < 0), b == c == 0
    return Turn(True, c < 0, b < 0), a == d == 0
