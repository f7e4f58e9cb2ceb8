"""Scoring with the embedded model, as a user calls it."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

import genzqa
from genzqa import Scorer
from genzqa.errors import ModelError
from genzqa.media.prepare import prepare_photo
from genzqa.media.preprocess import resize_square
from genzqa.model.genziqa import GenzIQA
from genzqa.scoring import quality_map

PHOTOS = sorted((Path(__file__).parents[1] / "examples" / "photos").glob("*.jpg"))
CLEAN = [path for path in PHOTOS if "-" not in path.stem]
WITHIN = 1e-3  # points of the 0..100 scale; what the company in a batch may move


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return genzqa.load()


def test_every_kind_of_source_gives_the_same_score(scorer: Scorer) -> None:
    path = CLEAN[0]
    with Image.open(path) as image:
        array = np.asarray(image)
        scores = [
            scorer.score(source).score
            for source in (
                str(path),
                path,
                path.read_bytes(),
                image,
                array,
                array.astype(np.float32) / 255,
                torch.from_numpy(array.copy()).permute(2, 0, 1),
            )
        ]
    assert scores[:5] == [scores[0]] * 5
    assert scores[6] == scores[0]
    assert scores[5] == pytest.approx(scores[0], abs=WITHIN)  # an eighth of a bit of rounding on the way


def test_same_file_same_score_alone_in_a_batch_and_in_any_order(scorer: Scorer) -> None:
    alone = {path.name: scorer.score(path).score for path in PHOTOS}
    assert {path.name: scorer.score(path).score for path in PHOTOS} == alone  # bit-same when run the same way
    for order in (PHOTOS, PHOTOS[::-1], PHOTOS[2:] + PHOTOS[:2]):
        for result in scorer.score_many(order, batch_size=4):
            assert isinstance(result, genzqa.ImageResult)
            assert result.score == pytest.approx(alone[Path(result.input).name], abs=WITHIN)


def test_same_score_in_another_process(scorer: Scorer) -> None:
    code = f"import genzqa; print(repr(genzqa.load().score({str(CLEAN[0])!r}).raw))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(other) == scorer.score(CLEAN[0]).raw


def test_global_random_state_neither_matters_nor_moves(scorer: Scorer) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    first, state = scorer.score(CLEAN[0]).score, torch.random.get_rng_state()
    scorer.score(CLEAN[0])
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert scorer.score(CLEAN[0]).score == first


@pytest.mark.parametrize("kind", ["blur", "noise", "jpeg", "downscale"])
def test_the_mean_score_falls_along_a_ladder(scorer: Scorer, kind: str) -> None:
    means = []
    for step in range(6):
        rng = np.random.default_rng(3)
        scores = []
        for path in CLEAN:
            with Image.open(path) as image:
                scores.append(scorer.score(_worse(image.convert("RGB"), kind, step, rng)).score)
        means.append(np.mean(scores))
    assert all(later < earlier for earlier, later in itertools.pairwise(means)), means


def _worse(image: Image.Image, kind: str, step: int, rng: np.random.Generator) -> Image.Image | bytes:
    if step == 0:
        return image
    if kind == "blur":
        return image.filter(ImageFilter.GaussianBlur((0, 1, 1.7, 2.6, 4, 6)[step]))
    if kind == "noise":
        sigma = (0, 6, 12, 22, 38, 60)[step]
        pixels = np.asarray(image, np.float32)
        return Image.fromarray(np.clip(pixels + sigma * rng.standard_normal(pixels.shape), 0, 255).astype(np.uint8))
    if kind == "jpeg":
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=(0, 50, 28, 16, 9, 4)[step])
        return buffer.getvalue()
    factor = (1, 1.5, 2.2, 3.2, 5, 8)[step]
    return image.resize((round(image.width / factor), round(image.height / factor)), Image.Resampling.BICUBIC)


def test_result_is_complete_and_consistent(scorer: Scorer) -> None:
    result = scorer.score(CLEAN[0])
    low, high = result.interval
    assert 0 <= low <= result.score <= high <= 100
    assert 0 <= result.percentile <= 100
    assert result.grade == ("bad", "poor", "fair", "good", "excellent")[min(4, int(result.score // 20))]
    with Image.open(CLEAN[0]) as image:
        assert (result.width, result.height) == image.size
    record = json.loads(json.dumps(result.to_dict()))
    assert record["schema"] == "genzqa/1"
    assert record["model"] == "mini"
    assert len(record["weights_sha256"]) == 64


def test_maps_of_many_are_those_of_each_and_less_memory_makes_them_fewer_at_a_time(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [
        prepare_photo(np.random.default_rng(seed).integers(0, 256, (96, 96, 3), np.uint8), 448) for seed in range(3)
    ]
    alone = [scorer.score_prepared([photo], quality_map=True)[0] for photo in photos]
    drawn, together, room = quality_map._maps, list[int](), [4]

    def short_of_memory(model: GenzIQA, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        together.append(len(pixels))
        if len(pixels) > room[0]:
            raise MemoryError
        return drawn(model, pixels)

    monkeypatch.setattr(quality_map, "_maps", short_of_memory)
    for room[0] in (4, 1):
        for one, each in zip(scorer.score_prepared(photos, quality_map=True), alone, strict=True):
            assert one.raw == pytest.approx(each.raw, abs=1e-3)
            np.testing.assert_allclose(one.quality_map, each.quality_map, atol=0.01)
    assert together == [3, 3, 2, 1, 1, 1]
    room[0] = 0
    with pytest.raises(ModelError, match="too little memory"):
        scorer.score_prepared(photos, quality_map=True)


def test_quality_map_has_the_score_as_its_mean_and_finds_the_damaged_half(scorer: Scorer) -> None:
    below = []
    for path in CLEAN:
        with Image.open(path) as image:
            damaged = image.convert("RGB")
        half = damaged.width // 2
        left = damaged.crop((0, 0, half, damaged.height)).filter(ImageFilter.GaussianBlur(5))
        damaged.paste(left, (0, 0))
        result = scorer.score(damaged, quality_map=True)
        assert result.quality_map is not None
        assert result.quality_map.mean() == pytest.approx(result.score, abs=0.01)
        assert result.score == pytest.approx(scorer.score(damaged).score, abs=WITHIN)
        middle = result.quality_map.shape[1] // 2
        below.append(result.quality_map[:, middle:].mean() - result.quality_map[:, :middle].mean())
    assert np.mean(below) > 0, below


def test_a_bad_input_does_not_stop_the_others(scorer: Scorer, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(PHOTOS[0].read_bytes()[:2000])
    results = list(scorer.score_many([PHOTOS[0], broken, tmp_path / "none.png", PHOTOS[1]], batch_size=2))
    assert [type(result).__name__ for result in results] == [
        "ImageResult",
        "FailedResult",
        "FailedResult",
        "ImageResult",
    ]
    codes = [result.error.code for result in results if isinstance(result, genzqa.FailedResult)]
    assert codes == ["corrupt", "not_found"]


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 2), (16, 16), (3000, 40)])
def test_odd_sizes_get_a_finite_score(scorer: Scorer, size: tuple[int, int]) -> None:
    result = scorer.score(Image.effect_noise(size, 60).convert("RGB"))
    assert np.isfinite(result.score)
    assert (result.width, result.height) == size


def test_a_base_refuses_to_score(conformance_base: Path) -> None:
    with pytest.raises(genzqa.NotTrainedError, match="train"):
        genzqa.load(f"local-dir:{conformance_base}")
    with pytest.raises(genzqa.NotTrainedError):
        genzqa.load("sd21")


def test_public_names() -> None:
    assert genzqa.__all__ == sorted(genzqa.__all__)
    for name in genzqa.__all__:
        assert getattr(genzqa, name) is not None
    code = "import sys, genzqa; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rows_resized_a_part_at_a_time_are_pillow_s_own_resize() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1300, 700, 3), np.uint8)
    whole = [np.asarray(Image.fromarray(pixels[..., channel].astype(np.float32)).resize((448, 448), Image.Resampling.BICUBIC))
             for channel in range(3)]  # fmt: skip
    expected = np.clip(np.stack(whole, 2) * np.float32(1 / 255), 0, 1)
    assert np.array_equal(resize_square(pixels, 448), expected)
