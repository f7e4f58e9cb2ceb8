"""How long a video stream is, and up to where its data reach; found without decoding."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import av
import av.error
from av.stream import Discard

from genzqa.limits import GIBIBYTE
from genzqa.media.video_file import Media
from genzqa.media.video_time import Joints

_TAIL_SECONDS = 2.0
"""How long before the declared end the check of the end begins to read."""

_UNDECLARED = ("mpegts", "mpeg")
"""Containers that say no length; FFmpeg's guess, from the last timestamps of the file, is wrong where recordings are joined."""

_MOST_BYTES = 8 * GIBIBYTE
"""Of such a container, up to which all is read rather than the guess believed; about 20 seconds where the disk keeps up."""


@dataclass(frozen=True)
class Length:
    """How long the video stream says it is, and up to where its data reach, both in seconds from its start.

    Attributes:
        declared: Its length; found from the packets where not declared, or wrong.
        readable: Where the last packet ends.
        step: Seconds for which the last packet is shown.
        joined: Whether timestamps begin again within the file.
    """

    declared: float
    readable: float
    step: float = 0.0
    joined: bool = False


class _End(NamedTuple):
    """Of the packets that were read: where the last one ends, how long it is shown, whether timestamps began again."""

    time: float
    step: float
    joined: bool


def measure(media: Media) -> Length:
    """Find the length without decoding; the media is left at any position, to be reopened.

    A container that declares the length of the stream is believed after its last `_TAIL_SECONDS` were read. All packets
    are read where it declares none, or where the end is not where it should be.
    """
    undeclared = media.demuxer in _UNDECLARED and media.size <= _MOST_BYTES
    declared = None if undeclared else _declared(media.stream)
    if declared is not None:
        tail = _end_of_tail(media, declared)
        if tail is not None and tail.time >= declared - tolerance(media.stream):
            longer = tail.time > declared + tolerance(media.stream)
            whole = tail.time if longer else declared
            return Length(whole, whole, tail.step, tail.joined)
        media.reopen()
    end, step, joined = _end(media)
    if declared is None:
        declared = end if undeclared else _declared_by_container(media, end)
    if declared < end + tolerance(media.stream):
        declared = end
    return Length(declared, end, step, joined)


def tolerance(stream: Any) -> float:
    """Seconds by which containers round the end of a stream; two frames, at least a fifth of a second."""
    rate = stream.average_rate
    return max(0.2, 2 / float(rate)) if rate else 0.2


def _declared(stream: Any) -> float | None:
    if stream.duration is not None and stream.duration > 0:
        return float(stream.duration * stream.time_base)
    # Matroska keeps the length of each track in a tag, as hours:minutes:seconds; that of the file may be of the sound.
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    seconds = int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else 0.0
    return seconds if seconds > 0 else None


def _declared_by_container(media: Media, end: float) -> float:
    """The container's length where no stream, sound included, reaches it: then the data are cut short."""
    container = media.container
    if not container.duration:
        return end
    whole = container.duration / av.time_base
    if whole <= end + media.start + tolerance(media.stream):
        return end
    media.reopen()
    container, last = media.container, 0.0
    for other in container.streams:
        other.discard = Discard["default"]
    try:
        for packet in container.demux():
            media.clock.check()
            if packet.pts is not None:
                last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    except av.error.FFmpegError:
        pass  # what could be read is what counts
    return whole - media.start if last < whole - 0.5 else end


def _end_of_tail(media: Media, declared: float) -> _End | None:
    """Where the last packet ends, read from shortly before the declared end; None if nothing is found there."""
    try:
        start = declared - _TAIL_SECONDS
        if start > 0:
            position = int((start + media.start) / media.stream.time_base)
            media.container.seek(position, stream=media.stream, backward=True)
        return _end(media)
    except (av.error.FFmpegError, OverflowError):
        return None


def _end(media: Media) -> _End:
    rate = media.stream.average_rate
    end, step = 0.0, 1 / float(rate) if rate else 0.0  # a packet need not say how long it is shown
    joints = Joints()
    for packet in media.packets(decoding=False):
        if packet is None or packet.is_discard:
            continue
        step = float(packet.duration * packet.time_base) if packet.duration else step
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None:
            end += step
        else:
            order = None if packet.dts is None else float(packet.dts * packet.time_base) - media.start
            end = max(end, joints.place(float(stamp * packet.time_base) - media.start, end, order) + step)
    return _End(end if math.isfinite(end) else 0.0, step, joints.found)
