"""Clips for the motion network: as many frames a second as it wants, whatever the video has."""

from __future__ import annotations

import pytest

from genzqa.media.video import open_video
from videos import encode, frame_number, grey_frames


def clip_numbers(data: bytes, start: float, rate: float | None, frames: int = 8) -> list[int]:
    with open_video(data) as video:
        (moment,) = video.moments([start], clip_frames=frames, clip_side=24, clip_rate=rate)
        return [frame_number(picture) for picture in moment.clip]


@pytest.mark.parametrize(("rate", "expected"), [
    (None, [4, 5, 6, 7, 8, 9, 10, 11]),
    (25.0, [4, 5, 6, 7, 8, 9, 10, 11]),
    (50.0, [4, 4, 5, 5, 6, 6, 7, 7]),
    (12.5, [4, 6, 8, 10, 12, 14, 16, 18]),
    (30.0, [4, 5, 5, 6, 7, 8, 9, 10]),
])  # fmt: skip
def test_clips_follow_the_clock_and_not_the_frames(rate, expected):
    assert clip_numbers(encode(grey_frames(40)), 0.16, rate) == expected


def test_a_long_pause_fills_a_clip_with_rate_and_is_one_frame_without():
    data = encode(grey_frames(10), container="matroska", times_ms=[0, 40, 80, 1080, 1120, 1160, 1200, 1240, 1280, 1320])
    assert clip_numbers(data, 0.0, 25.0) == [0, 1, 2, 2, 2, 2, 2, 2]
    assert clip_numbers(data, 0.0, None) == [0, 1, 2, 3, 4, 5, 6, 7]


def test_a_clip_that_meets_the_end_plays_back_and_forth():
    data = encode(grey_frames(6))
    assert clip_numbers(data, 0.08, 25.0) == [2, 3, 4, 5, 4, 3, 2, 3]
    assert clip_numbers(data, 0.2, 25.0, frames=4) == [5, 5, 5, 5]
    assert clip_numbers(encode(grey_frames(1)), 0.0, 25.0, frames=3) == [0, 0, 0]


def test_impossible_rate():
    with open_video(encode(grey_frames(3))) as video, pytest.raises(ValueError, match="clip_rate"):
        video.moments([0.0], clip_frames=2, clip_rate=0.0)
