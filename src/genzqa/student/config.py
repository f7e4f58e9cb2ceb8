"""The written form of a student: ``config.json`` beside ``student.safetensors``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from genzqa.model.config import Calibration, Finite, Positive, Preprocessing

WEIGHTS, CONFIG, ONNX, PARITY = "student.safetensors", "config.json", "student.onnx", "parity.json"
ENCODER_BLOCKS = 16  # of a `FeatureEncoder`
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkSizes(_Strict):
    """Of `genzqa.student.network.StudentNetwork`.

    Attributes:
        encoder_blocks: Blocks of the teacher's `FeatureEncoder` that stand in front, as they are; 0: none.
        stem: Channels at half the input's resolution, where no such blocks stand in front.
        widths, depths: Channels and residual blocks of each stage; the first works at a quarter of the input's resolution,
            or at a sixteenth behind blocks of an encoder, each other at half of the one before.
        hidden: Units of the readout.
    """

    encoder_blocks: Annotated[int, Field(ge=0, le=ENCODER_BLOCKS)] = 0
    stem: Positive = 16
    widths: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=6)] = (24, 48, 96, 160)
    depths: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=6)] = (1, 1, 2, 2)
    hidden: Positive = 192

    @model_validator(mode="after")
    def _of_one_length(self) -> NetworkSizes:
        if len(self.widths) != len(self.depths):
            raise ValueError("widths and depths are not of one length")
        return self


BEHIND_ENCODER = NetworkSizes(encoder_blocks=11, widths=(96, 160), depths=(2, 1))
"""For a student of a teacher with a `FeatureEncoder`: of its parameters the first eleven blocks are a quarter, and of what is
to be seen in a photo they see nearly all."""


class Teacher(_Strict):
    """Whom the student imitates: the model's name and the digests that its results carry."""

    name: str
    weights_sha256: Digest
    base_sha256: Digest


class Interval(_Strict):
    """A figure and the ends of its 95 % bootstrap interval."""

    value: Finite
    low: Finite
    high: Finite


class TeacherAgreement(_Strict):
    """With the teacher, on photos that the student was not trained on; RMSE in score points, nothing fitted.

    Attributes:
        photos: How many.
        readings: Photos and their degraded copies together.
    """

    photos: Positive
    readings: Positive
    srcc: Interval
    plcc: Interval
    rmse: Interval


class StudentConfig(_Strict):
    """Everything a student's score depends on besides weights.

    Attributes:
        teacher: Whose numbers it gives.
        blocks: Names of the teacher's blocks, in the order of its quantities.
        calibration: The teacher's map; its interval widened by how far off the student was (docs/student.md).
        agreement: Measured at the end of the training, on held-out photos and their copies.
        weights_sha256: Digest of ``student.safetensors``; a file of another training is not scored with.
    """

    kind: Literal["student"] = "student"
    version: Literal[1] = 1
    name: str
    teacher: Teacher
    preprocessing: Preprocessing
    network: NetworkSizes = NetworkSizes()
    blocks: Annotated[list[str], Field(min_length=1)]
    mos_range: tuple[float, float] = (0.0, 100.0)
    calibration: Calibration | None = None
    agreement: TeacherAgreement | None = None
    weights_sha256: Digest
    training_data: list[str] = []
    licences: list[str] = []

    @property
    def base(self) -> str:
        """In results, the teacher stands where other models name their base."""
        return self.teacher.name

    @property
    def seed(self) -> int:
        """No noise is drawn when a student scores."""
        return 0

    @property
    def video(self) -> None:
        """A student has no temporal part: a video's score is the mean of its frames."""
        return None


def is_student(folder: Path) -> bool:
    """Whether a folder is meant to be a student, be it whole or damaged."""
    if (folder / WEIGHTS).exists():
        return True
    try:
        content = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("kind") == "student"
