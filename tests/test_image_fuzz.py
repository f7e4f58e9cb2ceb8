"""Mutated files: each outcome is a sound photo or one of our input errors."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from genzqa.errors import InputError
from genzqa.limits import Limits
from genzqa.media.image import decode_image
from image_builders import cmyk_profile, encode, gradient_image, grey_profile, rgb_profile, tiff

LIMITS = Limits(max_pixels=1_000_000)


def seeds():
    exif = Image.Exif()
    exif[274] = 6
    second = [gradient_image("L").convert("RGB")]
    rgb, rgba = gradient_image(), gradient_image("RGBA")
    yield "jpeg", encode(rgb, "JPEG", exif=exif, icc_profile=rgb_profile("grb"))
    yield "jpeg-cmyk", encode(rgb.convert("CMYK"), "JPEG", icc_profile=cmyk_profile())
    yield "mpo", encode(rgb, "MPO", save_all=True, append_images=second)
    yield "png", encode(rgba, "PNG", exif=exif)
    yield "png-grey", encode(rgb.convert("L"), "PNG", icc_profile=grey_profile(1.0))
    yield "apng", encode(rgb, "PNG", save_all=True, append_images=second)
    yield "webp", encode(rgba, "WEBP", exif=exif)
    yield "webp-animated", encode(rgb, "WEBP", save_all=True, append_images=second)
    yield "avif", encode(rgb, "AVIF", exif=exif)
    yield "gif", encode(rgb, "GIF", save_all=True, append_images=second)
    yield "bmp", encode(rgb, "BMP")
    yield "bmp-palette", encode(rgb.convert("P"), "BMP")
    yield "tiff", encode(rgb, "TIFF", exif=exif)
    yield "tiff-lzw", encode(rgba, "TIFF", compression="tiff_lzw")
    yield "tiff-jpeg", encode(rgb, "TIFF", compression="jpeg")
    yield "tiff-float", encode(Image.fromarray(np.linspace(0, 1, 99, dtype=np.float32).reshape(9, 11)), "TIFF")
    yield "tiff-planes", tiff(np.arange(270, dtype=np.uint16).reshape(9, 10, 3), 2, planar=2)
    floats = np.linspace(0, 1, 270, dtype=np.float32).reshape(9, 10, 3)
    yield "tiff-float-colour", tiff(floats, 2, sample_format=3, planar=2)
    yield "tiff-float-deflate", written(floats.astype(np.float16), compression="zlib", tile=(16, 16))
    alpha = {"photometric": "minisblack", "extrasamples": ["assocalpha"]}
    yield (
        "tiff-grey-alpha",
        written(np.arange(180, dtype=np.uint16).reshape(9, 10, 2), compression="zlib", predictor=2, **alpha),
    )


def written(samples, photometric="rgb", **options):
    out = io.BytesIO()
    tifffile.imwrite(out, samples, photometric=photometric, metadata=None, **options)
    return out.getvalue()


def mutate(data, rng):
    mutant = bytearray(data)
    kind = rng.integers(4)
    # Damage to headers is the more interesting; half of it goes to the first 200 bytes.
    span = len(data) if rng.integers(2) else min(200, len(data))
    if kind == 0:
        return bytes(mutant[: rng.integers(1, len(data))])
    if kind == 1:
        at = int(rng.integers(span))
        del mutant[at : at + int(rng.integers(1, 9))]
        return bytes(mutant)
    for at in rng.integers(0, span, size=1 if kind == 2 else int(rng.integers(2, 12))):
        mutant[at] = rng.choice([rng.integers(256), mutant[at] ^ 1 << rng.integers(8), 0, 255])
    return bytes(mutant)


@pytest.mark.parametrize(("name", "data"), [pytest.param(n, d, id=n) for n, d in seeds()])
def test_mutated_files(name, data):
    decode_image(data, limits=LIMITS)
    rng = np.random.default_rng(len(data))
    refused = 0
    for _ in range(60):
        mutant = mutate(data, rng)
        try:
            photo = decode_image(mutant, limits=LIMITS)
        except InputError:
            refused += 1
        else:
            assert photo.pixels.shape == (photo.height, photo.width, 3)
            assert np.isfinite(photo.pixels).all()
            assert photo.pixels.dtype == np.uint8 or 0 <= photo.pixels.min() <= photo.pixels.max() <= 1
    assert refused > 5
