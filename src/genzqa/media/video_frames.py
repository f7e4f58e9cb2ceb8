"""Decoded frames in the order they are shown, each with its time; and the jump to a later one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import av.error

from genzqa.media.video_file import Media, check_frame_size
from genzqa.media.video_time import Joints

EPSILON = 1e-6
"""Seconds; two times nearer than this are one, so that 0.7 computed in two ways finds the same frame."""

SEEK_AHEAD = 3.0
"""Seconds of video that are rather decoded than jumped over."""

_BACK_OFFS = (0.0, 2.5, 10.0)
"""Seconds before the wanted time at which a jump tries to land; MPEG-TS lands between keyframes and needs the later."""


@dataclass
class Tally:
    """How decoding went.

    Attributes:
        declared: Frames that the container says it has, or None.
        decoded: Frames that came out of the decoder, those passed over included.
        corrupt: Frames flagged as damaged, and packets that could not be read or decoded.
    """

    declared: int | None
    decoded: int = 0
    corrupt: int = 0


class TimedFrame(NamedTuple):
    """A decoded frame, and from when to when it is shown, in seconds from the start of the stream."""

    time: float
    end: float
    frame: Any


class FrameReader:
    """Frames one after another; times never go back, whatever the file says."""

    def __init__(self, media: Media, tally: Tally, *, joined: bool) -> None:
        self.media, self.tally = media, tally
        stream = media.stream
        rate = stream.average_rate or stream.guessed_rate
        self.step = 1 / float(rate) if rate else 0.04
        # AVI has no timestamps, only a frame rate; with B-frames, FFmpeg's guesses from the packet order are wrong.
        self._counted = media.demuxer == "avi" and bool(stream.codec_context.has_b_frames)
        self.can_seek = not self._counted and not joined
        self.repaired = self.interlaced = self.jumped = False
        self.hidden = 0  # packets that the container says not to show
        self._seek_ahead = SEEK_AHEAD
        self._start_over()

    def _start_over(self) -> None:
        self._last: float | None = None
        self._start, self._joints = self.media.start, Joints()
        self._frames = self._decode()

    def restart(self) -> None:
        """Back to the first frame."""
        self.media.reopen()
        self._start_over()

    def next(self) -> TimedFrame | None:
        """The next frame, or None at the end."""
        frame = next(self._frames, None)
        if frame is None:
            return None
        self.tally.corrupt += bool(frame.is_corrupt)
        return self._timed(frame)

    def _decode(self) -> Iterator[Any]:
        for packet in self.media.packets():
            if packet is None:
                self.tally.corrupt += 1
                continue
            self.hidden += bool(packet.is_discard)
            try:
                frames = packet.decode()
            except av.error.EOFError:
                continue
            except av.error.FFmpegError:
                self.tally.corrupt += 1
                continue
            for frame in frames:
                self.media.clock.check()
                check_frame_size(frame.width, frame.height, self.media.limits)
                self.tally.decoded += 1
                self.interlaced |= bool(frame.interlaced_frame)
                yield frame

    def _timed(self, frame: Any) -> TimedFrame:
        step = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else self.step
        if self._counted or frame.pts is None or frame.time_base is None:
            time = 0.0 if self._last is None else self._last + self.step
            self.can_seek = False  # a count means nothing after a jump
        else:
            time = float(frame.pts * frame.time_base) - self._start
            time = self._joints.place(time, 0.0 if self._last is None else self._last + step, time)
            if self._last is not None and time <= self._last:
                time = self._last + self.step
                self.repaired, self.can_seek = True, False
        self._last = time
        return TimedFrame(time, time + step, frame)

    def wants_jump(self, now: float, time: float) -> bool:
        """Whether to jump from one time to another, rather than to decode on."""
        return self.can_seek and time - now > self._seek_ahead

    def jump(self, now: float, time: float) -> TimedFrame | None:
        """The frame of a keyframe at or before ``time``, from which to decode on; None if there are no frames at all.

        Where the file cannot seek, or lands too late, it is decoded from its beginning, and never jumped in again.
        """
        self.jumped = True
        for back in _BACK_OFFS:
            if time - back <= now:
                break
            landed = self._land(time - back, time)
            if landed is not None:
                if landed.time <= now:  # keyframes are farther apart than the jump: not worth it
                    self._seek_ahead = 2 * (time - now)
                return landed
        self.can_seek = False
        self.restart()
        return self.next()

    def _land(self, aim: float, time: float) -> TimedFrame | None:
        stream = self.media.stream
        try:
            self.media.container.seek(int((aim + self._start) / stream.time_base), stream=stream, backward=True)
        except (av.error.FFmpegError, OverflowError):
            return None
        self._last, self._joints, self._frames = None, Joints(), self._decode()
        for frame in self._frames:
            # Before the keyframe stand frames that refer to others from before the jump; they look broken.
            if frame.key_frame and not frame.is_corrupt:
                timed = self._timed(frame)
                return timed if timed.time <= time + EPSILON and self.can_seek else None
            if frame.pts is None or float(frame.pts * frame.time_base) - self._start > time:
                return None
        return None
