"""From a decoded frame to upright, square-pixel sRGB.

swscale turns Y'CbCr of any matrix, range and depth into R'G'B' and scales it. SDR is then done: its code values are shown
as they are, as players do. HDR and wide gamut go on in `video_light`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from genzqa.errors import UnsupportedFormatError
from genzqa.media.pixels import Pixels
from genzqa.media.video_light import BT2020, TO_SRGB, Transfer, to_srgb

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
_UNTAGGED = 2

HD_LINES = 720
"""From this many lines up, video that names no matrix is taken for BT.709, below for BT.601, as players do."""


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
        return self.transfer != "sdr" or self.primaries in TO_SRGB


def colour_of(frame: Any) -> Colour:
    """Read the tags of a frame, and fill in what they leave open.

    Raises:
        UnsupportedFormatError: A matrix that swscale does not know.
    """
    layout = frame.format
    transfer = _TRANSFERS.get(frame.color_trc, "sdr")
    primaries = frame.color_primaries
    if primaries == _UNTAGGED and (transfer != "sdr" or frame.colorspace == BT2020):
        primaries = BT2020
    if layout.is_rgb or layout.has_palette:
        matrix = "rgb"
    elif frame.colorspace in _UNKNOWN_MATRICES:
        reason = f"the colour matrix {_UNKNOWN_MATRICES[frame.colorspace]} is not supported"
        raise UnsupportedFormatError(reason, hint="convert it to BT.709")
    elif frame.colorspace in _MATRICES:
        matrix = _MATRICES[frame.colorspace][0]
    elif primaries == BT2020:
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
