"""Arrays, tensors and Pillow images."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from genzqa.errors import CorruptInputError, InputTooLargeError, UnsupportedFormatError
from genzqa.limits import Limits
from genzqa.media import pixels
from genzqa.media.image import decode_image
from image_builders import blocks, cmyk_profile, gradient_image, grey_profile, rgb_profile

DEEP = np.random.default_rng(3).integers(0, 65536, (5, 7, 3)).astype(np.uint16)


def grey3(values):
    return np.repeat(np.asarray(values)[..., None], 3, axis=-1)


def test_uint8_array_shapes():
    picture = blocks()
    photo = decode_image(picture)
    np.testing.assert_array_equal(photo.pixels, picture)
    assert (photo.name, photo.format, photo.width, photo.height) == ("<array>", "memory", 32, 24)
    for grey in (picture[..., 0], picture[..., :1]):
        np.testing.assert_array_equal(decode_image(grey).pixels, grey3(picture[..., 0]))
    rgba = np.dstack([picture, np.full((24, 32), 255, dtype=np.uint8)])
    np.testing.assert_array_equal(decode_image(rgba).pixels, picture)
    rgba[0, 0, 3] = 0
    holed = decode_image(rgba)
    assert holed.pixels[0, 0].tolist() == [128] * 3
    assert holed.notes[0].code == "alpha_over_grey"


def test_bool_uint16_and_float_scales():
    flags = np.array([[True, False]])
    np.testing.assert_array_equal(decode_image(flags).pixels, grey3([[255, 0]]))
    np.testing.assert_allclose(decode_image(DEEP).pixels, DEEP / 65535, atol=1e-7)
    for dtype in (np.float16, np.float32, np.float64):
        values = (DEEP / 65535).astype(dtype)
        photo = decode_image(values)
        np.testing.assert_array_equal(photo.pixels, values.astype(np.float32))
        assert photo.pixels.dtype == np.float32


def test_deep_alpha():
    rgba = np.array([[[1.0, 0.0, 0.5, 0.25], [0.2, 0.4, 0.6, 1.0]]])
    photo = decode_image(rgba)
    wanted = rgba[..., :3] * rgba[..., 3:] + 128 / 255 * (1 - rgba[..., 3:])
    np.testing.assert_allclose(photo.pixels, wanted, atol=1e-6)
    assert [note.code for note in photo.notes] == ["alpha_over_grey"]
    assert decode_image(np.ones((2, 2, 4))).notes == ()
    np.testing.assert_allclose(decode_image((rgba * 65535).astype(np.uint16)).pixels, wanted, atol=1e-4)


@pytest.mark.parametrize("base", [blocks(), DEEP, (DEEP / 65535).astype(np.float32)])
def test_memory_layout_does_not_matter(base):
    wanted = decode_image(base.copy()).pixels
    read_only = base.copy()
    read_only.flags.writeable = False
    for array in (
        np.asfortranarray(base),
        base[::-1, ::-1].copy()[::-1, ::-1],
        np.repeat(base, 2, axis=1)[:, ::2],
        base.astype(base.dtype.newbyteorder(">")),
        read_only,
    ):
        photo = decode_image(array)
        np.testing.assert_array_equal(photo.pixels, wanted)
        assert photo.pixels.flags.c_contiguous
        assert photo.pixels.flags.writeable
        assert photo.pixels.dtype.isnative
        assert not np.shares_memory(photo.pixels, array)


@pytest.mark.parametrize(
    ("array", "hint"),
    [
        (np.zeros((2, 4, 4, 3), dtype=np.uint8), "one picture at a time"),
        (np.zeros((3, 20, 20), dtype=np.uint8), "channels last"),
        (np.zeros((20, 20, 2), dtype=np.uint8), "arrays are"),
        (np.zeros(20, dtype=np.uint8), "arrays are"),
        (np.zeros((4, 4), dtype=np.int64), "uint8"),
        (np.zeros((4, 4), dtype=complex), "uint8"),
        (np.zeros((4, 4), dtype=object), "uint8"),
        (np.full((4, 4), 200.0), "divide by 255"),
        (np.full((4, 4), -0.1), "clip"),
        (torch.zeros(1, 3, 4, 4), "one picture at a time"),
        (torch.zeros(20, 20, 3), "channels first"),
        (torch.zeros(2, 20, 20), "tensors are"),
        (torch.zeros(4, 4, dtype=torch.int64), "uint8"),
        (torch.zeros(3, 4, 4, device="meta"), "dense"),
        (torch.full((3, 4, 4), 200.0), "divide by 255"),
        (7, "path"),
        (None, "path"),
        (bytearray(b"x"), "path"),
    ],
)
def test_what_is_no_picture(array, hint):
    with pytest.raises(UnsupportedFormatError, match=hint) as caught:
        decode_image(array)
    assert caught.value.subject.startswith("<")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(bad):
    array = np.zeros((4, 4, 3), dtype=np.float32)
    array[1, 2, 0] = bad
    for source in (array, torch.from_numpy(array).permute(2, 0, 1)):
        with pytest.raises(CorruptInputError, match="NaN or infinite"):
            decode_image(source)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 4, 3), (4, 0, 3)])
def test_zero_size(shape):
    with pytest.raises(CorruptInputError, match="zero size"):
        decode_image(np.zeros(shape, dtype=np.uint8))
    with pytest.raises(CorruptInputError, match="0"):
        decode_image(Image.new("RGB", (0, 3)))
    with pytest.raises(CorruptInputError, match="zero size"):
        decode_image(torch.zeros(3, 0, 4))


def test_limits_hold_in_memory():
    limits = Limits(max_pixels=32 * 24 - 1)
    for source in (blocks(), gradient_image(), torch.from_numpy(blocks()).permute(2, 0, 1)):
        with pytest.raises(InputTooLargeError, match="32 x 24"):
            decode_image(source, limits=limits)


def test_tensors():
    picture = blocks()
    tensor = torch.from_numpy(picture).permute(2, 0, 1)
    photo = decode_image(tensor)
    np.testing.assert_array_equal(photo.pixels, picture)
    assert (photo.name, photo.format) == ("<tensor>", "memory")
    for grey in (tensor[0], tensor[:1]):
        np.testing.assert_array_equal(decode_image(grey).pixels, grey3(picture[..., 0]))
    values = tensor.float() / 255
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        typed = values.to(dtype).requires_grad_()
        wanted = typed.detach().float().permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(decode_image(typed).pixels, wanted)
    rgba = torch.cat([values, torch.zeros(1, 24, 32)])
    np.testing.assert_allclose(decode_image(rgba).pixels, 128 / 255, atol=1e-6)


def test_torch_is_not_imported_for_arrays():
    code = (
        "import sys, numpy; import genzqa.media.image as m; m.decode_image(numpy.zeros((2, 2), 'uint8')); "
        "raise SystemExit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "CMYK", "LA", "I;16"])
def test_the_callers_pillow_image_is_not_changed(mode):
    image = Image.fromarray(DEEP[..., 0]) if mode == "I;16" else gradient_image(mode)
    if mode == "P":
        image.info["transparency"] = bytes([0, 128, 255])
    image.getexif()[274] = 6
    before = (image.mode, image.size, dict(image.info), image.tobytes(), image.getpalette(), dict(image.getexif()))
    first, second = decode_image(image), decode_image(image)
    after = (image.mode, image.size, dict(image.info), image.tobytes(), image.getpalette(), dict(image.getexif()))
    assert before == after
    assert (first.height, first.width) == image.size
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert first.pixels.flags.writeable == (mode != "I;16")
    if mode != "I;16":
        first.pixels[:] = 0
    assert image.tobytes() == before[3]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
@pytest.mark.parametrize("value", [1, 6])
def test_rows_converted_together_do_not_matter(monkeypatch, mode, value):
    if mode in ("I;16", "I", "F"):
        # Wide ranges whose ends lie in different strips.
        image = Image.fromarray(
            (DEEP[..., 0].astype(np.float64) * 0.9).astype({"I;16": "u2", "I": "i4", "F": "f4"}[mode])
        )
    else:
        image = gradient_image("RGB").convert(mode)
    if mode in ("LA", "RGBA"):
        image.putpixel((3, 20), (*image.getpixel((3, 20))[:-1], 0))
    image.info["icc_profile"] = {"RGB": rgb_profile("grb"), "CMYK": cmyk_profile(), "L": grey_profile(1.0)}.get(mode)
    image.getexif()[274] = value
    whole = decode_image(image)
    monkeypatch.setattr(pixels, "STRIP_PIXELS", 3 * image.width)
    parts = decode_image(image)
    np.testing.assert_array_equal(parts.pixels, whole.pixels)
    assert parts.notes == whole.notes
    assert {note.code for note in whole.notes} & {"alpha_over_grey", "icc_converted", "sixteen_bit", "integer_range_scaled",
                                                  "float_range_scaled"} or mode in ("1", "P")  # fmt: skip


def test_closed_pillow_image():
    image = gradient_image()
    image.close()
    with pytest.raises(CorruptInputError):
        decode_image(image)
