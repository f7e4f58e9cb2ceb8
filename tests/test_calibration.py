"""Calibration: monotone, inside the scale, and with the coverage it promises."""

from __future__ import annotations

import numpy as np
import pytest

from genzqa.model.config import Calibration
from genzqa.model.diffusion import fixed_noise, scoring_timesteps
from genzqa.result import grade_of
from genzqa.scoring.calibration import calibrate, fit_calibration, hold_elsewhere, measured_coverage


def panel(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Raw scores, and MOS that follow them by a curve with noise that grows towards the middle."""
    rng = np.random.default_rng(seed)
    raw = rng.uniform(20, 80, count)
    mean = 100 / (1 + np.exp(-(raw - 50) / 10))
    return raw, np.clip(mean + rng.normal(0, 4 + 6 * np.sin(np.pi * mean / 100), count), 0, 100)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return fit_calibration(*panel(600, 1), source="synthetic")


def test_the_map_is_strictly_rising_and_covers_the_scale(calibration: Calibration) -> None:
    scores = [calibrate(raw, calibration)[0] for raw in np.linspace(0, 100, 301)]
    assert min(scores) >= 0
    assert max(scores) <= 100
    inside = [score for score in scores if 0 < score < 100]
    assert (np.diff(inside) > 0).all()
    assert calibrate(-1e9, calibration)[0] == 0
    assert calibrate(1e9, calibration)[0] == 100


def coverage(raw: np.ndarray, mos: np.ndarray, calibration: Calibration) -> float:
    bounds = np.array([calibrate(value, calibration)[1] for value in raw])
    return float(np.mean((bounds[:, 0] <= mos) & (mos <= bounds[:, 1])))


def test_an_interval_made_to_hold_elsewhere_does_and_is_nowhere_narrower(calibration: Calibration) -> None:
    raw, mos = panel(1000, 3)
    other_raw, other = panel(1000, 4)
    elsewhere = np.clip(other - 15, 0, 100)  # stricter observers
    assert coverage(other_raw, elsewhere, calibration) < 0.85
    wider = hold_elsewhere(calibration, raw, np.clip(mos - 15, 0, 100), source="those of others")
    assert coverage(other_raw, elsewhere, wider) > 0.93
    for value in np.linspace(0, 100, 301):
        (score, (low, high), place), (before, (its_low, its_high), its_place) = (
            calibrate(value, one) for one in (wider, calibration)
        )
        assert (score, place) == (before, its_place)
        assert low <= its_low + 1e-5
        assert high >= its_high - 1e-5
    assert wider.source == "synthetic; interval no narrower than those of others ask for"


def test_coverage_on_new_photos(calibration: Calibration) -> None:
    raw, mos = panel(4000, 2)
    assert 0.93 <= coverage(raw, mos, calibration) <= 0.99
    bounds = np.array([calibrate(value, calibration)[1] for value in raw])
    assert (bounds[:, 1] - bounds[:, 0]).mean() < 55  # an interval of everything would cover too


def test_coverage_over_many_fits() -> None:
    """One fit covers more or less than 95 % by chance; the mean over calibration sets is what conformal prediction promises."""
    rng, covered = np.random.default_rng(8), []
    for _ in range(40):
        mos = np.clip(rng.normal(55, 15, 1200), 2, 98)
        raw = mos + rng.standard_t(3, 1200) * (3 + np.abs(mos - 50) / 10)
        fitted = fit_calibration(raw[:200], mos[:200], source="drawn")
        bounds = np.array([calibrate(value, fitted)[1] for value in raw[200:]])
        covered.append(np.mean((bounds[:, 0] <= mos[200:]) & (mos[200:] <= bounds[:, 1])))
    assert 0.945 <= np.mean(covered) <= 0.97


@pytest.mark.parametrize("count", [10, 16, 30])
def test_few_photos_give_a_wide_interval(count: int) -> None:
    """Whatever ten photos were drawn there is a calibration, and it does not promise more than ten photos can."""
    covered = []
    for seed in range(60):
        fitted = fit_calibration(*panel(count, seed), source="few")
        raw, mos = panel(100, 1000 + seed)
        bounds = np.array([calibrate(value, fitted)[1] for value in raw])
        covered.append(np.mean((bounds[:, 0] <= mos) & (mos <= bounds[:, 1])))
    assert 0.92 <= np.mean(covered) <= 0.985


def test_measured_coverage_is_that_of_new_photos() -> None:
    raw, mos = panel(600, 1)
    assert measured_coverage(raw, mos) == pytest.approx(0.95, abs=0.025)
    few = np.mean([measured_coverage(*panel(20, seed)) for seed in range(20)])
    assert 0.9 <= few <= 0.99
    others = np.random.default_rng(3).permutation(mos)  # scores that say nothing still keep their promise
    assert measured_coverage(raw, others) == pytest.approx(0.95, abs=0.03)


def test_calibrated_scores_are_unbiased(calibration: Calibration) -> None:
    raw, mos = panel(4000, 3)
    scores = np.array([calibrate(value, calibration)[0] for value in raw])
    assert abs((scores - mos).mean()) < 1
    assert np.corrcoef(scores, mos)[0, 1] > 0.9


def test_percentile_is_the_rank_among_the_reference(calibration: Calibration) -> None:
    raw, _ = panel(600, 1)
    scores = np.array([calibrate(value, calibration)[0] for value in raw])
    for value in (0.0, 30.0, float(np.median(raw)), 70.0, 100.0):
        score, _, percentile = calibrate(value, calibration)
        assert percentile == pytest.approx(100 * np.mean(scores < score), abs=1)


@pytest.mark.parametrize(
    ("score", "grade"),
    [
        (0, "bad"),
        (19.99, "bad"),
        (20, "poor"),
        (40, "fair"),
        (60, "good"),
        (79.9, "good"),
        (80, "excellent"),
        (100, "excellent"),
    ],
)
def test_grades_are_those_of_p910(score: float, grade: str) -> None:
    assert grade_of(score) == grade


def test_noise_depends_on_seed_index_and_shape_alone() -> None:
    eight, two = fixed_noise(8, (4, 6, 5), 1), fixed_noise(2, (4, 6, 5), 1)
    assert eight[:2].equal(two)
    assert not eight[0].equal(eight[1])
    assert not fixed_noise(1, (4, 6, 5), 2)[0].equal(eight[0])
    assert abs(float(eight.mean())) < 0.1
    assert abs(float(eight.std()) - 1) < 0.1
    # the stream is part of every score ever given: these digits must never change
    assert eight[0, 0, 0, :3].tolist() == pytest.approx(GOLDEN_NOISE, abs=0)


GOLDEN_NOISE = [1.7291035652160645, -1.4284534454345703, 1.0277447700500488]


def test_timesteps_are_those_of_the_method() -> None:
    assert scoring_timesteps(2) == (40, 80)
    assert scoring_timesteps(8) == (9, 21, 33, 45, 57, 69, 81, 93)
