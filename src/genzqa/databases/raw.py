"""Raw videos: pictures one after another in a ``.yuv``, which does not say how large they are or of what format."""

from __future__ import annotations

from pathlib import Path

RAW = ".yuv"
CONTAINERS = (".mkv", ".mp4")
CONVERT = "ffmpeg -f rawvideo -pix_fmt FORMAT -s WIDTHxHEIGHT -r RATE -i NAME.yuv -c:v ffv1 NAME.mkv"


def in_container(path: Path) -> Path:
    """What a raw video was converted to, beside it or in its place, ``NAME.mkv`` before ``NAME.mp4``; without such a file, the
    path itself, on which a check says what to do."""
    for suffix in CONTAINERS:
        if path.with_suffix(suffix).is_file():
            return path.with_suffix(suffix)
    return path
