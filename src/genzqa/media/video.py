"""The one way from a video file to the frames a model sees: `open_video`, then `VideoReader.moments`.

The steps, in order: tell the container (`video_sniff`), open it (`video_file`), find its length (`video_length`), decode in
the order shown (`video_frames`), choose by timestamp (here), and convert to upright sRGB (`video_colour`). A video is streamed:
memory holds the frames of one clip, however long the video is.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import cast

import numpy as np
import numpy.typing as npt

from genzqa.errors import CorruptInputError, UnsupportedFormatError
from genzqa.limits import DEFAULT_LIMITS, Limits
from genzqa.media.pixels import Pixels
from genzqa.media.video_colour import Painter, Turn, colour_of, turn_of
from genzqa.media.video_file import AGAIN, Media, check_frame_size, check_playing_time, open_media, video_errors
from genzqa.media.video_frames import EPSILON, FrameReader, Tally, TimedFrame
from genzqa.media.video_length import Length, measure, tolerance
from genzqa.media.video_light import Transfer
from genzqa.media.video_sniff import VIDEO_SUFFIXES, is_video_file
from genzqa.notes import Note

__all__ = [
    "VIDEO_SUFFIXES",
    "Moment",
    "StreamFacts",
    "Tally",
    "VideoReader",
    "is_video_file",
    "open_video",
    "uniform_times",
]

Small = npt.NDArray[np.uint8]

_UNCOUNTED = 0.03
"""Share of its frames that a container may declare too many: encoders that drop one, edits that hide some."""


@dataclass(frozen=True)
class StreamFacts:
    """What a file says about its video stream, and its first frame where the file is silent.

    Attributes:
        container: FFmpeg's name of the demuxer, such as ``"matroska,webm"``.
        codec: FFmpeg's name of the codec, such as ``"h264"``.
        pixel_format: FFmpeg's name, such as ``"yuv420p10le"``.
        bit_depth: Bits per sample.
        width: Columns as shown, after rotation and sample aspect ratio.
        height: Rows, likewise.
        coded_width: Columns of a decoded frame.
        coded_height: Rows of a decoded frame.
        rotation: Degrees clockwise by which frames are turned: 0, 90, 180 or 270.
        sample_aspect_ratio: Width of a sample over its height; 1 where the file does not say.
        frame_rate: Average frames per second, or None when unknown.
        duration: Seconds of the video stream, as declared; found from the packets where not declared, or wrong.
        frames_declared: As the container says, or None.
        transfer: ``"sdr"``, ``"pq"`` or ``"hlg"``.
        matrix: ``"bt601"``, ``"bt709"``, ``"bt2020"``, ``"fcc"``, ``"smpte240m"`` or ``"rgb"``; as used.
        full_range: Samples of 0 to 255 (at 8 bits) rather than 16 to 235.
        interlaced: Of the first frame; the note ``interlaced`` is given for any frame that was read.
    """

    container: str
    codec: str
    pixel_format: str
    bit_depth: int
    width: int
    height: int
    coded_width: int
    coded_height: int
    rotation: int
    sample_aspect_ratio: float
    frame_rate: float | None
    duration: float
    frames_declared: int | None
    transfer: Transfer
    matrix: str
    full_range: bool
    interlaced: bool


@dataclass(frozen=True, eq=False)
class Moment:
    """One wanted instant.

    Attributes:
        time: Timestamp of the frame shown then, in seconds from the start of the stream.
        pixels: ``(H, W, 3)`` sRGB, upright with square pixels: uint8, or float32 in 0..1 from deeper than 8 bits.
        clip: ``(n, h, w, 3)`` uint8 sRGB, frames from this one on, reduced to the wanted short side; played back and
            forth if the video ends before, so that its end does not look like a freeze; None if not asked for.
        clip_frames: How many frames of the clip are real.
        clip_times: Timestamps of those.
    """

    time: float
    pixels: Pixels
    clip: Small | None
    clip_frames: int
    clip_times: tuple[float, ...]


class _Window:
    """A moment of which the clip is not yet complete.

    With a ``rate`` the clip shows what a screen of that rate shows: a frame as often as it is there to be seen, however many
    frames per second the video has. The screen looks ``late`` seconds after each tick, so that a timestamp which the container
    rounded up, or 29.97 frames per second beside 30, does not show one frame twice and skip the next.
    """

    def __init__(self, shown: TimedFrame, rate: float | None, late: float) -> None:
        self.shown, self.rate, self.late = shown, rate, late
        self.small: list[Small] = []
        self.times: list[float] = []

    def take(self, small: Small, time: float, end: float, most: int) -> None:
        """Add a frame shown from ``time`` until ``end``, as often as it counts."""
        if self.rate is None:
            self.small.append(small)
            self.times.append(time)
            return
        while len(self.small) < most and self.shown.time + len(self.small) / self.rate + self.late < end - EPSILON:
            self.small.append(small)
            self.times.append(time)


class VideoReader:
    """An open video; made by `open_video`, to be closed or used as a context manager.

    Attributes:
        name: The path as given, or ``"<bytes>"``.
        facts: What is known before reading on.
        tally: How decoding went so far.
    """

    def __init__(self, name: str, media: Media, length: Length) -> None:
        self.name, self._media, self._length = name, media, length
        self.tally = Tally(media.stream.frames or None)
        self._reader = FrameReader(media, self.tally, joined=length.joined)
        self._notes: dict[str, Note] = {}
        self._first = self._reader.next()
        if self._first is None:
            if media.scrambled:
                raise UnsupportedFormatError("the video is encrypted (scrambled)", hint="no key is asked for or used")
            raise CorruptInputError("no frame of the video could be decoded", hint=AGAIN)
        if self._first.time > tolerance(media.stream):
            lost = f"The first {self._first.time:.2f} seconds cannot be decoded: no whole picture comes before."
            self._note("begins_late", lost)
        self._fresh = True
        # Containers round timestamps to the nearest tick of their time base. Where that is a whole frame, as in AVI, nothing is
        # rounded.
        base = float(media.stream.time_base or 0)
        self._rounding = max(base / 2 if base < self._reader.step / 4 else 0.0, 2 * EPSILON) - EPSILON
        frame = self._first.frame
        self._coded = frame.width, frame.height
        self._colour = colour_of(frame)
        self._turn, exact = turn_of(frame)
        if not exact:
            self._note("rotation_rounded", "The file asks for a turn that is no quarter; the nearest quarter was used.")
        self._aspect = float(media.stream.sample_aspect_ratio or 1)
        self._size = self._square_size()
        self._painters = Painter(), Painter()
        self.facts = self._facts(self._first)
        self._note_facts()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the decoder and close the file."""
        self._first = None
        self._media.close()

    @property
    def notes(self) -> tuple[Note, ...]:
        """What a user should know about how the video was read; complete after reading."""
        notes = dict(self._notes)
        if self._reader.interlaced:
            text = "The video is interlaced; its frames were taken as they are, both fields together."
            notes["interlaced"] = Note("interlaced", text)
        if self._reader.repaired:
            text = "Timestamps that do not increase were replaced from the frame rate."
            notes["timestamps_repaired"] = Note("timestamps_repaired", text)
        if self.tally.corrupt:
            text = f"{self.tally.corrupt} damaged frames or packets were met; {self.tally.decoded} frames were decoded."
            notes["corrupt_frames"] = Note("corrupt_frames", text)
        return tuple(notes.values())

    def moments(self, times: Sequence[float], *, clip_frames: int = 0, clip_side: int = 224,
                clip_rate: float | None = None) -> Iterator[Moment]:  # fmt: skip
        """The frames shown at some times, in order; may be called again, which reads the file again.

        The frame shown at a time is the last whose timestamp is not later by more than the container rounds timestamps; the
        first, if none is. Times that a
        truncated file does not reach are left out, and a note says so.

        Args:
            times: Seconds from the start of the stream, ascending.
            clip_frames: How many frames to collect from each moment on; 0 for no clip.
            clip_side: Short side of the clip in pixels.
            clip_rate: Frames per second of the clip; None to take every frame of the video once.

        Yields:
            One `Moment` for each time that can be reached, at least one. While clips overlap, up to ``clip_frames``
            decoded frames are held, else one or two.

        Raises:
            CorruptInputError: Nothing could be decoded.
            InputTimeoutError: Over `Limits.max_video_seconds_wall`; what the caller does between moments is not counted.
            ValueError: Times that are not finite and ascending, or a clip of impossible size or rate.
        """
        wanted = [float(time) for time in times]
        if not all(map(math.isfinite, wanted)) or any(b < a for a, b in pairwise(wanted)):
            raise ValueError("times must be finite and ascending")
        if clip_frames < 0 or clip_side < 1:
            raise ValueError("clip_frames must not be negative, and clip_side at least 1")
        if clip_rate is not None and not (math.isfinite(clip_rate) and clip_rate > 0):
            raise ValueError("clip_rate must be positive")
        if self._media.file.closed:
            raise ValueError("the video is closed")
        return self._moments(deque(wanted), clip_frames, clip_side, clip_rate)

    def _moments(
        self, wanted: deque[float], clip_frames: int, clip_side: int, clip_rate: float | None
    ) -> Iterator[Moment]:
        if not wanted:
            return
        clock, found = self._media.clock, 0
        with video_errors(self.name):
            clock.start()
            small_size = self._clip_size(clip_side) if clip_frames else (0, 0)
            self._drop_beyond(self._length.readable, wanted)
            late = min(self._reader.step, 1 / clip_rate) / 4 if clip_rate else 0.0
            windows: deque[_Window] = deque()
            shown = self._begin()
            while shown is not None and (wanted or windows):
                if not windows and self._reader.wants_jump(shown.time, wanted[0]):
                    shown = self._reader.jump(shown.time, wanted[0])
                    if shown is None:
                        break
                following = self._reader.next()
                if following is None:
                    self._count_missing()
                    self._drop_beyond(max(shown.end, shown.time + self._length.step), wanted)
                while wanted and (following is None or wanted[0] < following.time - self._rounding):
                    windows.append(_Window(shown, clip_rate, late))
                    wanted.popleft()
                if windows and clip_frames:
                    small = self._paint(self._painters[1], shown, small_size, deep=False)
                    end = shown.end if following is None else following.time
                    for window in windows:
                        window.take(cast("Small", small), shown.time, end, clip_frames)
                while windows and (following is None or len(windows[0].times) >= clip_frames):
                    moment = self._finish(windows.popleft(), clip_frames)
                    found += 1
                    clock.stop()
                    yield moment
                    clock.start()
                shown = following
            clock.stop()
            if not found:
                raise CorruptInputError("no frame can be read where frames were wanted", hint=AGAIN)

    def _begin(self) -> TimedFrame | None:
        """The first frame: the one that opening decoded, or on a later call the one after starting again."""
        if self._fresh:
            first, self._first, self._fresh = self._first, None, False
            return first
        self._reader.restart()
        return self._reader.next()

    def _drop_beyond(self, end: float, wanted: deque[float]) -> None:
        """Leave out what lies after the end of the data, unless the video was meant to end there."""
        reached = end + tolerance(self._media.stream)
        if self._length.declared <= reached:
            return
        declared = self._length.declared
        self._note("truncated", f"The file is cut short or damaged: {end:.2f} of {declared:.2f} seconds could be read.")
        while wanted and wanted[-1] > reached:
            wanted.pop()

    def _count_missing(self) -> None:
        """At the end of a video that was read whole: were there as many frames as it declares?"""
        declared, reader = self.tally.declared, self._reader
        found = self.tally.decoded + self.tally.corrupt + reader.hidden
        if declared and not reader.jumped and declared - found > max(2, _UNCOUNTED * declared):
            self._note("frames_missing", f"The file is cut short or damaged: of the {declared} frames that it declares, "
                                         f"{self.tally.decoded} could be decoded.")  # fmt: skip

    def _finish(self, window: _Window, clip_frames: int) -> Moment:
        pixels = self._paint(self._painters[0], window.shown, self._size, deep=self._colour.bits > 8)
        clip = None
        if clip_frames:
            there = len(window.small)
            clip = np.stack([window.small[position] for position in _back_and_forth(there, clip_frames)])
        return Moment(window.shown.time, pixels, clip, len(window.small), tuple(window.times))

    def _paint(self, painter: Painter, shown: TimedFrame, size: tuple[int, int], *, deep: bool) -> Pixels:
        frame = shown.frame
        if (frame.width, frame.height) != self._coded:
            self._note("size_changed", "The size of the frames changes; all were resampled to that of the first.")
        return self._turn.apply(painter.paint(frame, colour_of(frame), *size, deep=deep))

    def _square_size(self) -> tuple[int, int]:
        """Columns and rows with square pixels, before the turn; the shorter of the two is stretched, none is lost."""
        width, height = self._coded
        if self._aspect >= 1:
            width = round(width * self._aspect)
        else:
            height = round(height / self._aspect)
        check_frame_size(width, height, self._media.limits)
        return width, height

    def _clip_size(self, side: int) -> tuple[int, int]:
        width, height = self._size
        scale = side / min(width, height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        check_frame_size(*size, self._media.limits)
        return size

    def _facts(self, first: TimedFrame) -> StreamFacts:
        stream, colour = self._media.stream, self._colour
        width, height = reversed(self._size) if self._turn.transpose else self._size
        return StreamFacts(
            container=self._media.container.format.name,
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=first.frame.format.name,
            bit_depth=colour.bits,
            width=width,
            height=height,
            coded_width=self._coded[0],
            coded_height=self._coded[1],
            rotation=self._turn.degrees,
            sample_aspect_ratio=self._aspect,
            frame_rate=float(stream.average_rate) if stream.average_rate else None,
            duration=max(self._length.declared, first.end - first.time),
            frames_declared=self.tally.declared,
            transfer=colour.transfer,
            matrix=colour.matrix,
            full_range=colour.full_range,
            interlaced=bool(first.frame.interlaced_frame),
        )

    def _note(self, code: str, text: str) -> None:
        self._notes[code] = Note(code, text)

    def _note_facts(self) -> None:
        colour = self._colour
        if colour.transfer != "sdr":
            name = {"pq": "PQ", "hlg": "HLG"}[colour.transfer]
            self._note("hdr_tone_mapped", f"HDR video ({name}) was tone-mapped to SDR before scoring.")
        elif colour.converts:
            self._note(
                "wide_gamut_converted", "Wide-gamut colours were converted to sRGB; what lies outside is clipped."
            )
        if colour.alpha or self._media.stream.metadata.get("alpha_mode") == "1":  # of WebM, beside the frames
            self._note("alpha_ignored", "The video has transparent parts; they were taken as opaque.")
        if self._turn != Turn():
            self._note("orientation_applied", "Turned upright as the file says.")
        if self._size != self._coded:
            self._note("square_pixels", "Resampled so that pixels are square.")
        if self._length.joined:
            self._note(
                "recordings_joined", "Timestamps begin again within the file; its parts were taken one after another."
            )
        self._drop_beyond(self._length.readable, deque())


def open_video(source: str | os.PathLike[str] | bytes, limits: Limits = DEFAULT_LIMITS) -> VideoReader:
    """Open a video and decode its first frame.

    Args:
        source: A path, or the bytes of a file. It is told by its content, not by its name.
        limits: Bounds on bytes, pixels, and seconds of work.

    Raises:
        InputNotFoundError: The path does not exist. URLs are not fetched.
        InputUnreadableError: A directory, no regular file, no permission, or an I/O error.
        UnsupportedFormatError: No video container, no video in it, no decoder for it, or encrypted.
        CorruptInputError: Empty, or nothing can be decoded.
        InputTooLargeError: Over `Limits.max_video_bytes`, `max_video_seconds`, `max_pixels` or `max_side`.
        InputTimeoutError: Over `Limits.max_video_seconds_wall`.
    """
    name = "<bytes>" if isinstance(source, bytes) else os.fsdecode(source)
    with video_errors(name):
        media = open_media(source, limits)
        try:
            length = measure(media)
            check_playing_time(length.readable, limits)
            media.clock.allow(length.readable)
            media.reopen()
            reader = VideoReader(name, media, length)
        except BaseException:
            media.close()
            raise
        media.clock.stop()
        return reader


def uniform_times(duration: float, count: int, start: float = 0.0) -> list[float]:
    """The centres of ``count`` equal parts of ``duration`` seconds.

    Example:
        >>> uniform_times(4.0, 2)
        [1.0, 3.0]
    """
    return [start + duration * (part + 0.5) / count for part in range(count)]


def _back_and_forth(there: int, wanted: int) -> list[int]:
    """Positions of ``wanted`` frames when only ``there`` exist: 0 1 2 1 0 1 2 ...; motion goes on where a pause would lie."""
    turn = max(1, 2 * (there - 1))
    return [min(number % turn, turn - number % turn) if there > 1 else 0 for number in range(wanted)]
