"""What scoring a video returns, and its JSON form (``genzqa/schema/genzqa-1.schema.json``)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from genzqa.notes import Note
from genzqa.result import SCHEMA, Grade, Provenance, provenance_record

IN_ADAPTER = "in the adapter"
"""In the place of a motion network's name."""


@dataclass(frozen=True)
class FrameScore:
    """One scored frame: its timestamp (seconds from the start), calibrated score 0..100, and raw score in MOS units."""

    time: float
    score: float
    raw: float

    def to_dict(self) -> dict[str, float]:
        """As it stands in a record."""
        return {"time": round(self.time, 4), "score": round(self.score, 4), "raw": round(self.raw, 6)}


@dataclass(frozen=True)
class FrameCounts:
    """Frames of the file: as its container declares (None if it does not), decoded while scoring, and corrupt."""

    declared: int | None
    decoded: int
    corrupt: int


@dataclass(frozen=True, eq=False)
class WorstFrame:
    """One of the worst frames, kept for the report.

    Attributes:
        frame: Its time and score.
        pixels: ``(h, w, 3) uint8``, reduced.
        quality_map: ``(h', w') float32`` in score points, whose mean is the frame's score; None of a model that draws none.
    """

    frame: FrameScore
    pixels: npt.NDArray[np.uint8]
    quality_map: npt.NDArray[np.float32] | None


@dataclass(frozen=True)
class VideoResult:
    """The quality of one video.

    Attributes:
        input: Path as given, or ``<bytes>``.
        score: Calibrated quality, 0 (worst) to 100 (best).
        raw: The model's own output, in units of the training MOS.
        interval: 95 % prediction interval of the MOS on the 0..100 scale, (low, high); see the notes for what it covers.
        grade: ACR category of ``score``.
        percentile: Share of the reference photos that score lower, 0..100.
        width, height: As shown: rotation and sample aspect ratio applied.
        duration: Seconds of the part that was asked for.
        frame_rate: Average frames per second of the file, None when unknown.
        frames: The frames that the score is made of, uniformly spread.
        worst: The worst frame of those and of the timeline.
        timeline: One scored frame per second, when asked for; it never changes the score.
        gamma: Weight of every cross-attention layer; all 1 without a temporal part.
        counts: Frames declared, decoded and corrupt.
        stream: Facts of the file: container, codec, pixel format and the like.
        notes: What a user should know about this video and this score.
        seconds: Time spent on it, decoding included.
        worst_frames: The worst frames with their maps, when asked for.
        motion: Name of the motion network; `IN_ADAPTER` where it is part of the adapter; None without a temporal part.
        motion_sha256: Digest of its weights file; None where they are in the adapter, whose digest is in ``provenance``.
    """

    input: str
    score: float
    raw: float
    interval: tuple[float, float]
    grade: Grade
    percentile: float
    provenance: Provenance
    width: int
    height: int
    duration: float
    frame_rate: float | None
    frames: tuple[FrameScore, ...]
    worst: FrameScore
    timeline: tuple[FrameScore, ...] | None
    gamma: tuple[float, ...]
    counts: FrameCounts
    stream: dict[str, Any]
    notes: tuple[Note, ...]
    seconds: float
    worst_frames: tuple[WorstFrame, ...] = ()
    motion: str | None = None
    motion_sha256: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON record; pictures are not part of it."""
        record = {
            "schema": SCHEMA,
            "input": self.input,
            "kind": "video",
            "status": "ok",
            "score": round(self.score, 4),
            "raw": round(self.raw, 6),
            "interval": [round(bound, 4) for bound in self.interval],
            "grade": self.grade,
            "percentile": round(self.percentile, 2),
            **provenance_record(self.provenance),
            "motion": self.motion,
            "motion_sha256": self.motion_sha256,
            "width": self.width,
            "height": self.height,
            "duration": round(self.duration, 4),
            "frame_rate": None if self.frame_rate is None else round(self.frame_rate, 4),
            "frames": [frame.to_dict() for frame in self.frames],
            "worst": self.worst.to_dict(),
            "gamma": [round(value, 6) for value in self.gamma],
            "counts": dataclasses.asdict(self.counts),
            "stream": self.stream,
            "notes": [dataclasses.asdict(note) for note in self.notes],
            "seconds": round(self.seconds, 4),
        }
        if self.timeline is not None:
            record["timeline"] = [frame.to_dict() for frame in self.timeline]
        return record
