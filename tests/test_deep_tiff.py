"""Deep TIFFs that Pillow has no mode for, against files that tifffile wrote."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image, TiffImagePlugin

from genzqa.errors import CorruptInputError, InputTooLargeError, UnsupportedFormatError
from genzqa.limits import Limits
from genzqa.media import pixels
from genzqa.media.image import decode_image
from image_builders import blocks, encode, grey_profile, rgb_profile, tiff

GREY = 128 / 255


def written(samples, **options):
    out = io.BytesIO()
    tifffile.imwrite(out, samples, **options)
    return out.getvalue()


def random(*shape, dtype=np.float32):
    return np.random.default_rng(4).random(shape).astype(dtype)


def codes(photo):
    return [note.code for note in photo.notes]


LAYOUTS = {
    "one strip": {},
    "strips": {"rowsperstrip": 16},
    "tiles": {"tile": (32, 16)},
    "deflate": {"compression": "zlib", "rowsperstrip": 7},
    "deflate, tiles": {"compression": "zlib", "tile": (16, 48)},
    "big-endian": {"byteorder": ">", "compression": "zlib"},
    "BigTIFF": {"bigtiff": True, "rowsperstrip": 16},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floating_point_colour(layout, planar, dtype):
    colour = random(70, 45, 3, dtype=dtype)
    stored = np.moveaxis(colour, -1, 0) if planar == "separate" else colour
    stored = stored.astype(stored.dtype.newbyteorder(LAYOUTS[layout].get("byteorder", "<")))
    photo = decode_image(written(stored, photometric="rgb", planarconfig=planar, **LAYOUTS[layout]))
    np.testing.assert_array_equal(photo.pixels, colour.astype(np.float32))
    assert (photo.format, photo.width, photo.height, codes(photo)) == ("tiff", 45, 70, [])


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_floating_point_grey(dtype):
    grey = random(20, 30, dtype=dtype)
    wanted = np.repeat(grey.astype(np.float32)[..., None], 3, axis=2)
    np.testing.assert_array_equal(decode_image(written(grey)).pixels, wanted)
    inverted = decode_image(written(grey, photometric="miniswhite"))
    np.testing.assert_allclose(inverted.pixels, 1 - wanted, atol=1e-6)
    assert not codes(inverted)


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"compression": "zlib", "predictor": 2, "tile": (16, 16)}]
)
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("order", "<>")
def test_16_bit_grey_with_alpha(options, planar, order):
    deep = (random(33, 21, 2) * 65535).astype(np.uint16)
    deep[:9, :, 1], deep[9:12, :, 1] = 65535, 0
    stored = (np.moveaxis(deep, -1, 0) if planar == "separate" else deep).astype(order + "u2")
    data = written(
        stored, photometric="minisblack", planarconfig=planar, extrasamples=["unassalpha"], byteorder=order, **options
    )
    photo = decode_image(data)
    grey, alpha = deep[..., :1] / 65535, deep[..., 1:] / 65535
    np.testing.assert_allclose(photo.pixels, np.repeat(grey * alpha + GREY * (1 - alpha), 3, axis=2), atol=1e-6)
    assert codes(photo) == ["sixteen_bit", "alpha_over_grey"]
    deep[..., 1] = 65535
    assert codes(decode_image(tiff(deep, 1, extra={338: ("H", [2])}))) == ["sixteen_bit"]


def float_predicted(samples):
    """Adobe's TIFF Technical Note 3, section 2: bytes of a row by significance, then their differences."""
    height, _, channels = samples.shape
    row = samples.astype(samples.dtype.newbyteorder(">")).reshape(height, -1, 1).view(np.uint8).transpose(0, 2, 1)
    row = np.ascontiguousarray(row).reshape(height, -1, channels)
    row[:, 1:] -= row[:, :-1].copy()
    return row.tobytes()


def packed(data, row_bytes, compression):
    """One strip of these bytes, as libtiff compresses it."""
    image = Image.frombytes("L", (row_bytes, len(data) // row_bytes), data)
    file = encode(image, "TIFF", compression=compression, strip_size=1 << 20)
    tags = TiffImagePlugin.TiffImageFile(io.BytesIO(file)).tag_v2
    return file[tags[273][0] : tags[273][0] + tags[279][0]]


@pytest.mark.parametrize(("name", "number"), [("tiff_lzw", 5), ("tiff_adobe_deflate", 8), ("tiff_deflate", 32946),
                                              ("packbits", 32773), ("lzma", 34925), ("zstd", 50000)])  # fmt: skip
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_compressions_and_the_floating_point_predictor(name, number, dtype):
    colour = random(12, 17, 3, dtype=dtype)
    for predictor, data in ((1, colour.tobytes()), (3, float_predicted(colour))):
        extra = {259: ("H", [number]), 317: ("H", [predictor])}
        file = tiff(colour, 2, sample_format=3, extra=extra, data=packed(data, colour[0].nbytes, name))
        np.testing.assert_array_equal(decode_image(file).pixels, colour.astype(np.float32))


def test_white_of_floating_point_colour():
    """In 0..1 as it is; else one range for all channels, so that hues stay; what is not finite is black."""
    colour = random(8, 8, 3)
    bright = decode_image(written(colour * 40 - 4, photometric="rgb"))
    low, high = colour.min(), colour.max()
    np.testing.assert_allclose(bright.pixels, (colour - low) / (high - low), atol=1e-5)
    assert codes(bright) == ["float_range_scaled"]
    extremes = np.array([[[-1, 0, 1]]]) * np.finfo(np.float64).max
    np.testing.assert_allclose(decode_image(written(extremes, photometric="rgb")).pixels, [[[0, 0.5, 1]]])
    colour[0, 0], colour[1, 1, 2] = np.nan, np.inf
    broken = decode_image(written(colour, photometric="rgb"))
    assert broken.pixels[0, 0].tolist() == [0, 0, 0]
    assert broken.pixels[1, 1].tolist() == [*colour[1, 1, :2], 0]
    assert codes(broken) == ["non_finite_zeroed"]
    with pytest.raises(CorruptInputError, match="finite"):
        decode_image(written(np.full((4, 4, 3), np.nan, np.float32), photometric="rgb"))


@pytest.mark.parametrize(
    ("extra", "kind"), [("unassalpha", "straight"), ("assocalpha", "premultiplied"), ("unspecified", "none")]
)
def test_alpha_of_floating_point_colour(extra, kind):
    straight, alpha = random(9, 9, 3), random(9, 9, 1)[::-1]
    alpha[0] = 0
    stored = straight * alpha if kind == "premultiplied" else straight
    photo = decode_image(written(np.dstack([stored, alpha]), photometric="rgb", extrasamples=[extra]))
    wanted = straight if kind == "none" else straight * alpha + GREY * (1 - alpha)
    np.testing.assert_allclose(photo.pixels, wanted, atol=1e-6)
    assert codes(photo) == ([] if kind == "none" else ["alpha_over_grey"])


def test_profile_of_deep_samples():
    """Between the 256 values of 8 bits, neither clipped nor in steps."""
    ramp = np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64)
    for samples, profile in (
        (np.dstack([ramp, ramp / 2, 1 - ramp]), rgb_profile("grb")),
        (ramp.astype(np.float64), grey_profile(1.0)),
    ):
        photo = decode_image(
            written(samples, photometric="rgb" if samples.ndim == 3 else "minisblack", iccprofile=profile)
        )
        assert codes(photo) == ["icc_converted"]
        eight = Image.fromarray(np.rint(samples * 255).astype(np.uint8))
        eight.info["icc_profile"] = profile
        near = decode_image(eight).pixels / 255
        steps = np.abs(np.diff(near, axis=1)).max()  # how far neighbours of 8 bits are apart
        assert np.abs(photo.pixels - near).max() <= steps
        assert len(np.unique(photo.pixels[..., 0])) > 1000


@pytest.mark.parametrize("value", [1, 3, 6])
def test_orientation_and_pages(value):
    colour = random(10, 14, 3)
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as writer:
        for page in (colour, colour / 2):
            writer.write(page, photometric="rgb", extratags=[(274, 3, 1, value, True)], metadata=None)
    photo = decode_image(out.getvalue())
    np.testing.assert_array_equal(photo.pixels, {1: colour, 3: np.rot90(colour, 2), 6: np.rot90(colour, -1)}[value])
    assert photo.pixels.flags.c_contiguous
    assert codes(photo) == ["multi_page_first", *(["orientation_applied"] if value > 1 else [])]


def test_rows_converted_together_do_not_matter(monkeypatch):
    data = written(random(50, 20, 4) * 3, photometric="rgb", extrasamples=["unassalpha"], iccprofile=rgb_profile("grb"))
    whole = decode_image(data)
    monkeypatch.setattr(pixels, "STRIP_PIXELS", 60)
    np.testing.assert_array_equal(decode_image(data).pixels, whole.pixels)


def test_limits_hold_on_the_header():
    data = tiff(np.zeros((40, 50, 3), np.float32), 2, sample_format=3)
    for limits in (Limits(max_pixels=1999), Limits(max_side=49)):
        with pytest.raises(InputTooLargeError, match="50 x 40"):
            decode_image(data[:-20000], limits=limits)  # too large is found before cut short


@pytest.mark.parametrize(
    ("tags", "error", "match"),
    [
        ({257: ("I", [100_000]), 278: ("I", [100_000])}, CorruptInputError, "cut short"),
        ({256: ("I", [0])}, CorruptInputError, "cannot be"),
        ({278: ("I", [5])}, CorruptInputError, "instead of"),
        ({322: ("I", [8]), 323: ("I", [8]), 324: ("I", [8]), 325: ("I", [8])}, CorruptInputError, "cannot be"),
        ({317: ("H", [9])}, CorruptInputError, "predictor"),
        ({259: ("H", [5])}, CorruptInputError, "damaged"),
        ({259: ("H", [7])}, UnsupportedFormatError, "pixel mode"),
        ({254: ("I", [1])}, UnsupportedFormatError, "preview"),
    ],
)
def test_tags_that_do_not_fit(tags, error, match):
    samples = random(40, 50, 3)
    with pytest.raises(error, match=match):
        decode_image(tiff(samples, 2, sample_format=3, extra={**tags}), limits=Limits(max_side=200_000))


@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "rowsperstrip": 9}, {"tile": (16, 16)}])
def test_files_cut_short(options):
    data = written(random(40, 50, 3), photometric="rgb", metadata=None, **options)
    for keep in (0.2, 0.5, 0.9):
        with pytest.raises(CorruptInputError):
            decode_image(data[: int(len(data) * keep)])


def test_integers_stay_with_pillow():
    deep = (random(6, 5, 3) * 65535).astype(np.uint16)
    np.testing.assert_array_equal(decode_image(tiff(deep, 2)).pixels, deep >> 8)
    with pytest.raises(UnsupportedFormatError, match="pixel mode"):
        decode_image(tiff(deep.astype(np.uint32), 2))
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(blocks()), "TIFF")).pixels, blocks())
