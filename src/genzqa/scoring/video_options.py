"""What may be asked of a video: apart from what scores one, which imports the decoder."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from genzqa.errors import ConfigError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class VideoOptions:
    """What part of a video to score, and what to find out besides the score.

    Attributes:
        frames: Frames the score is made of; None for the model's own number.
        start: Seconds to leave out at the beginning.
        duration: Seconds to score from there; None for all.
        timeline: Whether to score one more frame per second for the timeline.
        worst_frames: How many of the worst frames to keep, with their maps.

    Raises:
        ConfigError: A number that makes no sense.
    """

    frames: int | None = None
    start: float = 0.0
    duration: float | None = None
    timeline: bool = False
    worst_frames: int = 0

    def __post_init__(self) -> None:
        if self.frames is not None and (not _whole(self.frames) or self.frames < 1):
            raise ConfigError(f"{self.frames} frames cannot be scored", hint="ask for one at least")
        if not _whole(self.worst_frames) or self.worst_frames < 0:
            raise ConfigError(f"{self.worst_frames} worst frames cannot be kept", hint="give a whole number from 0")
        if not (math.isfinite(self.start) and self.start >= 0):
            raise ConfigError(f"a start of {self.start} seconds makes no sense", hint="give 0 or more")
        if self.duration is not None and not (math.isfinite(self.duration) and self.duration > 0):
            raise ConfigError(f"a duration of {self.duration} seconds makes no sense", hint="give more than 0")


def _whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)
