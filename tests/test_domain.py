"""Notes on pictures that are not what the models were trained on; silence on those that are."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from genzqa.media.domain import domain_notes


def codes(pixels):
    return [note.code for note in domain_notes(np.asarray(pixels))]


def textured(height, width, seed=0):
    """Like a photo in what counts here: detail at all scales, no flat areas, colour."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for step in (1, 4, 16, 64):
        small = random.normal(0, step**0.5, (-(-height // step), -(-width // step), 3)).astype(np.float32)
        total += small.repeat(step, 0).repeat(step, 1)[:height, :width]
    return np.clip(128 + 10 * total, 0, 255).astype(np.uint8)


def jpeg(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def screenshot(seed, size=(900, 700)):
    random = np.random.default_rng(seed)
    ground, ink = ((30, 30, 34), (220, 220, 220)) if seed % 2 else ((250, 250, 250), (20, 20, 30))
    image = Image.new("RGB", size, ground)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, size[0], 40), fill=tuple(random.integers(40, 200, 3).tolist()))
    draw.rectangle((0, 40, 160, size[1]), fill=tuple(random.integers(60, 230, 3).tolist()))
    for top in range(60, size[1] - 20, int(random.integers(22, 40))):
        text = "".join(map(chr, random.integers(97, 123, random.integers(20, 80))))
        draw.text((180, top), text, ink, ImageFont.load_default(int(random.integers(11, 18))))
    return image


def cartoon(seed, size=(640, 512)):
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (size[0] * 2, size[1] * 2), (120, 200, 250))
    draw = ImageDraw.Draw(image)
    for _ in range(random.integers(6, 16)):
        centre, corners = random.integers(0, image.size), int(random.integers(3, 9))
        angles, radii = np.sort(random.uniform(0, 2 * np.pi, corners)), random.uniform(80, 320, corners)
        points = [tuple(centre + radius * np.array([np.cos(angle), np.sin(angle)]))
                  for angle, radius in zip(angles, radii, strict=True)]  # fmt: skip
        draw.polygon(points, fill=tuple(random.integers(0, 256, 3).tolist()))
        draw.line([*points, points[0]], fill=(0, 0, 0), width=8)
    return image.resize(size, Image.Resampling.LANCZOS)


def test_an_ordinary_picture_has_no_notes():
    assert codes(textured(512, 512)) == []
    assert codes(textured(700, 1000)) == []


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (128, 300, []),
        (127, 300, ["very_small"]),
        (200, 500, []),
        (200, 501, ["extreme_aspect"]),
        (2400, 6000, []),
        (2401, 6001, ["very_large"]),
        (20, 6001, ["very_small", "very_large", "extreme_aspect"]),
        (9, 9, ["very_small"]),
    ],
)
def test_size_and_shape(height, width, expected):
    side = textured(600, 600)
    pixels = np.tile(side, (-(-height // 600), -(-width // 600), 1))[:height, :width]
    assert codes(pixels) == expected
    assert codes(pixels.transpose(1, 0, 2)) == expected


def test_uniform_stands_for_all_that_follows_from_it():
    assert codes(np.full((300, 300, 3), 200, np.uint8)) == ["uniform"]
    assert codes(np.full((1, 1, 3), 0.5, np.float32)) == ["very_small", "uniform"]
    ramp = np.tile(np.linspace(0, 255, 300).astype(np.uint8)[:, None], (300, 1, 3))
    assert "uniform" not in codes(ramp)


def test_something_small_on_a_plain_ground_is_not_uniform():
    pixels = np.full((3000, 4000, 3), 90, np.uint8)
    pixels[1370:1400, 2210:2240] = (200, 30, 30)
    assert "uniform" not in codes(pixels)


def test_grey_scale_also_after_jpeg():
    grey = Image.fromarray(textured(400, 400)).convert("L").convert("RGB")
    assert codes(grey) == ["grey_scale"]
    assert codes(jpeg(grey, 50)) == ["grey_scale"]
    faint = np.asarray(grey).copy()
    faint[:100, :100, 0] //= 2  # a sixteenth of the picture has colour
    assert codes(faint) == []


@pytest.mark.parametrize("seed", range(6))
def test_screenshots(seed):
    image = screenshot(seed)
    assert codes(image) == ["screen_content"]
    assert codes(jpeg(image, 80)) == ["screen_content"]


@pytest.mark.parametrize("seed", range(6))
def test_cartoons(seed):
    image = cartoon(seed)
    assert codes(image) == ["drawn"]
    assert codes(jpeg(image, 80)) == ["drawn"]


@pytest.mark.parametrize("quality", [10, 30, 90])
def test_compression_and_blur_of_a_photo_are_no_drawing(quality):
    image = Image.fromarray(textured(512, 512))
    assert codes(jpeg(image, quality)) == []
    assert codes(jpeg(image.resize((64, 64)).resize((512, 512), Image.Resampling.BICUBIC), quality)) == []


@pytest.mark.parametrize("make", [screenshot, cartoon, lambda seed: Image.fromarray(textured(300, 400, seed))])
def test_depth_and_repetition_do_not_matter(make):
    pixels = np.asarray(make(1))
    before = pixels.copy()
    assert codes(pixels) == codes(pixels) == codes((pixels / 255).astype(np.float32))
    assert (pixels == before).all()
