"""How close the graphs of an exported model come to torch, and whether that is close enough."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genzqa.engine.engine import Precision
from genzqa.engine.exported import FRAMES, ExportCard, engine_of
from genzqa.engine.open import other_pass_for_frames, pass_of
from genzqa.errors import ModelCorruptError
from genzqa.model.adapter import LoadedScorer
from genzqa.model.config import Calibration
from genzqa.model.genzvqa import FrameReadings, GenzVQA
from genzqa.scoring.calibration import calibrate

CLOSE = 1e-3  # raw units that a graph in fp32 may be off
CLOSE_POINTS = {"bf16": 0.1, "int8": 0.2}  # score points that one in another precision may be
PROBES = 4  # images on which that is measured where no photos are given
TOGETHER = 4  # photos torch reads at once


def passes(loaded: LoadedScorer) -> tuple[bool, ...]:
    """The passes a model has: for photos, and, True, for frames of videos if that is another."""
    return (False, True) if other_pass_for_frames(loaded.config) else (False,)


def parity(folder: Path, card: ExportCard, loaded: LoadedScorer, pixels: Tensor) -> dict[str, float]:
    """The largest differences between the graphs as they lie in the folder and torch in fp32.

    Args:
        folder: Of the export.
        card: Its card.
        loaded: The model it was made from.
        pixels: Images ``(B, 3, size, size)`` in [-1, 1] to measure on.
    """
    found: dict[str, float] = {"images": len(pixels)}
    config, every = loaded.config, passes(loaded)
    for frames in every:
        engine = engine_of(folder / FRAMES if frames else folder, card, config)
        theirs = _in_parts(pass_of(loaded.model, config, frames=frames), pixels)
        ours = FrameReadings.joined([engine.run(part) for part in torch.split(pixels, TOGETHER)])
        one = FrameReadings.joined([engine.run(pixels[:1]), engine.run(pixels[1:TOGETHER])])
        prefix = "frames_" if frames else ""
        found[f"{prefix}raw"] = _largest(ours.raw, theirs.raw)
        found[f"{prefix}blocks"] = _largest(ours.block_scores, theirs.block_scores)
        found[f"{prefix}queries"] = max(map(_largest, ours.queries, theirs.queries))
        found[f"{prefix}raw_one_by_one"] = _largest(one.raw, ours.raw[:TOGETHER])
        if config.calibration is not None:
            found[f"{prefix}score"] = _points(ours.raw, theirs.raw, config.calibration)
        if loaded.video is not None and frames == every[-1]:  # what videos are read by
            found["video"] = _video_difference(loaded.video, theirs, ours)
    return found


@torch.inference_mode()
def _in_parts(plan: Callable[[Tensor], tuple[Tensor, Tensor, list[Tensor]]], pixels: Tensor) -> FrameReadings:
    return FrameReadings.joined([FrameReadings(*plan(part)) for part in torch.split(pixels, TOGETHER)])


def require_close(found: dict[str, float], precision: Precision, name: str) -> None:
    """Refuse a graph that is not what it was made from.

    Raises:
        ModelCorruptError: It is off by more than its precision may be.
    """
    for prefix in ("", "frames_"):
        if f"{prefix}raw" not in found:
            continue
        in_points = precision != "fp32" and f"{prefix}score" in found
        measure, most = ("score", CLOSE_POINTS[precision]) if in_points else ("raw", CLOSE)
        _require(found[f"{prefix}{measure}"], most, measure, name)
    if precision == "fp32":
        _require(found.get("video", 0.0), CLOSE, "of a video", name)


def _require(value: float, most: float, measure: str, name: str) -> None:
    if not value <= most:
        raise ModelCorruptError(f"the exported graph is off by {value:.4g} ({measure}), {most:g} is allowed", subject=name,
                                hint="export it in a higher precision, or to another format")  # fmt: skip


@torch.inference_mode()
def _video_difference(video: GenzVQA, theirs: FrameReadings, ours: FrameReadings) -> float:
    """How far apart the raw scores of one video are, of these frames and of a motion that is always the same."""
    chances, (slow, fast) = torch.Generator().manual_seed(0), video.modulator.feature_sizes
    motion = [torch.randn(PROBES, size, generator=chances) for size in (slow, fast)]
    return _largest(video.modulate(ours, *motion).score, video.modulate(theirs, *motion).score)


def _largest(ours: Tensor, theirs: Tensor) -> float:
    return round(float((ours - theirs).abs().max()), 6)


def _points(ours: Tensor, theirs: Tensor, calibration: Calibration) -> float:
    both = zip(ours.tolist(), theirs.tolist(), strict=True)
    return round(max(abs(calibrate(one, calibration)[0] - calibrate(other, calibration)[0]) for one, other in both), 6)


def probe_images(size: int) -> Tensor:
    """Images ``(PROBES, 3, size, size)`` in [-1, 1] with spectra like those of photos, from smooth to noisy; always the same."""
    rng = np.random.default_rng(0)
    rows, columns = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    radius = np.hypot(rows, columns)
    radius[0, 0] = 1 / size
    images = []
    for number in range(PROBES):
        noise = np.fft.rfft2(rng.standard_normal((3, size, size)))
        image = np.fft.irfft2(noise / radius ** (1.3 - 0.3 * number), (size, size))
        images.append(np.tanh(image / image.std() / 2))
    return torch.from_numpy(np.stack(images).astype(np.float32))
