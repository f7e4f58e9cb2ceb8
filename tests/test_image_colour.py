"""Colour, depth and alpha: what each kind of sample must come out as."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from genzqa.errors import CorruptInputError, UnsupportedFormatError
from genzqa.media.image import decode_image
from image_builders import (
    blocks,
    cmyk_profile,
    encode,
    gradient_image,
    grey_profile,
    png,
    png_chunk,
    rgb_profile,
    tiff,
)

DEEP = np.array([[0, 255, 256], [40000, 65534, 65535]], dtype=np.uint16)


def codes(photo):
    return [note.code for note in photo.notes]


def grey3(values):
    return np.repeat(np.asarray(values)[..., None], 3, axis=-1)


def close(photo, wanted, tolerance=1e-6):
    assert photo.pixels.dtype == np.float32
    np.testing.assert_allclose(photo.pixels, wanted, atol=tolerance)


# ---- alpha


def test_alpha_is_composited_over_mid_grey_with_exact_rounding():
    rgba = np.zeros((1, 4, 4), dtype=np.uint8)
    rgba[0] = [[255, 0, 10, 255], [255, 0, 10, 0], [255, 0, 10, 128], [1, 2, 3, 51]]
    photo = decode_image(encode(Image.fromarray(rgba), "PNG"))
    alpha = rgba[..., 3:] / 255
    wanted = np.floor(rgba[..., :3] * alpha + 128 * (1 - alpha) + 0.5)
    np.testing.assert_array_equal(photo.pixels, wanted)
    assert codes(photo) == ["alpha_over_grey"]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa", "La"])
def test_alpha_of_every_mode_and_no_note_when_opaque(mode):
    rgba = np.zeros((2, 2, 4), dtype=np.uint8)
    rgba[..., 3] = 255
    base = "LA" if mode in ("LA", "La") else "RGBA"
    opaque = decode_image(Image.fromarray(rgba).convert(base).convert(mode))
    assert codes(opaque) == []
    assert opaque.pixels.max() == 0
    rgba[0, 0, 3] = 0
    holed = decode_image(Image.fromarray(rgba).convert(base).convert(mode))
    assert holed.pixels[0, 0].tolist() == [128] * 3
    assert holed.pixels[1, 1].tolist() == [0] * 3
    assert codes(holed) == ["alpha_over_grey"]


def test_palette_with_alpha_channel():
    image = Image.frombytes("PA", (3, 1), bytes([1, 255, 1, 0, 2, 255]))
    image.putpalette([0, 0, 0, 10, 20, 30, 200, 0, 0])
    for photo in (decode_image(image), decode_image(encode(image, "TIFF"))):
        assert photo.pixels[0].tolist() == [[10, 20, 30], [128, 128, 128], [200, 0, 0]]
        assert codes(photo) == ["alpha_over_grey"]


def test_palette_transparency_as_index_and_as_table():
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), "L").convert("L")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    one = decode_image(encode(image, "PNG", transparency=1))
    assert one.pixels[0].tolist() == [[255, 0, 0], [128, 128, 128], [0, 0, 255]]
    table = decode_image(encode(image, "PNG", transparency=bytes([255, 0, 0])))
    assert table.pixels[0].tolist() == [[255, 0, 0], [128, 128, 128], [128, 128, 128]]
    assert codes(table) == ["alpha_over_grey"]
    assert codes(decode_image(encode(image, "PNG"))) == []
    gif = decode_image(encode(image, "GIF", transparency=2))
    assert gif.pixels[0].tolist() == [[255, 0, 0], [0, 255, 0], [128, 128, 128]]


@pytest.mark.parametrize(
    ("depth", "colour_type", "row", "key", "wanted"),
    [
        (1, 0, b"\xa0", ">H1", [128, 0, 128, 0]),
        (2, 0, b"\x1b", ">H3", [0, 85, 170, 128]),
        (4, 0, b"\x01\x2f", ">H2", [0, 17, 128, 255]),
        (8, 0, bytes([0, 7, 8, 255]), ">H7", [0, 128, 8, 255]),
    ],
)
def test_png_transparent_grey_value_at_every_depth(depth, colour_type, row, key, wanted):
    chunk = png_chunk(b"tRNS", struct.pack(">H", int(key[2:])))
    photo = decode_image(png(4, 1, depth, colour_type, [row], chunk))
    assert photo.pixels[0, :, 0].tolist() == wanted
    assert codes(photo) == ["alpha_over_grey"]


def test_png_transparent_colour_value():
    row = bytes([1, 2, 3, 1, 2, 4])
    photo = decode_image(png(2, 1, 8, 2, [row], png_chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))))
    assert photo.pixels[0].tolist() == [[128, 128, 128], [1, 2, 4]]
    deep = struct.pack(">6H", 40000, 2, 3, 50000, 2, 4)
    photo = decode_image(png(2, 1, 16, 2, [deep], png_chunk(b"tRNS", struct.pack(">3H", 40000, 2, 3))))
    assert photo.pixels[0].tolist() == [[128, 128, 128], [50000 >> 8, 0, 0]]
    assert codes(photo) == ["sixteen_bit", "alpha_over_grey"]


# ---- depth


def test_16_bit_grey_png_keeps_its_depth():
    photo = decode_image(png(3, 2, 16, 0, [row.astype(">u2").tobytes() for row in DEEP]))
    close(photo, grey3(DEEP / 65535))
    assert codes(photo) == ["sixteen_bit"]
    chunk = png_chunk(b"tRNS", struct.pack(">H", 40000))
    holed = decode_image(png(3, 2, 16, 0, [row.astype(">u2").tobytes() for row in DEEP], chunk))
    close(holed, grey3(np.where(DEEP == 40000, 128 / 255, DEEP / 65535)))
    assert codes(holed) == ["sixteen_bit", "alpha_over_grey"]


@pytest.mark.parametrize("colour_type", [2, 4, 6])
def test_16_bit_colour_png_is_its_high_byte(colour_type):
    samples = {2: 3, 4: 2, 6: 4}[colour_type]
    deep = np.random.default_rng(1).integers(0, 65536, (3, 4, samples)).astype(np.uint16)
    if samples in (2, 4):
        deep[..., -1] = 65535
    photo = decode_image(png(4, 3, 16, colour_type, [row.astype(">u2").tobytes() for row in deep]))
    wanted = grey3(deep[..., 0]) if samples == 2 else deep[..., :3]
    np.testing.assert_array_equal(photo.pixels, wanted >> 8)
    assert codes(photo) == ["sixteen_bit"]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("samples", [3, 4])
def test_16_bit_colour_tiff(order, planar, samples):
    deep = np.random.default_rng(2).integers(0, 65536, (5, 6, samples)).astype(np.uint16)
    deep[..., 3:] = 65535
    extra = {338: ("H", [2])} if samples == 4 else {}
    photo = decode_image(tiff(deep, 2, order=order, planar=planar, extra=extra))
    np.testing.assert_array_equal(photo.pixels, deep[..., :3] >> 8)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_16_bit_grey_tiff_and_modes(mode, compression):
    image = Image.frombytes(mode, (3, 2), DEEP.astype(">u2" if mode == "I;16B" else "<u2").tobytes())
    close(decode_image(encode(image, "TIFF", compression=compression)), grey3(DEEP / 65535))
    close(decode_image(image), grey3(DEEP / 65535))


def test_tiff_white_is_zero_is_inverted_at_every_depth():
    close(decode_image(tiff(DEEP, 0)), grey3(1 - DEEP / 65535))
    shallow = (DEEP >> 8).astype(np.uint8)
    np.testing.assert_array_equal(decode_image(tiff(shallow, 0)).pixels, grey3(255 - shallow))
    floats = (DEEP / 65535).astype(np.float32)
    close(decode_image(tiff(floats, 0, sample_format=3)), grey3(1 - floats))


def test_tiff_of_12_bits_has_its_own_full_scale():
    packed = bytes([0x00, 0x08, 0x00, 0xFF, 0xF0, 0x01])  # 0, 0x800, 0xfff, 1
    photo = decode_image(tiff(np.zeros((1, 4), dtype=np.uint16), 1, bits=12, data=packed))
    close(photo, grey3(np.array([[0, 0x800, 0xFFF, 1]]) / 4095))


@pytest.mark.parametrize("order", ["<", ">"])
def test_integer_tiff_is_scaled_by_range(order):
    values = np.array([[-30000, 0], [10000, 30000]])
    for dtype in (np.int16, np.int32):
        photo = decode_image(tiff(values.astype(dtype), 1, sample_format=2, order=order))
        close(photo, grey3((values + 30000) / 60000))
        assert codes(photo) == ["integer_range_scaled"]
    small = np.array([[-100, 0], [50, 100]], dtype=np.int8)
    close(decode_image(tiff(small, 1, sample_format=2, order=order)), grey3((small.astype(float) + 100) / 200))


def test_integer_extremes_do_not_overflow():
    unsigned = np.array([[0, 2**31, 2**32 - 1]], dtype=np.uint32)
    close(decode_image(tiff(unsigned, 1)), grey3(unsigned / (2**32 - 1)))
    signed = np.array([[-(2**31), 0, 2**31 - 1]], dtype=np.int32)
    close(decode_image(Image.fromarray(signed)), grey3((signed + 2.0**31) / (2**32 - 1)))
    close(decode_image(Image.fromarray(np.full((2, 2), 7, dtype=np.int32))), 128 / 255)


def test_float_tiff():
    inside = np.array([[0, 0.25], [0.5, 1]], dtype=np.float32)
    photo = decode_image(encode(Image.fromarray(inside), "TIFF"))
    np.testing.assert_array_equal(photo.pixels, grey3(inside))
    assert codes(photo) == []
    outside = np.array([[-3e38, 0], [1.5e38, 3e38]], dtype=np.float32)
    photo = decode_image(encode(Image.fromarray(outside), "TIFF"))
    close(photo, grey3([[0, 0.5], [0.75, 1]]))
    assert codes(photo) == ["float_range_scaled"]
    broken = np.array([[np.nan, 0.25], [np.inf, 1]], dtype=np.float32)
    photo = decode_image(encode(Image.fromarray(broken), "TIFF"))
    np.testing.assert_array_equal(photo.pixels, grey3([[0, 0.25], [0, 1]]).astype(np.float32))
    assert codes(photo) == ["non_finite_zeroed"]
    with pytest.raises(CorruptInputError, match="finite"):
        decode_image(encode(Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32)), "TIFF"))


def test_tiff_layouts_pillow_cannot_read_are_called_unsupported():
    with pytest.raises(UnsupportedFormatError, match="pixel mode"):
        decode_image(tiff(np.zeros((2, 2, 3), dtype=np.uint32), 2))
    with pytest.raises(UnsupportedFormatError):
        decode_image(tiff(np.zeros((2, 2), dtype=np.uint8), 1, extra={259: ("H", [34887])}))
    with pytest.raises(UnsupportedFormatError, match="preview"):
        decode_image(tiff(np.zeros((2, 2, 3), dtype=np.uint8), 2, extra={254: ("I", [1])}))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBX", "HSV", "YCbCr"])
def test_plain_modes(mode):
    image = gradient_image(mode)
    photo = decode_image(image)
    np.testing.assert_array_equal(photo.pixels, np.asarray(image.convert("RGB")))
    assert photo.pixels.dtype == np.uint8
    assert len(np.unique(photo.pixels)) > (1 if mode == "1" else 5)


def test_one_bit_and_palette_files():
    bits = np.array([[True, False, True]])
    for image_format in ("PNG", "TIFF", "BMP"):
        photo = decode_image(encode(Image.fromarray(bits), image_format))
        assert photo.pixels[0, :, 1].tolist() == [255, 0, 255]


# ---- colour spaces and profiles


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "jpeg"])
def test_ycbcr_tiff(compression):
    photo = decode_image(encode(gradient_image("YCbCr"), "TIFF", compression=compression) + bytes(5000))
    assert np.abs(photo.pixels.astype(int) - blocks()).max() <= 6


def test_lab_tiff():
    lab = np.array([[[255, 0, 0], [0, 0, 0], [138, 81, 70]]], dtype=np.uint8)  # the last is sRGB red
    photo = decode_image(tiff(lab, 8))
    wanted = [[255, 255, 255], [0, 0, 0], [255, 0, 0]]
    assert np.abs(photo.pixels[0].astype(int) - wanted).max() <= 6
    assert codes(photo) == ["lab_converted"]


@pytest.mark.parametrize(("image_format", "tolerance"), [("TIFF", 0), ("JPEG", 4)])
def test_cmyk_without_profile(image_format, tolerance):
    """Pillow writes CMYK JPEGs as Adobe does, inverted; read upside down this would be far off."""
    cmyk = np.zeros((8, 32, 4), dtype=np.uint8)
    cmyk[:, 8:16, 0], cmyk[:, 16:24, 3], cmyk[:, 24:] = 255, 255, (0, 255, 255, 0)
    image = Image.frombytes("CMYK", (32, 8), cmyk.tobytes())
    photo = decode_image(encode(image, image_format, **({"quality": 100} if image_format == "JPEG" else {})))
    wanted = [[255, 255, 255], [0, 255, 255], [0, 0, 0], [255, 0, 0]]
    assert np.abs(photo.pixels[4, 4::8].astype(int) - wanted).max() <= tolerance
    assert codes(photo) == ["cmyk_converted"]


def test_cmyk_with_profile():
    cmyk = np.zeros((1, 3, 4), dtype=np.uint8)
    cmyk[0, 1, 0], cmyk[0, 2, :] = 255, 255
    image = Image.frombytes("CMYK", (3, 1), cmyk.tobytes())
    photo = decode_image(encode(image, "TIFF", icc_profile=cmyk_profile()))
    assert np.abs(photo.pixels[0].astype(int) - grey3([255, 119, 0])).max() <= 4  # L 50 % is sRGB 119, not cyan
    assert codes(photo) == ["cmyk_converted", "icc_converted"]


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "WEBP", "AVIF", "JPEG"])
def test_rgb_profile_is_applied(image_format):
    red = np.zeros((16, 16, 3), dtype=np.uint8)
    red[..., 0] = 255
    options = {"lossless": True} if image_format == "WEBP" else {"quality": 100} if image_format != "PNG" else {}
    options = {} if image_format == "TIFF" else options
    photo = decode_image(encode(Image.fromarray(red), image_format, icc_profile=rgb_profile("grb"), **options))
    assert np.abs(photo.pixels.astype(int) - [0, 255, 0]).max() <= 6
    (note,) = photo.notes
    assert note.code == "icc_converted"
    assert "“Test”" in note.text


def test_profile_leaves_alpha_and_grey_background_alone():
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0]]], dtype=np.uint8)
    photo = decode_image(encode(Image.fromarray(rgba), "PNG", icc_profile=rgb_profile("grb", 1.0)))
    assert np.abs(photo.pixels[0].astype(int) - [[0, 255, 0], [128, 128, 128]]).max() <= 3
    assert codes(photo) == ["icc_converted", "alpha_over_grey"]


def srgb_of_linear(values):
    values = np.asarray(values, dtype=float)
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * np.maximum(values, 1e-9) ** (1 / 2.4) - 0.055)


def test_grey_profile_on_8_and_16_bits_and_rgb_profile_on_grey():
    ramp = np.arange(0, 256, 5, dtype=np.uint8)[None]
    wanted = srgb_of_linear(ramp / 255)
    photo = decode_image(encode(Image.fromarray(ramp), "PNG", icc_profile=grey_profile(1.0)))
    assert np.abs(photo.pixels / 255 - grey3(wanted)).max() < 2 / 255
    photo = decode_image(encode(Image.fromarray(grey3(ramp)), "PNG", icc_profile=rgb_profile("rgb", 1.0)))
    assert np.abs(photo.pixels / 255 - grey3(wanted)).max() < 2 / 255
    photo = decode_image(encode(Image.fromarray(ramp), "JPEG", quality=100, icc_profile=rgb_profile("rgb", 1.0)))
    assert np.abs(photo.pixels[:, 3:] / 255 - grey3(wanted)[:, 3:]).max() < 6 / 255
    deep = (ramp.astype(np.uint16) * 257) + 100
    photo = decode_image(encode(Image.fromarray(deep), "TIFF", icc_profile=grey_profile(1.0)))
    assert np.abs(photo.pixels - grey3(srgb_of_linear(np.minimum(deep / 65535, 1))))[:, 1:].max() < 2 / 255
    assert codes(photo) == ["sixteen_bit", "icc_converted"]


def test_srgb_profile_changes_nothing_and_is_not_noted():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for mode in ("RGB", "L"):
        photo = decode_image(encode(gradient_image(mode), "PNG", icc_profile=profile))
        np.testing.assert_array_equal(photo.pixels, np.asarray(gradient_image(mode).convert("RGB")))
        assert photo.notes == ()


@pytest.mark.parametrize(
    ("mode", "profile"),
    [("RGB", b"not a profile"), ("RGB", rgb_profile()[:200]), ("RGB", cmyk_profile()), ("CMYK", rgb_profile())],
)
def test_unusable_profile_is_ignored_and_noted(mode, profile):
    image = gradient_image(mode)
    photo = decode_image(encode(image, "TIFF", icc_profile=profile))
    np.testing.assert_array_equal(photo.pixels, np.asarray(image.convert("RGB")))
    assert codes(photo)[-1] == "icc_ignored"


def test_profile_name_cannot_smuggle_control_characters():
    profile = rgb_profile("grb").replace(b"Test\0", b"\x1b[2J\0")
    photo = decode_image(encode(gradient_image(), "PNG", icc_profile=profile))
    assert photo.notes[0].text.isprintable()


def test_lazy_pillow_image_agrees_with_its_file():
    for data in (encode(gradient_image(), "PNG", icc_profile=rgb_profile("grb")), tiff(DEEP, 1), tiff(DEEP, 0)):
        with Image.open(io.BytesIO(data)) as image:
            lazy = decode_image(image)
        np.testing.assert_array_equal(lazy.pixels, decode_image(data).pixels)
        assert lazy.notes == decode_image(data).notes
