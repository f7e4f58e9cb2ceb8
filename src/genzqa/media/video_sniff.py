"""Whether a file is a video, told from its first bytes, and which demuxer reads it.

Only demuxers that read one file and nothing else are named here. FFmpeg's own probing would also pick playlists (HLS,
DASH, concat, SDP, numbered images) that open other files and addresses, so it is never asked.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal

HEAD_BYTES = 4096
"""Enough for the signatures below; five packets of MPEG-TS are the longest."""

SUPPORTED = "MP4, MOV, MKV, WebM, AVI, Y4M, MPEG-TS, MPEG-PS, Ogg, FLV, WMV, MXF and IVF"

VIDEO_SUFFIXES = (
    ".mp4",
    ".m4v",
    ".mov",
    ".qt",
    ".mkv",
    ".webm",
    ".avi",
    ".y4m",
    ".ts",
    ".mts",
    ".m2ts",
    ".mpg",
    ".mpeg",
    ".vob",
    ".ogv",
    ".3gp",
    ".3g2",
    ".flv",
    ".wmv",
    ".asf",
    ".mxf",
    ".ivf",
)
"""Which files of a folder are taken for videos. A file named directly is told by its content alone."""

_MP4 = "mov,mp4,m4a,3gp,3g2,mj2"

_SIGNATURES = (
    (b"\x1a\x45\xdf\xa3", "matroska,webm"),
    (b"YUV4MPEG2", "yuv4mpegpipe"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"\x00\x00\x01\xb3", "mpegvideo"),
    (b"OggS", "ogg"),
    (b"FLV\x01", "flv"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01", "mxf"),
    (b"DKIF", "ivf"),
)

_IMAGE_BRANDS = frozenset({b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"crx "})
"""ISO media files that hold pictures, of which some move; the photo decoder accepts or refuses them."""

_QUICKTIME_BOXES = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
"""What a QuickTime file from before the ``ftyp`` box may begin with."""

_TS_PACKETS = ((188, 0), (192, 4), (192, 0), (204, 0))
"""Bytes per packet, and bytes before the sync byte: broadcast, Blu-ray (time code first), and error-corrected."""


def sniff_video(head: bytes) -> str | None:
    """FFmpeg's name of the demuxer for a video container, or None when the bytes begin no such container.

    Args:
        head: The first `HEAD_BYTES` bytes, or the whole file when it is shorter.
    """
    for signature, demuxer in _SIGNATURES:
        if head.startswith(signature):
            return demuxer
    if head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"AVIX", b"AMV "):
        return "avi"
    if head[4:8] == b"ftyp":
        # The major brand decides: an ordinary MP4 may list an image brand among its compatible ones and the reverse.
        return None if head[8:12] in _IMAGE_BRANDS else _MP4
    if head[4:8] in _QUICKTIME_BOXES:
        return _MP4
    return "mpegts" if _is_transport_stream(head) else None


def _is_transport_stream(head: bytes) -> bool:
    """Packet headers at the distance of packets: three from the start, or five from anywhere in a cut recording."""
    for length, before in _TS_PACKETS:
        if _packets(head, before, length) >= 3 or any(_packets(head, at, length) >= 5 for at in range(length)):
            return True
    return False


def is_scrambled(head: bytes) -> bool:
    """Whether most packets of a transport stream say that their payload is encrypted (ISO/IEC 13818-1, table 2-4)."""
    for length, before in _TS_PACKETS:
        if _packets(head, before, length) >= 3:
            flags = [bool(head[at + 3] & 0xC0) for at in range(before, len(head) - 3, length)]
            return sum(flags) > len(flags) / 2
    return False


def _packets(head: bytes, at: int, length: int) -> int:
    """How many packet headers follow each other: sync byte, and a payload or an adaptation field (ISO/IEC 13818-1).

    The second condition keeps flat areas of uncompressed pictures from counting.
    """
    count = 0
    while at + 3 < len(head) and head[at] == 0x47 and head[at + 3] & 0x30:
        at, count = at + length, count + 1
    return count


def is_video_file(source: str | os.PathLike[str] | bytes) -> bool:
    """Whether the content is a video container, whatever the name says; animated GIF, WebP and AVIF are photos.

    Args:
        source: A path, or at least the first `HEAD_BYTES` bytes of a file. What cannot be read is no video; opening it
            says why.
    """
    if isinstance(source, bytes):
        return sniff_video(source[:HEAD_BYTES]) is not None
    try:
        path = Path(source)
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would block
            return False
        with path.open("rb") as file:
            return sniff_video(file.read(HEAD_BYTES)) is not None
    except (OSError, ValueError):  # ValueError: a NUL character in the path
        return False


def named_kind(name: str) -> Literal["image", "video"]:
    """What a file that cannot be read claims to be by its suffix."""
    return "video" if name.lower().endswith(VIDEO_SUFFIXES) else "image"


def is_source_code(path: str) -> bool:
    """TypeScript shares its suffix with MPEG transport streams; a folder of it is no folder of broken videos."""
    return path.lower().endswith((".ts", ".mts")) and not is_video_file(path)
