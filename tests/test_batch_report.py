"""The page about a folder of scores: what it says, that it is safe and bounded, and how it looks in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from browser import PROGRAM, Page, chromium
from genzqa.batch.item import Item
from genzqa.batch.parts import write_part
from genzqa.batch.records import row_of, table_of
from genzqa.cli import app
from genzqa.errors import CorruptInputError, DataError, DecoderCrashedError
from genzqa.report.scores import SHOWN, scores_page
from genzqa.result import FailedResult
from test_report import HOSTILE, MADE, Parsed, photo_result, video_result

COUNT = 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores of a hundred photos, of which the worst is still there, a video, and errors of two kinds; in two parts."""
    folder = tmp_path_factory.mktemp("scored")
    photo = folder / "photos" / "worst & <best>.png"
    photo.parent.mkdir()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8)).save(photo)
    results = [photo_result(f"gone/{number}.jpg", number * 0.9 + 5) for number in range(1, COUNT)]
    results += [photo_result(str(photo), 1.25, note=HOSTILE), video_result("clip.mp4", 99.0)]
    results += [
        FailedResult(f"bad/{n}.jpg", CorruptInputError("is damaged " + HOSTILE, hint="copy it again"), MADE)
        for n in range(14)
    ]
    results += [FailedResult("evil.tif", DecoderCrashedError("the process died"), MADE)]
    rows = [row_of(Item(result.input), result.to_dict()) for result in results]
    out = folder / "scores"
    out.mkdir()
    write_part(out, 0, "x", [table_of(rows[:60])])
    write_part(out, 1, "x", [table_of(rows[60:])])
    return out


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    result = CliRunner().invoke(app, ["report", str(folder)])
    assert result.exit_code == 0, result.output
    return folder / "report.html"


def test_it_says_what_is_in_the_rows(page: Path) -> None:
    text = Parsed(page.read_text("utf-8")).text
    for said in ("100 photos and 1 video scored", "15 inputs could not be", "The median score is 50.", f"The {SHOWN} worst",
                 f"The {SHOWN} best", "1.2 bad", "worst moment 94.0 at 0:00.5", "corrupt : 14 inputs", "The first 10 of 14.",
                 "decoder_crashed : 1 input", "copy it again", "ab" * 32, "a_note", "no picture"):  # fmt: skip
        assert said in text, said


def test_worst_and_best_are_in_order(page: Path) -> None:
    shown = [float(score) for score in re.findall(r'class="score">([\d.]+)<', page.read_text("utf-8"))]
    assert len(shown) == 2 * SHOWN
    assert shown[:SHOWN] == sorted(shown)[:SHOWN]
    assert shown[SHOWN:] == sorted(shown[SHOWN:], reverse=True)
    assert shown[0] == 1.2
    assert shown[SHOWN] == 99.0


def test_it_needs_no_network_and_nothing_in_it_runs(page: Path) -> None:
    html = page.read_text("utf-8")
    parsed = Parsed(html)
    assert not re.search(r"""https?:|["'(]//|@import""", html)
    assert all(image["src"].startswith("data:image/webp;base64,") for image in parsed.all("img"))
    assert len(parsed.all("img")) == 1
    assert not parsed.all("script")
    assert "\u202e" not in html
    assert "default-src 'none'" in parsed.all("meta")[1]["content"]


def test_few_rows_stand_in_one_list(tmp_path: Path) -> None:
    rows = [row_of(Item(f"{n}.jpg"), photo_result(f"{n}.jpg", 10.0 * n).to_dict()) for n in range(1, 4)]
    write_part(tmp_path, 0, "x", [table_of(rows)])
    text = Parsed(scores_page(tmp_path)).text
    assert "All, the worst first" in text
    assert "best" not in text


def test_only_errors(tmp_path: Path) -> None:
    failed = FailedResult("x.jpg", CorruptInputError("is damaged"), MADE)
    write_part(tmp_path, 0, "x", [table_of([row_of(Item("x.jpg"), failed.to_dict())])])
    assert "Nothing was scored; 1 input could not be" in Parsed(scores_page(tmp_path)).text


def test_no_scores(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no scores"):
        scores_page(tmp_path)
    assert CliRunner().invoke(app, ["report", str(tmp_path)]).exit_code == 2


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if PROGRAM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(360, 800), (1280, 800)])
def test_in_a_browser(browser: Page, page: Path, width: int, height: int, scheme: str) -> None:
    browser.open(page, width, height, scheme)
    assert browser.complaints == []
    assert sum(url.startswith("file:") for url in browser.requests) == 1
    assert browser.run("innerWidth") == width
    assert browser.run("document.documentElement.scrollWidth") <= width
    shown = "getComputedStyle(document.querySelector('.%s')).display"
    assert (browser.run(shown % "wide") == "none") == (width < 500)
    assert (browser.run(shown % "narrow") == "none") == (width > 500)
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) > 3 * 128) == (scheme == "light")
