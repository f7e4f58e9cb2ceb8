"""SlowFast: motion features from two pathways, one slow and wide, one fast and thin.

Feichtenhofer et al., "SlowFast Networks for Video Recognition", ICCV 2019 (arXiv 1812.03982). With the default config
this is SlowFast-R50 8x8, and the names and shapes of its weights are those of the public Kinetics-400 checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MEAN, DEVIATION = 0.45, 0.225  # of the pixels the public checkpoint was trained on, every channel


@dataclass(frozen=True)
class SlowFastConfig:
    """Sizes of the network.

    Attributes:
        width: Channels of the slow stem; 64 in R50.
        ratio: How many times thinner the fast pathway is (1 / beta of the paper).
        depths: Residual blocks of the four stages.
        frames: Frames of a clip, all seen by the fast pathway.
        slow_frames: How many of them the slow pathway sees; ``frames / slow_frames`` is alpha of the paper.
        fusion: Output channels of a lateral connection per fast channel.
        classes: Of the classifier that comes with the checkpoint; it plays no part in the features.
    """

    width: int = 64
    ratio: int = 8
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    frames: int = 32
    slow_frames: int = 8
    fusion: int = 2
    classes: int = 400

    @property
    def slow_features(self) -> int:
        """Channels of the slow vector; 2048 in R50."""
        return 32 * self.width

    @property
    def fast_features(self) -> int:
        """Channels of the fast vector; 256 in R50."""
        return 32 * self.width // self.ratio


class SlowFast(nn.Module):
    """Motion features of clips.

    Args:
        config: Sizes; the default is SlowFast-R50 8x8.

    Example:
        >>> network = SlowFast(SlowFastConfig(width=8, depths=(1, 1, 1, 1)))
        >>> slow, fast = network(torch.zeros(1, 3, 32, 64, 64))
        >>> tuple(slow.shape), tuple(fast.shape)
        ((1, 256), (1, 32))
    """

    def __init__(self, config: SlowFastConfig = SlowFastConfig()) -> None:
        super().__init__()
        self.config = config
        alpha = config.frames // config.slow_frames
        slow, fast = config.width, config.width // config.ratio
        pooling = nn.Identity()  # numbers the blocks as the checkpoint does
        self.blocks = nn.ModuleList(
            [_Stage(_Stem(slow, 1), _Stem(fast, 5), _LateralConnection(fast, config.fusion, alpha))]
        )
        slow_in, fast_in = slow + config.fusion * fast, fast
        for number, depth in enumerate(config.depths):
            slow_out, fast_out = 4 * slow << number, 4 * fast << number
            stride = 1 if number == 0 else 2
            stages = (
                _ResStage(slow_in, slow_out, depth, stride, time=3 if number >= 2 else 1),
                _ResStage(fast_in, fast_out, depth, stride, time=3),
            )
            last = number == len(config.depths) - 1
            fusion = None if last else _LateralConnection(fast_out, config.fusion, alpha)
            self.blocks.append(_Stage(*stages, fusion))
            slow_in, fast_in = slow_out + config.fusion * fast_out, fast_out
        self.blocks.append(pooling)
        self.blocks.append(_Classifier(config.slow_features + config.fast_features, config.classes))

    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Features of normalised clips.

        Args:
            clip: ``(B, 3, frames, H, W)``, RGB, ``(value - MEAN) / DEVIATION`` of values in 0..1; any H, W from 32.

        Returns:
            slow ``(B, 2048)`` and fast ``(B, 256)`` (R50): means of the last stage over time and space.

        Raises:
            ValueError: If the clip has another number of frames.
        """
        slow, fast = self.stages(clip)[-1]
        return slow.mean((2, 3, 4)), fast.mean((2, 3, 4))

    def stages(self, clip: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Both pathways after the stem and after each of the four stages, lateral connections included."""
        if clip.ndim != 5 or clip.shape[2] != self.config.frames:
            raise ValueError(f"a clip has the shape (B, 3, {self.config.frames}, H, W), not {tuple(clip.shape)}")
        # the slow frames are spread over the clip from the first to the last: 0, 4, 8, 13, 17, 22, 26, 31
        chosen = torch.linspace(0, self.config.frames - 1, self.config.slow_frames).long()
        slow, fast = clip[:, :, chosen.to(clip.device)], clip
        seen = []
        for stage in self.blocks[:5]:
            slow, fast = stage(slow, fast)
            seen.append((slow, fast))
        return seen


class _Stage(nn.Module):
    """One stage of both pathways, and the lateral connection after it."""

    def __init__(self, slow: nn.Module, fast: nn.Module, fusion: nn.Module | None) -> None:
        super().__init__()
        self.multipathway_blocks = nn.ModuleList([slow, fast])
        self.multipathway_fusion = fusion

    def forward(self, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor]:
        slow, fast = self.multipathway_blocks[0](slow), self.multipathway_blocks[1](fast)
        if self.multipathway_fusion is not None:
            slow = torch.cat([slow, self.multipathway_fusion(fast)], 1)
        return slow, fast


class _Stem(nn.Module):
    def __init__(self, width: int, time: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, width, (time, 7, 7), (1, 2, 2), (time // 2, 3, 3), bias=False)
        self.norm = nn.BatchNorm3d(width)

    def forward(self, clip: Tensor) -> Tensor:
        return F.max_pool3d(F.relu(self.norm(self.conv(clip))), (1, 3, 3), (1, 2, 2), (0, 1, 1))


class _LateralConnection(nn.Module):
    """The fast pathway's view for the slow one, at the slow one's frame rate."""

    def __init__(self, fast: int, fusion: int, alpha: int) -> None:
        super().__init__()
        self.conv_fast_to_slow = nn.Conv3d(fast, fusion * fast, (7, 1, 1), (alpha, 1, 1), (3, 0, 0), bias=False)
        self.norm = nn.BatchNorm3d(fusion * fast)

    def forward(self, fast: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv_fast_to_slow(fast)))


class _ResStage(nn.Module):
    def __init__(self, inputs: int, outputs: int, depth: int, stride: int, time: int) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * depth
        self.res_blocks = nn.ModuleList(
            _ResBlock(before, after, stride if number == 0 else 1, time)
            for number, (before, after) in enumerate(pairwise(widths))
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.res_blocks:
            x = block(x)
        return x


class _ResBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, time: int) -> None:
        super().__init__()
        if inputs != outputs or stride != 1:
            self.branch1_conv: nn.Module = nn.Conv3d(inputs, outputs, 1, (1, stride, stride), bias=False)
            self.branch1_norm: nn.Module = nn.BatchNorm3d(outputs)
        else:
            self.branch1_conv = self.branch1_norm = nn.Identity()
        self.branch2 = _Bottleneck(inputs, outputs // 4, outputs, stride, time)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch1_norm(self.branch1_conv(x)) + self.branch2(x))


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, inner: int, outputs: int, stride: int, time: int) -> None:
        super().__init__()
        self.conv_a = nn.Conv3d(inputs, inner, (time, 1, 1), 1, (time // 2, 0, 0), bias=False)
        self.norm_a = nn.BatchNorm3d(inner)
        self.conv_b = nn.Conv3d(inner, inner, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)
        self.norm_b = nn.BatchNorm3d(inner)
        self.conv_c = nn.Conv3d(inner, outputs, 1, bias=False)
        self.norm_c = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm_a(self.conv_a(x)))
        x = F.relu(self.norm_b(self.conv_b(x)))
        return self.norm_c(self.conv_c(x))  # type: ignore[no-any-return]


class _Classifier(nn.Module):
    """The checkpoint's action classifier: kept so that its weights load whole, never run."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.proj = nn.Linear(features, classes)
