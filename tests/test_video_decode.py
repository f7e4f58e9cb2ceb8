"""From a file to its frames: every container and codec, chosen by time, streamed or reached by seeking."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import genzqa.media.video_frames as video_frames
import genzqa.media.video_length as video_length
from genzqa.media.video import is_video_file, open_video, uniform_times
from videos import encode, frame_number, grey_frames, numbers, read

CLIPS = Path(__file__).parents[2] / "shared" / "data" / "clips"

CONTAINERS = {
    "mp4-h264": {},
    "mov-h264": {"container": "mov"},
    "mkv-h264": {"container": "matroska"},
    "mkv-hevc": {"container": "matroska", "codec": "libx265"},
    "mp4-hevc10": {"codec": "libx265", "pixel_format": "yuv420p10le"},
    "mkv-h264-10": {"container": "matroska", "pixel_format": "yuv420p10le"},
    "webm-vp8": {"container": "webm", "codec": "libvpx"},
    "webm-vp9": {"container": "webm", "codec": "libvpx-vp9"},
    "ts-h264": {"container": "mpegts"},
    "ts-mpeg2": {"container": "mpegts", "codec": "mpeg2video", "options": {"bf": "2", "qmax": "2"}},
    "mpg-mpeg2": {"container": "mpeg", "codec": "mpeg2video"},
    "avi-h264": {"container": "avi"},
    "avi-ffv1": {"container": "avi", "codec": "ffv1"},
    "avi-mjpeg": {"container": "avi", "codec": "mjpeg", "pixel_format": "yuvj420p"},
    "mov-prores": {"container": "mov", "codec": "prores_ks", "pixel_format": "yuv422p10le"},
    "mov-prores12": {"container": "mov", "codec": "prores_ks", "pixel_format": "yuva444p10le"},
    "y4m": {"container": "yuv4mpegpipe", "codec": "rawvideo"},
    "y4m-grey": {"container": "yuv4mpegpipe", "codec": "rawvideo", "pixel_format": "gray"},
    "flv": {"container": "flv"},
    "asf": {"container": "asf", "codec": "mpeg4"},
    "mxf": {"container": "mxf", "codec": "mpeg2video"},
    "ivf": {"container": "ivf", "codec": "libvpx-vp9"},
    "mp4-fragments": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
}


# Containers and codecs


@pytest.mark.parametrize("settings", CONTAINERS.values(), ids=CONTAINERS)
def test_containers_give_every_frame(settings):
    data = encode(grey_frames(12), **settings)
    assert is_video_file(data)
    with open_video(data) as video:
        assert video.facts.duration == pytest.approx(0.48, abs=0.045)
        assert video.facts.frame_rate in (pytest.approx(25, abs=0.1), None)
        assert (video.facts.width, video.facts.height) == (64, 48)
        moments = list(video.moments(uniform_times(0.48, 12), clip_frames=3, clip_side=32))
        assert numbers(moments) == list(range(12))
        assert [moment.clip_frames for moment in moments] == [3] * 10 + [2, 1]
        assert [frame_number(picture) for picture in moments[10].clip] == [10, 11, 10]
        assert moments[0].clip.shape == (3, 32, 43, 3)
        assert moments[0].clip.dtype == np.uint8
        deep = video.facts.bit_depth > 8
        assert moments[0].pixels.dtype == (np.float32 if deep else np.uint8)
        assert video.tally.decoded == 12
        assert video.tally.corrupt == 0
        assert {note.code for note in video.notes} <= {"alpha_ignored"}


def test_av1(capfd):
    data = encode(grey_frames(8), codec="libsvtav1")
    capfd.readouterr()  # the encoder prints
    with open_video(data) as video:
        assert video.facts.codec == "av1"
        assert numbers(list(video.moments(uniform_times(0.32, 8)))) == list(range(8))


@pytest.mark.parametrize("settings", [{"container": "webm", "codec": "libvpx-vp9", "pixel_format": "yuva420p"},
                                      {"container": "mov", "codec": "prores_ks", "pixel_format": "yuva444p10le"}],
                         ids=["beside the frames", "in them"])  # fmt: skip
def test_transparency_is_noted(settings):
    with open_video(encode(grey_frames(4), **settings)) as video:
        assert numbers(list(video.moments(uniform_times(0.16, 4)))) == [0, 1, 2, 3]
        assert [note.code for note in video.notes] == ["alpha_ignored"]


def test_one_frame():
    for settings in ({}, {"container": "matroska"}, {"container": "yuv4mpegpipe", "codec": "rawvideo"}):
        (moment,) = read(encode(grey_frames(1), **settings), [0.0], clip_frames=4, clip_side=24)
        assert (frame_number(moment.pixels), moment.clip_frames, len(moment.clip)) == (0, 1, 4)


def test_longer_sound_does_not_make_the_video_long_or_truncated():
    for container in ("mp4", "matroska", "flv"):
        with open_video(encode(grey_frames(10), container=container, audio_seconds=3.0)) as video:
            assert video.facts.duration == pytest.approx(0.4, abs=0.05)
            assert numbers(list(video.moments([0.0, 0.38]))) == [0, 9]
            assert video.notes == ()


def test_deep_video_keeps_its_steps():
    ramp = np.repeat(np.linspace(20000, 24000, 64).astype(np.uint16)[None, :, None], 48, axis=0).repeat(3, axis=2)
    data = encode([ramp], container="mov", codec="prores_ks", pixel_format="yuv444p10le", options={"profile": "4"})
    (moment,) = read(data, [0.0])
    assert len(np.unique(np.round(moment.pixels[24, :, 1] * 1023))) > 30
    np.testing.assert_allclose(moment.pixels[24, :, 1], ramp[24, :, 1] / 65535, atol=2 / 255)


# Time


VFR_TIMES = [0, 7, 50, 90, 300, 301, 400, 555, 600, 2000]


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_variable_frame_rate_chooses_by_timestamp(container):
    data = encode(grey_frames(10), container=container, times_ms=VFR_TIMES)
    times = [0.0, 0.006, 0.007, 0.049, 0.0501, 0.2, 0.3, 0.3005, 0.302, 0.5, 0.556, 1.999, 2.0, 2.03]
    moments = read(data, times)
    assert numbers(moments) == [0, 0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 9]
    assert moments[-1].time == pytest.approx(2.0)
    with open_video(data) as video:
        assert video.facts.duration == pytest.approx(2.04, abs=0.01)


def test_times_that_start_late_are_relative_to_the_start():
    data = encode(grey_frames(10), container="matroska", times_ms=[5000 + 40 * i for i in range(10)])
    moments = read(data, [0.0, 0.2])
    assert numbers(moments) == [0, 5]
    assert [moment.time for moment in moments] == pytest.approx([0.0, 0.2])


def test_before_the_first_and_after_the_last_frame():
    assert numbers(read(encode(grey_frames(5)), [-1.0, 0.0, 9.0])) == [0, 0, 4]


def test_clips_may_overlap():
    data = encode(grey_frames(30))
    moments = read(data, [0.0, 0.08, 0.09, 0.4, 1.0], clip_frames=6, clip_side=24)
    assert numbers(moments) == [0, 2, 2, 10, 25]
    for moment in moments:
        first = frame_number(moment.pixels)
        expected = [min(first + step, 58 - first - step) for step in range(6)]  # back from the end
        assert [frame_number(picture) for picture in moment.clip] == expected
        assert moment.clip_times == pytest.approx([n / 25 for n in range(first, min(first + 6, 30))])


@pytest.mark.parametrize("seconds", [1, 12])
@pytest.mark.parametrize("settings", [{"container": "mpegts"}, {"container": "mpeg", "codec": "mpeg2video"}],
                         ids=["ts", "mpg"])  # fmt: skip
def test_recordings_joined_byte_by_byte_are_one_video(settings, seconds):
    step = 40 * seconds  # ms
    frames = grey_frames(40)
    times = {} if settings["container"] == "mpeg" else {"times_ms": [step * n for n in range(25)]}
    parts = [encode(some, **settings, **times, options={"g": "4"}) for some in (frames[:25], frames[25:])]
    with open_video(b"".join(parts)) as video:
        step = 0.04 if settings["container"] == "mpeg" else step / 1000
        assert video.facts.duration == pytest.approx(40 * step, abs=1.2 * step)
        assert numbers(list(video.moments([(n + 0.5) * step for n in range(40)]))) == list(range(40))
        assert [note.code for note in video.notes] == ["recordings_joined"]


def test_a_huge_transport_stream_is_not_read_whole(monkeypatch):
    data = encode(grey_frames(36), container="mpegts", times_ms=[400 * n for n in range(36)], options={"g": "4"})
    lengths = []
    for most in (len(data), len(data) - 1):
        monkeypatch.setattr(video_length, "_MOST_BYTES", most)
        with open_video(data) as video:
            lengths.append(video.facts.duration)
            assert numbers(list(video.moments([14.0]))) == [35]
            assert video.notes == ()
    assert lengths == [pytest.approx(14.4, abs=0.1)] * 2


def test_a_slow_transport_stream_is_not_taken_for_cut():
    # HEVC says 25 frames a second here while they come every two thirds of one; the last is shown that long
    data = long_video("mpegts", "libx265")
    with open_video(data) as video:
        assert numbers(list(video.moments([0.667 * n for n in range(36)])))[-1] == 35
        assert video.notes == ()


def long_video(container, codec="libx264"):
    """24 seconds at 1.5 frames a second, a keyframe every 4 frames, B-frames between."""
    frames = grey_frames(36, 32, 32)
    return encode(frames, container=container, codec=codec, times_ms=[667 * n for n in range(36)],
                  options={"g": "4", "bf": "1"})  # fmt: skip


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_seeking_gives_the_same_as_streaming(container, monkeypatch):
    data = long_video(container)
    times = [0.5, 6.1, 6.2, 14.0, 21.5]
    with open_video(data) as video:
        jumped = list(video.moments(times, clip_frames=2, clip_side=32))
        decoded = video.tally.decoded
        again = list(video.moments(times, clip_frames=2, clip_side=32))
    monkeypatch.setattr(video_frames, "SEEK_AHEAD", 1e9)
    with open_video(data) as video:
        streamed = list(video.moments(times, clip_frames=2, clip_side=32))
        assert decoded < video.tally.decoded or container == "mpegts"
    assert numbers(streamed) == [0, 9, 9, 20, 32]
    for others in (jumped, again):
        assert [one.time for one in others] == [one.time for one in streamed]
        for one, other in zip(others, streamed, strict=True):
            np.testing.assert_array_equal(one.pixels, other.pixels)
            np.testing.assert_array_equal(one.clip, other.clip)


def test_a_file_that_cannot_seek_is_streamed(monkeypatch):
    monkeypatch.setattr(video_frames.FrameReader, "_land", lambda *_: None)
    assert numbers(read(long_video("mp4"), [0.5, 14.0, 21.5])) == [0, 20, 32]


def test_reading_twice_gives_the_same():
    with open_video(encode(grey_frames(8))) as video:
        assert numbers(list(video.moments([0.2]))) == [5]
        assert numbers(list(video.moments([0.0, 0.12]))) == [0, 3]
        assert list(video.moments([])) == []
    with pytest.raises(ValueError, match="closed"):
        video.moments([0.0])


def test_times_must_ascend():
    with open_video(encode(grey_frames(3))) as video:
        for times in ([0.1, 0.0], [float("nan")]):
            with pytest.raises(ValueError, match="ascending"):
                video.moments(times)
        with pytest.raises(ValueError, match="clip_frames"):
            video.moments([0.0], clip_frames=-1)


def test_uniform_times():
    assert uniform_times(8.0, 4) == [1.0, 3.0, 5.0, 7.0]
    assert uniform_times(1.0, 2, start=2.0) == [2.25, 2.75]


# Real clips


@pytest.mark.skipif(not CLIPS.is_dir(), reason="shared clips are not here")
@pytest.mark.parametrize(
    ("name", "size", "frames"),
    [
        ("bikes.mp4", (640, 272), 250),
        ("carphone_pristine.mp4", (193, 144), 120),
        ("nasa_13013.mp4", (480, 270), 390),
        ("park_joy_420_720p50_frm0to9_480x270.y4m", (480, 270), None),
    ],
)
def test_real_clips(name, size, frames):
    with open_video(CLIPS / name) as video:
        assert (video.facts.width, video.facts.height) == size
        assert video.facts.frames_declared == frames
        moments = list(video.moments(uniform_times(video.facts.duration, 4), clip_frames=2, clip_side=64))
        assert len(moments) == 4
        for moment, time in zip(moments, uniform_times(video.facts.duration, 4), strict=True):
            assert time - 0.06 < moment.time <= time + 1e-6
            assert moment.pixels.std() > 10
            assert moment.clip_frames == 2
        assert video.tally.corrupt == 0


@pytest.mark.skipif(not CLIPS.is_dir(), reason="shared clips are not here")
def test_our_frames_are_those_of_plain_decoding():
    path = CLIPS / "bikes.mp4"
    with av.open(str(path)) as container:
        plain = {round(float(frame.time), 3): frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)}
    for moment in read(path, [0.0, 3.21, 9.99]):
        expected = plain[round(moment.time, 3)].astype(int)
        assert np.abs(moment.pixels.astype(int) - expected).mean() < 3


def test_the_file_is_closed(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(encode(grey_frames(3)))
    video = open_video(path)
    video.close()
    assert video._media.file.closed


@pytest.mark.parametrize(
    ("container", "rate"), [("matroska", "30"), ("matroska", "30000/1001"), ("mp4", "30000/1001"), ("avi", "30")]
)
def test_a_clip_at_the_rate_of_the_video_shows_every_frame_once(container: str, rate: str) -> None:
    """Matroska rounds timestamps to milliseconds, and 29.97 frames a second are a little late for 30."""
    data = encode(grey_frames(40), container=container, rate=Fraction(rate))
    with open_video(data) as video:
        moments = list(video.moments([0.1, 0.2], clip_frames=16, clip_side=48, clip_rate=30.0))
    for moment, first in zip(moments, (3, 6), strict=True):
        assert moment.clip is not None
        numbers = [frame_number(frame) for frame in moment.clip]
        assert numbers[0] in (first - 1, first)  # at 29.97 frames a second the frame before is still there
        assert np.diff(numbers).tolist() == [1] * 15


def test_a_moment_finds_the_frame_that_was_written_for_it() -> None:
    with open_video(encode(grey_frames(40), container="matroska", rate=30)) as video:
        shown = [frame_number(moment.pixels) for moment in video.moments([number / 30 for number in range(40)])]
    assert shown == list(range(40))
