"""The student: residual 3x3 convolutions, and a readout of every stage's mean and spread.

A student of a teacher that sees through a pretrained encoder begins with the first blocks of this encoder, which it leaves as
they are: thousands of photos teach a network of this size less about pictures than a million has taught the encoder.

Its own are plain convolutions, not depthwise ones: on CPUs a network of a million parameters runs and trains quicker with them,
because depthwise ones wait for memory. Batch normalisation serves training alone and is folded into the convolutions
afterwards, so that a photo's score does not depend on its company.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from genzqa.model.feature_encoder import FirstLayers
from genzqa.model.genzvqa import FrameReadings

if TYPE_CHECKING:
    from genzqa.student.config import NetworkSizes


class Convolution(nn.Module):
    """A convolution with batch normalisation, or, once folded, with a bias."""

    def __init__(self, inputs: int, outputs: int, side: int, stride: int = 1, *, folded: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, side, stride, (side - 1) // 2, bias=folded)
        self.norm = nn.Identity() if folded else nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, C', H / stride, W / stride)``."""
        y: Tensor = self.norm(self.conv(x))
        return y

    def fold(self) -> None:
        """Put what the normalisation does with its running figures into the convolution."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv, self.norm = fuse_conv_bn_eval(self.conv.eval(), self.norm.eval()), nn.Identity()


class Residual(nn.Module):
    """Two 3x3 convolutions beside a straight way."""

    def __init__(self, width: int, *, folded: bool) -> None:
        super().__init__()
        self.first = Convolution(width, width, 3, folded=folded)
        self.second = Convolution(width, width, 3, folded=folded)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> the same shape."""
        return F.relu(x + self.second(F.relu(self.first(x))))


class StudentNetwork(nn.Module):
    """Pixels to the teacher's raw score and its quantity of every block; an engine for scoring.

    Args:
        sizes: Of the layers.
        blocks: Names of the teacher's blocks.
        folded: As scored with, without normalisation layers; `fold` turns a trained network into one.
    """

    def __init__(self, sizes: NetworkSizes, blocks: Sequence[str], *, folded: bool = True) -> None:
        super().__init__()
        self.sizes, self.blocks = sizes, list(blocks)
        first, *others = sizes.widths
        self.encoder = FirstLayers(sizes.encoder_blocks).requires_grad_(False) if sizes.encoder_blocks else None
        if self.encoder is None:
            self.stem = nn.Sequential(
                Convolution(3, sizes.stem, 3, 2, folded=folded), nn.ReLU(),
                Convolution(sizes.stem, first, 3, 2, folded=folded), nn.ReLU(),
            )  # fmt: skip
        else:
            self.stem = nn.Sequential(Convolution(self.encoder.channels, first, 1, folded=folded), nn.ReLU())
        self.shrink = nn.ModuleList(
            [nn.Identity(), *(Convolution(before, after, 2, 2, folded=folded) for before, after in pairwise((first, *others)))]
        )  # fmt: skip
        self.stages = nn.ModuleList(
            nn.Sequential(*(Residual(width, folded=folded) for _ in range(depth)))
            for width, depth in zip(sizes.widths, sizes.depths, strict=True)
        )
        seen = sum(sizes.widths) + (self.encoder.channels if self.encoder is not None else 0)
        self.hidden = nn.Linear(2 * seen, sizes.hidden)
        self.quantities = nn.Linear(sizes.hidden, 1 + len(self.blocks))

    def forward(self, pixels: Tensor) -> FrameReadings:
        """Read photos ``(B, 3, H, W)`` in [-1, 1]; there are no queries."""
        seen: list[Tensor] = []
        x = pixels
        if self.encoder is not None:
            x = self.encoder(x)
            seen += _moments(x)
        x = self.stem(x)
        for shrink, stage in zip(self.shrink, self.stages, strict=True):
            x = stage(shrink(x))
            seen += _moments(x)
        quantities = self.quantities(F.silu(self.hidden(torch.cat(seen, 1))))
        return FrameReadings(quantities[:, 0], quantities[:, 1:], [])

    @torch.inference_mode()
    def read(self, pixels: Tensor) -> FrameReadings:
        """`forward` without gradients: what an engine does."""
        return self(pixels.to(memory_format=torch.channels_last))  # type: ignore[no-any-return]

    def fold(self, mean: Tensor, spread: Tensor) -> None:
        """Make a trained network that of scoring, in place.

        Args:
            mean, spread: ``(1 + P,)`` of the quantities as they are; the network was trained on (quantity - mean) / spread.
        """
        for module in self.modules():
            if isinstance(module, Convolution):
                module.fold()
        with torch.no_grad():
            self.quantities.weight.mul_(spread[:, None])
            self.quantities.bias.mul_(spread).add_(mean)
        self.eval()


def _moments(x: Tensor) -> list[Tensor]:
    """Mean and deviation of every channel of ``(B, C, H, W)``, each ``(B, C)``."""
    mean = x.mean((2, 3), keepdim=True)
    return [mean.flatten(1), ((x - mean).square().mean((2, 3)) + 1e-4).sqrt()]
