"""The videos that ``video.py`` scores: camera moves over the example photos, encoded by libx264 through PyAV.

A long file repeats one encoded sequence with its timestamps moved on, which costs a copy and no encoding. A decoder cannot
tell: every sequence begins with a keyframe that no frame after it looks behind (closed GOP).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
from PIL import Image

PHOTOS = Path(__file__).parents[1] / "examples" / "photos"
RATE = 30
GOP_SECONDS = 2


def camera_moves(frames: int, width: int, height: int) -> Iterator[Image.Image]:
    """A slow zoom and pan over each of the undamaged example photos in turn."""
    photos = [Image.open(PHOTOS / f"{name}.jpg").convert("RGB") for name in ("lighthouse", "parrots", "portrait")]
    for number in range(frames):
        place = number * len(photos) / frames
        photo, along = photos[int(place)], place % 1
        across = min(photo.width, photo.height * width / height) * (1 - 0.4 * along)
        down = across * height / width
        left, top = (photo.width - across) * along, (photo.height - down) * along
        yield photo.resize((width, height), Image.Resampling.BICUBIC, (left, top, left + across, top + down))


def encode(path: Path, seconds: int, width: int, height: int, preset: str = "veryfast") -> None:
    """H.264 in MP4, with B-frames, a keyframe every two seconds."""
    with av.open(str(path), "w") as output:
        options = {"preset": preset, "g": str(GOP_SECONDS * RATE), "crf": "20"}
        stream = output.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in camera_moves(seconds * RATE, width, height):
            output.mux(stream.encode(av.VideoFrame.from_image(picture)))
        output.mux(stream.encode(None))


def repeat(source: Path, target: Path, times: int) -> None:
    """The packets of a video, ``times`` times one after another."""
    with av.open(str(source)) as sequence, av.open(str(target), "w") as output:
        stream = sequence.streams.video[0]
        copy = output.add_stream_from_template(stream)
        packets = [(bytes(packet), packet.pts, packet.dts, packet.duration, packet.is_keyframe)
                   for packet in sequence.demux(stream) if packet.size]  # fmt: skip
        length = sum(duration for _, _, _, duration, _ in packets)
        for number in range(times):
            for content, pts, dts, duration, key in packets:
                packet = av.Packet(content)
                packet.stream, packet.time_base = copy, stream.time_base
                packet.pts, packet.dts, packet.duration = pts + number * length, dts + number * length, duration
                packet.is_keyframe = key
                output.mux(packet)
