"""From the R'G'B' of HDR and wide-gamut video to sRGB.

- SDR: BT.2020 and Display P3 primaries are converted to those of sRGB in linear light.
- PQ (SMPTE ST 2084) and HLG (ARIB STD-B67, ITU-R BT.2100) are tone-mapped: to display light in cd/m2, the highlights
  rolled off by the curve of ITU-R BT.2390 section 5.4.1 from a peak of `HDR_PEAK` to the reference white of 203 cd/m2
  (ITU-R BT.2408), which becomes the white of sRGB, then to its primaries.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Transfer = Literal["sdr", "pq", "hlg"]

REFERENCE_WHITE = 203.0
"""cd/m2 of a sheet of white paper in HDR video (ITU-R BT.2408 table 1)."""

HDR_PEAK = 1000.0
"""cd/m2 up to which highlights are told apart; the nominal peak of HLG, and of most masters in PQ."""

BT2020, _DISPLAY_P3 = 9, 12  # numbers of ITU-T H.273

# Linear RGB to linear sRGB; both sides have the white point D65 (ITU-R BT.2087 for BT.2020, SMPTE EG 432-1 for P3).
TO_SRGB = {
    BT2020: ((1.660491, -0.587641, -0.072850), (-0.124550, 1.132900, -0.008349), (-0.018151, -0.100579, 1.118730)),
    _DISPLAY_P3: ((1.224940, -0.224940, 0.0), (-0.042057, 1.042057, 0.0), (-0.019638, -0.078636, 1.098274)),
}

_LAST = 65535  # code value of 16 bits, and index of the tables below
_ROWS = 32  # converted at a time: what they need on the way stays in the processor's cache


def to_srgb(rgb: npt.NDArray[np.uint16], transfer: Transfer, primaries: int) -> Float:
    """R'G'B' of 16 bits to sRGB in 0..1; values outside its gamut are clipped.

    Args:
        rgb: ``(H, W, 3)``.
        transfer: ``"sdr"``, ``"pq"`` or ``"hlg"``.
        primaries: Number of H.273.

    Returns:
        ``(H, W, 3)``, within 3e-5 of the formulas: tables of 65,536 steps are three times as fast.
    """
    result = np.empty(rgb.shape, np.float32)
    for top in range(0, len(rgb), _ROWS):
        result[top : top + _ROWS] = _rows_to_srgb(rgb[top : top + _ROWS], transfer, primaries)
    return result


def _rows_to_srgb(rgb: npt.NDArray[np.uint16], transfer: Transfer, primaries: int) -> Float:
    light = _curve(transfer)[rgb]
    if transfer == "pq":
        light *= _roll_off_table("pq")[_largest(rgb)][..., None]  # the curve rises, so this is the brightest channel
    elif transfer == "hlg":
        # BT.2100 table 5: the system gamma acts on the luminance of the scene, not on each channel.
        luminance = light @ np.array([0.2627, 0.6780, 0.0593], np.float32)
        gain = np.float32(HDR_PEAK / REFERENCE_WHITE) * luminance ** np.float32(0.2)
        brightest = _largest(light) * gain
        step = np.minimum(
            brightest * np.float32(_LAST * REFERENCE_WHITE / HDR_PEAK) + np.float32(0.5), np.float32(_LAST)
        )
        light *= (gain * _roll_off_table("hlg")[step.astype(np.uint16)])[..., None]
    if primaries in TO_SRGB:
        light = light @ np.array(TO_SRGB[primaries], np.float32).T
    root = np.sqrt(np.clip(light, 0, 1, out=light), out=light)
    root *= np.float32(_LAST)
    root += np.float32(0.5)
    return _encoded()[root.astype(np.uint16)]


def _largest(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Of the three channels; several times as fast as `max` over an axis of three."""
    return cast("npt.NDArray[Any]", np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2]))


@cache
def _curve(transfer: Transfer) -> Float:
    """What each of 65,536 code values means: light relative to the reference white; for HLG that of the scene, 0..1."""
    code = np.linspace(0, 1, _LAST + 1)
    if transfer == "pq":
        return (pq_to_light(code) / REFERENCE_WHITE).astype(np.float32)
    if transfer == "hlg":  # inverse of the curve of ARIB STD-B67, as in BT.2100 table 5
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12).astype(np.float32)
    # The curve of sRGB on both sides, so that greys of wide-gamut SDR keep their code values.
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4).astype(np.float32)


@cache
def _encoded() -> Float:
    """The curve of sRGB (IEC 61966-2-1) for 65,536 square roots of light, 0..1; between two of them it rises by 2.3e-5 at most.

    Of light itself so many would be too few in the shadows, where the curve is steep.
    """
    light = np.linspace(0, 1, _LAST + 1) ** 2
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


@cache
def _roll_off_table(transfer: Transfer) -> Float:
    """`_roll_off` for each of 65,536 levels of the brightest channel: code values of PQ, or even steps up to `HDR_PEAK`."""
    level = _curve("pq") if transfer == "pq" else np.linspace(0, HDR_PEAK / REFERENCE_WHITE, _LAST + 1)
    return np.interp(level, *_roll_off()).astype(np.float32)
