"""The one object that says how much of anything an input may have."""

from __future__ import annotations

from dataclasses import dataclass

MEGAPIXEL = 1_000_000
GIBIBYTE = 1 << 30


@dataclass(frozen=True)
class Limits:
    """Bounds checked before any expensive work; used by the decoder, the CLI and every later way in.

    Attributes:
        max_pixels: Width times height of one photo or video frame, checked on the header before pixels are decoded.
        max_file_bytes: Size of one photo file, checked before it is opened.
        max_side: Longest side in pixels; keeps a 1 x 100,000,000 strip from passing as 100 MP.
        max_video_bytes: Size of one video file, which is streamed and never held in memory.
        max_video_seconds_wall: Seconds that reading and decoding one video may take beyond its playing time, of which an
            hour counts at most.
    """

    max_pixels: int = 100 * MEGAPIXEL
    max_file_bytes: int = 2 * GIBIBYTE
    max_side: int = 65_535
    max_video_bytes: int = 64 * GIBIBYTE
    max_video_seconds_wall: float = 300.0


DEFAULT_LIMITS = Limits()
