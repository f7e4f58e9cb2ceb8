"""Colour of videos: matrix and range, wide gamut, HDR."""

from __future__ import annotations

import numpy as np
import pytest
from av.video.reformatter import Colorspace

from genzqa.media.video import open_video
from genzqa.media.video_light import _roll_off, light_to_pq, pq_to_light, to_srgb
from videos import encode, quadrants

H273 = {"bt709": (Colorspace.ITU709, 1), "bt601": (Colorspace.ITU601, 6), "bt2020": (Colorspace.BT2020, 9)}


@pytest.mark.parametrize("pixel_format", ["yuv444p", "yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", H273)
def test_a_known_colour_survives(matrix, full_range, pixel_format):
    picture = quadrants()
    space, number = H273[matrix]
    tags = {"colorspace": number, "color_range": 1 + full_range, "color_primaries": 1, "color_trc": 1}
    data = encode([picture], matrix=space, full_range=full_range, pixel_format=pixel_format, tags=tags,
                  options={"crf": "1"})  # fmt: skip
    with open_video(data) as video:
        (moment,) = video.moments([0.0], clip_frames=1, clip_side=32)
        assert (video.facts.matrix, video.facts.full_range) == (matrix, full_range)
    scale = 255 if moment.pixels.dtype == np.float32 else 1
    rows, columns = np.ix_([16, 48], [20, 76])
    np.testing.assert_allclose(moment.pixels[rows, columns] * float(scale), picture[rows, columns], atol=3)
    np.testing.assert_allclose(moment.clip[0][rows // 2, columns // 2].astype(int), picture[rows, columns], atol=3)


@pytest.mark.parametrize(("height", "matrix"), [(576, "bt601"), (720, "bt709")])
def test_untagged_video_is_taken_by_its_lines(height, matrix):
    picture = quadrants(height, 64)
    with open_video(encode([picture], matrix=H273[matrix][0])) as video:
        assert (video.facts.matrix, video.facts.full_range) == (matrix, False)
        (moment,) = video.moments([0.0])
    assert np.abs(moment.pixels[100, 16].astype(int) - picture[100, 16]).max() <= 3


def hdr(levels, transfer):
    """A 10-bit BT.2020 video of one row of grey patches, given as code values in 0..1."""
    row = np.repeat((np.array(levels) * 65535).round().astype(np.uint16), 16)
    picture = np.broadcast_to(row[None, :, None], (32, len(row), 3)).copy()
    tags = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": transfer}
    return encode([picture], codec="libx264", pixel_format="yuv420p10le", matrix=Colorspace.BT2020, tags=tags,
                  options={"crf": "1"})  # fmt: skip


def srgb(light):
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def test_pq_is_tone_mapped():
    nits = np.array([5.0, 50.0, 203.0, 600.0, 1000.0, 4000.0])
    with open_video(hdr(light_to_pq(nits), 16)) as video:
        assert video.facts.transfer == "pq"
        assert [note.code for note in video.notes] == ["hdr_tone_mapped"]
        (moment,) = video.moments([0.0], clip_frames=1, clip_side=32)
    patches = moment.pixels[16, 8::16].mean(axis=-1)
    np.testing.assert_allclose(patches[:2], srgb(nits[:2] / 203), atol=0.01)  # below the knee: unchanged
    assert 0.85 < patches[2] < 0.95  # reference white is a little below the white of SDR
    assert patches[2] < patches[3] < patches[4] <= 1
    assert patches[4:] == pytest.approx([1, 1], abs=0.01)
    np.testing.assert_allclose(moment.clip[0, 16, 8::16].mean(axis=-1) / 255, patches, atol=0.01)


def test_hlg_is_tone_mapped():
    with open_video(hdr([0.1, 0.38, 0.75, 1.0], 18)) as video:
        assert video.facts.transfer == "hlg"
        (moment,) = video.moments([0.0])
    patches = moment.pixels[16, 8::16].mean(axis=-1)
    # BT.2408: 75 % HLG is the reference white of 203 cd/m2, and 38 % is grey of 26 cd/m2 (18 % card).
    assert patches[1] == pytest.approx(srgb(np.array(26 / 203)), abs=0.02)
    assert 0.85 < patches[2] < 0.95
    assert patches[3] == pytest.approx(1, abs=0.01)


def test_wide_gamut_is_converted():
    # The red of sRGB in BT.2020 is (0.6274, 0.0691, 0.0164) of linear light (ITU-R BT.2087).
    inside = np.round(srgb(np.array([0.6274, 0.0691, 0.0164])) * 255).astype(np.uint8)
    picture = np.broadcast_to(inside, (48, 64, 3)).copy()
    tags = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": 14}
    with open_video(encode([picture], matrix=Colorspace.BT2020, tags=tags, options={"crf": "1"})) as video:
        (moment,) = video.moments([0.0])
        assert [note.code for note in video.notes] == ["wide_gamut_converted"]
    assert moment.pixels[24, 32] == pytest.approx([255, 0, 0], abs=14)


def test_greys_of_wide_gamut_stay():
    code = np.linspace(0, 65535, 50).astype(np.uint16)
    grey = np.repeat(code[None, :, None], 3, axis=2)
    np.testing.assert_allclose(to_srgb(grey, "sdr", 9), grey / 65535, atol=1e-3)


def plain_srgb(rgb, transfer, primaries):
    """What `to_srgb` does, formula by formula in double precision."""
    code = rgb / 65535
    if transfer == "sdr":
        light = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    elif transfer == "pq":
        light = pq_to_light(code) / 203
    else:
        scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        light = 1000 / 203 * scene * ((scene @ [0.2627, 0.6780, 0.0593]) ** 0.2)[..., None]
    if transfer != "sdr":
        light = light * np.interp(light.max(axis=-1), *_roll_off())[..., None]
    if primaries == 9:
        light = light @ np.array([(1.660491, -0.587641, -0.072850), (-0.124550, 1.132900, -0.008349),
                                  (-0.018151, -0.100579, 1.118730)]).T  # fmt: skip
    return srgb(np.clip(light, 0, 1))


@pytest.mark.parametrize("primaries", [1, 9])
@pytest.mark.parametrize("transfer", ["sdr", "pq", "hlg"])
def test_tables_agree_with_the_formulas(transfer, primaries):
    generator = np.random.default_rng(8)
    colours = generator.integers(0, 65536, (200, 300, 3)) * generator.random((200, 300, 1)) ** 2  # many dark ones
    greys = np.linspace(0, 65535, 300)[None, :, None].repeat(3, axis=2)
    rgb = np.concatenate([colours, greys, np.eye(3)[None].repeat(100, axis=1) * 65535]).round().astype(np.uint16)
    np.testing.assert_allclose(to_srgb(rgb, transfer, primaries), plain_srgb(rgb, transfer, primaries), atol=3e-5)
