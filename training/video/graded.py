"""Whole videos to train on, in ladders: each intact and ever more at fault, encoded, decoded and read as scoring reads them.

Windows alone leave a gap: their faults are made on small frames, and no file lies between the fault and the network. Here
everything is as in the program, and every step of a ladder is known to be worse than the one before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from encoders import CODECS, NEARLY_LOSSLESS, coding_share, drawn_crf, encoded, ssim
from faults import FAULTS, RATE, Frames
from PIL import Image
from windows import moved

from genzqa.engine.engine import Engine
from genzqa.media.preprocess import resize_square, to_network
from genzqa.media.video import open_video, uniform_times
from genzqa.model.motion import clip_features
from genzqa.model.slowfast import SlowFast
from genzqa.scoring.video import counted_clips

SECONDS = 2.6
WIDEST = 480  # pixels; larger clips are reduced
FRAMES = 4  # that are read of a video
CLIPS = 3  # whose motion counts, some of them again where there are fewer


@dataclass(frozen=True)
class Source:
    """A clip, or a photo that a camera moves over: its file, or its pixels."""

    name: str
    content: Path | npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Reading:
    """What is read of a source: which ladders, the strengths of the steps after the intact video, each a little more or less,
    and whether the image model reads every video whose frames are altered, or the intact one for all."""

    ladders: tuple[str, ...]
    strengths: tuple[float, ...]
    frames: bool
    motion_size: int


AS_THEY_WERE = ("frame_rate", "repeats", "freeze", "judder")  # such faults show every frame as it was, at another time
WHOLE = ((*FAULTS, *CODECS), (0.0, 0.2, 0.45, 0.8), True)
MILD = (("repeats", "temporal_noise", "hevc", "vp9"), (0.0, 0.15), False)  # what is hard to tell from an intact video


def clip_frames(path: Path) -> Frames:
    """The clip's first seconds as a screen of `RATE` frames per second shows them; even sides, at most `WIDEST` wide."""
    with open_video(path) as video:
        count = int(min(SECONDS, video.facts.duration) * RATE)
        moments = [one.pixels for one in video.moments([n / RATE for n in range(count)])]
    height, width = moments[0].shape[:2]
    scale = min(1.0, WIDEST / width)
    size = (int(width * scale) // 2 * 2, int(height * scale) // 2 * 2)
    return np.stack(
        [
            np.asarray(Image.fromarray(np.asarray(one, np.uint8)).resize(size, Image.Resampling.BICUBIC))
            for one in moments
        ]
    )


def panned(photo: Image.Image, rng: np.random.Generator, size: tuple[int, int] = (384, 256)) -> Frames:
    """A camera that moves steadily over a photo."""
    width, height = size
    room = np.array([photo.width - width, photo.height - height], float)
    ends = rng.uniform(0, 1, (2, 2)) * room
    places = ends[0] + (ends[1] - ends[0]) * np.linspace(0, 1, int(SECONDS * RATE))[:, None]
    return np.stack([np.asarray(photo.resize(size, Image.Resampling.BICUBIC, box=(x, y, x + width, y + height)))
                     for x, y in places])  # fmt: skip


def photographed(photo: Frames, rng: np.random.Generator) -> Frames:
    """One camera or the other: `panned`, or one that also zooms and turns."""
    if rng.random() < 0.5:
        return panned(Image.fromarray(photo), rng)
    return moved(photo, int(SECONDS * RATE), rng)


def read_source(source: Source, what: Reading, reader: Engine, network: SlowFast,
                rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:  # fmt: skip
    """What the frozen parts make of ladders of one source; the first step of each is the intact video.

    Returns:
        ``raw``, ``share (ladders, steps)``, ``slow``, ``fast (ladders, steps, CLIPS, features)``, ``query.P (ladders, steps, C)``.
    """
    at = source.content
    frames = clip_frames(at) if isinstance(at, Path) else photographed(at, rng)
    intact = read_video(encoded(frames, *NEARLY_LOSSLESS), frames, network, what.motion_size, reader)
    ladders = []
    for name in what.ladders:
        steps = [{**intact, "share": torch.tensor(1.0)}]
        for strength in np.clip(np.array(what.strengths) + rng.uniform(-0.1, 0.1, len(what.strengths)), 0, 1):
            if name in FAULTS:
                altered, share = FAULTS[name](frames, float(strength), np.random.default_rng(rng.integers(1 << 32)))
                video = encoded(altered, *NEARLY_LOSSLESS)
            else:
                codec, options, _ = CODECS[name]
                video, share = encoded(frames, codec, options, drawn_crf(name, float(strength))), None
            shown = reader if what.frames and name not in AS_THEY_WERE else None
            found = read_video(video, frames, network, what.motion_size, shown)
            steps.append({**intact, **found, "share": found["share"] if share is None else torch.tensor(share)})
        ladders.append({key: torch.stack([step[key] for step in steps]) for key in steps[0]})
    return {key: torch.stack([one[key] for one in ladders]).float().numpy() for key in ladders[0]}


def read_video(video: bytes, frames: Frames, network: SlowFast, motion_size: int,
               reader: Engine | None) -> dict[str, torch.Tensor]:  # fmt: skip
    """Motion features of one video, the share that an encoder left of its quality, and what the image model reads."""
    with open_video(video) as opened:
        times = uniform_times(opened.facts.duration, FRAMES, 0.0)
        moments = list(opened.moments(times, clip_frames=network.config.frames, clip_side=motion_size, clip_rate=RATE))
    pixels = [np.asarray(one.pixels, np.uint8) for one in moments]
    likeness = [ssim(frames[min(len(frames) - 1, int(one.time * RATE + 0.5))], shown)
                for one, shown in zip(moments, pixels, strict=True)]  # fmt: skip
    counted = counted_clips([one.clip_frames for one in moments], network.config.frames)
    features = {
        number: clip_features(network, clip) for number in counted if (clip := moments[number].clip) is not None
    }
    slow, fast = zip(*(features[counted[number % len(counted)]] for number in range(CLIPS)), strict=True)
    found = {
        "slow": torch.stack(slow),
        "fast": torch.stack(fast),
        "share": torch.tensor(coding_share(float(np.mean(likeness)))),
    }
    if reader is None:
        return found
    read = reader.run(torch.stack([to_network(resize_square(one, reader.size)) for one in pixels]))
    return found | {"raw": read.raw.mean()} | {f"query.{p}": query.mean((0, 1)) for p, query in enumerate(read.queries)}
