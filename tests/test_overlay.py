"""The drawn quality map: size, range, and that bad areas change while good ones stay."""

import io

import numpy as np
import pytest
from PIL import Image

from genzqa.media.overlay import LONG_SIDE, SCALE, colour_range, overlay_png


def draw(pixels, quality_map, score=50.0):
    content = overlay_png(pixels, np.asarray(quality_map, np.float32), score=score, grade="fair")
    assert content.startswith(b"\x89PNG")
    return np.asarray(Image.open(io.BytesIO(content)))


def half_bad():
    quality_map = np.full((64, 64), 90, np.float32)
    quality_map[:, :32] = 10
    return quality_map


@pytest.mark.parametrize("dark", [0, 128, 255])
def test_bad_areas_are_coloured_and_good_ones_left_alone(dark):
    photo = np.full((400, 600, 3), dark, np.uint8)
    drawn = draw(photo, half_bad()).astype(int)
    bad, good = drawn[:400, :240], drawn[:400, 360:600]
    assert np.abs(good - dark).max() <= 3
    assert np.abs(bad - dark).max(-1).min() > 60
    assert (bad[..., 0] > bad[..., 1] + 60).all()


def test_the_legend_is_below_the_whole_photo():
    drawn = draw(np.full((400, 600, 3), 77, np.uint8), np.full((64, 64), 100))
    assert drawn.shape[1] == 600
    assert drawn.shape[0] > 440
    assert (drawn[400:] == 250).mean() > 0.5
    assert drawn[400:].min() < 60


@pytest.mark.parametrize(
    ("width", "height", "expected"), [(1024, 512, 1024), (3000, 2000, 1024), (5000, 3, 1024), (512, 400, 512)]
)
def test_large_photos_are_shrunk(width, height, expected):
    drawn = draw(np.zeros((height, width, 3), np.uint8), half_bad())
    assert drawn.shape[1] == expected <= LONG_SIDE


def test_tiny_photos_are_enlarged_and_the_legend_has_room():
    assert draw(np.zeros((3, 5, 3), np.uint8), half_bad()).shape[1] >= 360
    assert draw(np.zeros((1, 1, 3), np.uint8), half_bad()).shape[1] >= 360


def test_depth_does_not_matter():
    photo = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    assert (draw(photo, half_bad()) == draw((photo / 255).astype(np.float32), half_bad())).all()


def test_the_score_is_in_the_legend():
    photo = np.zeros((100, 400, 3), np.uint8)
    assert (draw(photo, half_bad(), 12.3)[100:] != draw(photo, half_bad(), 78.9)[100:]).any()


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ((50, 50), 40, 60),
        ((98, 99), 80, 100),
        ((1, 2), 0, 20),
        ((20, 70), 20, 70),
        ((-300, 400), 0, 100),
        ((-50, -40), 0, 20),
    ],
)
def test_colours_span_at_least_a_grade_within_the_scale(values, low, high):
    found = colour_range(np.repeat(np.float32(values), 500).reshape(20, 50))
    assert found == pytest.approx((low, high), abs=1.5)


def test_the_colour_scale_is_ordered_by_lightness():
    linear = np.where(SCALE / 255 <= 0.04045, SCALE / 255 / 12.92, ((SCALE / 255 + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    lightness = 116 * np.cbrt(luminance) - 16
    steps = np.diff(lightness)
    assert steps.min() > 5
    assert steps.max() < 3 * steps.min()
