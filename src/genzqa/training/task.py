"""What is trained and on what: GenzIQA on photos, GenzVQA on videos. The loop itself is `Trainer`'s."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from genzqa.model.adapter import trained_parameters, with_prompts
from genzqa.model.config import Calibration, MotionSizes, ScorerConfig
from genzqa.model.diffusion import fixed_noise, scoring_timesteps
from genzqa.model.genziqa import GenzIQA, join_steps
from genzqa.model.genzvqa import GenzVQA
from genzqa.model.slowfast import SlowFast
from genzqa.scoring.calibration import fit_calibration, measured_coverage
from genzqa.training.films import FilmCache
from genzqa.training.latents import LatentCache
from genzqa.training.plan import TrainingPlan

TRAINING_TIMESTEPS = 100  # t is drawn from 0..99
_SCORED_TOGETHER = 8  # validation latents
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Labels:
    """Of the items of one split: MOS on 0..100, and names for messages."""

    mos: Floats
    names: Sequence[str]


class Task(ABC):
    """A model and the items it learns from.

    Attributes:
        model: All of it, to be moved to a device.
        image: The image model in it.
        train, validation: Labels of the items.
        coverage: Share of the validation items inside the 95 % interval, each under a calibration fitted on others; once finished.
    """

    def __init__(self, model: nn.Module, image: GenzIQA, plan: TrainingPlan, train: Labels, validation: Labels) -> None:
        self.model, self.image, self.plan, self.train, self.validation = model, image, plan, train, validation
        self.coverage: float | None = None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @abstractmethod
    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Name in an adapter file -> whatever may be trained."""

    @abstractmethod
    def scores(self, rows: npt.NDArray[np.int64], epoch: int) -> Tensor:
        """Raw scores of training items ``(n,)``, with the timestep, noise and flip that are theirs in this epoch."""

    @abstractmethod
    def validation_scores(self) -> Floats:
        """Raw scores of the validation items, as the finished model will give them."""

    @abstractmethod
    def finished(self) -> tuple[dict[str, Tensor], ScorerConfig]:
        """Tensors and configuration of the adapter, calibrated on the validation part."""

    def _chances(self, epoch: int, row: int, forms: int) -> tuple[int, int, np.random.Generator]:
        """Form and timestep of an item in an epoch, and the generator its noise comes from."""
        rng = np.random.default_rng((self.plan.seed, 2, epoch, row))
        return int(rng.integers(forms)), int(rng.integers(TRAINING_TIMESTEPS)), rng

    def _calibrated(self, raw: Floats, kind: str) -> Calibration:
        self.coverage = measured_coverage(raw, self.validation.mos)
        return fit_calibration(raw, self.validation.mos, source=self._source(kind))

    def _source(self, kind: str) -> str:
        count = len(self.validation.mos)
        return f"{count} {kind} of the validation part of {', '.join(self.plan.data)}, never trained on"


class PhotoTask(Task):
    """GenzIQA on the latents of photos."""

    def __init__(self, model: GenzIQA, plan: TrainingPlan, train: Labels, validation: Labels, latents: LatentCache,
                 unseen: LatentCache) -> None:  # fmt: skip
        super().__init__(model, model, plan, train, validation)
        self.latents, self._unseen = latents, unseen

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Context, LoRA and, if learned, the readout."""
        return trained_parameters(self.image)

    def scores(self, rows: npt.NDArray[np.int64], epoch: int) -> Tensor:
        """See `Task`; the photos of a batch go through the network together."""
        drawn = [self._drawn(int(row), epoch) for row in rows]
        latents, noise, times = (torch.stack(list(column)).to(self.device) for column in zip(*drawn, strict=True))
        embeds = self.image.prompts()
        trace = join_steps([self.image.step(latents, noise, times, embeds)], embeds)
        return self.image.score_trace(trace, latents.shape[2:]).raw

    def _drawn(self, row: int, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        form, time, rng = self._chances(epoch, row, self.latents.forms)
        latent = self.latents.read(row, form)
        noise = torch.from_numpy(rng.standard_normal(latent.shape, dtype=np.float32))
        return latent, noise, torch.tensor(time)

    @torch.no_grad()
    def validation_scores(self) -> Floats:
        """See `Task`."""
        timesteps = scoring_timesteps(self.image.config.timesteps)
        found = []
        for rows in _parts(len(self.validation.mos), _SCORED_TOGETHER):
            latents = torch.stack([self._unseen.read(row) for row in rows]).to(self.device)
            noise = _scoring_noise(self.image, latents, len(timesteps))
            trace = self.image.trace(latents, noise, timesteps)
            found.append(self.image.score_trace(trace, latents.shape[2:]).raw.float().cpu())
        return np.asarray(torch.cat(found).double().numpy())

    def finished(self) -> tuple[dict[str, Tensor], ScorerConfig]:
        """See `Task`."""
        calibration = self._calibrated(self.validation_scores(), "photos")
        model = self.image.cpu()
        weights: dict[str, Tensor] = dict(trained_parameters(model))
        return with_prompts(model, weights), self.plan.scorer.model_copy(update={"calibration": calibration})


class VideoTask(Task):
    """GenzVQA on the latents of frames and the motion features of videos; the motion network is frozen.

    Args:
        video: The model, on the CPU.
        motion: The motion network; written into the adapter where its configuration says that it lies there.
        plan: All settings.
        train, validation: Labels of the videos.
        films: What was made of the training videos.
        unseen: Likewise of the validation videos, with the number of frames of scoring.
    """

    def __init__(self, video: GenzVQA, motion: SlowFast, plan: TrainingPlan, train: Labels, validation: Labels,
                 films: FilmCache, unseen: FilmCache) -> None:  # fmt: skip
        super().__init__(video, video.image, plan, train, validation)
        self.video, self._motion, self.films, self._unseen = video, motion, films, unseen

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Context, LoRA, readout and the temporal quality modulator."""
        modulator = {f"tqm.{name}": value for name, value in self.video.modulator.named_parameters()}
        return {**trained_parameters(self.image), **modulator}

    def scores(self, rows: npt.NDArray[np.int64], epoch: int) -> Tensor:
        """See `Task`; the frames of all videos go through the network together, those of a video with its timestep and its
        noise."""
        drawn = [self._drawn(int(row), epoch) for row in rows]
        counts = [len(latents) for latents, *_ in drawn]
        latents, noise, times = (
            torch.cat(list(column)).to(self.device) for column in list(zip(*drawn, strict=True))[:3]
        )
        embeds = self.image.prompts()
        trace = join_steps([self.image.step(latents, noise, times, embeds)], embeds)
        parts = self.video.readings(trace, latents.shape[2:]).split(counts)
        motion = ((slow.to(self.device), fast.to(self.device)) for *_, slow, fast in drawn)
        return torch.stack([self.video.modulate(part, *seen).score for part, seen in zip(parts, motion, strict=True)])

    def _drawn(self, row: int, epoch: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        form, time, rng = self._chances(epoch, row, self.films.forms)
        latents, slow, fast = self.films.read(row, form)
        noise = torch.from_numpy(rng.standard_normal(latents.shape[1:], dtype=np.float32))
        return latents, noise.expand_as(latents), torch.tensor([time] * len(latents)), slow, fast

    def validation_scores(self) -> Floats:
        """See `Task`."""
        return self._validated()[0]

    @torch.no_grad()
    def _validated(self) -> tuple[Floats, Floats]:
        """Of each validation video the score, and the mean of its frames' own."""
        timesteps = scoring_timesteps(self.video.config.timesteps)
        found = []
        for row in range(len(self.validation.mos)):
            latents, slow, fast = (one.to(self.device) for one in self._unseen.read(row))
            noise = _scoring_noise(self.image, latents, len(timesteps))
            trace = self.video.trace(latents, slow, fast, noise, timesteps)
            found.append((float(trace.score), float(trace.frames.raw.mean())))
        scores, frames = np.array(found).T
        return scores, frames

    def finished(self) -> tuple[dict[str, Tensor], ScorerConfig]:
        """See `Task`. Photos are put on the scale by the frames of the same videos, for want of photos."""
        scores, frames = self._validated()
        calibration = self._calibrated(scores, "videos")
        of_photos = fit_calibration(frames, self.validation.mos, source=self._source("videos, by their frames alone,"))
        scorer = self.plan.scorer
        assert scorer.video is not None
        video = scorer.video.model_copy(update={"calibration": calibration})
        weights: dict[str, Tensor] = dict(self.video.cpu().modulator.state_dict(prefix="tqm."))
        weights |= trained_parameters(self.image)
        if isinstance(video.motion, MotionSizes):
            weights |= self._motion.state_dict(prefix="motion.")
        config = scorer.model_copy(update={"calibration": of_photos, "video": video})
        return with_prompts(self.image, weights), config


def _scoring_noise(model: GenzIQA, latents: Tensor, count: int) -> Tensor:
    shape = (latents.shape[1], latents.shape[2], latents.shape[3])
    return fixed_noise(count, shape, model.config.seed).to(latents.device)


def _parts(count: int, size: int) -> Iterator[range]:
    for first in range(0, count, size):
        yield range(first, min(count, first + size))
