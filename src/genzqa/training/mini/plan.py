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


class BankPlan(Strict):
    """Views cut once: this many with two degraded copies each (groups) and without (singles), of the photos with MOS and of the
    pristine ones.

    Attributes:
        size: Pixels of a side; whole photos, as scoring sees them, without.
        native: Share of views at scoring's own scale.
    """

    biq2021_groups: Count
    biq2021_singles: Count
    pristine_groups: Count = 0
    pristine_singles: Count = 0
    size: Positive | None = None
    native: Share | None = None


class Part(Strict):
    """Steps of a stage: ``clean`` photos each, ``pairs`` of them with two copies.

    Attributes:
        rate: Greatest learning rate of AdamW.
        check_every: Steps between figures on the validation photos, at which the state is kept.
    """

    steps: Positive
    clean: Positive
    pairs: Count
    rate: Rate
    check_every: Positive


class ViewsPart(Part):
    """Of stage 2, on the frozen latents of a bank."""

    bank: Literal["crops", "whole"]


class PixelsPart(Part):
    """Of stage 4, from a bank's pixels, or fresh ones.

    Attributes:
        as_scored: Share of the rows that see the timestep and the noise of scoring.
        order: Weight of the order of degraded copies.
        pristine: Share of the pairs that are of pristine photos; of fresh ones.
        mildest: Largest strength of the first of two copies.
        reach: How much stronger the second may be; of fresh ones.
        kinds: Of degradations, each drawn as often as it is named; without, by their weights.
    """

    bank: Literal["quarters", "photos", "fresh"]
    as_scored: Share
    order: Weight
    pristine: Share | None = None
    mildest: Share | None = None
    reach: Share | None = None
    kinds: list[str] | None = None

    @model_validator(mode="after")
    def _fresh_ones_are_told_how(self) -> PixelsPart:
        given = [self.pristine is not None, self.mildest is not None, self.reach is not None]
        if self.bank == "fresh" and not all(given):
            raise ValueError("fresh views need pristine, mildest and reach")
        if self.bank != "fresh" and (given[0] or given[2]):
            raise ValueError("pristine and reach are of fresh views alone")
        return self


class ReadoutPart(Strict):
    """Stage 3: the readout's two layers."""

    clean: Positive
    pairs: Count
    epochs: Positive
    rate: Rate
    weight_decay: Weight


class MiniPlan(Strict):
    """Everything that decides what the recipe gives, besides the photos (docs/mini.md).

    Attributes:
        recipe: What tells this plan from that of a training on a base.
        data: ``biq2021``, its folder, and ``pristine``, a folder of PNG photos, which may be missing.
        seed: Of every random choice.
        validation: Photos of the official training split that are set aside.
        start: A finished model to go on from at stage 4.
    """

    recipe: Literal["mini"]
    data: tuple[Literal["biq2021"], Literal["pristine"]]
    seed: Count
    validation: Positive
    start: str | None = None
    crops: BankPlan
    whole: BankPlan
    quarters: BankPlan
    photos: BankPlan
    teacher: Part
    stage1: Part
    stage2: Annotated[list[ViewsPart], Field(min_length=1)]
    stage3: ReadoutPart
    stage4: Annotated[list[PixelsPart], Field(min_length=1)]
    scorer: ScorerConfig

    def settings(self) -> dict[str, Any]:
        """What was given, as plain values, as the stages read it."""
        return self.model_dump(mode="json", exclude_none=True)


def read_mini_plan(path: Path) -> MiniPlan:
    """Read and check the plan.

    Raises:
        ConfigError: If the file is missing, no YAML, or a field is wrong; names the field.
    """
    return read_checked(path, MiniPlan)
