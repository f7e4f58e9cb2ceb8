"""What goes wrong in time: faults of a video with a graded strength, and how much of its quality each leaves.

Every fault takes frames ``(n, h, w, 3) uint8`` as a screen of `RATE` frames per second shows them and a strength in 0..1,
and returns as many frames and the share of the video's quality that is left. Strength 0 is barely visible.

The shares are no human scores. Where a published model exists its form is taken; its constants depend on the content in the
papers too, and where they could not be read they are ours, as every one below that names no source.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

RATE = 30.0
FREEZE_EVERY = 32  # frames
Frames = npt.NDArray[np.uint8]
Fault = Callable[[Frames, float, np.random.Generator], tuple[Frames, float]]


def frame_rate_share(rate: float, motion: float) -> float:
    """Quality left at ``rate`` frames per second.

    The inverted falling exponential of the frame rate (Ou, Liu, Zhao, Ma and Wang, ICIP 2008; kept by the temporal factor of
    Ou, Ma and Wang, IEEE TCSVT 21(3), 2011, and by Q-STAR, IEEE TIP 23(6), 2014), which falls sooner the more there is
    motion. Its steepness runs from 8 without motion to 5 with much (ours, for ``motion`` 0 to 1).
    """
    steepness = 8 - 3 * motion
    return float((1 - np.exp(-steepness * min(rate, RATE) / RATE)) / (1 - np.exp(-steepness)))


def freeze_share(seconds: float) -> float:
    """Quality left with a freeze of this length in every second or so.

    Falls with the logarithm of the length (Pastrana-Vidal et al., SPIE 5292, 2004), through MOS 3.5 at 0.36 s (van Kester et
    al., SPIE 7865, 2011; there for one freeze in 20 seconds), which is a share of 0.71 if an intact video has MOS 4.5.
    """
    return float(max(0.2, 1 - 0.29 * np.log1p(seconds / 0.1) / np.log1p(0.36 / 0.1)))


def motion_of(frames: Frames) -> float:
    """How much moves, 0..1: the mean change between frames as a share of the frames' own contrast."""
    grey = frames[:, ::2, ::2].mean(3, dtype=np.float32)
    change = np.abs(np.diff(grey, axis=0))
    moving = change[change.mean((1, 2)) > 0.05]  # repeated frames say nothing of the motion
    if not len(moving):
        return 0.0
    return float(np.clip(moving.mean() / (0.12 * grey.std() + 1), 0, 1))


def _hold(frames: Frames, shown: npt.NDArray[np.int64]) -> Frames:
    return frames[np.clip(shown, 0, len(frames) - 1)]


def frame_rate(frames: Frames, strength: float, rng: np.random.Generator) -> tuple[Frames, float]:
    """Fewer frames per second, evenly: 20 down to 3."""
    rate = 20 * (3 / 20) ** strength
    step, phase = RATE / rate, rng.random()
    shown = np.floor((np.floor(np.arange(len(frames)) / step + phase) - phase) * step).astype(np.int64)
    return _hold(frames, np.maximum(shown, 0)), frame_rate_share(rate, motion_of(frames))


def repeats(frames: Frames, strength: float, rng: np.random.Generator) -> tuple[Frames, float]:
    """Frames dropped at random and the one before shown again: 8 % up to 80 %. A tenth worse than the same rate evenly."""
    lost = 0.08 + 0.72 * strength
    shown = np.arange(len(frames))
    dropped = rng.random(len(frames)) < lost
    dropped[0] = False
    shown = np.maximum.accumulate(np.where(dropped, 0, shown))
    return _hold(frames, shown), frame_rate_share(RATE * (1 - lost), motion_of(frames)) * (1 - 0.1 * strength)


def freeze(frames: Frames, strength: float, rng: np.random.Generator) -> tuple[Frames, float]:
    """In every second or so the picture stands still for 0.1 to 0.95 s, and then jumps on."""
    seconds = 0.1 + 0.85 * strength
    length, moments = round(seconds * RATE), np.arange(len(frames))
    into = (moments - int(rng.integers(0, FREEZE_EVERY))) % FREEZE_EVERY
    shown = np.where(into < length, moments - into, moments)
    still = 1 - motion_of(frames)  # who sees that nothing moves where nothing moved before?
    return _hold(frames, shown), freeze_share(seconds) ** (1 - 0.5 * still)


def judder(frames: Frames, strength: float, rng: np.random.Generator) -> tuple[Frames, float]:
    """Frames shown too early or too late, by up to 4 of them."""
    late = rng.normal(0, 0.4 + 3 * strength, len(frames)).clip(-4, 4).round().astype(np.int64)
    moved = 0.3 + 0.7 * motion_of(frames)
    return _hold(frames, np.arange(len(frames)) + late), 1 - (0.04 + 0.46 * strength) * moved


def shake(frames: Frames, strength: float, rng: np.random.Generator) -> tuple[Frames, float]:
    """A hand that trembles: the picture jumps about at 3 to 10 times a second, by 0.4 % to 6 % of its height."""
    count, height, width = frames.shape[:3]
    reach = height * (0.004 + 0.056 * strength**1.3)
    times = np.arange(count) / RATE
    way = np.zeros((count, 2))
    for _ in range(4):
        turns, phase = rng.uniform(3, 10), rng.uniform(0, 2 * np.pi, 2)
        way += np.sin(2 * np.pi * turns * times[:, None] + phase) * rng.uniform(0.5, 1, 2)
    way *= reach / 2
    margin = int(np.ceil(np.abs(way).max())) + 1
    size = (width, height)
    out = np.empty_like(frames)
    for number, (frame, (across, down)) in enumerate(zip(frames, way, strict=True)):
        box = (margin + across, margin + down, width - margin + across, height - margin + down)
        out[number] = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC, box=box))
    return out, 1 - 0.04 - 0.46 * strength


def flicker(frames: Frames, strength: float, rng: np.random.Generator) -> tuple[Frames, float]:
    """Brightness that swings 3 to 14 times a second by 1.5 % to 40 %."""
    swing = 0.015 + 0.385 * strength**1.3
    wave = np.sin(2 * np.pi * (rng.uniform(3, 14) * np.arange(len(frames)) / RATE + rng.random()))
    if rng.random() < 0.4:  # not all flicker is regular
        wave = rng.uniform(-1, 1, len(frames))
    light = (1 + swing * wave)[:, None, None, None]
    return np.clip(frames * light, 0, 255).round().astype(np.uint8), 1 - 0.04 - 0.56 * strength


def temporal_noise(
    frames: Frames, strength: float, rng: np.random.Generator, kept: float = 1.0
) -> tuple[Frames, float]:
    """Noise that is new in every frame, sigma 2 to 40 of 255; ``kept`` is the share of it that a reduction leaves."""
    sigma = kept * (2 + 38 * strength**1.3)
    field = rng.standard_normal(frames.shape, dtype=np.float32)
    return np.clip(frames + sigma * field, 0, 255).round().astype(np.uint8), 1 - 0.05 - 0.6 * strength


FAULTS: dict[str, Fault] = {
    "frame_rate": frame_rate,
    "repeats": repeats,
    "freeze": freeze,
    "judder": judder,
    "shake": shake,
    "flicker": flicker,
    "temporal_noise": temporal_noise,
}
SHOWS_IN_FRAMES = ("flicker", "temporal_noise")  # the others show every frame as it was
