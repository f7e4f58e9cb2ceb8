"""Whole videos to train on, in ladders: each intact and ever more at fault, encoded, decoded and read as scoring reads them.

Windows alone leave a gap: their faults are made on small frames, and no file lies between the fault and the network. Here
everything is as in the program, and every step of a ladder is known to be worse than the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
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

Floats = npt.NDArray[np.float32]
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


@dataclass(frozen=True)
class Step:
    """A video of a ladder.

    Attributes:
        make: The video, and the share of the intact one's quality that is left; None: what its encoder left is measured.
        shows: Whether its frames have to be read, or are those of the intact video.
    """

    make: Callable[[], tuple[bytes, float | None]]
    shows: bool


def frames_of(source: Source, rng: np.random.Generator) -> Frames:
    """The intact video's frames."""
    at = source.content
    return clip_frames(at) if isinstance(at, Path) else photographed(at, rng)


def _intact(frames: Frames) -> tuple[bytes, float]:
    return encoded(frames, *NEARLY_LOSSLESS), 1.0


def _at_fault(frames: Frames, name: str, strength: float, seed: int) -> tuple[bytes, float]:
    altered, share = FAULTS[name](frames, strength, np.random.default_rng(seed))
    return encoded(altered, *NEARLY_LOSSLESS), share


def _coded(frames: Frames, name: str, strength: float) -> tuple[bytes, None]:
    codec, options, _ = CODECS[name]
    return encoded(frames, codec, options, drawn_crf(name, strength)), None


def steps_of(frames: Frames, what: Reading, rng: np.random.Generator) -> Iterator[list[Step]]:
    """The steps of every ladder after the intact video; what ``rng`` gives does not depend on which of them are made."""
    for name in what.ladders:
        shows, steps = what.frames and name not in AS_THEY_WERE, []
        for strength in np.clip(np.array(what.strengths) + rng.uniform(-0.1, 0.1, len(what.strengths)), 0, 1):
            if name in FAULTS:
                make = partial(_at_fault, frames, name, float(strength), int(rng.integers(1 << 32)))
            else:
                make = partial(_coded, frames, name, float(strength))
            steps.append(Step(make, shows))
        yield steps


def read_motion(source: Source, what: Reading, network: SlowFast, rng: np.random.Generator) -> dict[str, Floats]:
    """What the frozen motion network makes of ladders of one source; the first step of each is the intact video.

    Returns:
        ``share (ladders, steps)``; ``slow``, ``fast (ladders, steps, CLIPS, features)``.
    """
    frames = frames_of(source, rng)

    def read(video: bytes, share: float | None) -> dict[str, torch.Tensor]:
        slow, fast, left = _motion(video, frames, network, what.motion_size)
        return {"slow": slow, "fast": fast, "share": torch.tensor(left if share is None else share)}

    intact = read(*_intact(frames))
    return _stacked([[intact, *(read(*step.make()) for step in steps)] for steps in steps_of(frames, what, rng)])


def read_frames(source: Source, what: Reading, reader: Engine, rng: np.random.Generator) -> dict[str, Floats]:
    """What the frozen image model makes of the same ladders.

    Returns:
        ``raw (ladders, steps)``, ``query.P (ladders, steps, C)``: means over frames and prompts.
    """
    frames = frames_of(source, rng)

    def read(video: bytes) -> dict[str, torch.Tensor]:
        with open_video(video) as opened:
            times = uniform_times(opened.facts.duration, FRAMES, 0.0)
            pixels = [one.pixels for one in opened.moments(times)]
        return frame_readings(reader, [resize_square(np.asarray(one, np.uint8), reader.size) for one in pixels])

    intact = read(_intact(frames)[0])
    return _stacked([[intact, *(read(step.make()[0]) if step.shows else intact for step in steps)]
                     for steps in steps_of(frames, what, rng)])  # fmt: skip


def frame_readings(reader: Engine, frames: Iterable[npt.NDArray[np.float32]]) -> dict[str, torch.Tensor]:
    """Mean quality ``raw`` and mean queries ``query.P (C,)`` of frames as the image model sees them, in [0, 1]."""
    read = reader.run(torch.stack([to_network(one) for one in frames]))
    return {"raw": read.raw.mean()} | {f"query.{p}": query.mean((0, 1)) for p, query in enumerate(read.queries)}


def _motion(
    video: bytes, frames: Frames, network: SlowFast, motion_size: int
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Motion features ``(CLIPS, features)`` of both pathways, and the share that an encoder left of the quality."""
    with open_video(video) as opened:
        times = uniform_times(opened.facts.duration, FRAMES, 0.0)
        moments = list(opened.moments(times, clip_frames=network.config.frames, clip_side=motion_size, clip_rate=RATE))
    likeness = [ssim(frames[min(len(frames) - 1, int(one.time * RATE + 0.5))], np.asarray(one.pixels, np.uint8))
                for one in moments]  # fmt: skip
    counted = counted_clips([one.clip_frames for one in moments], network.config.frames)
    features = {
        number: clip_features(network, clip) for number in counted if (clip := moments[number].clip) is not None
    }
    slow, fast = zip(*(features[counted[number % len(counted)]] for number in range(CLIPS)), strict=True)
    return torch.stack(slow), torch.stack(fast), coding_share(float(np.mean(likeness)))


def _stacked(ladders: list[list[dict[str, torch.Tensor]]]) -> dict[str, Floats]:
    return {key: torch.stack([torch.stack([step[key] for step in steps]) for steps in ladders]).float().numpy()
            for key in ladders[0][0]}  # fmt: skip
