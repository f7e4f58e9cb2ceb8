from __future__ import annotations

import os
import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace

import genzqa.media.video_frames as video_frames
from genzqa.errors import (
    CorruptInputError,
    InputError,
    InputNotFoundError,
    InputTimeoutError,
    InputTooLargeError,
    InputUnreadableError,
    UnsupportedFormatError,
)
from genzqa.limits import Limits
from genzqa.media.video import VIDEO_SUFFIXES, Moment, is_video_file, open_video, uniform_times
from genzqa.media.video_colour import light_to_pq, to_srgb
from videos import audio_only, encode, frame_number, grey_frames, quadrants

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

FASTSTART = {"movflags": "faststart"}


def read(data: bytes | Path, times: list[float], **settings: int) -> list[Moment]:
    with open_video(data) as video:
        return list(video.moments(times, **settings))


def numbers(moments: list[Moment]) -> list[int]:
    return [frame_number(moment.pixels) for moment in moments]


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


# Shape


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


# Colour


H273 = {"bt709": (Colorspace.ITU709, 1), "bt601": (Colorspace.ITU601, 6), "bt2020": (Colorspace.BT2020, 9)}


@pytest.mark.parametrize("pixel_format", ["yuv444p", "yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", H273)
def test_a_known_colour_survives(matrix, full_range, pixel_format):
    picture = quadrants()
    space, number = H273[matrix]
    tags = {"colorspace": number, "color_range": 1 + full_range, "color_primaries": 1, "color_trc": 1}
    data = encode([picture], matrix=space, full_range=full_range, pixel_format=pixel_format, tags=tags,
                  options={"crf": "1"})  # fmt: skip
    with open_video(data) as video:
        (moment,) = video.moments([0.0], clip_frames=1, clip_side=32)
        assert (video.facts.matrix, video.facts.full_range) == (matrix, full_range)
    scale = 255 if moment.pixels.dtype == np.float32 else 1
    rows, columns = np.ix_([16, 48], [20, 76])
    np.testing.assert_allclose(moment.pixels[rows, columns] * float(scale), picture[rows, columns], atol=3)
    np.testing.assert_allclose(moment.clip[0][rows // 2, columns // 2].astype(int), picture[rows, columns], atol=3)


@pytest.mark.parametrize(("height", "matrix"), [(576, "bt601"), (720, "bt709")])
def test_untagged_video_is_taken_by_its_lines(height, matrix):
    picture = quadrants(height, 64)
    with open_video(encode([picture], matrix=H273[matrix][0])) as video:
        assert (video.facts.matrix, video.facts.full_range) == (matrix, False)
        (moment,) = video.moments([0.0])
    assert np.abs(moment.pixels[100, 16].astype(int) - picture[100, 16]).max() <= 3


def hdr(levels, transfer):
    """A 10-bit BT.2020 video of one row of grey patches, given as code values in 0..1."""
    row = np.repeat((np.array(levels) * 65535).round().astype(np.uint16), 16)
    picture = np.broadcast_to(row[None, :, None], (32, len(row), 3)).copy()
    tags = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": transfer}
    return encode([picture], codec="libx264", pixel_format="yuv420p10le", matrix=Colorspace.BT2020, tags=tags,
                  options={"crf": "1"})  # fmt: skip


def srgb(light):
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def test_pq_is_tone_mapped():
    nits = np.array([5.0, 50.0, 203.0, 600.0, 1000.0, 4000.0])
    with open_video(hdr(light_to_pq(nits), 16)) as video:
        assert video.facts.transfer == "pq"
        assert [note.code for note in video.notes] == ["hdr_tone_mapped"]
        (moment,) = video.moments([0.0], clip_frames=1, clip_side=32)
    patches = moment.pixels[16, 8::16].mean(axis=-1)
    np.testing.assert_allclose(patches[:2], srgb(nits[:2] / 203), atol=0.01)  # below the knee: unchanged
    assert 0.85 < patches[2] < 0.95  # reference white is a little below the white of SDR
    assert patches[2] < patches[3] < patches[4] <= 1
    assert patches[4:] == pytest.approx([1, 1], abs=0.01)
    np.testing.assert_allclose(moment.clip[0, 16, 8::16].mean(axis=-1) / 255, patches, atol=0.01)


def test_hlg_is_tone_mapped():
    with open_video(hdr([0.1, 0.38, 0.75, 1.0], 18)) as video:
        assert video.facts.transfer == "hlg"
        (moment,) = video.moments([0.0])
    patches = moment.pixels[16, 8::16].mean(axis=-1)
    # BT.2408: 75 % HLG is the reference white of 203 cd/m2, and 38 % is grey of 26 cd/m2 (18 % card).
    assert patches[1] == pytest.approx(srgb(np.array(26 / 203)), abs=0.02)
    assert 0.85 < patches[2] < 0.95
    assert patches[3] == pytest.approx(1, abs=0.01)


def test_wide_gamut_is_converted():
    # The red of sRGB in BT.2020 is (0.6274, 0.0691, 0.0164) of linear light (ITU-R BT.2087).
    inside = np.round(srgb(np.array([0.6274, 0.0691, 0.0164])) * 255).astype(np.uint8)
    picture = np.broadcast_to(inside, (48, 64, 3)).copy()
    tags = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": 14}
    with open_video(encode([picture], matrix=Colorspace.BT2020, tags=tags, options={"crf": "1"})) as video:
        (moment,) = video.moments([0.0])
        assert [note.code for note in video.notes] == ["wide_gamut_converted"]
    assert moment.pixels[24, 32] == pytest.approx([255, 0, 0], abs=14)


def test_greys_of_wide_gamut_stay():
    code = np.linspace(0, 65535, 50).astype(np.uint16)
    grey = np.repeat(code[None, :, None], 3, axis=2)
    np.testing.assert_allclose(to_srgb(grey, "sdr", 9), grey / 65535, atol=1e-3)


# Bad input


def test_paths(tmp_path):
    with pytest.raises(InputNotFoundError, match="no such file"):
        open_video(tmp_path / "none.mp4")
    for url in ("https://example.org/a.mp4", "file:/etc/passwd", "concat:a.mp4|b.mp4", "http://127.0.0.1:1/a.m3u8", ""):
        with pytest.raises(InputNotFoundError) as caught:
            open_video(url)
        assert caught.value.subject == url
    with pytest.raises(InputUnreadableError, match="directory"):
        open_video(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputUnreadableError, match="regular"):
        open_video(tmp_path / "pipe")
    assert not is_video_file(tmp_path / "pipe")
    assert not is_video_file(tmp_path / "none.mp4")
    file = tmp_path / "photo.jpg"  # told by content
    file.write_bytes(encode(grey_frames(3)))
    assert is_video_file(file)
    with open_video(file) as video:
        assert video.name == str(file)


PLAYLISTS = {
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n/etc/passwd\n#EXT-X-ENDLIST\n",
    "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "dash": b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'></MPD>",
    "gif": b"GIF89a" + bytes(40),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(40),
    "webp": b"RIFF\0\0\0\0WEBPVP8X" + bytes(40),
    "avif": b"\0\0\0\x20ftypavis\0\0\0\0avisavifmif1miaf" + bytes(40),
    "flat bmp": b"BM" + bytes(52) + b"G" * 4000,
    "text": b"hello " * 1000,
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_playlists_and_pictures_are_no_videos(kind):
    assert not is_video_file(PLAYLISTS[kind])
    with pytest.raises(UnsupportedFormatError, match="not a video"):
        open_video(PLAYLISTS[kind])


def test_suffixes_are_lower_case_and_unlike_those_of_photos():
    from genzqa.media.image import SUPPORTED_SUFFIXES

    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in VIDEO_SUFFIXES)
    assert not set(VIDEO_SUFFIXES) & set(SUPPORTED_SUFFIXES)


def test_nothing_in_the_file():
    for data in (b"", b"\x1a\x45\xdf\xa3", encode(grey_frames(5))[:40], encode(grey_frames(1))[:1200]):
        with pytest.raises(CorruptInputError) as caught:
            open_video(data)
        assert caught.value.subject == "<bytes>"
        assert caught.value.hint
    header = encode(grey_frames(1), container="yuv4mpegpipe", codec="rawvideo").split(b"FRAME")[0]
    with pytest.raises(CorruptInputError):
        open_video(header)


@pytest.mark.parametrize("container", ["mp4", "matroska", "ogg"])
def test_audio_only(container):
    with pytest.raises(UnsupportedFormatError, match="sound but no video"):
        open_video(audio_only(container))


def test_encrypted():
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "01" * 16, "encryption_kid": "02" * 16}
    with pytest.raises(UnsupportedFormatError, match="encrypted"):
        open_video(encode(grey_frames(5), container_options=options))


def noise_frames(count):
    generator = np.random.default_rng(1)
    return [generator.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(count)]


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_truncated_is_noted(container):
    data = encode(noise_frames(75), container=container, container_options=FASTSTART if container == "mp4" else None)
    with open_video(data[: len(data) * 6 // 10]) as video:
        assert video.facts.duration == pytest.approx(3.0, abs=0.05)
        moments = list(video.moments(uniform_times(video.facts.duration, 6)))
        assert 2 <= len(moments) <= 4
        (note,) = [note for note in video.notes if note.code == "truncated"]
        assert "of 3.0" in note.text
    with open_video(data[: len(data) * 6 // 10]) as video, pytest.raises(CorruptInputError, match="asked for"):
        list(video.moments([2.9]))
    with open_video(data) as video:
        assert len(list(video.moments(uniform_times(video.facts.duration, 6)))) == 6
        assert video.notes == ()


def test_corrupt_packets_are_counted_and_decoding_goes_on():
    data = bytearray(encode(noise_frames(30), container="avi", codec="mjpeg", pixel_format="yuvj420p"))
    starts = [at for at in range(len(data) - 3) if data[at : at + 3] == b"\xff\xd8\xff"]
    assert len(starts) == 30
    for at in starts[5:8]:
        data[at : at + 300] = bytes(300)
    with open_video(bytes(data)) as video:
        assert len(list(video.moments(uniform_times(1.2, 6)))) == 6
        assert video.tally.corrupt >= 3
        assert "corrupt_frames" in [note.code for note in video.notes]


def test_limits():
    data = encode(grey_frames(5))
    for limits in (Limits(max_pixels=64 * 48 - 1), Limits(max_side=63), Limits(max_video_bytes=100)):
        with pytest.raises(InputTooLargeError):
            open_video(data, limits)
    with open_video(data, Limits(max_pixels=64 * 48, max_side=64, max_file_bytes=10)) as video:
        assert len(list(video.moments([0.0]))) == 1
        with pytest.raises(InputTooLargeError):
            list(video.moments([0.0], clip_frames=1, clip_side=4000))
    with pytest.raises(InputTooLargeError):
        open_video(encode(grey_frames(1), sar=Fraction(40, 1)), Limits(max_side=2000))


def test_deadline():
    data = encode(grey_frames(5))
    with pytest.raises(InputTimeoutError, match="longer than") as caught:
        open_video(data, Limits(max_video_seconds_wall=0.0))
    assert caught.value.code == "timeout"
    assert caught.value.subject == "<bytes>"


def test_the_work_between_moments_does_not_count(monkeypatch):
    with open_video(encode(grey_frames(10))) as video:
        clock = video._media.clock
        for _ in video.moments([0.0, 0.2]):
            assert clock._since is None
        assert clock._since is None


# Real clips and damage


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


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_damage_ends_in_a_result_or_an_input_error(container):
    random_numbers = random.Random(7)
    data = encode(noise_frames(12), container=container, container_options=FASTSTART if container == "mp4" else None)
    good, complete = 0, True
    for trial in range(60):
        damaged = bytearray(data)
        if trial % 2:
            del damaged[random_numbers.randrange(len(data)) :]
        else:
            for _ in range(random_numbers.choice([1, 5, 50])):
                region = len(data) if trial % 4 else 2000
                damaged[random_numbers.randrange(min(region, len(damaged)))] = random_numbers.randrange(256)
        try:
            with open_video(bytes(damaged), Limits(max_video_seconds_wall=20)) as video:
                moments = list(video.moments([0.0, 0.2, 0.4], clip_frames=2, clip_side=32))
                assert moments
                assert isinstance(video.notes, tuple)
                good += 1
        except InputError as error:
            complete &= error.subject == "<bytes>" and bool(error.reason)
    assert good > 10
    assert complete


def test_a_truncated_stream_is_never_silently_shorter():
    """Whatever is cut off: all moments, or a note, or an error; checked where the container says its length."""
    data = encode(noise_frames(25), container="matroska")
    for part in range(1, 10):
        cut = data[: len(data) * part // 10]
        try:
            with open_video(cut) as video:
                moments = list(video.moments(uniform_times(1.0, 5)))
                assert len(moments) == 5 or "truncated" in [note.code for note in video.notes]
        except InputError:
            continue


def test_the_file_is_closed(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(encode(grey_frames(3)))
    video = open_video(path)
    video.close()
    assert video._media.file.closed
