"""The page of the service in a real headless Chromium."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from browser import PROGRAM, Page, chromium
from serving import noise, serving
from videos import encode

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")
PHONE, DESK = (390, 844), (1100, 900)
SHOTS = os.environ.get("GENZQA_SCREENSHOTS")  # a folder to keep pictures of the page in, to look at


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as shown:
        yield shown


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    generator = np.random.default_rng(4)
    frames = [np.full((96, 128, 3), 60, np.uint8) for _ in range(40)]
    for number, frame in enumerate(frames):
        frame[:, : 3 * number + 2] = generator.integers(0, 256, (96, 1, 3))
    path.write_bytes(encode(frames, rate=10))
    return path


def keep(page: Page, name: str) -> None:
    if SHOTS is not None:
        Path(SHOTS, f"{name}.png").write_bytes(page.screenshot(whole=True))


def fits(page: Page, width: int) -> bool:
    return page.run("document.documentElement.scrollWidth") <= width


def scored(page: Page) -> list[str]:
    return page.run("Array.from(document.querySelectorAll('.result .score'), one => one.textContent)")


def contrast(page: Page, selector: str) -> float:
    """Of text against the page, as WCAG 2.2 counts it."""
    colours = page.run(f"[getComputedStyle(document.querySelector({selector!r})).color, "
                       "getComputedStyle(document.body).backgroundColor]")  # fmt: skip
    light = []
    for colour in colours:
        parts = np.array([float(part) for part in colour.removeprefix("rgb(").rstrip(")").split(",")[:3]]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        light.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(light) + 0.05) / (min(light) + 0.05)


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (PHONE, "dark")])
def test_a_photo_and_a_video_are_scored_with_map_and_timeline(service, page, clip, tmp_path, size, scheme):
    photo = noise(tmp_path / "holiday.png", 3, 640, 480)
    page.visit(service.url, *size, scheme)
    assert fits(page, size[0])
    keep(page, f"empty-{scheme}")
    page.choose("#files", photo, clip)
    page.wait("document.querySelectorAll('.result .score').length == 2")
    page.wait("document.getElementById('state').textContent == '2 scored'")
    records = [service.score(file).json()["results"][0] for file in (clip, photo)]
    assert scored(page) == [f"{record['score']:.1f}" for record in records]
    assert page.run("Array.from(document.querySelectorAll('.grade'), one => one.textContent)") == [
        record["grade"] for record in records
    ]
    low, high = records[0]["interval"]
    assert f"{low:.1f} to {high:.1f}" in page.run("document.querySelector('.interval').textContent")
    assert page.run("document.querySelectorAll('.timeline:not([hidden]) .dot').length") == 4
    worst = service.score(clip, timeline="true").json()["results"][0]["worst"]["score"]  # the page asks for it
    assert f"with {worst:.1f}" in page.run("document.querySelector('figcaption').textContent")
    page.run("document.querySelector('.views:not([hidden]) button:last-child').click()")
    page.wait("document.querySelector('.picture img[src^=data]').naturalWidth > 300")
    assert page.run("document.querySelector('.picture img[src^=blob]').hidden")
    assert not page.run("document.querySelector('.picture img[src^=data]').hidden")
    assert fits(page, size[0])
    keep(page, f"scored-{scheme}")
    for selector in (".score", ".interval", "figcaption", ".hint", "footer a", "h2"):
        assert contrast(page, selector) >= 4.5, selector
    ground = page.run("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(22, 21, 20)") is (scheme == "dark")
    assert page.complaints == []
    assert all(url.startswith((service.url, "data:", "blob:")) for url in page.requests), page.requests


def test_a_bad_file_says_why_and_the_next_one_is_scored(service, page, tmp_path):
    bad, photo = tmp_path / "<img src=x onerror=alert(1)>.jpg", noise(tmp_path / "good.png", 8)
    bad.write_bytes(b"%PDF-1.7 not a photo")
    page.visit(service.url, *PHONE, "light")
    page.choose("#files", bad, photo)
    page.wait("document.getElementById('state').textContent == '1 scored, 1 could not be'")
    assert page.run("document.querySelector('.failed h2').textContent") == bad.name
    assert "PDF" in page.run("document.querySelector('.failed .reason').textContent")
    assert page.run("document.querySelector('.failed .fix').textContent")
    assert page.run("document.querySelectorAll('.failed img').length") == 0
    assert contrast(page, ".failed .reason") >= 4.5
    keep(page, "failed-light")
    texts = [complaint["entry"]["text"] for complaint in page.complaints]
    assert len(texts) == 1  # what Chromium itself notes of an answer that is no success
    assert "422" in texts[0]


def test_the_keyboard_is_enough(service, page, tmp_path):
    photo = noise(tmp_path / "keys.png", 9, 400, 300)
    page.visit(service.url, *DESK, "light")
    page.call("Page.setInterceptFileChooserDialog", enabled=True)
    page.dialogues.clear()
    page.press("Tab", 9)
    assert page.run("document.activeElement.id") == "files"
    assert page.run("getComputedStyle(document.getElementById('drop')).outlineStyle") == "solid"
    page.press(" ", 32)
    page.wait("1")
    while not page.dialogues:
        page.run("0")
    page.call("DOM.setFileInputFiles", files=[str(photo)], backendNodeId=page.dialogues[0]["backendNodeId"])
    page.call("Page.setInterceptFileChooserDialog", enabled=False)
    page.wait("document.querySelectorAll('.result .score').length == 1")
    for _ in range(2):  # the buttons Photo and Map follow
        page.press("Tab", 9)
    assert page.run("document.activeElement.textContent") == "Map"
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("Enter", 13)
    assert page.run("document.activeElement.getAttribute('aria-pressed')") == "true"
    assert page.run("document.querySelector('.picture img[src^=data]').hidden") is False
    assert page.complaints == []


def test_dropping_a_file_scores_it(service, page, tmp_path):
    photo = noise(tmp_path / "dropped.png", 10)
    page.visit(service.url, *DESK, "light")
    data = {"items": [], "files": [str(photo)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        page.call("Input.dispatchDragEvent", type=kind, x=500, y=350, data=data)
    page.wait("document.querySelectorAll('.result .score').length == 1")
    assert page.run("document.querySelector('.result h2').textContent") == "dropped.png"


def test_a_token_is_asked_for_and_a_stopped_service_is_said(served_model, page, tmp_path):
    photo = noise(tmp_path / "mine.png", 11)
    token = "a-token-of-some-length"
    with serving(served_model, tmp_path, environment={"GENZQA_TOKEN": token}) as service:
        page.visit(service.url, *PHONE, "dark")
        page.choose("#files", photo)
        page.wait("!document.getElementById('token-row').hidden && document.activeElement.id == 'token'")
        page.call("Input.insertText", text="wrong")
        page.press("Enter", 13)
        page.wait("document.getElementById('trouble').textContent == 'This is not the token.'")
        assert fits(page, PHONE[0])
        keep(page, "token-dark")
        page.run("document.getElementById('token').value = ''")
        page.call("Input.insertText", text=token)
        page.press("Enter", 13)
        page.wait("document.querySelectorAll('.result .score').length == 1")
        assert page.run("document.getElementById('token-row').hidden")
    page.choose("#files", photo)
    page.wait("document.getElementById('trouble').textContent.includes('does not answer')")
