"""What is no video, or none that is scored: each a typed error that says what to do; nothing is fetched or followed."""

from __future__ import annotations

import os
import random
from fractions import Fraction

import pytest

from genzqa.errors import (
    CorruptInputError,
    InputNotFoundError,
    InputTimeoutError,
    InputTooLargeError,
    InputUnreadableError,
    UnsupportedFormatError,
)
from genzqa.limits import Limits
from genzqa.media.video import VIDEO_SUFFIXES, is_video_file, open_video
from videos import audio_only, declared_encrypted, encode, grey_frames, noise_frames


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
    with pytest.raises(UnsupportedFormatError, match="encrypted"):
        open_video(declared_encrypted(encode(grey_frames(5), container="matroska")))


def test_scrambled_broadcast():
    data = bytearray(encode(noise_frames(25), container="mpegts"))
    random_numbers = random.Random(3)
    for at in range(0, len(data), 188):
        if data[at + 1] & 0x1F == 1:  # the packets of the picture, which is stream 256
            data[at + 3] |= 0x80
            data[at + 4 : at + 188] = random_numbers.randbytes(184)
    with pytest.raises(UnsupportedFormatError, match="encrypted"):
        open_video(bytes(data))


def test_limits():
    data = encode(grey_frames(5))
    for limits in (
        Limits(max_pixels=64 * 48 - 1),
        Limits(max_side=63),
        Limits(max_video_bytes=100),
        Limits(max_video_seconds=0.1),
    ):
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


def test_a_long_video_may_take_longer():
    # two frames a day apart: what a file says of its length is believed up to an hour
    for times, allowed in (([0, 90_000], 90.0), ([0, 86_400_000], 3600.0)):
        data = encode(grey_frames(2), container="matroska", times_ms=times)
        with open_video(data, Limits(max_video_seconds_wall=20)) as video:
            assert video._media.clock.limit == pytest.approx(20 + allowed, abs=1)


def test_the_work_between_moments_does_not_count(monkeypatch):
    with open_video(encode(grey_frames(10))) as video:
        clock = video._media.clock
        for _ in video.moments([0.0, 0.2]):
            assert clock._since is None
        assert clock._since is None
