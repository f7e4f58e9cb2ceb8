"""What a student is made of and from: faults, the loss on order, its interval, the photos of the recipe."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genzqa.model.adapter import load_scorer
from genzqa.scoring.calibration import calibrate, widen_interval
from genzqa.student.degradations import DEGRADATIONS
from genzqa.student.distill import losses


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_a_stronger_fault_changes_more(kind: str) -> None:
    rng = np.random.default_rng(3)
    noise = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(
        (160, 120), Image.Resampling.BICUBIC
    )
    picture = np.asarray(noise)
    change = []
    for strength in (0.0, 0.5, 1.0):
        copy = DEGRADATIONS[kind](picture, strength, np.random.default_rng(1))
        assert (copy.shape, copy.dtype) == (picture.shape, np.uint8)
        change.append(float(np.abs(copy.astype(float) - picture).mean()))
    assert 0 < change[0] < change[1] < change[2]


def test_a_copy_must_fall_as_far_as_the_teacher_says_and_never_rise() -> None:
    wanted = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.5, 0.0], [1.5, 0.0]])  # two photos, then their copies
    blocks = torch.zeros(4, 1)

    def order(*raw: float) -> float:
        return float(losses(torch.tensor(raw), blocks, wanted, 2)["order"])

    assert order(2.0, 1.0, 0.5, 1.0) == 0  # 1.5 as the teacher says; level, where the teacher puts the copy above
    assert order(2.0, 1.0, 0.5, 1.5) == pytest.approx(0.25)  # as the teacher does: above
    assert order(2.0, 1.0, -3.0, -2.0) == 0  # further than it says
    assert "order" not in losses(torch.zeros(4), blocks, wanted, 0)


def test_the_interval_is_wider_by_the_difference_from_the_teacher(small_scorer: Path) -> None:
    calibration = load_scorer(f"local-dir:{small_scorer}", trainable=False).config.calibration
    assert calibration is not None
    rng = np.random.default_rng(0)
    truth = rng.uniform(-200, 200, 400)
    same = widen_interval(calibration, truth, truth, source="themselves")
    assert (same.interval_low, same.interval_high) == (calibration.interval_low, calibration.interval_high)
    raw = truth + rng.uniform(-60, 60, 400)  # a tenth of the scale's 600 either way
    wider = widen_interval(calibration, raw, truth, source="others")
    score, (low, high), _ = calibrate(0.0, wider)
    assert score == pytest.approx(50)
    assert high - score == pytest.approx(np.hypot(9, 10), abs=1)
    assert score - low == pytest.approx(np.hypot(9, 10), abs=1)
    assert calibrate(0.0, wider)[0] == calibrate(0.0, calibration)[0]


def test_the_recipe_never_links_a_test_or_validation_photo(tmp_path: Path) -> None:
    """Of a miniature BIQ2021 whose training table is long enough to set 500 photos aside."""
    database, out = tmp_path / "biq2021", tmp_path / "links"
    (database / "Images").mkdir(parents=True)
    names = {"Train": [f"ss01 ({number}).jpg" for number in range(520)], "Test": ["ss02 (1).jpg"]}
    for table, rows in names.items():
        lines = ["Image Name,MOS", *(f"{name},0.5" for name in rows)]
        (database / f"{table} (Images and MOS).csv").write_text("\n".join(lines) + "\n")
        for name in rows:
            (database / "Images" / name.upper()).write_bytes(b"")
    script = Path(__file__).parents[1] / "training" / "student" / "biq2021.py"
    command = [sys.executable, str(script), "--biq2021", str(database), "--out", str(out)]
    assert "20 photos" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    linked = {path.name for path in (out / "biq2021-0").iterdir()}
    set_aside = set(np.random.default_rng(2406).permutation(520)[:500].tolist())
    assert linked == {name.upper() for number, name in enumerate(names["Train"]) if number not in set_aside}
