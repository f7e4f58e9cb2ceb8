"""The scripts of ``training/mini``: ablations on the embedded model's encoder at a tiny size, and its interval."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from genzqa.model.adapter import read_config
from genzqa.model.folder import file_sha256
from genzqa.training.mini.photos import open_biq2021
from recipes import miniature_biq2021

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def recipe():
    """The modules of ``training/mini``, which are scripts beside each other and not a package."""
    sys.path.insert(
        0, str(ROOT / "training" / "mini")
    )  # for as long as the tests run: worker processes import them too
    try:
        import ablate

        yield {"ablate": ablate}
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return miniature_biq2021(tmp_path_factory.mktemp("biq2021"))


def test_variants_start_alike_and_differ_in_what_they_say(recipe) -> None:
    ablate = recipe["ablate"]
    chances = torch.Generator().manual_seed(0)
    data = ablate.Data(torch.randn(2, 9, 128, 8, 8, generator=chances), 100 * torch.rand(9, generator=chances),
                       {name: ablate.Unseen(torch.randn(10, 128, 8, 8, generator=chances), np.arange(10.0), steps)
                        for name, steps in (("validation", (1, 2)), ("elsewhere", (1,)))})  # fmt: skip
    options = argparse.Namespace(epochs=1, pretraining=1, batch=4, rate=1e-3, seed=1)
    threads = torch.get_num_threads()
    made = {name: ablate.trained_variant(name, data, options) for name in ablate.VARIANTS}
    torch.set_num_threads(threads)
    assert made["as published"] | {"seconds": 0} == ablate.trained_variant("as published", data, options) | {
        "seconds": 0
    }
    for name, found in made.items():
        scores, elsewhere = (found["scores"][where] for where in ("validation", "elsewhere"))
        assert set(scores) == ({"none"} if ablate.VARIANTS[name].plain else {"1", "2"})
        assert set(elsewhere) == ({"none"} if ablate.VARIANTS[name].plain else {"1"})
        assert np.isfinite([*scores.values(), *elsewhere.values()]).all()
        assert len({tuple(one) for one in scores.values()}) == len(scores)
    firsts = [tuple(next(iter(found["scores"]["validation"].values()))) for found in made.values()]
    assert len(set(firsts)) == len(firsts)  # every change changes the scores
    sizes = [found["parameters"] for found in made.values()]
    assert max(sizes) < 1.35 * min(sizes)
    for where, told in ablate.report("no bias", made, data).items():
        assert told["1"]["srcc"][1] <= told["1"]["srcc"][0] <= told["1"]["srcc"][2]
        assert len(told["srcc_gain"]) == 3
        assert "srcc_gain" not in ablate.report("as published", made, data)[where]
    one, other = (list(ablate.drawn(data, 1, 4, seed)) for seed in (1, 1))
    assert all(
        torch.equal(a, b) for first, second in zip(one, other, strict=True) for a, b in zip(first, second, strict=True)
    )


def test_finished_variants_are_kept_for_the_same_settings_alone(recipe, tmp_path: Path) -> None:
    finished, kept = recipe["ablate"].finished, tmp_path / "scores.json"
    assert finished(kept, {"epochs": 3}) == {}
    kept.write_text(json.dumps({"settings": {"epochs": 3}, "variants": {"no bias": {"seconds": 1}}}))
    assert finished(kept, {"epochs": 3}) == {"no bias": {"seconds": 1}}
    assert finished(kept, {"epochs": 4}) == {}


def test_photos_of_other_databases_are_looked_at_under_their_name(
    recipe, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(recipe["ablate"].RECIPE.read_text().replace("validation: 500", "validation: 8"))
    monkeypatch.setattr(recipe["ablate"], "RECIPE", plan)
    table = tmp_path / "mine.csv"
    photos = sorted((ROOT / "examples" / "photos").iterdir())
    table.write_text("path,mos\n" + "".join(f"{photo},{mos}\n" for mos, photo in enumerate(photos)))
    data = recipe["ablate"].encoded(database, tmp_path, 64, elsewhere=[f"mine={table}"])
    assert list(data.unseen) == ["validation", "mine"]
    mine = data.unseen["mine"]
    assert len(mine.latents) == len(mine.mos) == len(photos)
    assert list(np.argsort(mine.mos)) == list(range(len(photos)))
    assert mine.timesteps == (1,)


def test_a_subset_that_is_left_out_is_never_trained_on(recipe, database: Path, tmp_path: Path) -> None:
    photos = open_biq2021(database, tmp_path, 8, 2406)
    subset = str(photos.name[0])[:4].lower()
    parts = recipe["ablate"].without(subset, photos, 1)
    mine = {name: {str(one)[:4].lower() for one in photos.name[rows]} for name, rows in parts.items()}
    assert mine["validation"] == {subset}
    assert subset not in mine["train"]
    assert len(parts["train"]) > 0
    assert not {"test", "validation"} & set(photos.split[parts["train"]])
    assert "test" not in photos.split[parts["validation"]]


def test_the_interval_is_widened_in_place_once_and_for_these_weights_alone(tmp_path: Path) -> None:
    embedded, predictions = tmp_path / "mini", tmp_path / "elsewhere.parquet"
    shutil.copytree(ROOT / "src" / "genzqa" / "embedded" / "mini", embedded)
    before = read_config(embedded / "adapter" / "config.json").calibration
    assert before is not None
    raw = np.linspace(10, 90, 200)
    score = np.interp(raw, before.raw_knots, before.score_knots)
    weights = (embedded / "adapter" / "adapter.safetensors").read_bytes()

    def run(said: np.ndarray) -> subprocess.CompletedProcess[str]:
        pq.write_table(pa.table({"raw": raw, "quality": np.clip(score - 60, 0, 100), "score": said}), predictions)
        script = ROOT / "training" / "mini" / "elsewhere.py"
        command = [sys.executable, str(script), "--predictions", str(predictions), "--embedded", str(embedded)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert "is of other weights" in run(score + 1).stderr
    assert run(score).returncode == 0
    assert "before" in run(score).stderr
    after = read_config(embedded / "adapter" / "config.json").calibration
    assert after is not None
    assert after.source == f"{before.source}; interval no narrower than 200 images of elsewhere ask for"
    assert np.interp(80, after.interval_knots, after.interval_low) == pytest.approx(-60, abs=1)
    assert (after.raw_knots, after.score_knots) == (before.raw_knots, before.score_knots)
    assert (embedded / "adapter" / "adapter.safetensors").read_bytes() == weights
    digests = json.loads((embedded / "manifest.json").read_text())
    assert digests["adapter/config.json"] == file_sha256(embedded / "adapter" / "config.json")
