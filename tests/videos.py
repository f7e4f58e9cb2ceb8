"""Small real videos, made by the encoders inside PyAV."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from genzqa.media.video import Moment, open_video

TICK = Fraction(1, 1000)

FASTSTART = {"movflags": "faststart"}

QUIET = {"libx265": {"x265-params": "log-level=none"}, "libsvtav1": {"svtav1-params": "lp=1", "preset": "12"}}


def grey_level(number: int) -> int:
    """The grey that says which frame it is; 5 apart, so that lossy coding cannot confuse two of up to 40 frames."""
    return 25 + 5 * number


def frame_number(pixels: np.ndarray) -> int:
    """The number of a frame made by `grey_frames`, read from its middle."""
    height, width, _ = pixels.shape
    level = pixels[height // 4 : -(height // 4), width // 4 : -(width // 4)].astype(float).mean()
    return round((level * (255 if pixels.dtype != np.uint8 else 1) - 25) / 5)


def grey_frames(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """``count`` flat grey RGB frames."""
    return [np.full((height, width, 3), grey_level(number), np.uint8) for number in range(count)]


def noise_frames(count: int) -> list[np.ndarray]:
    """``count`` small RGB frames that do not compress, so that every part of the file is picture."""
    generator = np.random.default_rng(1)
    return [generator.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(count)]


def quadrants(height: int = 64, width: int = 96) -> np.ndarray:
    """Red top left, green top right, blue bottom left, grey bottom right."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (200, 40, 40)
    picture[: height // 2, width // 2 :] = (40, 180, 60)
    picture[height // 2 :, : width // 2] = (40, 60, 200)
    picture[height // 2 :, width // 2 :] = (128, 128, 128)
    return picture


def encode(
    frames: Sequence[np.ndarray],
    *,
    container: str = "mp4",
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    rate: int | Fraction = 25,
    times_ms: Sequence[int] | None = None,
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    matrix: Colorspace = Colorspace.ITU709,
    full_range: bool = False,
    tags: Mapping[str, int] | None = None,
    sar: Fraction | None = None,
    display_matrix: Sequence[int] | None = None,
    audio_seconds: float = 0.0,
) -> bytes:
    """A file of RGB frames (uint8, or uint16 for deep formats).

    ``tags`` are ``colorspace``, ``color_range``, ``color_trc``, ``color_primaries`` as integers of H.273; without it
    the file says nothing about its colour.
    """
    with tempfile.TemporaryDirectory() as folder:  # not in memory, since `faststart` reads back what it wrote
        path = Path(folder) / "video"
        output = av.open(str(path), "w", format=container, container_options=dict(container_options or {}))
        settings = {**QUIET.get(codec, {}), **(options or {})}
        stream = output.add_stream(codec, rate=rate, options=settings)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = TICK if times_ms is not None else Fraction(1, rate)
        if sar is not None:
            stream.codec_context.sample_aspect_ratio = sar
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if display_matrix is not None:
            stream.set_display_matrix(list(display_matrix))
        sound: Any = output.add_stream("aac", rate=8000, layout="mono") if audio_seconds else None
        for number, pixels in enumerate(frames):
            frame = converted(pixels, pixel_format, matrix, full_range=full_range)
            frame.pts = number if times_ms is None else times_ms[number]
            frame.time_base = stream.codec_context.time_base
            if not tags:
                frame.colorspace, frame.color_range = 2, 0
            for name, value in (tags or {}).items():
                setattr(frame, name, value)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if sound is not None:
            mux_silence(output, sound, audio_seconds)
        output.close()
        if hasattr(os, "sched_setscheduler"):  # SVT-AV1, run by root, puts this thread before all others of the machine
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        return path.read_bytes()


def converted(pixels: np.ndarray, pixel_format: str, matrix: Colorspace, *, full_range: bool) -> av.VideoFrame:
    """RGB to what the encoder takes; ``gray`` and RGB formats ignore matrix and range."""
    source = "rgb24" if pixels.dtype == np.uint8 else "rgb48le"
    frame = av.VideoFrame.from_ndarray(pixels, format=source)
    return frame.reformat(
        format=pixel_format,
        dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.JPEG if full_range else ColorRange.MPEG,
        interpolation="AREA",
        threads=1,
    )


def mux_silence(output: Any, stream: Any, seconds: float) -> None:
    """Quiet mono sound of this length."""
    for start in range(0, int(seconds * 8000), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def audio_only(container: str = "mp4", seconds: float = 0.5) -> bytes:
    """A file with sound and no picture."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        codec = "flac" if container == "ogg" else "aac"
        mux_silence(output, output.add_stream(codec, rate=8000, layout="mono"), seconds)
    return buffer.getvalue()


def declared_encrypted(matroska: bytes) -> bytes:
    """The same Matroska file with its track declared encrypted, by an element ``ContentEncodings`` (RFC 9559)."""

    def element(name: str, content: bytes) -> bytes:
        return bytes.fromhex(name) + (len(content) | 1 << 56).to_bytes(8, "big") + content

    def opened(at: int) -> tuple[int, int]:
        """Where the content of an element begins and ends, its size standing at ``at``."""
        length = 9 - matroska[at].bit_length()
        size = int.from_bytes(matroska[at : at + length], "big") & ((1 << 7 * length) - 1)
        return at + length, at + length + size

    segment, tracks = bytes.fromhex("18538067"), bytes.fromhex("1654ae6b")
    segment_at, tracks_at = matroska.index(segment), matroska.rindex(tracks)
    start, end = opened(tracks_at + 4)
    entry_at = matroska.index(b"\xae", start + 6)  # after a check sum
    entry = slice(*opened(entry_at + 1))
    aes = element("47e1", b"\x05") + element("47e2", bytes(range(16)))
    encoding = element("5033", b"\x01") + element("5032", b"\x01") + element("5035", aes)
    entries = element("ae", matroska[entry] + element("6d80", element("6240", encoding))) + matroska[entry.stop : end]
    content = matroska[opened(segment_at + 4)[0] : tracks_at] + element("1654ae6b", entries) + matroska[end:]
    return matroska[:segment_at] + segment + b"\x01" + b"\xff" * 7 + content


def read(data: bytes | Path, times: list[float], **settings: int) -> list[Moment]:
    """The moments of a video."""
    with open_video(data) as video:
        return list(video.moments(times, **settings))


def numbers(moments: list[Moment]) -> list[int]:
    """Which frames they show, of a video made of `grey_frames`."""
    return [frame_number(moment.pixels) for moment in moments]
