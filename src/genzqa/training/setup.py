"""From a plan and databases to a trainer: samples, model, cached latents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from genzqa.databases.database import Sample, Samples
from genzqa.errors import ConfigError, DataError
from genzqa.model.adapter import load_scorer
from genzqa.model.base import load_base
from genzqa.model.config import ScorerConfig
from genzqa.model.genziqa import GenzIQA
from genzqa.model.lora import add_lora, cross_attention_targets
from genzqa.training.latents import LatentCache
from genzqa.training.plan import TrainingPlan
from genzqa.training.trainer import Part, Trainer

if TYPE_CHECKING:
    from accelerate import Accelerator

LEAST_VALIDATION = 10  # photos; fewer can neither choose an epoch nor carry a calibration
Shares = tuple[float, float, float]


@dataclass(frozen=True)
class Photos:
    """The samples of one split over all databases of a plan, MOS on 0..100."""

    samples: tuple[Sample, ...]
    mos: np.ndarray


def gather(plan: TrainingPlan, databases: Sequence[Samples], shares: Shares) -> tuple[Photos, Photos]:
    """Training and validation photos.

    Raises:
        ConfigError: If the databases are not those of the plan, or not of photos.
        DataError: If a part is empty or too small.
    """
    given = {one.database.name: one for one in databases}
    if sorted(given) != sorted(plan.data) or len(given) < len(databases):
        raise ConfigError(
            f"the plan wants {', '.join(plan.data)}; given are {', '.join(given) or 'none'}", subject="--data"
        )
    for one in databases:
        if one.database.kind != "image":
            raise ConfigError("is a database of videos; this trains on photos", subject=one.database.name)
    parts = []
    for split in ("train", "validation"):
        samples: list[Sample] = []
        mos: list[float] = []
        for name in plan.data:
            part = given[name].part("train" if split == "train" else "validation", seed=plan.seed, shares=shares)
            samples += part
            mos += given[name].quality(part).tolist()
        parts.append(Photos(tuple(samples), np.array(mos)))
    train, validation = parts
    if not train.samples:
        raise DataError("there is no photo to train on", subject=", ".join(plan.data))
    if len(validation.samples) < LEAST_VALIDATION:
        raise DataError(f"only {len(validation.samples)} photos are left for validation; at least {LEAST_VALIDATION} are needed",
                        subject=", ".join(plan.data), hint="add photos, or mark more with split=validation")  # fmt: skip
    return train, validation


def build_model(plan: TrainingPlan, *, offline: bool = False) -> tuple[GenzIQA, str]:
    """The model to train, on the CPU, and the digest of its base. What starts at random comes of the plan's seed.

    Raises:
        ModelError, ConfigError: See `genzqa.errors`.
    """
    scorer = plan.scorer
    with torch.random.fork_rng():
        torch.manual_seed(plan.seed)
        if plan.start is not None:
            return _continued(plan.start, scorer, offline)
        base = load_base(scorer.base, offline=offline)
        model = GenzIQA(base, scorer)
        model.requires_grad_(False)
        _with_lora(model, scorer)
        return model, base.sha256


def _continued(start: str, scorer: ScorerConfig, offline: bool) -> tuple[GenzIQA, str]:
    loaded = load_scorer(start, offline=offline)
    for name in ("readout", "readout_width", "context_length"):
        if getattr(scorer, name) != getattr(loaded.config, name):
            raise ConfigError(f"field scorer.{name!r} is not that of {start}", subject=str(getattr(scorer, name)),
                              hint=f"it is {getattr(loaded.config, name)} there")  # fmt: skip
    model = loaded.model
    model.config = scorer
    model.requires_grad_(False)
    if loaded.config.lora_rank == 0:
        _with_lora(model, scorer)
    elif loaded.config.lora_rank != scorer.lora_rank:
        raise ConfigError("field 'scorer.lora_rank' is not that of the adapter to go on from", subject=str(scorer.lora_rank),
                          hint=f"it is {loaded.config.lora_rank} there")  # fmt: skip
    return model, loaded.base_sha256


def _with_lora(model: GenzIQA, scorer: ScorerConfig) -> None:
    if scorer.lora_rank:
        add_lora(model.unet, cross_attention_targets(block.path for block in model.blocks), scorer.lora_rank)


def digest(plan: TrainingPlan, base_sha256: str, *parts: Photos) -> str:
    """Of all that decides what the training gives; a checkpoint of another digest is not gone on from."""
    data = [
        [[sample.path.name, float(mos)] for sample, mos in zip(part.samples, part.mos, strict=True)] for part in parts
    ]
    return hashlib.sha256(json.dumps([plan.model_dump(mode="json"), base_sha256, data]).encode()).hexdigest()


def prepare(plan: TrainingPlan, databases: Sequence[Samples], out: Path, cache: Path, accelerator: Accelerator, *,
            shares: Shares = (0.7, 0.1, 0.2), offline: bool = False, encoded: Callable[[int, int], object] = lambda *_: None,
            progress: Callable[[int, int, Mapping[str, float]], object] = lambda *_: None) -> tuple[Trainer, str]:  # fmt: skip
    """A trainer that is ready to run, its latents encoded, and the digest of its base.

    Args:
        plan: All settings.
        databases: Those that the plan names.
        out: Where the training's files go.
        cache: Where latents are kept.
        accelerator: Devices and processes; each process encodes a share of the latents.
        shares: Train, validation, test, for databases without official splits.
        offline: Never open a network connection.
        encoded: Called with the photos encoded by this process and those it has to.
        progress: See `Trainer`.

    Raises:
        GenzqaError: See `genzqa.errors`.
    """
    train, validation = gather(plan, databases, shares)
    model, base_sha256 = build_model(plan, offline=offline)
    parts = []
    for part, flips in ((train, plan.flips), (validation, False)):
        latents = LatentCache(cache, [sample.path for sample in part.samples], model, base_sha256, flips=flips)
        mine = latents.missing()[accelerator.process_index :: accelerator.num_processes]
        accelerator.wait_for_everyone()
        latents.build(mine, _Count(encoded, latents.photos_in(mine)))
        accelerator.wait_for_everyone()
        parts.append(Part(latents, part.mos, [str(sample.path) for sample in part.samples]))
    out.mkdir(parents=True, exist_ok=True)
    found = digest(plan, base_sha256, train, validation)
    return Trainer(model, plan, found, parts[0], parts[1], out, accelerator, progress), base_sha256


class _Count:
    def __init__(self, tell: Callable[[int, int], object], total: int) -> None:
        self._tell, self._total, self._done = tell, total, 0

    def __call__(self) -> None:
        self._done += 1
        self._tell(self._done, self._total)
