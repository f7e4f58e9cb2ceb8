"""A plain convolutional regressor as large as the embedded model: what the method is held against."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from genzqa.model.colour import soften_chroma
from genzqa.training.mini.latent import degradation_losses, imitation_losses, score_losses
from genzqa.training.mini.photos import KINDS, Batch
from genzqa.training.mini.teacher import HIDDEN

WIDTHS = (24, 48, 96, 192, 320)  # one halving each; 6.7 M parameters in all


class _Residual(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.GELU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.past = nn.Identity() if (before, stride) == (width, 1) else nn.Conv2d(before, width, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.gelu(self.inner(x) + self.past(x))


class ConvStage(nn.Module):
    """Pixels to score, trained by the losses of `score.ScoreStage` but for those of a diffusion model."""

    def __init__(self, chroma_blur: float) -> None:
        super().__init__()
        self.chroma_blur = chroma_blur
        layers: list[nn.Module] = []
        before = 3
        for width in WIDTHS:
            layers += [_Residual(before, width, 2), _Residual(width, width, 1)]
            before = width
        self.body, self.read = nn.Sequential(*layers, _Residual(before, before, 1)), 2 * before
        self.hidden = nn.Sequential(nn.Linear(self.read, HIDDEN), nn.GELU(), nn.Dropout(0.2))
        self.score, self.imitate = nn.Linear(HIDDEN, 1), nn.Linear(HIDDEN, HIDDEN)
        self.kind, self.strength = nn.Linear(HIDDEN, 1 + len(KINDS)), nn.Linear(HIDDEN, 1)

    def trained(self) -> list[nn.Parameter]:
        return list(self.parameters())

    def to_keep(self) -> dict[str, torch.Tensor]:
        return self.state_dict()

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Hidden features ``(N, 128)``."""
        seen = self.body(soften_chroma(pixels, self.chroma_blur))
        return self.hidden(torch.cat([seen.mean((2, 3)), seen.std((2, 3))], 1))

    def raw(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scores ``(N,)`` of pixels."""
        return 100 * self.score(self.features(pixels)).squeeze(1).sigmoid()

    def losses(self, batch: Batch, as_scored: float, order: float, reconstruct: int) -> dict[str, torch.Tensor]:
        """As `score.WholeStage.losses`; what belongs to diffusion is not used."""
        hidden = self.features(batch.inputs)
        score = 100 * self.score(hidden).squeeze(1).sigmoid()
        return {
            **score_losses(score, replace(batch), order),
            **imitation_losses(score, self.imitate(hidden), batch),
            **degradation_losses(self.kind(hidden), self.strength(hidden), batch),
        }


class LatentConv(nn.Module):
    """The same on latents ``(N, 4, h, w)``, as large as the denoiser, the prompts' encoder and the readout; scores ``(N,)``.

    Args:
        mean, deviation: Of the MOS, from where it starts.
    """

    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__()
        self.mean, self.deviation = mean, deviation
        layers: list[nn.Module] = []
        before = 4
        for width, stride in ((64, 1), (128, 2), (192, 2), (320, 2)):
            layers += [_Residual(before, width, stride), _Residual(width, width, 1)]
            before = width
        self.body = nn.Sequential(*layers, _Residual(before, before, 1))
        self.head = nn.Sequential(nn.Linear(2 * before, HIDDEN), nn.GELU(), nn.Dropout(0.2), nn.Linear(HIDDEN, 1))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        seen = self.body(latents)
        pooled = torch.cat([seen.mean((2, 3)), seen.std((2, 3), unbiased=False)], 1)
        return self.mean + self.deviation * self.head(pooled).squeeze(1)
