"""A latent of what a pretrained network sees: the encoder of a base that has no trained VAE to stand on.

The paper's method reads quality from a latent space that knows pictures of everything. A variational autoencoder of a few
hundred thousand parameters, trained on some thousand photos, is no such space. A small network trained on ImageNet is: its
feature maps at five depths, their means and deviations over cells of 16 x 16 pixels, seen along a few fixed directions, are
what this encoder's latent is made of: of every four cells their mean, and how far they lie apart. Denoiser, prompts and
readout sit on it as they sit on a VAE's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genzqa.model import late_imports

late_imports.import_diffusers()
from diffusers import ConfigMixin, ModelMixin  # noqa: E402
from diffusers.configuration_utils import register_to_config  # noqa: E402

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

CELL = 16  # pixels of a side
FACTOR = 2 * CELL  # pixels of a side of what one latent position sees: four cells
DEPTHS = (
    16,
    24,
    40,
    112,
    320,
)  # channels of the feature maps read: at 1/2, 1/4, 1/8, 1/16 and 1/32 of the photo's side
FEATURES = 2 * sum(DEPTHS[:3]) + sum(DEPTHS[3:])
_STEM = 32
# EfficientNet-Lite0 (Tan & Le, ICML 2019; Liu, TensorFlow blog, March 2020): repeats, kernel, stride, expansion, channels
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
           (1, 3, 1, 6, 320))  # fmt: skip
_READ = (0, 2, 4, 10, 15)  # blocks whose output is read, one of each of `DEPTHS`


class FeatureEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers has no types
    """Photos ``(B, 3, H, W)`` in [-1, 1], H and W multiples of 32, to latents ``(B, C, H/32, W/32)`` of about unit deviation.

    It draws nothing by chance and has no decoder.

    Args:
        latent_channels: C, twice the directions kept.
        block_out_channels: Channels of the depths read.
        scaling_factor: By which a latent is multiplied before noise is added; its channels are scaled already.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self, latent_channels: int = 128, block_out_channels: Sequence[int] = DEPTHS, scaling_factor: float = 1.0
    ) -> None:
        super().__init__()
        self.stem = _Padded(3, _STEM, 3, 2)
        self.blocks = _blocks()
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("deviation", torch.ones(FEATURES))
        self.directions = nn.Conv2d(FEATURES, latent_channels // 2, 1)
        self.register_buffer("latent_mean", torch.zeros(latent_channels))
        self.register_buffer("latent_deviation", torch.ones(latent_channels))

    mean: Tensor
    deviation: Tensor
    latent_mean: Tensor
    latent_deviation: Tensor

    def features(self, pixels: Tensor) -> Tensor:
        """What the directions look along, ``(B, FEATURES, H/16, W/16)``: of the three shallow depths the mean and the deviation
        over each cell, of the deeper two the map itself."""
        return _cell_features(self.stem, self.blocks, pixels)

    def forward(self, pixels: Tensor) -> Tensor:
        """The latent, not yet scaled."""
        features = (self.features(pixels) - self.mean.view(1, -1, 1, 1)) / self.deviation.view(1, -1, 1, 1)
        latent = torch.cat(_moments(self.directions(features), FACTOR // CELL, 1e-4), 1)
        return (latent - self.latent_mean.view(1, -1, 1, 1)) / self.latent_deviation.view(1, -1, 1, 1)


class FirstLayers(nn.Module):
    """The first blocks of a `FeatureEncoder`, for a network that goes on from there in its own way.

    Args:
        blocks: How many of the sixteen.

    Attributes:
        channels: Of the features.
    """

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.stem = _Padded(3, _STEM, 3, 2)
        self.blocks = _blocks()[:blocks]
        read = [index for index in _READ if index < blocks]
        self.channels = sum(2 * wide for wide in DEPTHS[: len(read)][:3]) + sum(DEPTHS[3 : len(read)])
        self.register_buffer("mean", torch.zeros(self.channels))
        self.register_buffer("deviation", torch.ones(self.channels))

    mean: Tensor
    deviation: Tensor

    def copy_from(self, encoder: FeatureEncoder) -> None:
        """Take over its weights, kernels rounded to half precision, in which they are kept."""
        there = encoder.state_dict()
        with torch.no_grad():
            for name, value in self.state_dict().items():
                found = there[name][: self.channels] if name in ("mean", "deviation") else there[name]
                value.copy_(found.half() if found.dim() > 1 else found)

    def forward(self, pixels: Tensor) -> Tensor:
        """Photos ``(B, 3, H, W)`` in [-1, 1] to features of about unit deviation ``(B, channels, H/16, W/16)``."""
        features = _cell_features(self.stem, self.blocks, pixels)
        return (features - self.mean.view(1, -1, 1, 1)) / self.deviation.view(1, -1, 1, 1)


def _blocks() -> nn.ModuleList:
    blocks: list[nn.Module] = []
    channels = _STEM
    for repeats, kernel, stride, expansion, wide in _STAGES:
        for number in range(repeats):
            blocks.append(_Inverted(channels, wide, kernel, 1 if number else stride, expansion))
            channels = wide
    return nn.ModuleList(blocks)


def _cell_features(stem: nn.Module, blocks: nn.ModuleList, pixels: Tensor) -> Tensor:
    cells = (pixels.shape[2] // CELL, pixels.shape[3] // CELL)
    x = F.relu6(stem(pixels))
    parts: list[Tensor] = []
    for index, block in enumerate(blocks):
        x = block(x)
        if index not in _READ:
            continue
        side = x.shape[2] // cells[0]
        if side > 1:
            parts += _moments(x, side, 1e-8)
        else:
            parts.append(x if x.shape[2:] == cells else F.interpolate(x, size=cells, mode="nearest"))
    return torch.cat(parts, 1)


def _moments(x: Tensor, side: int, floor: float) -> list[Tensor]:
    """Mean and deviation of squares of ``side`` x ``side`` positions; around each square's own mean, for the difference of two
    large numbers would lose the small deviations of smooth ones."""
    mean = F.avg_pool2d(x, side)
    around = x - F.interpolate(mean, scale_factor=float(side), mode="nearest")
    return [mean, (F.avg_pool2d(around * around, side) + floor).sqrt()]


def latent_mode(encoder: AutoencoderKL | FeatureEncoder, pixels: Tensor) -> Tensor:
    """The latent of ``(B, 3, H, W)`` in the encoder's precision, scaled: of a VAE the mode of its distribution."""
    if isinstance(encoder, FeatureEncoder):
        mode = encoder(pixels)
    else:
        moments = encoder.encoder(pixels)
        mode = (moments if encoder.quant_conv is None else encoder.quant_conv(moments)).chunk(2, 1)[0]
    latent: Tensor = mode * float(encoder.config.scaling_factor)
    return latent


class _Padded(nn.Conv2d):
    """A convolution padded as TensorFlow does, where the network was trained: on even sides more after than before."""

    def __init__(self, channels: int, wide: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__(channels, wide, kernel, stride, groups=groups)

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        needed = [max(0, (-(-side // stride) - 1) * stride + kernel - side) for side in input.shape[2:]]
        down, across = needed
        weight = self.weight
        if down % 2 and across % 2:  # a row and a column of zeros before the others make both sides alike
            weight, down, across = F.pad(weight, (1, 0, 1, 0)), down + 1, across + 1
        if down % 2 == 0 and across % 2 == 0:  # the convolution pads by itself, without a copy of its input
            return F.conv2d(input, weight, self.bias, self.stride[0], (down // 2, across // 2), 1, self.groups)
        return super().forward(F.pad(input, (across // 2, across - across // 2, down // 2, down - down // 2)))


class _Inverted(nn.Module):
    """Widen, look around in every channel by itself, narrow; with the input added where it fits."""

    def __init__(self, channels: int, wide: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.widen = nn.Conv2d(channels, inner, 1) if expansion > 1 else None
        self.look = _Padded(inner, inner, kernel, stride, groups=inner)
        self.narrow = nn.Conv2d(inner, wide, 1)
        self.adds = stride == 1 and channels == wide

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.widen is None else F.relu6(self.widen(x), inplace=True)
        out: Tensor = self.narrow(F.relu6(self.look(inner), inplace=True))
        return x + out if self.adds else out
