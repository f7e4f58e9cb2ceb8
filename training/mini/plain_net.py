"""A plain convolutional regressor as large as the embedded model's denoiser: what the method is held against."""

from __future__ import annotations

import torch
from torch import nn

HIDDEN = 128


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


class LatentConv(nn.Module):
    """From latents ``(N, C, h, w)``, as large as the denoiser, the prompts' encoder and the readout; scores ``(N,)``.

    Args:
        channels: C.
        mean, deviation: Of the MOS, from where it starts.
    """

    def __init__(self, channels: int, mean: float, deviation: float) -> None:
        super().__init__()
        self.mean, self.deviation = mean, deviation
        layers: list[nn.Module] = []
        before = channels
        for width, stride in ((64, 1), (112, 2), (160, 2), (272, 2)):
            layers += [_Residual(before, width, stride), _Residual(width, width, 1)]
            before = width
        self.body = nn.Sequential(*layers, _Residual(before, before, 1))
        self.head = nn.Sequential(nn.Linear(2 * before, HIDDEN), nn.GELU(), nn.Dropout(0.2), nn.Linear(HIDDEN, 1))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        seen = self.body(latents)
        pooled = torch.cat([seen.mean((2, 3)), seen.std((2, 3), unbiased=False)], 1)
        return self.mean + self.deviation * self.head(pooled).squeeze(1)
