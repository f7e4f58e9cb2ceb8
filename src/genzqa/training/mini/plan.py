"""The plan of the embedded model's recipe: a YAML file, checked field by field (configs/mini.yaml)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from genzqa.model.config import ScorerConfig
from genzqa.training.plan import Positive, Strict, Weight, read_checked

Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]


class EncoderPlan(Strict):
    """How the encoder's directions are found.

    Attributes:
        directions: So many are kept; the latent has two channels of each.
        photos: Of which they are found.
    """

    directions: Annotated[int, Field(ge=2)]
    photos: Positive


class LatentsPlan(Strict):
    """Photos whose latents are made: this many with two degraded copies each (groups) and without (singles).

    Attributes:
        mildest: Largest strength of the first of two copies.
        reach: How much stronger the second may be.
    """

    biq2021_groups: Positive
    biq2021_singles: Positive
    pristine_groups: Count
    mildest: Share
    reach: Share


class Part(Strict):
    """Steps of the denoiser's training: ``clean`` photos each, ``pairs`` of them with two copies.

    Attributes:
        rate: Greatest learning rate of AdamW.
        as_scored: Share of the rows that see the timestep and the noise of scoring.
        order: Weight of the order of degraded copies.
        check_every: Steps between figures on the validation photos, at which the state is kept.
        anew: Begins from nothing, and not with the averaged weights of the part before.
        taught: Learns what the parts before it and the heads say of every row, on the mean, in the place of the photos' MOS.
        precision: Of the products, forward and backward; weights stay in single precision. bf16 halves the time where the
            processor multiplies in it.
    """

    steps: Positive
    clean: Positive
    pairs: Positive
    rate: Rate
    as_scored: Share
    order: Weight
    check_every: Positive
    anew: bool = False
    taught: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"

    @model_validator(mode="after")
    def _some_photos_have_no_copies(self) -> Part:
        if self.pairs >= self.clean:
            raise ValueError("pairs must be fewer than clean")
        return self


class HeadsPart(Strict):
    """Small networks on the mean and the deviation of every channel of a latent; nothing but teachers (`Part.taught`).

    Attributes:
        count: Networks, alike but for the chances.
        steps: Of each: ``clean`` photos, ``pairs`` of them with two copies.
        rate: Greatest learning rate of AdamW.
        order: Weight of the order of degraded copies.
    """

    count: Positive
    steps: Positive
    clean: Positive
    pairs: Positive
    rate: Rate
    order: Weight


class ReadoutPart(Strict):
    """The readout's two layers at the end: ``clean`` photos a step, ``pairs`` of them with two copies; every photo once an epoch.

    Attributes:
        order: Weight of the order of degraded copies.
    """

    epochs: Positive
    clean: Positive
    pairs: Positive
    rate: Rate
    weight_decay: Weight
    order: Weight


class MiniPlan(Strict):
    """Everything that decides what the recipe gives, besides the photos (docs/mini.md).

    Attributes:
        recipe: What tells this plan from that of a training on a base.
        data: ``biq2021``, its folder, and ``pristine``, a folder of PNG photos, which may be missing.
        seed: Of every random choice.
        validation: Photos of the official training split that are set aside.
        heads: Wanted only where a part of the denoiser is taught.
        readout: None: it stays as the denoiser's last part left it.
    """

    recipe: Literal["mini"]
    data: tuple[Literal["biq2021"], Literal["pristine"]]
    seed: Count
    validation: Positive
    encoder: EncoderPlan
    latents: LatentsPlan
    heads: HeadsPart | None = None
    denoiser: Annotated[list[Part], Field(min_length=1)]
    readout: ReadoutPart | None = None
    scorer: ScorerConfig

    @model_validator(mode="after")
    def _teachers(self) -> MiniPlan:
        if self.denoiser[0].taught and self.heads is None:
            raise ValueError("the first part of the denoiser has nobody to be taught by without heads")
        if self.heads is not None and not any(part.taught for part in self.denoiser):
            raise ValueError("heads teach, and no part of the denoiser is taught")
        return self

    def settings(self) -> dict[str, Any]:
        """What was given, as plain values, as the stages read it."""
        return self.model_dump(mode="json", exclude_none=True)


def read_mini_plan(path: Path) -> MiniPlan:
    """Read and check the plan.

    Raises:
        ConfigError: If the file is missing, no YAML, or a field is wrong; names the field.
    """
    return read_checked(path, MiniPlan)
