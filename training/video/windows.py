"""Short stretches of video to train on: of real clips, and of a camera that moves over photos.

A window is `LENGTH` frames as a screen of `faults.RATE` frames per second shows them: small, for the motion network, and two
of its frames whole, as the image model sees them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from faults import RATE, Frames, motion_of
from PIL import Image

from genzqa.errors import InputError
from genzqa.media.video import open_video

LENGTH = 32  # frames; a clip of the motion network
SIDES = (72, 96)  # rows and columns of the small frames
MOMENTS = (4, 20)  # which frames are kept whole
SLOWEST = 23.0  # frames per second; slower clips are faulty already


@dataclass(frozen=True)
class Window:
    """small ``(LENGTH, 72, 96, 3)``, whole frames ``(2, h, w, 3)``, frames per second of the source, and where it is from."""

    small: Frames
    whole: tuple[Frames, ...]
    rate: float
    source: str


def real_windows(path: Path, most: int) -> Iterator[Window]:
    """Windows of a clip, one after another; none of a clip that is slow or cannot be read."""
    try:
        with open_video(path) as video:
            rate = video.facts.frame_rate or RATE
            starts = np.arange(0, video.facts.duration - LENGTH / RATE, LENGTH / RATE)[:most]
            if rate < SLOWEST or not len(starts):
                return
            times = sorted({float(start + moment / RATE) for start in starts for moment in (0, *MOMENTS)})
            moments = {round(one.time, 3): one for one in video.moments(times, clip_frames=LENGTH, clip_side=SIDES[0],
                                                                        clip_rate=RATE)}  # fmt: skip
    except InputError:
        return
    found = sorted(moments.values(), key=lambda one: one.time)
    for start in starts:
        near = [min(found, key=lambda one, at=start + moment / RATE: abs(one.time - at)) for moment in (0, *MOMENTS)]
        clip = near[0].clip
        if clip is not None and motion_of(clip) > 0.01:
            yield Window(_middle(clip), tuple(_eight_bit(one.pixels) for one in near[1:]), rate, path.name)


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


def camera_move(photo: Frames, name: str, rng: np.random.Generator) -> Window:
    """A camera that pans, zooms and turns over a photo, smoothly, past a few things that move by themselves."""
    height, width = photo.shape[:2]
    image = Image.fromarray(photo)
    span = min(width / SIDES[1], height / SIDES[0]) * rng.uniform(0.45, 0.8)  # photo pixels per small pixel
    zoom = np.exp(rng.normal(0, 0.12) * np.linspace(-0.5, 0.5, LENGTH))
    turn = np.radians(rng.normal(0, 2.5)) * np.linspace(-1, 1, LENGTH)
    speed = rng.exponential(0.5, 2) * rng.choice([-1, 1], 2)  # small pixels per frame
    ease = np.cumsum(1 + 0.5 * np.sin(np.linspace(0, rng.uniform(0.5, 4), LENGTH) + rng.uniform(0, 6)))
    way = (ease - ease[LENGTH // 2])[:, None] * speed[None]
    room = np.array([width - span * SIDES[1] * 1.15, height - span * SIDES[0] * 1.15]).clip(1) / 2
    way = np.tanh(way * span / room) * room + np.array([width, height]) / 2
    small = np.stack([_look(image, way[n], span * zoom[n], turn[n]) for n in range(LENGTH)])
    small = _with_things(small, photo, rng) if rng.random() < 0.5 else small
    half = np.array([SIDES[1], SIDES[0]]) * span / 2
    whole = []
    for moment in MOMENTS:
        box = np.concatenate([way[moment] - half * zoom[moment], way[moment] + half * zoom[moment]])
        left, top, right, bottom = box.clip(0, [width, height, width, height]).round().astype(int)
        whole.append(np.ascontiguousarray(photo[top:bottom, left:right]))
    return Window(small, tuple(whole), RATE, name)


def _look(image: Image.Image, centre: npt.NDArray[np.float64], span: float, turn: float) -> Frames:
    """What the camera sees: twice too large and then reduced, so that edges are as smooth as a lens makes them."""
    rows, columns = 2 * SIDES[0], 2 * SIDES[1]
    cos, sin = np.cos(turn) * span / 2, np.sin(turn) * span / 2
    across = (cos, -sin, centre[0] - cos * columns / 2 + sin * rows / 2)
    down = (sin, cos, centre[1] - sin * columns / 2 - cos * rows / 2)
    seen = image.transform((columns, rows), Image.Transform.AFFINE, (*across, *down), Image.Resampling.BILINEAR)
    return np.asarray(seen.resize((SIDES[1], SIDES[0]), Image.Resampling.BOX))


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
