"""Short stretches of video to train on: of real clips, and of a camera that moves over photos.

A window is `LENGTH` frames as a screen of `faults.RATE` frames per second shows them: small, for the motion network, and two
of its frames whole, as the image model sees them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from encoders import CODECS, coding_share, drawn_crf, encoded, ssim
from faults import RATE, Frames, motion_of
from PIL import Image

from genzqa.errors import InputError
from genzqa.media.video import open_video

LENGTH = 32  # frames; a clip of the motion network
SIDES = (72, 96)  # rows and columns of the small frames
MOMENTS = (4, 20)  # which frames are kept whole
WIDEST = 480  # columns of the frames that are encoded and kept whole
LARGER = 4  # times the small frames: a camera move as it is encoded
AS_SCORED: dict[str, Any] = {"clip_frames": LENGTH, "clip_side": SIDES[0], "clip_rate": RATE}
CODED_STRENGTHS = ((0.0, 0.15), (0.25, 0.55), (0.65, 1.0))  # each drawn between two ends of the codec's ladder
NOTHING_SEEN = (-0.4, -0.25)  # the same before the ladder begins: what any intact video has been through
SHARES = {
    "h264": 0.2,
    "hevc": 0.25,
    "vp9": 0.35,
    "av1": 0.2,
}  # of the windows; the smoother a codec, the harder to tell
SLOWEST = 23.0  # frames per second; slower clips are faulty already


@dataclass(frozen=True)
class Coded:
    """A window as a real encoder left it: small frames, the last of the whole ones, and the share of the quality left."""

    small: Frames
    whole: Frames
    share: float


@dataclass(frozen=True)
class Window:
    """small ``(LENGTH, 72, 96, 3)``, whole frames ``(2, h, w, 3)``, frames per second of the source, where it is from, and
    the same through an encoder, at a high, a lower and a low quality. The first two have been through an encoder as well, at
    a quality at which nothing is to be seen of it: so has every video that is ever scored."""

    small: Frames
    whole: Frames
    rate: float
    source: str
    coded: tuple[Coded, ...]


def real_windows(path: Path, most: int, rng: np.random.Generator) -> Iterator[Window]:
    """Windows of a clip, one after another; none of a clip that is slow or cannot be read."""
    try:
        with open_video(path) as video:
            rate = video.facts.frame_rate or RATE
            starts = np.arange(0, video.facts.duration - LENGTH / RATE, LENGTH / RATE)[:most].tolist()
            if rate < SLOWEST or not starts:
                return
            clips = [one.clip for one in video.moments(starts, **AS_SCORED)]
        with open_video(path) as video:
            times = [start + number / RATE for start in starts for number in range(LENGTH)]
            frames = [_reduced(_eight_bit(one.pixels)) for one in video.moments(times)]
    except InputError:
        return
    if len(clips) < len(starts) or len(frames) < len(times):  # moments that share a frame
        return
    for number, clip in enumerate(clips):
        if clip is not None and motion_of(clip) > 0.01:
            shown = np.stack(frames[number * LENGTH : (number + 1) * LENGTH])
            with contextlib.suppress(InputError):
                yield Window(*_intact(shown, rng), rate, path.name, _coded(shown, rng))


def _intact(frames: Frames, rng: np.random.Generator) -> tuple[Frames, Frames]:
    """Small frames and the whole ones, as a good encoder leaves them."""
    small, whole, _ = _through(frames, _drawn_codec(rng), float(rng.uniform(*NOTHING_SEEN)))
    return small, whole


def _coded(frames: Frames, rng: np.random.Generator) -> tuple[Coded, ...]:
    name, coded = _drawn_codec(rng), []
    for reach in CODED_STRENGTHS:
        small, whole, likeness = _through(frames, name, float(rng.uniform(*reach)))
        coded.append(Coded(small, whole[-1], coding_share(likeness)))
    return tuple(coded)


def _drawn_codec(rng: np.random.Generator) -> str:
    return str(rng.choice(list(SHARES), p=list(SHARES.values())))


def _through(frames: Frames, name: str, strength: float) -> tuple[Frames, Frames, float]:
    """What scoring sees of these frames once they have been through an encoder: small, the whole ones, and their likeness."""
    codec, options, _ = CODECS[name]
    with open_video(encoded(frames, codec, options, drawn_crf(name, strength))) as video:
        first, *shown = video.moments([moment / RATE for moment in (0, *MOMENTS)], **AS_SCORED)
    if len(shown) < len(MOMENTS):  # an encoder may drop frames
        raise InputError(f"{name} at strength {strength:.2f} left {len(shown) + 1} of {len(MOMENTS) + 1} moments")
    whole = [_eight_bit(one.pixels) for one in shown]
    likeness = [ssim(frames[moment], one) for moment, one in zip(MOMENTS, whole, strict=True)]
    assert first.clip is not None
    return _middle(first.clip), np.stack(whole), float(np.mean(likeness))


def _reduced(frame: Frames) -> Frames:
    """At most `WIDEST` columns, even sides."""
    height, width = frame.shape[:2]
    scale = min(1.0, WIDEST / width)
    size = (int(width * scale) // 2 * 2, int(height * scale) // 2 * 2)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))


def _eight_bit(pixels: npt.NDArray[np.generic]) -> Frames:
    return pixels if pixels.dtype == np.uint8 else (255 * pixels).round().astype(np.uint8)  # type: ignore[return-value]


def _middle(clip: Frames) -> Frames:
    """The middle of the clip in the shape that batches have; enlarged where it is narrower."""
    rows, columns = SIDES
    if clip.shape[1] < rows or clip.shape[2] < columns:
        scale = max(rows / clip.shape[1], columns / clip.shape[2])
        size = (max(columns, round(clip.shape[2] * scale)), max(rows, round(clip.shape[1] * scale)))
        clip = np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)) for frame in clip])
    top, left = (clip.shape[1] - rows) // 2, (clip.shape[2] - columns) // 2
    return np.ascontiguousarray(clip[:, top : top + rows, left : left + columns])


def camera_moves(photo: Frames, name: str, rng: np.random.Generator) -> Iterator[Window]:
    """A camera that moves over a photo, past a few things that move by themselves."""
    large = moved(photo, LENGTH, rng)
    with contextlib.suppress(InputError):
        small, whole = _intact(large, rng)
        small = _with_things(small, photo, rng) if rng.random() < 0.5 else small
        yield Window(small, whole, RATE, name, _coded(large, rng))


def moved(photo: Frames, count: int, rng: np.random.Generator) -> Frames:
    """What a camera sees in ``count`` frames that pans, zooms and turns over a photo, smoothly; `LARGER` times the small frames."""
    height, width = photo.shape[:2]
    image = Image.fromarray(photo)
    span = min(width / SIDES[1], height / SIDES[0]) * rng.uniform(0.45, 0.8)  # photo pixels per small pixel
    zoom = np.exp(rng.normal(0, 0.12) * np.linspace(-0.5, 0.5, count))
    turn = np.radians(rng.normal(0, 2.5)) * np.linspace(-1, 1, count)
    speed = rng.exponential(0.5, 2) * rng.choice([-1, 1], 2)  # small pixels per frame
    ease = np.cumsum(1 + 0.5 * np.sin(np.linspace(0, rng.uniform(0.5, 4), count) + rng.uniform(0, 6)))
    way = (ease - ease[count // 2])[:, None] * speed[None]
    room = np.array([width - span * SIDES[1] * 1.15, height - span * SIDES[0] * 1.15]).clip(1) / 2
    way = np.tanh(way * span / room) * room + np.array([width, height]) / 2
    return np.stack([_look(image, way[n], span * zoom[n], turn[n]) for n in range(count)])


def _look(image: Image.Image, centre: npt.NDArray[np.float64], span: float, turn: float) -> Frames:
    """What the camera sees, `LARGER` times the small frames: twice too large and then reduced, so that edges are as smooth
    as a lens makes them."""
    size = (LARGER * SIDES[1], LARGER * SIDES[0])
    rows, columns = 2 * size[1], 2 * size[0]
    cos, sin = np.cos(turn) * span / LARGER / 2, np.sin(turn) * span / LARGER / 2
    across = (cos, -sin, centre[0] - cos * columns / 2 + sin * rows / 2)
    down = (sin, cos, centre[1] - sin * columns / 2 - cos * rows / 2)
    seen = image.transform((columns, rows), Image.Transform.AFFINE, (*across, *down), Image.Resampling.BILINEAR)
    return np.asarray(seen.resize(size, Image.Resampling.BOX))


def _with_things(small: Frames, photo: Frames, rng: np.random.Generator) -> Frames:
    """One to three cut-outs of the photo that cross the picture on ways of their own."""
    out = small.copy()
    for _ in range(int(rng.integers(1, 4))):
        rows, columns = (int(rng.integers(10, 36)) for _ in range(2))
        top, left = int(rng.integers(0, photo.shape[0] - rows)), int(rng.integers(0, photo.shape[1] - columns))
        thing = photo[top : top + rows, left : left + columns]
        place = rng.uniform(0, [SIDES[0] - 8, SIDES[1] - 8])
        speed = rng.normal(0, 1.0, 2)
        for number in range(len(out)):
            y, x = (place + speed * number).round().astype(int)
            y0, x0, y1, x1 = max(y, 0), max(x, 0), min(y + rows, SIDES[0]), min(x + columns, SIDES[1])
            if y0 < y1 and x0 < x1:
                out[number, y0:y1, x0:x1] = thing[y0 - y : y1 - y, x0 - x : x1 - x]
    return out
