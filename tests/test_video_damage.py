"""Cut and damaged videos: scored as far as they go, and never silently shorter."""

from __future__ import annotations

import io
import random

import av
import pytest

from genzqa.errors import CorruptInputError, InputError
from genzqa.limits import Limits
from genzqa.media.video import open_video, uniform_times
from videos import FASTSTART, encode, grey_frames, noise_frames, numbers


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_truncated_is_noted(container):
    data = encode(noise_frames(75), container=container, container_options=FASTSTART if container == "mp4" else None)
    with open_video(data[: len(data) * 6 // 10]) as video:
        assert video.facts.duration == pytest.approx(3.0, abs=0.05)
        moments = list(video.moments(uniform_times(video.facts.duration, 6)))
        assert 2 <= len(moments) <= 4
        (note,) = [note for note in video.notes if note.code == "truncated"]
        assert "of 3.0" in note.text
    with open_video(data[: len(data) * 6 // 10]) as video, pytest.raises(CorruptInputError, match="were wanted"):
        list(video.moments([2.9]))
    with open_video(data) as video:
        assert len(list(video.moments(uniform_times(video.facts.duration, 6)))) == 6
        assert video.notes == ()


@pytest.mark.parametrize("kept", [0.92, 0.97])
def test_a_few_frames_less_than_declared_are_noted(kept):
    data = encode(noise_frames(60), container_options=FASTSTART)
    with open_video(data[: int(len(data) * kept)]) as video:
        list(video.moments(uniform_times(video.facts.duration, 8), clip_frames=8))
        assert video.tally.declared == 60
        assert video.tally.decoded < 60
        assert {note.code for note in video.notes} & {"truncated", "frames_missing"}


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_a_recording_that_begins_without_a_whole_picture_says_so(container):
    whole = encode(grey_frames(36), options={"g": "12", "bf": "2"}, container="matroska")
    buffer = io.BytesIO()
    with av.open(io.BytesIO(whole)) as source, av.open(buffer, "w", format=container) as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in [packet for packet in source.demux(video=0) if packet.size][2:]:
            packet.stream = stream
            output.mux(packet)
    with open_video(buffer.getvalue()) as video:
        assert numbers(list(video.moments([0.0, video.facts.duration - 0.01])))[0] == 12
        (note,) = video.notes
        assert note.code == "begins_late"


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
