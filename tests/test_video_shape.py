"""Frames laid as they are meant to be seen: turned, with square pixels, of one size; fields noted."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from av.video.reformatter import Colorspace

from genzqa.media.video import open_video
from videos import encode, grey_frames, quadrants

MATRICES = {  # columns of the display matrix that matter, and the numpy way to do the same
    "0": ((1, 0, 0, 1), lambda p: p),
    "90": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "180": ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
    "270": ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
    "mirror": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "transpose": ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
}


@pytest.mark.parametrize("turn", MATRICES)
def test_rotation(turn):
    (a, b, c, d), expected = MATRICES[turn]
    matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    picture = quadrants()
    with open_video(encode([picture], options={"qp": "0"}, pixel_format="yuv444p", display_matrix=matrix,
                           matrix=Colorspace.ITU601)) as video:  # fmt: skip
        (moment,) = video.moments([0.0], clip_frames=1, clip_side=32)
        assert (video.facts.height, video.facts.width) == moment.pixels.shape[:2]
        assert video.facts.rotation == (int(turn) if turn.isdigit() else {"mirror": 0, "transpose": 90}[turn])
        assert [note.code for note in video.notes] == ([] if turn == "0" else ["orientation_applied"])
    upright = expected(picture)
    np.testing.assert_allclose(moment.pixels.astype(int), upright, atol=3)
    np.testing.assert_allclose(moment.clip[0].astype(int)[4::8, 4::8], upright[::2, ::2][4::8, 4::8], atol=3)


@pytest.mark.parametrize(("sar", "shape"), [(Fraction(4, 3), (48, 85)), (Fraction(1, 2), (96, 64))])
def test_sample_aspect_ratio(sar, shape):
    with open_video(encode(grey_frames(2), sar=sar)) as video:
        (moment,) = video.moments([0.0], clip_frames=1, clip_side=24)
        assert moment.pixels.shape[:2] == shape == (video.facts.height, video.facts.width)
        assert min(moment.clip.shape[1:3]) == 24
        assert (video.facts.coded_width, video.facts.coded_height) == (64, 48)
        assert [note.code for note in video.notes] == ["square_pixels"]


def test_interlaced_is_noted():
    data = encode(grey_frames(4, 64, 64), codec="mpeg2video", container="mpegts",
                  options={"flags": "+ildct+ilme", "top": "1"})  # fmt: skip
    with open_video(data) as video:
        list(video.moments([0.0]))
        assert video.facts.interlaced
        assert "interlaced" in [note.code for note in video.notes]


def test_frames_that_change_size_are_resampled_to_the_first():
    parts = [encode(grey_frames(4, size, size), container="mpegts", codec="mpeg2video") for size in (64, 96)]
    with open_video(b"".join(parts)) as video:
        moments = list(video.moments([0.0, 0.04, 0.2, 9.0], clip_frames=6, clip_side=32))
        assert {moment.pixels.shape for moment in moments} == {(64, 64, 3)}
        assert {"size_changed", "timestamps_repaired"} <= {note.code for note in video.notes}
