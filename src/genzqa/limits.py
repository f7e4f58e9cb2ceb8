"""The one object that says how much of anything an input may have."""

from __future__ import annotations

from dataclasses import dataclass

MEGAPIXEL = 1_000_000
GIBIBYTE = 1 << 30
HOUR = 3600.0
MOST_PLAYING_TIME = HOUR
"""Seconds of a video's playing time that its reading is allowed for at most, since a file can say anything about it."""


@dataclass(frozen=True)
class Limits:
    """Bounds checked before any expensive work; used by the decoder, the CLI and every later way in.

    Attributes:
        max_pixels: Width times height of one photo or video frame, checked on the header before pixels are decoded.
        max_file_bytes: Size of one photo file, checked before it is opened.
        max_side: Longest side in pixels; keeps a 1 x 100,000,000 strip from passing as 100 MP.
        max_video_bytes: Size of one video file, which is streamed and never held in memory.
        max_video_seconds: Playing time of one video, as far as its data reach, checked before frames are decoded. The default
            is as long as live services let a broadcast run: films and recordings of a day pass, forged timestamps do not.
        max_video_seconds_wall: Seconds that reading and decoding one video may take beyond its playing time, of which an
            hour counts at most.
    """

    max_pixels: int = 100 * MEGAPIXEL
    max_file_bytes: int = 2 * GIBIBYTE
    max_side: int = 65_535
    max_video_bytes: int = 64 * GIBIBYTE
    max_video_seconds: float = 48 * HOUR
    max_video_seconds_wall: float = 300.0

    @property
    def longest_video_work(self) -> float:
        """Seconds after which a process that decodes and scores a video is taken to hang, whatever the video says of itself.

        Reading ends by itself before (see ``max_video_seconds_wall``), unless a decoder does not come back; half an hour is
        left for the network.
        """
        return self.max_video_seconds_wall + min(self.max_video_seconds, MOST_PLAYING_TIME) + HOUR / 2


DEFAULT_LIMITS = Limits()
