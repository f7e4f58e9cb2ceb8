"""Weights and features of the motion network: conversion, checks, cache. Nothing is downloaded."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

import genzqa
from genzqa.cli import app
from genzqa.model import motion_weights
from genzqa.model.checksums import verify
from genzqa.model.motion import FeatureCache, clip_features
from genzqa.model.names import ModelName


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENZQA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the public file's form, with random weights."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("motion") / "SLOWFAST_8x8_R50.pyth"
    torch.save({"model_state": genzqa.SlowFast().state_dict()}, path)
    return path


def test_a_local_checkpoint_is_converted_checked_and_loaded(cache: Path, checkpoint: Path) -> None:
    stored, digest = motion_weights.pull_motion("slowfast-r50", local=checkpoint)
    assert stored.is_relative_to(cache)
    assert len(digest) == 64
    assert all(check.ok for check in verify("slowfast-r50"))
    network, of_weights = motion_weights.load_motion("slowfast-r50", offline=True)
    assert of_weights == hashlib.sha256(stored.read_bytes()).hexdigest()
    wanted = torch.load(checkpoint, weights_only=True)["model_state"]
    for name, value in network.state_dict().items():
        assert torch.equal(value, wanted[name])
    assert not network.training
    assert motion_weights.load_motion(f"file:{stored}")[0].config == network.config

    stored.write_bytes(stored.read_bytes()[:-8] + bytes(8))
    assert not all(check.ok for check in verify("slowfast-r50"))
    with pytest.raises(genzqa.ModelCorruptError, match="recorded checksum"):
        motion_weights.load_motion("slowfast-r50", offline=True)


def test_another_file_than_the_first_is_refused(cache: Path, checkpoint: Path, tmp_path: Path) -> None:
    motion_weights.pull_motion("slowfast-r50", local=checkpoint)
    other = tmp_path / "other.pyth"
    torch.save({"model_state": genzqa.SlowFast().state_dict()}, other)
    with pytest.raises(genzqa.ModelCorruptError, match="expected"):
        motion_weights.pull_motion("slowfast-r50", local=other)
    motion_weights.load_motion("slowfast-r50", offline=True)


@pytest.mark.parametrize("content", [b"", b"not a pickle", "tensor", "other network"])
def test_what_is_no_checkpoint_is_refused(cache: Path, tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "bad.pyth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(torch.zeros(3) if content == "tensor" else {"model_state": {"a": torch.zeros(3)}}, path)
    with pytest.raises(genzqa.ModelCorruptError):
        motion_weights.pull_motion("slowfast-r50", local=path)
    assert not motion_weights.motion_file("slowfast-r50").exists()


def test_a_download_is_converted_and_leaves_no_temporary_file(cache: Path, checkpoint: Path, monkeypatch) -> None:
    monkeypatch.setattr(motion_weights.urllib.request, "urlopen", lambda url, timeout: checkpoint.open("rb"))
    network, _ = motion_weights.load_motion("slowfast-r50")
    assert isinstance(network, genzqa.SlowFast)
    assert [file.name for file in (cache / "motion").iterdir()] == ["slowfast-r50.safetensors"]


def test_missing_offline_and_wrong_names(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(genzqa.OfflineError, match="genzqa pull slowfast-r50"):
        motion_weights.load_motion("slowfast-r50", offline=True)
    with pytest.raises(genzqa.ModelNotFoundError):
        motion_weights.pull_motion("slowfast-r50", local=tmp_path / "none.pyth")
    with pytest.raises(genzqa.ConfigError):
        motion_weights.load_motion("sd15")
    from genzqa.model.hub import locate

    with pytest.raises(genzqa.ConfigError, match="motion network"):
        locate(ModelName("registry", "slowfast-r50"), offline=True)


def test_pull_command(cache: Path, checkpoint: Path) -> None:
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, ["pull", "slowfast-r50", "--file", str(checkpoint)])
    assert done.exit_code == 0
    assert "sha256" in done.output
    wrong = CliRunner().invoke(app, ["pull", "mini", "--file", str(checkpoint)])
    assert wrong.exit_code == 2


def test_features_are_cached_by_content_and_network(tmp_path: Path) -> None:
    config = genzqa.SlowFastConfig(width=8, depths=(1, 1, 1, 1), frames=16, slow_frames=4)
    network, other = genzqa.SlowFast(config).eval(), genzqa.SlowFast(config).eval()
    clip = np.random.default_rng(0).integers(0, 256, (16, 40, 32, 3), np.uint8)
    kept = FeatureCache(tmp_path / "features", network)
    first = kept.features(clip)
    for value, wanted in zip(first, clip_features(network, clip), strict=True):
        assert torch.equal(value, wanted)
    (file,) = (tmp_path / "features").iterdir()
    again = kept.features(clip)
    assert torch.equal(again[0], first[0])
    file.write_bytes(b"damaged")
    assert torch.equal(kept.features(clip)[1], first[1])
    FeatureCache(tmp_path / "features", other).features(clip)
    kept.features(255 - clip)
    assert len(list((tmp_path / "features").iterdir())) == 3
