"""What decides a distillation besides the teacher and the photos."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from genzqa.errors import ConfigError
from genzqa.model.config import Positive
from genzqa.model.feature_encoder import FeatureEncoder
from genzqa.model.genziqa import GenzIQA
from genzqa.student.config import BEHIND_ENCODER, NetworkSizes

Weight = Annotated[float, Field(ge=0)]


class DistillPlan(BaseModel):
    """Settings of a distillation.

    Attributes:
        epochs: Passes over the photos; in each, a photo is seen with one of its copies.
        size: Side of the student's square, pixels.
        copies: Degraded copies of every photo.
        seed: Of every random choice.
        precision: ``bf16`` for autocast, of the teacher and in training.
        network: Sizes of the student; none: what suits its teacher (`sizes_for`).
        held_out: Share of the photos, with all their copies, that only measure.
        cropped: Share of the steps, the first ones, that see crops of half the side instead of whole squares: a quarter
            of the work for the same faults.
        batch_size: Photos of a step.
        learning_rate: The highest; it rises over the first steps and falls along a cosine.
        weight_decay: Of AdamW.
        block_weight, order_weight: Of the blocks' quantities and of the order of photo and copy, against the raw score's 1.
        average: Decay of the moving average of the weights, which is what is kept.
        save_every: Steps between checkpoints.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Positive = 30
    size: Annotated[int, Field(ge=64, le=1024, multiple_of=32)] = 320
    copies: Annotated[int, Field(ge=0, le=16)] = 1
    seed: Annotated[int, Field(ge=0)] = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    network: NetworkSizes | None = None
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    cropped: Annotated[float, Field(ge=0, le=1)] = 0.75
    batch_size: Positive = 16
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    weight_decay: Weight = 0.02
    block_weight: Weight = 0.5
    order_weight: Weight = 1.0
    average: Annotated[float, Field(ge=0, lt=1)] = 0.998
    save_every: Positive = 100

    def sizes_for(self, teacher: GenzIQA) -> NetworkSizes:
        """Of the student: as planned, or else behind the first blocks of the teacher's encoder if that is a `FeatureEncoder`.

        Raises:
            ConfigError: If blocks of an encoder are asked for that the teacher does not have.
        """
        has = isinstance(teacher.vae, FeatureEncoder)
        if self.network is None:
            return BEHIND_ENCODER if has else NetworkSizes()
        if self.network.encoder_blocks and not has:
            raise ConfigError("has no encoder whose blocks a student could begin with", subject="the teacher",
                              hint="leave out encoder_blocks")  # fmt: skip
        return self.network
