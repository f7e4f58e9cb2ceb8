"""The plan of a training: a YAML file, checked field by field (docs/training.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genzqa.errors import ConfigError
from genzqa.model.config import ScorerConfig

Positive = Annotated[int, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Plan = TypeVar("Plan", bound=BaseModel)


class Strict(BaseModel):
    """Unknown fields are refused; nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Losses(Strict):
    """Weights of the terms; scores and MOS on 0..100.

    Attributes:
        mse: Squared error (the paper's only term).
        plcc: One less Pearson's correlation over the whole batch.
        rank: Pairs of the batch in the wrong order, or right by less than a tenth of their difference in MOS.
    """

    mse: Weight = 1.0
    plcc: Weight = 0.0
    rank: Weight = 0.0


class TrainingPlan(Strict):
    """Everything that decides what a training gives, besides the data. Defaults are the paper's (Section 4).

    With ``scorer.video`` it is GenzVQA that is trained, on videos; without, GenzIQA on photos.

    Attributes:
        scorer: Configuration of the scorer to train; ``calibration`` and ``training_data`` are filled in at the end.
        data: Names of the databases; where they are is said when training starts.
        start: Adapter to go on from, such as ``mini``; None to start from the base alone.
        train: Which parts are trained: ``lora`` and the prompts' ``context``, a learned ``readout`` and, for videos, the
            modulator ``tqm``, if there is one.
        epochs: Passes over the items; the best on the validation part is kept.
        frames: Of a video in training; scoring has its own number (``scorer.video.frames``). Says nothing of photos.
        batch_size: Photos or videos of a step, over all processes.
        gradient_accumulation: Parts that each process cuts its share of a batch into; changes memory, the result only by rounding.
        gradient_checkpointing: Compute activations twice instead of keeping them; changes memory, the result only by rounding.
        learning_rate, weight_decay, betas: Of AdamW; the rate is constant.
        clip_norm: Largest norm of the gradient.
        flips: Whether photos, or whole videos, are mirrored and turned upside down at random.
        losses: What is minimised.
        precision: ``bf16`` for autocast on accelerators.
        save_every: Steps between checkpoints, besides one after every epoch.
        seed: Of every random choice.
    """

    scorer: ScorerConfig
    data: Annotated[list[str], Field(min_length=1)]
    start: str | None = None
    train: list[Literal["context", "lora", "readout", "tqm"]] = ["context", "lora", "readout", "tqm"]
    epochs: Positive = 10
    frames: Positive = 12
    batch_size: Positive = 16
    gradient_accumulation: Positive = 1
    gradient_checkpointing: bool = False
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Weight = 1e-2
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    flips: bool = True
    losses: Losses = Losses()
    precision: Literal["fp32", "bf16"] = "fp32"
    save_every: Positive = 200
    seed: Annotated[int, Field(ge=0)] = 0


def read_plan(path: Path) -> TrainingPlan:
    """Read and check a plan.

    Raises:
        ConfigError: If the file is missing, no YAML, or a field is wrong; names the field.
    """
    return read_checked(path, TrainingPlan)


def names_recipe(path: Path) -> bool:
    """Whether this plan is of a recipe and not of a training on a base.

    Raises:
        ConfigError: If the file is missing or no YAML.
    """
    values = _yaml(path)
    return isinstance(values, dict) and "recipe" in values


def read_checked(path: Path, kind: type[Plan]) -> Plan:
    """Read a YAML file as ``kind`` wants it.

    Raises:
        ConfigError: If the file is missing, no YAML, or a field is wrong; names the field.
    """
    values = _yaml(path)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"field {field!r}: {first['msg']}", subject=str(path)) from None


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", subject=str(path)) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"is no YAML: {' '.join(str(error).split())}", subject=str(path)) from None
