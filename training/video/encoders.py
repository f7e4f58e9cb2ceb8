"""What real encoders do to a video, through PyAV, and how much of its quality each leaves."""

from __future__ import annotations

import io
import os
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from faults import RATE, Frames
from scipy import ndimage

CODECS: dict[str, tuple[str, dict[str, str], tuple[int, ...]]] = {  # encoder, options, ladder of constant rate factors
    "h264": ("libx264", {"preset": "veryfast"}, (20, 27, 34, 41, 48)),
    "hevc": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=error"}, (20, 27, 34, 41, 48)),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "b": "0"}, (20, 31, 42, 53, 63)),
    "av1": ("libsvtav1", {"preset": "12"}, (20, 31, 42, 53, 63)),
}
NEARLY_LOSSLESS = ("libx264", {"preset": "veryfast"}, 12)


def encoded(frames: Frames, codec: str, options: dict[str, str], crf: int) -> bytes:
    """A Matroska file of these frames ``(n, h, w, 3)``, even sides, at `RATE` frames per second."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream(codec, rate=Fraction(int(RATE)), options={**options, "crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    if hasattr(os, "sched_setscheduler"):  # SVT-AV1, run by root, puts this thread before all others of the machine
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return buffer.getvalue()


def drawn_crf(name: str, strength: float) -> int:
    """The constant rate factor of a strength in 0..1, along the codec's ladder."""
    rates = CODECS[name][2]
    return round(rates[0] + (rates[-1] - rates[0]) * strength)


def _luma(frame: Frames) -> npt.NDArray[np.float64]:
    return np.asarray(frame.astype(np.float64) @ np.array([0.299, 0.587, 0.114]))


def ssim(reference: Frames, shown: Frames) -> float:
    """Mean structural similarity of the luma of two frames ``(h, w, 3) uint8`` (Wang, Bovik, Sheikh and Simoncelli, IEEE TIP
    13(4), 2004; Gaussian window of 1.5 pixels)."""
    x, y = _luma(reference), _luma(shown)

    def mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(ndimage.gaussian_filter(values, 1.5, truncate=3.5))

    mx, my = mean(x), mean(y)
    vx, vy, both = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(((2 * mx * my + c1) * (2 * both + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))).mean())


def coding_share(similarity: float) -> float:
    """Quality left at this SSIM to the uncoded video. Falls fast from 1 and flattens, as MOS does against SSIM in the same
    paper; its constants (0.94 at 0.99, 0.74 at 0.95, 0.58 at 0.9) are ours."""
    return float(1 - 0.75 * (1 - np.exp(-max(0.0, 1 - similarity) / 0.12)))
