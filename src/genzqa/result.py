"""What scoring returns, and its JSON form ``genzqa/1`` (``genzqa/schema/genzqa-1.schema.json``)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from genzqa.errors import InputError
from genzqa.notes import Note

SCHEMA = "genzqa/1"
Kind = Literal["image", "video"]
Grade = Literal["bad", "poor", "fair", "good", "excellent"]
GRADES: tuple[Grade, ...] = ("bad", "poor", "fair", "good", "excellent")
"""The five ACR categories of ITU-T P.910, 20 points of the 0..100 scale each."""


def grade_of(score: float) -> Grade:
    """The ACR category of a calibrated score; a boundary belongs to the better category."""
    return GRADES[min(4, max(0, int(score // 20)))]


@dataclass(frozen=True)
class Provenance:
    """What a score depends on besides the photo; two scores compare only if these agree.

    ``preprocessing`` names the resize; ``weights_sha256`` is the digest of the adapter file, ``base_sha256`` of the base. Of
    a student, ``base`` is its teacher, and it has no timesteps. ``precision`` may move a score by 0.2; another ``backend`` rounds
    otherwise, in the last digits.
    """

    model: str
    base: str
    weights_sha256: str
    base_sha256: str
    preprocessing: str
    timesteps: tuple[int, ...]
    seed: int
    backend: str
    precision: str
    version: str


@dataclass(frozen=True)
class ImageResult:
    """The quality of one photo.

    Attributes:
        input: Path as given, or ``<bytes>``, ``<array>`` and the like.
        score: Calibrated quality, 0 (worst) to 100 (best).
        raw: The model's own output, in units of the training MOS.
        interval: 95 % prediction interval of the MOS on the 0..100 scale, (low, high).
        grade: ACR category of ``score``.
        percentile: Share of the reference photos that score lower, 0..100.
        width, height: Of the photo as seen, orientation applied.
        notes: What a user should know about this photo and this score.
        seconds: Time spent on this photo, decoding included; a share of the batch when several ran together.
        quality_map: ``(h, w) float32`` in score points when asked for, else None; see docs/method.md.
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
    notes: tuple[Note, ...]
    seconds: float
    quality_map: npt.NDArray[np.float32] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON record; the map is not part of it."""
        return {
            "schema": SCHEMA,
            "input": self.input,
            "kind": "image",
            "status": "ok",
            "score": round(self.score, 4),
            "raw": round(self.raw, 6),
            "interval": [round(bound, 4) for bound in self.interval],
            "grade": self.grade,
            "percentile": round(self.percentile, 2),
            **provenance_record(self.provenance),
            "width": self.width,
            "height": self.height,
            "notes": [dataclasses.asdict(note) for note in self.notes],
            "seconds": round(self.seconds, 4),
        }


@dataclass(frozen=True)
class FailedResult:
    """An input that could not be scored, and why; stands in the place of its result."""

    input: str
    error: InputError
    provenance: Provenance
    kind: Kind = "image"

    def to_dict(self) -> dict[str, Any]:
        """The JSON record: ``status`` is ``error``, ``error`` holds code, file, reason and hint."""
        return {
            "schema": SCHEMA,
            "input": self.input,
            "kind": self.kind,
            "status": "error",
            "error": self.error.to_dict(),
            **provenance_record(self.provenance),
        }


def provenance_record(provenance: Provenance) -> dict[str, Any]:
    """As it stands in a record."""
    return {**dataclasses.asdict(provenance), "timesteps": list(provenance.timesteps)}
