"""Stage 1: a latent that keeps what quality is made of.

The VAE is trained on photos and their degradations, its latent read by a small convolutional network: to tell MOS,
imitate the teacher, order degraded copies, name kind and strength of a degradation, and regress twelve plain statistics
of the pixels. The decoder reconstructs a part of every batch, so that the latent stays a latent.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional as F

from genzqa.model.colour import soften_chroma
from genzqa.training.mini.photos import KINDS, Batch

STATISTICS = 12


def _deviation(plane: torch.Tensor) -> torch.Tensor:
    """Standard deviation per photo ``(N,)``; from moments, many times faster than ``Tensor.std`` on a CPU."""
    values = plane.flatten(1)
    return ((values**2).mean(1) - values.mean(1) ** 2).clamp_min(1e-8).sqrt()


def pixel_statistics(pixels: torch.Tensor) -> torch.Tensor:
    """Twelve statistics ``(N, 12)`` that classical no-reference measures are built on: light, colour, detail, grain."""
    red, green, blue = pixels.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    opponent = red - green, 0.5 * (red + green) - blue
    rows = [luma.mean((1, 2)), _deviation(luma), (pixels.amax(1) - pixels.amin(1)).mean((1, 2))]
    rows += [_deviation(channel) for channel in opponent]
    plane = luma.unsqueeze(1)
    for _ in range(2):
        across, along = plane.diff(dim=3), plane.diff(dim=2)
        curve = across.diff(dim=3)
        rows.append((across.abs().mean((1, 2, 3)) + along.abs().mean((1, 2, 3)) + 1e-3).log())
        rows.append((curve.abs().mean((1, 2, 3)) + 1e-3).log())
        plane = F.avg_pool2d(plane, 2)
    local = F.avg_pool2d(luma.unsqueeze(1), 8)
    deviation = (F.avg_pool2d(luma.unsqueeze(1) ** 2, 8) - local**2).clamp_min(0).sqrt().flatten(1)
    rows += [
        (deviation.mean(1) + 1e-3).log(),
        (deviation.quantile(0.1, 1) + 1e-3).log(),
        (deviation.quantile(0.9, 1) + 1e-3).log(),
    ]
    return torch.stack(rows, 1)


def _moments(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean = features.mean((2, 3))
    return mean, ((features**2).mean((2, 3)) - mean**2).clamp_min(1e-6).sqrt()


class RunningMoments(nn.Module):
    """Mean and deviation over the last few hundred batches, to put targets and latents on a common scale."""

    mean: torch.Tensor
    var: torch.Tensor
    steps: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("var", torch.ones(width))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The values, in units of their running deviation around their running mean."""
        if self.training:
            with torch.no_grad():
                self.steps += 1
                rate = torch.clamp(1 / self.steps, min=0.005)
                self.mean.lerp_(values.mean(0), rate)
                self.var.lerp_(values.var(0, unbiased=False), rate)
        return (values - self.mean) / (self.var + 1e-6).sqrt()


class LatentReader(nn.Module):
    """A plain convolutional network on the latent: what stage 1 learns quality with. Thrown away, but for distillation."""

    def __init__(self, channels: int, width: int = 128) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide, stride in ((32, 1), (64, 2), (64, 1), (96, 2), (width, 1)):
            layers += [nn.Conv2d(channels, wide, 3, stride, 1, bias=False), nn.BatchNorm2d(wide), nn.GELU()]
            channels = wide
        self.early, self.late = nn.Sequential(*layers[:3]), nn.Sequential(*layers[3:])
        pooled = 2 * (32 + width)
        self.hidden = nn.Sequential(nn.BatchNorm1d(pooled), nn.Linear(pooled, 128), nn.GELU(), nn.Dropout(0.2))
        self.score = nn.Linear(128, 1)
        self.kind, self.strength = nn.Linear(128, 1 + len(KINDS)), nn.Linear(128, 1)
        self.statistics, self.imitate = nn.Linear(128, STATISTICS), nn.Linear(128, 128)

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Hidden features ``(N, 128)`` of a latent ``(N, 4, h, w)`` of unit variance."""
        early = self.early(latent)
        return self.hidden(torch.cat([*_moments(early), *_moments(self.late(early))], 1))


class LatentStage(nn.Module):
    """What stage 1 trains: the VAE, read by a small convolutional network."""

    def __init__(self, vae: AutoencoderKL, chroma_blur: float) -> None:
        super().__init__()
        self.chroma_blur = chroma_blur
        self.vae, self.reader = vae, LatentReader(vae.config.latent_channels)
        self.latent_moments, self.statistics_moments = RunningMoments(1), RunningMoments(STATISTICS)

    def encode(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-variance of the latent distribution, unscaled."""
        mean, logvar = self.vae.quant_conv(self.vae.encoder(pixels)).chunk(2, 1)
        return mean, logvar.clamp(-10, 5)

    def read(self, mean: torch.Tensor, noise: float) -> torch.Tensor:
        """Hidden features of a latent, seen through a random share of the noise that scoring will add to it."""
        self.latent_moments(mean.detach().reshape(-1, 1))
        latent = mean / (self.latent_moments.var + 1e-6).sqrt()
        level = noise * torch.rand(len(mean), 1, 1, 1)
        return self.reader(latent + level * torch.randn_like(latent))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Score ``(N,)`` on the MOS scale 0..100."""
        pixels = soften_chroma(pixels, self.chroma_blur)
        return 60 + 20 * self.reader.score(self.read(self.encode(pixels)[0], 0.0)).squeeze(1)

    def losses(self, batch: Batch, noise: float, reconstruct: int) -> dict[str, torch.Tensor]:
        """The terms to sum, for a batch of pixels; ``noise`` as in `read`, ``reconstruct`` photos are decoded again."""
        batch = replace(batch, inputs=soften_chroma(batch.inputs, self.chroma_blur))
        mean, logvar = self.encode(batch.inputs)
        hidden, reader = self.read(mean, noise), self.reader
        wanted = mean[:reconstruct] + (0.5 * logvar[:reconstruct]).exp() * torch.randn_like(mean[:reconstruct])
        rebuilt = self.vae.decoder(self.vae.post_quant_conv(wanted))
        statistics = self.statistics_moments(pixel_statistics(batch.inputs)).clamp(-4, 4)
        score = 60 + 20 * reader.score(hidden).squeeze(1)
        return {
            **score_losses(score, batch),
            **imitation_losses(score, reader.imitate(hidden), batch),
            **degradation_losses(reader.kind(hidden), reader.strength(hidden), batch),
            "statistics": 0.2 * F.mse_loss(reader.statistics(hidden), statistics),
            "reconstruction": 0.3 * F.l1_loss(rebuilt, batch.inputs[:reconstruct]),
            "kl": 1e-3 * 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean(),
        }


def degradation_losses(kind: torch.Tensor, strength: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
    """Name the kind ``(N, kinds)`` and tell the strength ``(N, 1)`` of the synthetic degradation."""
    return {
        "kind": 0.3 * F.cross_entropy(kind, batch.kind),
        "strength": F.mse_loss(strength.squeeze(1), batch.strength),
    }


def score_losses(score: torch.Tensor, batch: Batch, order: float = 1.0) -> dict[str, torch.Tensor]:
    """MOS regression and correlation on the photos; graded targets and order on their degraded copies. Scores 0..100.

    ``order`` weighs the order of the copies. What a mild JPEG compression changes is small beside what tells one photo from
    another; only the difference of a photo and its copy, where the photo itself falls out, teaches it.
    """
    clean, target = score[: batch.clean], batch.target[: batch.clean]
    copies = score[batch.clean :].view(batch.pairs, 2)
    graded = batch.target[batch.clean :].view(batch.pairs, 2)
    ladder = torch.cat([clean[: batch.pairs, None], copies], 1)
    # a step of the ladder is owed a third of the graded fall at least, whatever the photo's own score came out as
    owed = (torch.cat([target[: batch.pairs, None], graded], 1)).diff(dim=1).neg() / 3
    return {
        "mos": F.mse_loss(clean, target) / 400,
        "plcc": 0.5 * (1 - torch.corrcoef(torch.stack([clean, target]))[0, 1]),
        "graded": 0.5 * F.mse_loss(copies, graded) / 400,
        "order": order * F.relu(owed + ladder.diff(dim=1)).mean() / 20,
    }


def imitation_losses(score: torch.Tensor, imitated: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
    """How far a student's score ``(N,)`` and what it makes of the teacher's hidden features ``(N, 128)`` are from them.

    On the photos only: the teacher hardly sees a mild degradation, and would teach its student not to.
    """
    clean = slice(batch.clean)
    known = batch.known[clean]
    return {
        "opinion": F.mse_loss(score[clean], batch.opinion[clean]) / 400,
        "known": F.mse_loss(imitated[clean], known) / known.var().clamp_min(1e-3),
    }
