"""Files and bytes: formats, orientation, animation, limits, and every way a file can be no photo."""

import io
import os
import socket
import struct
import tempfile
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from genzqa.errors import (
    CorruptInputError,
    InputError,
    InputNotFoundError,
    InputTooLargeError,
    InputUnreadableError,
    UnsupportedFormatError,
)
from genzqa.limits import Limits
from genzqa.media.image import SUPPORTED_SUFFIXES, decode_image
from image_builders import blocks, encode, gradient_image, png, png_chunk, tiff

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF")
EXACT = ("PNG", "TIFF", "BMP")


def codes(photo):
    return [note.code for note in photo.notes]


def assert_like(pixels, wanted, image_format):
    tolerance = {"GIF": 0, "JPEG": 12, "WEBP": 12, "AVIF": 12}.get(image_format, 0)
    assert pixels.shape == wanted.shape
    assert np.abs(pixels.astype(int) - wanted).max() <= tolerance


def quality(image_format):
    """High enough for flat blocks to come back nearly as they were; chroma is not subsampled."""
    if image_format in ("JPEG", "AVIF"):
        return {"quality": 95, "subsampling": 0 if image_format == "JPEG" else "4:4:4"}
    return {"lossless": True} if image_format == "WEBP" else {}


# ---- formats


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_format_as_file_bytes_and_pillow_image(image_format, tmp_path):
    data = encode(gradient_image(), image_format, **quality(image_format))
    path = tmp_path / "photo.txt"  # the extension says nothing
    path.write_bytes(data)
    photo = decode_image(path)
    assert_like(photo.pixels, blocks(), image_format)
    assert (photo.format, photo.width, photo.height) == (image_format.lower(), 32, 24)
    assert photo.name == str(path)
    assert photo.notes == ()
    pixels = photo.pixels
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    with Image.open(io.BytesIO(data)) as image:
        from_pillow = decode_image(image)
        np.asarray(image)  # still open
    assert (from_pillow.name, from_pillow.format) == ("<PIL image>", "memory")
    from_bytes, from_text = decode_image(data), decode_image(str(path))
    assert from_bytes.name == "<bytes>"
    for other in (from_bytes, from_text, from_pillow, decode_image(pixels)):
        np.testing.assert_array_equal(other.pixels, pixels)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (encode(gradient_image(), "PPM"), "PPM"),
        (encode(gradient_image(), "ICO"), "icon"),
        (encode(gradient_image(), "EPS"), "PostScript"),
        (encode(gradient_image(), "PDF"), "PDF"),
        (encode(gradient_image(), "JPEG2000"), "JPEG 2000"),
        (b"8BPS\0\1" + bytes(200), "Photoshop"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\xef\xbb\xbf\n<?xml version='1.0'?><svg/>", "SVG"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf" + bytes(100), "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomavc1" + bytes(100), "video"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(100), "camera raw"),
        (b"just some text", "neither a photo nor a video"),
        (b"BMW is a car maker with a long history of fast cars", "neither a photo nor a video"),
        (b"\0" * 1000, "neither a photo nor a video"),
    ],
)
def test_other_formats_are_refused_by_content(data, what, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    for source in (path, data):
        with pytest.raises(UnsupportedFormatError, match=what) as caught:
            decode_image(source)
        assert caught.value.hint
        assert caught.value.subject


def test_multi_picture_jpeg_is_its_first_picture():
    second = Image.fromarray(blocks(seed=9))
    data = encode(gradient_image(), "MPO", save_all=True, append_images=[second], **quality("JPEG"))
    with Image.open(io.BytesIO(data)) as check:
        assert check.format == "MPO"
    photo = decode_image(data)
    assert photo.format == "jpeg"
    assert_like(photo.pixels, blocks(), "JPEG")


def test_suffixes_are_those_of_the_seven_formats():
    wanted = ".jpg .jpeg .jpe .jfif .png .apng .webp .avif .tif .tiff .bmp .gif"
    assert " ".join(SUPPORTED_SUFFIXES) == wanted


# ---- orientation, frames, pages

TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("value", TURNS)
def test_exif_orientation(image_format, value):
    exif = Image.Exif()
    exif[274] = value
    data = encode(gradient_image(), image_format, exif=exif, **quality(image_format))
    wanted = TURNS[value](blocks())
    with Image.open(io.BytesIO(data)) as image:
        sources = (data, image)
        for source in sources:
            photo = decode_image(source)
            assert_like(photo.pixels, wanted, image_format)
            assert (photo.height, photo.width) == wanted.shape[:2]
            assert photo.pixels.flags.c_contiguous
    assert codes(decode_image(data)) == (["orientation_applied"] if value > 1 else [])


@pytest.mark.parametrize("value", [0, 9, 77])
def test_orientation_outside_1_to_8_is_ignored(value):
    exif = Image.Exif()
    exif[274] = value
    assert_like(decode_image(encode(gradient_image(), "PNG", exif=exif)).pixels, blocks(), "PNG")


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_is_ignored_and_noted(image_format):
    data = encode(gradient_image(), image_format, exif=b"Exif\0\0garbage that is no TIFF", **quality(image_format))
    photo = decode_image(data)
    assert_like(photo.pixels, blocks(), image_format)
    # Pillow's JPEG plugin swallows the damage itself, so only the others can tell.
    assert codes(photo) == ([] if image_format == "JPEG" else ["exif_ignored"])


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "AVIF"])
def test_animation_is_its_first_frame(image_format):
    others = [Image.fromarray(blocks(seed=seed)) for seed in (5, 6)]
    data = encode(
        gradient_image(), image_format, save_all=True, append_images=others, duration=40, **quality(image_format)
    )
    photo = decode_image(data)
    assert_like(photo.pixels, blocks(), image_format)
    assert [(note.code, "3 frames" in note.text) for note in photo.notes] == [("animation_first_frame", True)]


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_tiff_is_its_first_page(compression):
    others = [Image.fromarray(blocks(seed=5, size=(64, 16)))] * 3
    data = encode(gradient_image(), "TIFF", save_all=True, append_images=others, compression=compression)
    photo = decode_image(data)
    np.testing.assert_array_equal(photo.pixels, blocks())
    assert [(note.code, "4 pages" in note.text) for note in photo.notes] == [("multi_page_first", True)]


# ---- limits


@pytest.mark.parametrize("image_format", FORMATS)
def test_limits_on_pixels_and_side(image_format):
    data = encode(gradient_image(), image_format)
    assert decode_image(data, limits=Limits(max_pixels=32 * 24, max_side=32)).width == 32
    with pytest.raises(InputTooLargeError, match="32 x 24"):
        decode_image(data, limits=Limits(max_pixels=32 * 24 - 1))
    with pytest.raises(InputTooLargeError, match="side"):
        decode_image(data, limits=Limits(max_side=31))


def test_limit_on_bytes_is_checked_before_the_file_is_opened(tmp_path):
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(InputTooLargeError, match=r"3,221,225,472 bytes"):
        decode_image(path)
    with pytest.raises(InputTooLargeError):
        decode_image(b"x" * 11, limits=Limits(max_file_bytes=10))


def lying_headers():
    webp = encode(gradient_image(), "WEBP", lossless=True, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0")
    assert webp[12:16] == b"VP8X"
    gif = encode(gradient_image(), "GIF")
    bmp = encode(gradient_image(), "BMP")
    frame = png_chunk(b"acTL", struct.pack(">II", 2, 0)) + png_chunk(
        b"fcTL", struct.pack(">IIIIIHHBB", 0, 2**31 - 1, 2**31 - 1, 0, 0, 1, 1, 1, 0)
    )
    yield "png", png(2**31 - 1, 2**31 - 1, 8, 2, [b"\0\0\0"])
    yield "animated png", png(2**31 - 1, 2**31 - 1, 8, 2, [b"\0\0\0"], frame)
    yield "webp", webp[:24] + b"\xff\x3f\0\xff\x3f\0" + webp[30:]
    yield "gif", gif[:6] + b"\xff\xff\xff\xff" + gif[10:]
    yield "bmp", bmp[:18] + struct.pack("<ii", 2**30, 2**30) + bmp[26:]
    yield "tiff", tiff(np.zeros((1, 1, 3), dtype=np.uint8), 2, extra={256: ("I", [2**31]), 257: ("I", [2**31])})
    jpeg = encode(gradient_image(), "JPEG")
    at = jpeg.index(b"\xff\xc0") + 5
    yield "jpeg", jpeg[:at] + b"\xff\xff\xff\xff" + jpeg[at + 4 :]


@pytest.mark.parametrize(("name", "data"), list(lying_headers()))
def test_header_with_an_enormous_size_is_refused_without_allocating(name, data):
    with pytest.raises(InputTooLargeError):
        decode_image(data)


def test_header_with_a_size_within_limits_but_no_data_behind_it():
    with pytest.raises(CorruptInputError):
        decode_image(png(9000, 9000, 8, 2, [b"\0\0\0"]))


def test_pillow_own_limit_neither_warns_nor_refuses_nor_changes(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for image_format in ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "GIF"):
        assert decode_image(encode(gradient_image(), image_format)).width == 32
    with pytest.raises(InputTooLargeError, match="Pillow"):
        decode_image(encode(gradient_image(), "TIFF"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 24 - 1)  # Pillow would warn, which is an error in these tests
    assert decode_image(encode(gradient_image(), "TIFF")).width == 32
    assert Image.MAX_IMAGE_PIXELS == 32 * 24 - 1


# ---- damaged files


@pytest.mark.parametrize("image_format", FORMATS)
def test_truncated_files(image_format):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8))
    data = encode(noise, image_format)
    for keep in (0.3, 0.6, 0.9):
        with pytest.raises(CorruptInputError) as caught:
            decode_image(data[: int(len(data) * keep)])
        assert caught.value.hint
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_every_flipped_byte_of_png_pixels_is_found():
    data = encode(gradient_image(), "PNG")
    start, end = data.index(b"IDAT") + 4, data.index(b"IEND") - 8
    for at in range(start, end):
        with pytest.raises(CorruptInputError):
            decode_image(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


@pytest.mark.parametrize("magic", [encode(gradient_image(), f)[:12] for f in FORMATS])
def test_magic_and_nothing_else(magic):
    with pytest.raises(InputError):
        decode_image(magic)


def test_empty_and_zero_size(tmp_path):
    path = tmp_path / "empty.jpg"
    path.touch()
    for source in (path, b""):
        with pytest.raises(CorruptInputError, match="empty"):
            decode_image(source)
    with pytest.raises(CorruptInputError, match="0 x 5"):
        decode_image(png(0, 5, 8, 2, [b""] * 5))
    jpeg = encode(gradient_image(), "JPEG")
    at = jpeg.index(b"\xff\xc0") + 5
    with pytest.raises(CorruptInputError):
        decode_image(jpeg[:at] + bytes(2) + jpeg[at + 2 :])


# ---- paths


def test_paths_that_lead_nowhere(tmp_path):
    for path in (tmp_path / "no.png", str(tmp_path / "no" / "no.png"), "", "a\0b"):
        with pytest.raises(InputNotFoundError) as caught:
            decode_image(path)
        assert caught.value.subject == str(path)
    (tmp_path / "file").touch()
    with pytest.raises(InputNotFoundError):
        decode_image(tmp_path / "file" / "photo.png")


@pytest.mark.parametrize("url", ["http://example.org/a.jpg", "https://example.org/a.jpg", "file:///a.jpg"])
def test_urls_are_not_fetched(url):
    with pytest.raises(InputNotFoundError, match="URLs are not fetched"):
        decode_image(url)


def test_directories_pipes_sockets_and_devices_are_refused_at_once(tmp_path):
    with pytest.raises(InputUnreadableError, match="directory"):
        decode_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{short}/s.jpg")
        for path in (tmp_path / "pipe.jpg", f"{short}/s.jpg", "/dev/zero"):
            with pytest.raises(InputUnreadableError, match="regular"):
                decode_image(path)


def test_no_permission():
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "secret.png"
        path.write_bytes(encode(gradient_image(), "PNG"))
        path.chmod(0)
        if user == 0:  # root may read everything
            os.seteuid(65534)
        try:
            with pytest.raises(InputUnreadableError, match="permission") as caught:
                decode_image(path)
        finally:
            os.seteuid(user)
    assert "permissions" in caught.value.hint


# ---- manners


def test_warnings_neither_leak_nor_stop_and_the_filters_stay():
    broken_mpo = encode(
        gradient_image(), "MPO", save_all=True, append_images=[gradient_image()], **quality("JPEG")
    ).replace(b"MPF\0", b"MPF\0\xff")
    animated = png(1, 1, 8, 2, [b"\1\2\3"], png_chunk(b"acTL", struct.pack(">II", 0, 0)))  # Pillow warns: invalid
    with pytest.warns(UserWarning, match="Invalid APNG"):
        Image.open(io.BytesIO(animated)).close()
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert decode_image(animated).pixels.tolist() == [[[1, 2, 3]]]
        decode_image(broken_mpo)
        assert decode_image(Image.open(io.BytesIO(encode(gradient_image(), "PNG")))).width == 32
    assert seen == []
    assert decode_image(animated).pixels.tolist() == [[[1, 2, 3]]]  # warnings are errors here
    assert list(warnings.filters) == before


def test_threads_agree_and_leave_no_trace():
    files = [encode(gradient_image(), image_format) for image_format in FORMATS] * 12
    alone = [decode_image(data).pixels for data in files]
    before, threads = (
        list(warnings.filters),
        threading.active_count(),
    )  # other tests' threads are not this one's business
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda data: decode_image(data).pixels, files))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
    assert list(warnings.filters) == before
    assert threading.active_count() <= threads


def test_interrupt_passes_through():
    class Interrupting(Image.Image):
        def load(self):
            raise KeyboardInterrupt

    image = Interrupting()
    image._size, image._mode = (2, 2), "RGB"
    with pytest.raises(KeyboardInterrupt):
        decode_image(image)


@pytest.mark.parametrize(
    "error", [OSError, SyntaxError, ValueError, struct.error, EOFError, IndexError, MemoryError, RuntimeError]
)
def test_any_exception_of_pillow_is_a_corrupt_input(error):
    class Failing(Image.Image):
        def load(self):
            raise error("boom")

    image = Failing()
    image._size, image._mode = (2, 2), "RGB"
    with pytest.raises(CorruptInputError):
        decode_image(image)
