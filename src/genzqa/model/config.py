"""The written form of a scorer: ``config.json`` beside ``adapter.safetensors``."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from genzqa.errors import ConfigError, ModelNotFoundError

CONFIG_VERSION = 1
Positive = Annotated[int, Field(gt=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Knots = Annotated[list[Finite], Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Preprocessing(_Strict):
    """How a photo becomes the network's input; part of a scorer's identity.

    Attributes:
        size: Side of the square it is resized to, pixels.
        chroma_blur: Sigma of a blur of what is not luma, in pixels of that square; 0, as published, for none.
    """

    size: Annotated[int, Field(ge=64, multiple_of=8)] = 512
    resize: Literal["bicubic-antialias"] = "bicubic-antialias"
    chroma_blur: Annotated[float, Field(ge=0, le=8)] = 0.0

    @property
    def name(self) -> str:
        """As written in results, such as ``bicubic-antialias-512x512``."""
        chroma = f"-chroma{self.chroma_blur:g}" if self.chroma_blur else ""
        return f"{self.resize}-{self.size}x{self.size}{chroma}"


class Calibration(_Strict):
    """From the raw score to 0..100, an interval and a percentile, fitted on held-out photos (see docs/score.md).

    Attributes:
        raw_knots, score_knots: A non-decreasing piecewise-linear map, raw -> 0..100.
        interval_knots, interval_low, interval_high: Score -> offsets (points) to the 2.5 % and 97.5 % bounds.
        reference_quantiles: Calibrated scores of the reference photos at 0, 1, .. 100 %.
        source: Photos it was fitted on, and how many.
    """

    raw_knots: Knots
    score_knots: Knots
    interval_knots: Knots
    interval_low: Knots
    interval_high: Knots
    reference_quantiles: Knots
    source: str

    @model_validator(mode="after")
    def _is_a_scale(self) -> Calibration:
        """A map that goes down, off the scale or past its ends would give numbers that look like scores."""
        if len(self.raw_knots) != len(self.score_knots):
            raise ValueError("raw_knots and score_knots are not of one length")
        if not len(self.interval_knots) == len(self.interval_low) == len(self.interval_high):
            raise ValueError("interval_knots, interval_low and interval_high are not of one length")
        for name in ("raw_knots", "score_knots", "interval_knots", "reference_quantiles"):
            values = getattr(self, name)
            if any(after < before for before, after in pairwise(values)):
                raise ValueError(f"{name} must not fall")
        if self.score_knots[0] < 0 or self.score_knots[-1] > 100:
            raise ValueError("score_knots leave 0..100")
        if any(low > 0 or high < 0 for low, high in zip(self.interval_low, self.interval_high, strict=True)):
            raise ValueError("an interval must hold its score")
        return self


class MotionSizes(_Strict):
    """Sizes of a motion network whose weights lie in the adapter itself; see `genzqa.SlowFastConfig`."""

    width: Positive
    ratio: Positive
    depths: tuple[Positive, Positive, Positive, Positive]
    frames: Positive
    slow_frames: Positive


class VideoConfig(_Strict):
    """What a video's score depends on besides what its frames do. Field names follow METHOD (paper Section 3.2).

    Attributes:
        frames: T_s, frames sampled uniformly and scored.
        timesteps: S, as for images; the paper uses 4 for videos.
        tqm: ``published``, or ``ordered``: an order-aware form of ours.
        tqm_scale: Of the modulator's dot products.
        tqm_queries: Over which timesteps the queries are taken: ``mean`` of all, or the ``last`` alone.
        motion: Name of the motion network (``slowfast-r50``), or the sizes of one in the adapter.
        motion_size: Short side of its frames, pixels.
        motion_rate: Frames per second it sees, whatever the video's own; None for every frame of the video, once.
    """

    frames: Positive = 8
    timesteps: Literal[1, 2, 4, 8] = 4
    tqm: Literal["published", "ordered"] = "published"
    tqm_scale: Annotated[float, Field(gt=0)] = 0.125
    tqm_queries: Literal["mean", "last"] = "mean"
    motion: str | MotionSizes = "slowfast-r50"
    motion_size: Positive = 224
    motion_rate: Annotated[float, Field(gt=0)] | None = None
    calibration: Calibration | None = None


class ScorerConfig(_Strict):
    """Everything a score depends on besides weights. Field names follow METHOD (paper Section 3.1).

    Attributes:
        base: Name of the base (``hf-hub:``, ``local-dir:``, ``file:`` or a registry name). A ``local-dir:`` path that
            is not absolute is meant relative to the adapter folder.
        base_sha256: Digest of the base's weights and configs; checked when the adapter is loaded.
        timesteps: S, number of fixed timesteps: 1, 2, 4 or 8.
        lse_temperature: lambda of the log-sum-exp.
        use_bias: Whether b(t) is added.
        resolution_invariant: Whether log N_p is corrected to its value at 512x512.
        prompt_padding_mask: Whether the text encoder sees the tokenizer's padding mask.
        readout: ``published`` (mean over layers) or ``learned`` (a small network; for small bases).
        lora_rank: Rank of the LoRA in the adapter; 0 if the base itself was trained.
        mos_range: Range of the training MOS, the unit of ``raw``.
        video: Of the temporal part; None in an adapter for images alone.
    """

    version: Literal[1] = 1
    name: str = "unnamed"
    base: str
    base_sha256: str = ""
    preprocessing: Preprocessing = Preprocessing()
    timesteps: Literal[1, 2, 4, 8] = 8
    seed: Annotated[int, Field(ge=0)] = 0
    lse_temperature: Annotated[float, Field(gt=0)] = 0.14
    use_bias: bool = True
    resolution_invariant: bool = True
    prompt_padding_mask: bool = True
    context_length: Positive = 16
    lora_rank: Annotated[int, Field(ge=0)] = 4
    readout: Literal["published", "learned"] = "published"
    readout_width: Positive = 128
    mos_range: tuple[float, float] = (0.0, 100.0)
    calibration: Calibration | None = None
    video: VideoConfig | None = None
    training_data: list[str] = []
    licences: list[str] = []


def read_config(path: Path) -> ScorerConfig:
    """Read and check a scorer's ``config.json``; raises as `read_config_as` does."""
    return read_config_as(path, ScorerConfig, "an adapter folder holds config.json and adapter.safetensors")


Written = TypeVar("Written", bound=BaseModel)


def read_config_as(path: Path, kind: type[Written], missing: str) -> Written:
    """Read and check a ``config.json``.

    Args:
        path: The file.
        kind: What it should be.
        missing: What to say to a user who has no such file.

    Raises:
        ModelNotFoundError: If there is none.
        ConfigError: If it is not JSON, of another version, or a field is wrong; names the field.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ModelNotFoundError("no config.json here", subject=str(path.parent), hint=missing) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", subject=str(path)) from None
    try:
        values = json.loads(text)
        if isinstance(values, dict) and values.get("version", CONFIG_VERSION) != CONFIG_VERSION:
            raise ConfigError(f"version {values['version']!r} is not known to this release", subject=str(path),
                              hint="upgrade genzqa")  # fmt: skip
        return kind.model_validate(values)
    except json.JSONDecodeError as error:
        raise ConfigError(f"not valid JSON: {error}", subject=str(path)) from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"field {field!r}: {first['msg']}", subject=str(path)) from None
