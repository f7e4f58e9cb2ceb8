"""From a path or bytes to an open container of which one video stream is read.

FFmpeg gets a file object that we opened and the name of a demuxer that reads one file only, never the user's string; so
no address is fetched and no other file is opened, whatever the content says.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import av
import av.error
from av.stream import Discard, Disposition

from genzqa.errors import (
    CorruptInputError,
    InputError,
    InputTimeoutError,
    InputTooLargeError,
    UnsupportedFormatError,
)
from genzqa.limits import MEGAPIXEL, MOST_PLAYING_TIME, Limits
from genzqa.media.files import regular_file, unreadable
from genzqa.media.video_sniff import HEAD_BYTES, SUPPORTED, is_scrambled, sniff_video

AGAIN = "copy or download it again"

_MAX_BAD_READS = 100
"""Reads in a row that may fail before the rest of a file is given up."""


class Clock:
    """Seconds spent on one video, counted only while it runs, so that the caller's own work does not count."""

    def __init__(self, limit: float) -> None:
        self.limit, self._spent = limit, 0.0
        self._since: float | None = None

    def allow(self, playing_time: float) -> None:
        """Add the seconds that a sound video may take: a film with a long timeline is decoded from end to end."""
        self.limit += min(playing_time, MOST_PLAYING_TIME)

    def start(self) -> None:
        """Count from now on."""
        self._since = time.monotonic()

    def stop(self) -> None:
        """Count no more."""
        if self._since is not None:
            self._spent += time.monotonic() - self._since
        self._since = None

    def check(self) -> None:
        """Raise `InputTimeoutError` when the limit is passed."""
        running = time.monotonic() - self._since if self._since is not None else 0.0
        if self._spent + running > self.limit:
            raise InputTimeoutError(
                f"reading took longer than {self.limit:g} seconds",
                hint="the file may be damaged; convert it again, or raise Limits.max_video_seconds_wall",
            )


class _TimedFile:
    """The file object that FFmpeg reads: checks the clock at every read, since a demuxer may read without returning."""

    def __init__(self, file: BinaryIO, clock: Clock) -> None:
        self._file, self._clock = file, clock

    def read(self, count: int) -> bytes:
        self._clock.check()
        return self._file.read(count)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._clock.check()
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


@contextmanager
def video_errors(name: str) -> Iterator[None]:
    """Give every error its subject, and turn what FFmpeg raises into ours; nothing else may leave this package."""
    try:
        yield
    except InputError as error:
        raise type(error)(error.reason, subject=name, hint=error.hint) from error.__cause__
    except (av.error.DecoderNotFoundError, av.error.PatchWelcomeError, av.error.NotImplementedError) as error:
        reason = f"the video uses something that FFmpeg does not read: {error.strerror}"
        raise UnsupportedFormatError(reason, subject=name, hint="convert it to H.264 in MP4") from error
    except av.error.FFmpegError as error:
        reason = f"the video cannot be read: {(error.strerror or 'unknown error').lower()}"
        raise CorruptInputError(reason, subject=name, hint=AGAIN) from error
    except OSError as error:
        plain = unreadable(error)
        raise type(plain)(plain.reason, subject=name, hint=plain.hint) from error
    except (ValueError, LookupError, ArithmeticError, MemoryError) as error:
        # PyAV itself raises these on headers that make no sense.
        raise CorruptInputError(f"the video cannot be read: {error}", subject=name, hint=AGAIN) from error


@dataclass
class Media:
    """One open video: the file and its bytes, the container on it, and the stream that is read."""

    file: BinaryIO
    size: int
    demuxer: str
    clock: Clock
    limits: Limits
    container: Any = None
    stream: Any = None

    def reopen(self) -> None:
        """Start again from the first byte; for every format the one way back that cannot land wrong."""
        if self.container is not None:
            self.container.close()
        self.file.seek(0)
        self.container = av.open(
            _TimedFile(self.file, self.clock),
            "r",
            format=self.demuxer,
            metadata_errors="replace",
            io_open=_refuse,
            # Makes decoders refuse a forged frame size before they allocate it, already while FFmpeg probes.
            options={"max_pixels": str(self.limits.max_pixels + 1)},
        )
        self.stream = _video_stream(self.container)
        self.stream.thread_type = "AUTO"
        for other in self.container.streams:
            if other.index != self.stream.index:
                other.discard = Discard["all"]
        check_frame_size(self.stream.codec_context.width, self.stream.codec_context.height, self.limits)

    def close(self) -> None:
        """Free the decoder and the file."""
        if self.container is not None:
            self.container.close()
        self.file.close()

    @property
    def start(self) -> float:
        """Seconds that the container puts on the first frame."""
        stream = self.stream
        return float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0

    @property
    def scrambled(self) -> bool:
        """Whether this is a broadcast that only a decoder with a card could show; leaves the file at any position."""
        self.file.seek(0)
        return self.demuxer == "mpegts" and is_scrambled(self.file.read(16 * HEAD_BYTES))

    def packets(self, *, decoding: bool = True) -> Iterator[Any | None]:
        """Packets of the video stream, None for each that could not be read, and one empty at the end if decoding."""
        failed = 0
        demuxed = self.container.demux(self.stream)
        while True:
            self.clock.check()
            try:
                packet = next(demuxed, None)
            except av.error.FFmpegError:
                failed += 1
                if failed > _MAX_BAD_READS:
                    break
                yield None
                demuxed = self.container.demux(self.stream)  # a generator that raised is finished; the container is not
                continue
            if packet is None:
                return
            if packet.size == 0 and packet.dts is None:
                if decoding:
                    yield packet
                return
            failed = 0
            if packet.has_sidedata("encryption_info"):
                raise _encrypted()
            yield packet


def _encrypted() -> UnsupportedFormatError:
    return UnsupportedFormatError("the video is encrypted (DRM)", hint="no key is asked for or used")


def _refuse(url: str, flags: int, options: object) -> Any:
    raise UnsupportedFormatError("the video refers to another file, which is not opened", hint="save it as one file")


def open_media(source: str | os.PathLike[str] | bytes, limits: Limits) -> Media:
    """Open a video file.

    Raises:
        InputNotFoundError: Nothing is at this path. URLs are not fetched.
        InputUnreadableError: A directory, a pipe or device, no permission, or the read fails.
        InputTooLargeError: More bytes than `Limits.max_video_bytes`, or frames over `max_pixels` or `max_side`.
        UnsupportedFormatError: No video container, no video stream, no decoder for it, or encrypted.
        CorruptInputError: Empty or damaged.
    """
    clock = Clock(limits.max_video_seconds_wall)
    clock.start()
    if isinstance(source, bytes):
        size, file = len(source), cast("BinaryIO", io.BytesIO(source))
        _check_bytes(size, limits)
    else:
        size, file = _open_file(os.fsdecode(source), limits)
    try:
        head = file.read(HEAD_BYTES)
        if not head:
            raise CorruptInputError("the file is empty", hint=AGAIN)
        demuxer = sniff_video(head)
        if demuxer is None:
            raise UnsupportedFormatError("not a video in a format we read", hint=f"supported are {SUPPORTED}")
        media = Media(file, size, demuxer, clock, limits)
        media.reopen()
    except BaseException:
        file.close()
        raise
    return media


def _open_file(path: str, limits: Limits) -> tuple[int, BinaryIO]:
    status = regular_file(path)
    _check_bytes(status.st_size, limits)
    try:
        return status.st_size, Path(path).open("rb")
    except OSError as error:
        raise unreadable(error) from error


def _check_bytes(count: int, limits: Limits) -> None:
    if count > limits.max_video_bytes:
        raise InputTooLargeError(
            f"{count:,} bytes are over the limit of {limits.max_video_bytes:,}", hint="raise Limits.max_video_bytes"
        )


def check_playing_time(seconds: float, limits: Limits) -> None:
    """Refuse a video that is longer than the limit.

    Raises:
        InputTooLargeError: Over `Limits.max_video_seconds`.
    """
    if seconds > limits.max_video_seconds:
        raise InputTooLargeError(
            f"{seconds:,.0f} seconds of video are over the limit of {limits.max_video_seconds:,g}",
            hint="cut it, or raise Limits.max_video_seconds",
        )


def check_frame_size(width: int, height: int, limits: Limits) -> None:
    """Refuse frames over the limits; a size of zero, not known before decoding, passes.

    Raises:
        InputTooLargeError: Over `Limits.max_pixels` or `Limits.max_side`.
    """
    if width * height > limits.max_pixels:
        raise InputTooLargeError(
            f"frames of {width} x {height} pixels are over the limit of {limits.max_pixels / MEGAPIXEL:g} megapixels",
            hint="downscale it, or raise Limits.max_pixels",
        )
    if max(width, height) > limits.max_side:
        raise InputTooLargeError(
            f"frames of {width} x {height} pixels: a side is over the limit of {limits.max_side:,}",
            hint="downscale it, or raise Limits.max_side",
        )


def _video_stream(container: Any) -> Any:
    """FFmpeg's choice of the best stream that moves; the cover picture of a song does not."""
    best = container.streams.best("video")
    moving = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not len(container.streams):
        raise CorruptInputError("the container holds no stream", hint=AGAIN)
    if not moving:
        has_audio = len(container.streams.audio) > 0
        reason = "there is sound but no video in this file" if has_audio else "there is no video stream in this file"
        raise UnsupportedFormatError(reason, hint="give a file with a picture")
    stream = next((each for each in moving if best is not None and each.index == best.index), moving[0])
    if "enc_key_id" in stream.metadata:  # of Matroska and WebM; MP4 says it with every packet
        raise _encrypted()
    if stream.codec_context is None:
        raise UnsupportedFormatError("FFmpeg has no decoder for this video", hint="convert it to H.264 in MP4")
    return stream
