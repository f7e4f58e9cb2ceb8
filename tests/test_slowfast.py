"""SlowFast-R50 8x8 against the conformance numbers, and the small form of the same class."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import genzqa

REFERENCE = Path(__file__).parent / "conformance" / "slowfast"


def weight_by_name(key: str, shape: list[int]) -> np.ndarray:
    """The weights the conformance numbers were computed with (tests/conformance/README.md)."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if key.endswith("running_var"):
        return (0.5 + rng.random(shape)).astype(np.float32)
    normal = rng.standard_normal(shape)
    if key.endswith(("running_mean", "bias")):
        return (0.1 * normal).astype(np.float32)
    if "norm" in key:
        return ((1 + 0.1 * normal) * (0.3 if "norm_c" in key else 1)).astype(np.float32)
    return (normal * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)


@pytest.fixture(scope="module")
def keys() -> dict[str, list[int]]:
    return json.loads((REFERENCE / "state_dict_keys.json").read_text())


@pytest.fixture(scope="module")
def network(keys: dict[str, list[int]]) -> genzqa.SlowFast:
    network = genzqa.SlowFast().eval()
    network.load_state_dict(
        {key: torch.from_numpy(np.asarray(weight_by_name(key, shape))) for key, shape in keys.items()}
    )
    return network


def test_names_and_shapes_are_the_public_checkpoint_s(network: genzqa.SlowFast, keys: dict[str, list[int]]) -> None:
    assert {name: list(value.shape) for name, value in network.state_dict().items()} == keys
    assert len(keys) == 662


def test_features_and_stages_match_the_reference(network: genzqa.SlowFast) -> None:
    golden = np.load(REFERENCE / "golden.npz")
    clip = np.random.default_rng(224).standard_normal((1, 3, 32, 224, 224)).astype(np.float32)
    with torch.inference_mode():
        stages = network.stages(torch.from_numpy(clip))
    compared = 0
    for number, pathways in enumerate(stages):
        for name, value in zip(("slow", "fast"), pathways, strict=True):
            wanted = golden[f"224/stage{number}_{name}_mean"]
            np.testing.assert_allclose(
                value.mean((0, 2, 3, 4)).numpy(), wanted.ravel(), rtol=0, atol=1e-4 * np.abs(wanted).max()
            )
            compared += 1
    assert compared == 10
    slow, fast = (pathway.mean((2, 3, 4)).numpy() for pathway in stages[-1])
    for value, wanted in ((slow, golden["224/slow"]), (fast, golden["224/fast"])):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_small_form_and_wrong_clips() -> None:
    config = genzqa.SlowFastConfig(width=8, depths=(1, 1, 1, 1), slow_frames=4, frames=16)
    network = genzqa.SlowFast(config).eval()
    with torch.inference_mode():
        clips = torch.randn(2, 3, 16, 32, 48)
        slow, fast = network(clips)
        alone = network(clips[1:])
    assert slow.shape == (2, config.slow_features) == (2, 256)
    assert fast.shape == (2, config.fast_features) == (2, 32)
    torch.testing.assert_close(slow[1:], alone[0])
    torch.testing.assert_close(fast[1:], alone[1])
    with pytest.raises(ValueError, match=r"\(B, 3, 16, H, W\)"):
        network(torch.zeros(1, 3, 32, 32, 32))
