"""From a plan and databases to a trainer: samples, model, and what frozen networks make of the samples, cached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from genzqa.databases.database import Sample, Samples
from genzqa.engine.torch_engine import single_precision_kept
from genzqa.errors import ConfigError, DataError
from genzqa.model.adapter import LoadedScorer, load_scorer
from genzqa.model.base import load_base
from genzqa.model.config import ScorerConfig, VideoConfig
from genzqa.model.genziqa import GenzIQA
from genzqa.model.genzvqa import GenzVQA
from genzqa.model.lora import add_lora, cross_attention_targets
from genzqa.model.motion_weights import load_motion
from genzqa.model.slowfast import SlowFast
from genzqa.training.cache import ShardedCache
from genzqa.training.films import FilmCache
from genzqa.training.latents import LatentCache
from genzqa.training.memory import FOR_ENCODING, memory_guard
from genzqa.training.plan import TrainingPlan
from genzqa.training.task import Labels, PhotoTask, Task, VideoTask
from genzqa.training.trainer import Trainer

if TYPE_CHECKING:
    from accelerate import Accelerator

LEAST_VALIDATION = 10  # items; fewer can neither choose an epoch nor carry a calibration
NOUN = {"image": "photo", "video": "video"}
SAME_RESULT = {"gradient_accumulation", "gradient_checkpointing", "save_every"}  # whatever they are, up to rounding
Shares = tuple[float, float, float]


@dataclass(frozen=True)
class SplitPart:
    """The samples of one split over all databases of a plan, MOS on 0..100."""

    samples: tuple[Sample, ...]
    mos: np.ndarray

    @property
    def paths(self) -> list[Path]:
        """Of the files."""
        return [sample.path for sample in self.samples]

    @property
    def labels(self) -> Labels:
        """As a task takes them."""
        return Labels(self.mos, [str(path) for path in self.paths])


def gather(plan: TrainingPlan, databases: Sequence[Samples], shares: Shares) -> tuple[SplitPart, SplitPart]:
    """Training and validation items.

    Raises:
        ConfigError: If the databases are not those of the plan, or not of what it trains on.
        DataError: If a part is empty or too small.
    """
    given = {one.database.name: one for one in databases}
    if sorted(given) != sorted(plan.data) or len(given) < len(databases):
        raise ConfigError(
            f"the plan wants {', '.join(plan.data)}; given are {', '.join(given) or 'none'}", subject="--data"
        )
    kind = "image" if plan.scorer.video is None else "video"
    for one in databases:
        if one.database.kind != kind:
            raise ConfigError(f"is no database of {NOUN[kind]}s", subject=one.database.name,
                              hint="a plan with scorer.video trains on videos, one without on photos")  # fmt: skip
    parts = []
    for split in ("train", "validation"):
        samples: list[Sample] = []
        mos: list[float] = []
        for name in plan.data:
            part = given[name].part("train" if split == "train" else "validation", seed=plan.seed, shares=shares)
            samples += part
            mos += given[name].quality(part).tolist()
        parts.append(SplitPart(tuple(samples), np.array(mos)))
    train, validation = parts
    if not train.samples:
        raise DataError(f"there is no {NOUN[kind]} to train on", subject=", ".join(plan.data))
    if len(validation.samples) < LEAST_VALIDATION:
        raise DataError(f"only {len(validation.samples)} {NOUN[kind]}s are left for validation; at least {LEAST_VALIDATION} "
                        "are needed", subject=", ".join(plan.data),
                        hint=f"add {NOUN[kind]}s, or mark more with split=validation")  # fmt: skip
    return train, validation


@dataclass(frozen=True)
class Built:
    """A model to train, on the CPU; for videos with the modulator and the frozen motion network."""

    image: GenzIQA
    base_sha256: str
    video: GenzVQA | None = None
    motion: SlowFast | None = None


def build_model(plan: TrainingPlan, *, offline: bool = False) -> Built:
    """The model of a plan. What starts at random comes of the plan's seed.

    Raises:
        ModelError, ConfigError: See `genzqa.errors`.
    """
    scorer = plan.scorer
    with torch.random.fork_rng():
        torch.manual_seed(plan.seed)
        loaded = None if plan.start is None else load_scorer(plan.start, offline=offline)
        if loaded is None:
            base = load_base(scorer.base, offline=offline)
            image, base_sha256 = GenzIQA(base, scorer), base.sha256
            image.requires_grad_(False)
            _with_lora(image, scorer)
        else:
            image, base_sha256 = _continued(loaded, scorer), loaded.base_sha256
        if scorer.video is None:
            return Built(image, base_sha256)
        motion = _motion(scorer.video, loaded, offline)
        sizes = motion.config
        video = GenzVQA(image, scorer.video, slow_features=sizes.slow_features, fast_features=sizes.fast_features)
        if loaded is not None and loaded.video is not None and loaded.config.video is not None:
            if loaded.config.video.tqm != scorer.video.tqm or loaded.config.video.motion != scorer.video.motion:
                raise ConfigError("field 'scorer.video' is not that of the adapter to go on from", subject=loaded.name,
                                  hint="tqm and motion must be as they are there")  # fmt: skip
            video.modulator.load_state_dict(loaded.video.modulator.state_dict())
        return Built(image, base_sha256, video, motion)


def _motion(video: VideoConfig, loaded: LoadedScorer | None, offline: bool) -> SlowFast:
    if isinstance(video.motion, str):
        return load_motion(video.motion, offline=offline)[0]
    if (
        loaded is None
        or loaded.motion is None
        or loaded.config.video is None
        or loaded.config.video.motion != video.motion
    ):
        raise ConfigError("a motion network of these sizes has no weights to start with", subject="scorer.video.motion",
                          hint="name slowfast-r50, or go on from an adapter that holds one (start: mini)")  # fmt: skip
    return loaded.motion


def _continued(loaded: LoadedScorer, scorer: ScorerConfig) -> GenzIQA:
    for name in ("readout", "readout_width", "context_length"):
        if getattr(scorer, name) != getattr(loaded.config, name):
            raise ConfigError(f"field scorer.{name!r} is not that of {loaded.name}", subject=str(getattr(scorer, name)),
                              hint=f"it is {getattr(loaded.config, name)} there")  # fmt: skip
    model = loaded.model
    model.config = scorer
    model.requires_grad_(False)
    if loaded.config.lora_rank == 0:
        _with_lora(model, scorer)
    elif loaded.config.lora_rank != scorer.lora_rank:
        raise ConfigError("field 'scorer.lora_rank' is not that of the adapter to go on from", subject=str(scorer.lora_rank),
                          hint=f"it is {loaded.config.lora_rank} there")  # fmt: skip
    return model


def _with_lora(model: GenzIQA, scorer: ScorerConfig) -> None:
    if scorer.lora_rank:
        add_lora(model.unet, cross_attention_targets(block.path for block in model.blocks), scorer.lora_rank)


def digest(plan: TrainingPlan, base_sha256: str, *parts: SplitPart) -> str:
    """Of all that decides what the training gives; a checkpoint of another digest is not gone on from.

    Settings that only trade memory for time are left out, so that they can be changed when memory has run out.
    """
    data = [
        [[sample.path.name, float(mos)] for sample, mos in zip(part.samples, part.mos, strict=True)] for part in parts
    ]
    settings = plan.model_dump(mode="json", exclude=SAME_RESULT)
    return hashlib.sha256(json.dumps([settings, base_sha256, data]).encode()).hexdigest()


@contextmanager
def encoding_on(built: Built, device: torch.device) -> Iterator[None]:
    """The networks that encode, on a device for as long as the block lasts. The image model stays there to be trained; the
    motion network, which training has no use for, goes back to the CPU.

    Raises:
        TrainingError: If memory runs out inside.
    """
    with memory_guard("while encoding", FOR_ENCODING), single_precision_kept():
        built.image.to(device)
        if built.motion is None:
            yield
            return
        built.motion.to(device)
        try:
            yield
        finally:
            built.motion.cpu()


def prepare(plan: TrainingPlan, databases: Sequence[Samples], out: Path, cache: Path, accelerator: Accelerator, *,
            shares: Shares = (0.7, 0.1, 0.2), offline: bool = False, encoded: Callable[[int, int], object] = lambda *_: None,
            progress: Callable[[int, int, Mapping[str, float]], object] = lambda *_: None) -> tuple[Trainer, str]:  # fmt: skip
    """A trainer that is ready to run, its items encoded, and the digest of its base.

    Args:
        plan: All settings.
        databases: Those that the plan names.
        out: Where the training's files go.
        cache: Where latents and motion features are kept.
        accelerator: Devices and processes; each process encodes a share of the items, on its device.
        shares: Train, validation, test, for databases without official splits.
        offline: Never open a network connection.
        encoded: Called with the items encoded by this process and those it has to.
        progress: See `Trainer`.

    Raises:
        GenzqaError: See `genzqa.errors`.
    """
    train, validation = gather(plan, databases, shares)
    built = build_model(plan, offline=offline)
    caches = []
    with encoding_on(built, accelerator.device):
        for made in caches_of(built, plan, cache, train.paths, validation.paths):
            mine = made.missing()[accelerator.process_index :: accelerator.num_processes]
            accelerator.wait_for_everyone()
            made.build(mine, _Count(encoded, made.files_in(mine)))
            accelerator.wait_for_everyone()
            caches.append(made)
    out.mkdir(parents=True, exist_ok=True)
    found = digest(plan, built.base_sha256, train, validation)
    task = task_of(built, plan, train.labels, validation.labels, caches)
    return Trainer(task, plan, found, out, accelerator, progress), built.base_sha256


def caches_of(
    built: Built,
    plan: TrainingPlan,
    folder: Path,
    train: Sequence[Path],
    validation: Sequence[Path],
    *,
    photos: type[LatentCache] = LatentCache,
    films: type[FilmCache] = FilmCache,
) -> tuple[ShardedCache, ShardedCache]:
    """Those of the items to train on and of those to validate with; the latter have one form and, if videos, as many frames as
    scoring takes.

    Args:
        built: What encodes.
        plan: Says how many forms and frames.
        folder: Where caches are kept.
        train, validation: The files.
        photos, films: Kinds of caches.

    Raises:
        DataError: If a file is not there.
    """
    video, motion = built.video, built.motion
    if video is None or motion is None:
        seen, unseen = (
            photos(folder, paths, built.image, built.base_sha256, flips=flips)
            for paths, flips in ((train, plan.flips), (validation, False))
        )
        return seen, unseen
    first, second = (
        films(folder, paths, built.image, motion, built.base_sha256, frames=frames, flips=flips)
        for paths, frames, flips in ((train, plan.frames, plan.flips), (validation, video.config.frames, False))
    )
    return first, second


def task_of(
    built: Built, plan: TrainingPlan, train: Labels, validation: Labels, caches: Sequence[ShardedCache]
) -> Task:
    """What is trained, on what `caches_of` gave."""
    seen, unseen = caches
    if isinstance(seen, LatentCache) and isinstance(unseen, LatentCache):
        return PhotoTask(built.image, plan, train, validation, seen, unseen)
    assert isinstance(seen, FilmCache)
    assert isinstance(unseen, FilmCache)
    assert built.video is not None
    assert built.motion is not None
    return VideoTask(built.video, built.motion, plan, train, validation, seen, unseen)


class _Count:
    def __init__(self, tell: Callable[[int, int], object], total: int) -> None:
        self._tell, self._total, self._done = tell, total, 0

    def __call__(self) -> None:
        self._done += 1
        self._tell(self._done, self._total)
