"""The recipe of the temporal part, run whole at a tiny size, and what its faults promise."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import genzqa
from videos import encode

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def recipe():
    """The modules of ``training/video``, which are scripts beside each other and not a package."""
    folder = str(ROOT / "training" / "video")
    sys.path.insert(0, folder)
    try:
        import carry
        import encoders
        import faults
        import ladders
        import modulator
        import motion
        import temporal
        import windows

        modules = (carry, encoders, faults, ladders, modulator, motion, temporal, windows)
        yield {module.__name__: module for module in modules}
    finally:
        sys.path.remove(folder)


def photo() -> np.ndarray:
    with Image.open(ROOT / "examples" / "photos" / "parrots.jpg") as image:
        return np.asarray(image.convert("RGB"))


def moving(count: int, height: int = 72, width: int = 96, step: int = 2) -> np.ndarray:
    """A camera that moves steadily over a photo."""
    picture = photo()
    return np.stack([picture[50 : 50 + height, 20 + step * n : 20 + step * n + width] for n in range(count)])


def test_faults_keep_the_shape_and_cost_more_the_stronger_they_are(recipe) -> None:
    faults = recipe["faults"]
    frames = moving(32)
    for name, fault in faults.FAULTS.items():
        shares = []
        for strength in (0.0, 0.5, 1.0):
            shown, share = fault(frames, strength, np.random.default_rng(3))
            assert shown.shape == frames.shape
            assert shown.dtype == np.uint8
            shares.append(share)
        assert 1 >= shares[0] > shares[1] > shares[2] > 0, name
        assert not np.array_equal(shown, frames)


def test_faults_that_only_show_frames_at_other_times_invent_none(recipe) -> None:
    faults = recipe["faults"]
    frames = moving(32)
    there = {frame.tobytes() for frame in frames}
    for name in ("frame_rate", "repeats", "freeze", "judder"):
        shown, _ = faults.FAULTS[name](frames, 0.7, np.random.default_rng(3))
        assert {frame.tobytes() for frame in shown} < there, name
    for strength, most in ((0.0, 20), (1.0, 3)):
        shown, _ = faults.frame_rate(moving(30), strength, np.random.default_rng(1))
        assert len({frame.tobytes() for frame in shown}) <= most + 1


def test_where_nothing_moves_a_low_frame_rate_costs_less(recipe) -> None:
    faults = recipe["faults"]
    still, fast = np.repeat(moving(1), 32, 0), moving(32, step=6)
    assert faults.motion_of(still) == 0
    assert faults.motion_of(fast) > 0.3
    assert (
        faults.frame_rate(still, 0.8, np.random.default_rng(0))[1]
        > faults.frame_rate(fast, 0.8, np.random.default_rng(0))[1]
    )
    assert faults.frame_rate_share(60, 0.5) == faults.frame_rate_share(30, 0.5) == 1


def test_the_modulator_in_batches_is_the_modulator_one_by_one(recipe) -> None:
    from genzqa.model.cross_attention import Block
    from genzqa.model.modulator import TemporalQualityModulator

    blocks = [Block("a", "a", 1, 64), Block("b", "b", 2, 128)]
    torch.manual_seed(0)
    queries, slow, fast = [torch.randn(5, 64), torch.randn(5, 128)], torch.randn(5, 4, 32), torch.randn(5, 4, 16)
    for form in ("published", "ordered"):
        modulator = TemporalQualityModulator(blocks, 32, 16, form=form)
        for layer in modulator.linear.values():
            torch.nn.init.normal_(layer.weight, std=0.5)
        together = recipe["modulator"].modulated(modulator, queries, slow, fast)
        for row in range(5):
            alone = modulator([query[row].expand(3, 2, -1) for query in queries], slow[row], fast[row])
            assert together[row].item() == pytest.approx(alone.gamma.mean().item(), abs=1e-5)


def test_the_order_loss_is_of_faults_that_lower_the_score_too_little(recipe) -> None:
    from genzqa.model.cross_attention import Block
    from genzqa.model.modulator import TemporalQualityModulator

    module = recipe["modulator"]
    modulator = TemporalQualityModulator([Block("a", "a", 1, 64)], 8, 4)  # gamma is 1 at first: the frames alone
    share = torch.tensor([[0.95, 0.5, 1.0, 0.9, 0.8, 0.4]])  # intact, a fault, still, three encodings

    def loss(raw: list[float]) -> float:
        shape = (1, len(raw))
        samples = module.Samples(torch.tensor([raw]), [torch.zeros(*shape, 64)], torch.zeros(*shape, 8),
                                 torch.zeros(*shape, 4), share)  # fmt: skip
        return module.out_of_order(modulator, samples, np.array([0]), still).item()

    still = module.Jitter(torch.ones(8), torch.ones(4), 0.0)

    assert loss([80, 40, 80, 70, 60, 30]) == 0  # every fall is half of what is owed, or more
    assert loss([80, 40, 80, 79.5, 60, 30]) == pytest.approx((2 - 0.5) / 6)  # half of 4 points was owed
    assert loss([80, 80, 80, 70, 60, 30]) == pytest.approx(18 / 6)
    assert loss([80, 40, 80, 70, 75, 30]) > 0  # an encoding that beats the milder one


def test_jitter_moves_all_videos_of_a_source_alike(recipe) -> None:
    module = recipe["modulator"]
    slow = torch.tensor([[0.0, 1.0], [4.0, 1.0]])[:, None].expand(2, 3, 2)  # two windows, three variants, alike
    samples = module.Samples(torch.ones(2, 3), [], slow, slow, torch.ones(2, 3))
    jitter = module.Jitter.of(samples, np.array([0, 1]), 0.5)
    shape = (500, 3, 4, 5)
    videos = module.Ladders(
        torch.ones(shape[:3]), [], torch.zeros(*shape, 2), torch.zeros(*shape, 2), torch.ones(shape[:3])
    )
    moved = videos.elsewhere(jitter)
    assert torch.equal(moved.slow, moved.slow[:, :1, :1, :1].expand(*shape, 2))
    assert moved.slow[:, 0, 0, 0].std(0).tolist() == pytest.approx([0.5 * 2, 0.0], rel=0.1)
    assert not torch.equal(moved.slow, moved.fast)
    assert moved.raw is videos.raw


def test_the_ladder_loss_is_of_steps_that_fall_too_little(recipe) -> None:
    from genzqa.model.cross_attention import Block
    from genzqa.model.modulator import TemporalQualityModulator

    module = recipe["modulator"]
    modulator = TemporalQualityModulator([Block("a", "a", 1, 64)], 8, 4)  # gamma is 1 at first: the frames alone
    share = torch.tensor([1.0, 0.9, 0.5]).expand(2, 1, 3)

    def ladders(*raw: list[float]) -> object:
        shape = (2, 1, 3)
        return module.Ladders(torch.tensor(raw)[:, None], [torch.zeros(*shape, 64)], torch.zeros(*shape, 5, 8),
                              torch.zeros(*shape, 5, 4), share)  # fmt: skip

    def rising(videos: object) -> float:
        return module.rising(modulator, videos).item()

    assert rising(ladders([80, 78, 50], [80, 76, 60])) == 0  # a fifth of 8 and of 32 points
    assert rising(ladders([80, 79, 50], [80, 76, 60])) == pytest.approx(0.6 / 4)
    assert rising(ladders([80, 82, 50], [80, 70, 50])) == pytest.approx(3.6 / 4)  # the mean falls
    assert rising(ladders([80, 82, 50], [80, 80, 50])) == pytest.approx((3.6 + 1.6) / 4 + 2.6 / 2)
    videos = ladders([80, 82, 50], [60, 50, 30])
    assert module.steps_of(modulator, videos).tolist() == [[-4, -26]]
    assert module.missed(modulator, videos).item() == 0  # intact videos score what their frames do
    torch.nn.init.constant_(modulator.linear["a"].bias, 1.1)
    assert module.missed(modulator, videos).item() == pytest.approx((8**2 + 6**2) / 2 / 100, rel=1e-4)


def test_whole_recipe_gives_a_model_that_modulates(recipe, small_scorer: Path, tmp_path: Path, monkeypatch) -> None:
    import shutil

    temporal, windows = recipe["temporal"], recipe["windows"]
    ladders = {"ladders": (("shake", "vp9"), (0.3, 0.9), True), "mild": (("temporal_noise",), (0.1,), False)}
    monkeypatch.setattr(temporal, "LADDERS", ladders)
    config = tomllib.loads((ROOT / "training" / "video" / "video.toml").read_text())
    config["network"] |= {"width": 8, "ratio": 2}
    for part in config["motion"]:
        part |= {"steps": 2, "windows": 2, "check_every": 1}
    config["modulator"] |= {"variants": 3, "steps": 4, "batch": 4, "check_every": 2}
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(encode(list(moving(60, 144, 192)), rate=30))
    (tmp_path / "clips" / "slow.mp4").write_bytes(encode(list(moving(40, 144, 192)), rate=12))
    rng = np.random.default_rng(0)
    cut = [one for path in sorted((tmp_path / "clips").iterdir()) for one in windows.real_windows(path, 3, rng)]
    assert [(one.source, one.rate) for one in cut] == [
        ("a.mp4", 30.0)
    ]  # one whole window of 32; slow clips are left out
    assert cut[0].small.shape == (32, 72, 96, 3)
    cut += [window for number in range(4) for window in windows.camera_moves(photo(), f"photo {number}", rng)]
    for window in cut:  # an encoder leaves the picture what it was, and less of it the more it saves
        mild, better, worse = window.coded
        assert 1 > mild.share > better.share > worse.share > 0.2
        assert better.small.shape == window.small.shape
        error = [np.abs(one.whole.astype(int) - window.whole[-1]).mean() for one in window.coded]
        assert error[0] < error[1] < error[2] < 25
    temporal.write_windows(cut, tmp_path, 128)  # the size at which `small_scorer` sees photos
    name = f"local-dir:{small_scorer}"
    temporal.train_motion(config, tmp_path)
    for part in (None, name):
        temporal.read_windows(config, tmp_path, part)
    sources = [temporal.Source("a.mp4", tmp_path / "clips" / "a.mp4")]
    sources += [temporal.Source(f"photo {number}", photo()) for number in range(4)]
    for which, (kinds, strengths, _) in ladders.items():
        for part in (None, name):
            temporal.read_ladders(config, tmp_path, part, which, sources)
        read = {}
        for part in ("motion", "frames"):
            read |= load_file(tmp_path / f"{which}-{part}.safetensors")
        assert read["raw"].shape == (5, len(kinds), 1 + len(strengths))
        assert read["held_out"].sum() == 1
        assert (read["share"].diff(dim=2) < 0).all()
        assert (read["raw"].std(dim=2) > 0).all() == (
            which == "ladders"
        )  # of the others only the intact one is looked at
        assert (read["slow"].flatten(3).std(dim=2) > 0).any()
    temporal.fit_modulators(config, tmp_path, name)
    told = json.loads((tmp_path / "modulator.json").read_text())
    assert set(told["published"]["held_out_steps"]["ladders"]) == {"shake", "vp9"}
    shutil.copytree(small_scorer, tmp_path / "model" / "adapter")
    temporal.write_adapter(config, tmp_path, tmp_path / "model", "published")
    written = load_file(tmp_path / "model" / "adapter" / "adapter.safetensors")
    assert {key.split(".")[0] for key in written} >= {"tqm", "motion"}
    scorer = genzqa.load(f"local-dir:{tmp_path / 'model' / 'adapter'}")
    result = scorer.score(tmp_path / "clips" / "a.mp4")
    assert isinstance(result, genzqa.VideoResult)
    assert all(np.isfinite(result.gamma))
    assert "frames_only" not in {note.code for note in result.notes}
    assert set(result.gamma) != {1.0}


def test_a_temporal_part_carried_over_weighs_videos_as_it_did(recipe) -> None:
    from genzqa.model.cross_attention import Block
    from genzqa.model.modulator import TemporalQualityModulator

    torch.manual_seed(4)
    old, new = (
        [Block(f"layer{n}", "", 1, width) for n, width in enumerate(widths)] for widths in ((64, 128, 128), (96, 128))
    )
    before, after = (TemporalQualityModulator(blocks, 24, 6) for blocks in (old, new))
    for layer in before.linear.values():
        torch.nn.init.normal_(layer.weight, std=0.02)
    for keys in (*before.slow.values(), *before.fast.values()):
        torch.nn.init.normal_(keys.norm.weight, mean=1)
        torch.nn.init.normal_(keys.norm.bias)
    shown = [
        [torch.randn(40, block.width) * 0.1 + torch.randn(block.width) for block in blocks] for blocks in (old, new)
    ]
    recipe["carry"].carried(before, shown[0], after, shown[1])

    @torch.no_grad()
    def gamma(
        modulator: TemporalQualityModulator, queries: list[torch.Tensor], clips: tuple[torch.Tensor, ...]
    ) -> float:
        found = modulator([query.mean(0).expand(1, 2, -1) for query in queries], *clips).gamma
        assert (found > 0).all()
        return float(found.mean())

    gammas = []
    for _ in range(5):
        clips = 0.3 * torch.randn(3, 24), 0.3 * torch.randn(3, 6)
        wanted = gamma(before, shown[0], clips)
        assert gamma(after, shown[1], clips) == pytest.approx(wanted, abs=1e-4)
        gammas.append(wanted)
    assert max(gammas) - min(gammas) > 0.005


def test_coding_share_falls_with_likeness(recipe) -> None:
    encoders = recipe["encoders"]
    frame = moving(1)[0]
    noise = np.random.default_rng(0).normal(0, 1, frame.shape)
    likeness = [encoders.ssim(frame, np.clip(frame + sigma * noise, 0, 255).astype(np.uint8)) for sigma in (0, 5, 20)]
    assert likeness[0] == pytest.approx(1, abs=1e-3)
    assert likeness == sorted(likeness, reverse=True)
    shares = [encoders.coding_share(one) for one in (1.0, *likeness[1:])]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)


def test_ladders_start_with_the_intact_video(recipe) -> None:
    from genzqa.media.video import open_video

    frames = moving(12)
    found = dict(recipe["ladders"].ladders(frames))
    assert len(found) == len(recipe["faults"].FAULTS) + 4
    assert len({videos[0] for videos in found.values()}) == 1
    assert {len(videos) for videos in found.values()} == {6}
    errors = []
    for video in found["av1"]:
        with open_video(video) as reader:
            (moment,) = reader.moments([0.2])
        errors.append(np.abs(moment.pixels.astype(int) - frames[6]).mean())
    assert errors == sorted(errors)
