"""The embedded student: small, quick to have, and of one mind with the `mini` it learned from."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import genzqa
from genzqa import ConfigError
from genzqa.cli import app
from genzqa.evaluation.statistics import agreement, measure
from genzqa.media.image import decode_image
from genzqa.media.preprocess import resize_square, to_network
from genzqa.model.base import load_base
from genzqa.model.checksums import verify
from genzqa.model.hub import pull
from genzqa.model.registry import embedded_folder
from genzqa.student.config import ONNX
from genzqa.training.mini.degradations import DEGRADATIONS

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
MIB = 2**20
LADDER = (0.0, 0.25, 0.5, 0.75, 1.0)


def folder() -> Path:
    found = embedded_folder("mini-student")
    assert found is not None
    return found


def scores(scorer: genzqa.Scorer, sources: list[Path]) -> np.ndarray:
    results = list(scorer.score_many(sources))
    assert all(isinstance(one, genzqa.ImageResult) for one in results)
    return np.array([one.score for one in results])


@pytest.fixture(scope="module")
def labelled() -> tuple[list[Path], np.ndarray]:
    """120 photos that neither it nor its teacher was trained on: a sample of BIQ2021's test split, and their MOS."""
    table = DATA / "biq2021-mini" / "labels.csv"
    if not table.is_file():
        pytest.skip("the photos with human scores are not here")
    with table.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"][:120]
    return [table.parent / row["name"] for row in rows], np.array([100 * float(row["mos"]) for row in rows])


def test_it_needs_no_download_and_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENZQA_OFFLINE", "1")
    assert pull("mini-student").folder == folder()
    assert [check.ok for check in verify("mini-student")] == [True] * 4
    assert genzqa.load("mini-student").score(ROOT / "examples" / "photos" / "parrots.jpg").score > 50
    listed = json.loads(CliRunner().invoke(app, ["models", "--json"]).output)["models"]
    assert [(row["kind"], row["trained"]) for row in listed if row["name"] == "mini-student"] == [("student", True)]


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in folder().iterdir()) < 8 * MIB


def test_it_is_no_base() -> None:
    with pytest.raises(ConfigError, match="a student, not a base"):
        load_base("mini-student")


def test_the_mini_beside_it_is_its_teacher() -> None:
    assert genzqa.load("mini-student").provenance.base_sha256 == genzqa.load("mini").provenance.weights_sha256


def test_it_agrees_with_mini_and_with_people(labelled: tuple[list[Path], np.ndarray]) -> None:
    photos, mos = labelled
    mine, theirs = scores(genzqa.load("mini-student"), photos), scores(genzqa.load("mini"), photos)
    assert agreement(mine, theirs)["srcc"].value > 0.85
    assert measure(mine, mos)["srcc"].value > 0.7


def test_its_onnx_file_scores_as_it_does(labelled: tuple[list[Path], np.ndarray]) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    scorer, photos = genzqa.load("mini-student"), labelled[0][:8]
    session = runtime.InferenceSession(str(folder() / ONNX), providers=["CPUExecutionProvider"])
    side = scorer.config.preprocessing.size
    pixels = np.stack([to_network(resize_square(decode_image(path).pixels, side)).numpy() for path in photos])
    raw = session.run(["raw"], {"pixels": pixels})[0]
    assert raw == pytest.approx([scorer.score(path).raw for path in photos], abs=1e-3)


@pytest.mark.parametrize("kind", ["blur", "noise", "jpeg", "downscale"])
def test_the_mean_score_falls_at_every_step(kind: str) -> None:
    if not (DATA / "kodak").is_dir():
        pytest.skip("the Kodak photos are not here")
    photos = [np.asarray(decode_image(path).pixels) for path in sorted((DATA / "kodak").glob("*.png"))]
    scorer = genzqa.load("mini-student")
    means = [np.mean([scorer.score(photo).score for photo in photos])]
    for strength in LADDER:
        rng = np.random.default_rng(7)
        means.append(np.mean([scorer.score(DEGRADATIONS[kind](photo, strength, rng)).score for photo in photos]))
    assert (np.diff(means) < 0).all(), means
