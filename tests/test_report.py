"""The report page: what it says, that it is safe and bounded, and how it looks in a real browser."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import genzqa
from browser import PROGRAM, Page, chromium
from genzqa.cli import app
from genzqa.errors import ConfigError, CorruptInputError
from genzqa.notes import Note
from genzqa.report import page as report
from genzqa.report.page import ReportPage
from genzqa.report.pictures import SIDE
from genzqa.result import FailedResult, ImageResult, Provenance, grade_of
from genzqa.video_result import FrameCounts, FrameScore, VideoResult, WorstFrame
from videos import encode

HOSTILE = '<img src=x onerror=alert(1)> & "quotes" \'\u202egpj.exe'
MADE = Provenance("mini", "embedded:mini", "ab" * 32, "cd" * 32, "square-512", (101, 301), 42, "torch", "fp32", "0.1.0")


def picture(number: int, height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)


def photo_result(name: str, score: float, *, note: str = "", mapped: bool = True) -> ImageResult:
    quality_map = np.linspace(0, 100, 64, dtype=np.float32).reshape(8, 8) if mapped else None
    notes = (Note("a_note", note),) if note else ()
    return ImageResult(name, score, score, (max(0, score - 9), min(100, score + 9)), grade_of(score), score, MADE,
                       80, 60, notes, 0.1, quality_map)  # fmt: skip


def video_result(name: str, score: float, *, gamma: tuple[float, ...] = (1.0,) * 16, worst: int = 3) -> VideoResult:
    timeline = tuple(FrameScore(n + 0.5, score - 5 + n, 0.0) for n in range(11))
    kept = tuple(WorstFrame(frame, picture(9), np.full((8, 8), frame.score, np.float32)) for frame in timeline[:worst])
    return VideoResult(name, score, score, (score - 9, score + 9), grade_of(score), score, MADE, 80, 60, 11.0, 25.0,
                       timeline[::3], timeline[0], timeline, gamma, FrameCounts(None, 20, 1),
                       {"codec": "h264", "coded_width": 80, "coded_height": 64, "interlaced": False}, (), 0.1, kept)  # fmt: skip


class Parsed(HTMLParser):
    """Every element with its attributes, the text of the page, and the nesting of elements checked."""

    VOID = ("meta", "img", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words, self._open = [], []
        self.feed(html)
        assert self._open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def mixed() -> str:
    page = ReportPage()
    for number, score in enumerate((71.0, 12.0, 55.5)):
        page.add(picture(number, 900, 600), photo_result(f"holiday/p{number}.jpg", score))
    page.add(picture(7), photo_result(HOSTILE, 88.8, note=HOSTILE))
    page.add("no-such-file.jpg", photo_result("gone.jpg", 40.0))
    page.add("clip.mp4", video_result("clip.mp4", 33.0))
    page.add("b.mp4", video_result(HOSTILE + ".mp4", 61.0, gamma=tuple(n / 8 for n in range(16))))
    page.add("x", FailedResult(HOSTILE, CorruptInputError("is damaged " + HOSTILE, hint="copy it again"), MADE))
    return page.render()


def test_the_page_says_what_is_in_the_results(mixed: str) -> None:
    text = Parsed(mixed).text
    for said in ("5 photos and 2 videos scored", "1 input could not be", "median score is 55.5", "71.0 good",
                 "95 % interval 3.0 to 21.0", "a_note", "corrupt", "is damaged", "copy it again", "ab" * 32, "101, 301",
                 "not declared, 20 decoded, 1 corrupt", "80 × 64", "All 16 layers count alike", "The 16 values",
                 "Ring: the worst moment, 28.0 at 0:00.5", "could not be read again"):  # fmt: skip
        assert said in text, said


def test_it_needs_no_network(mixed: str) -> None:
    page = Parsed(mixed)
    assert not re.search(r"""https?:|["'(]//|@import""", mixed)
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            assert attributes.get(name, "#").startswith(("#", "data:image/webp;base64,"))
    assert not re.search(r"url\((?!#)", mixed)
    assert not page.all("link") + page.all("iframe") + page.all("base")
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-")
    assert len(page.all("script")) == 1


def test_text_from_outside_is_escaped(mixed: str) -> None:
    page = Parsed(mixed)
    assert "<img src=x" not in mixed
    assert "\u202e" not in mixed  # it would turn around how the rest of a name is read
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.text.count('<img src=x onerror=alert(1)> & "quotes" \'\\u202egpj.exe') >= 4


def test_structure_is_accessible(mixed: str) -> None:
    page = Parsed(mixed)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        for name in ("href", "aria-labelledby", "xlink:href"):
            if name in attributes:
                assert attributes[name].removeprefix("#") in ids
    assert set(re.findall(r"url\(#([^)]+)\)", mixed)) <= set(ids)
    assert len(page.all("img")) == 2 * (4 + 3 + 3)
    assert all(image["alt"] for image in page.all("img"))
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.all("svg"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert "prefers-color-scheme: dark" in mixed
    assert "@media print" in mixed
    assert page.all("html") == [{"lang": "en"}]


def test_plots_take_their_colours_from_the_page(mixed: str) -> None:
    plots = re.findall(r'<svg class="plot".*?</svg>', mixed, re.DOTALL)
    assert len(plots) == 2 * 2 + 1
    for plot in plots:
        assert not re.search("#[0-9a-f]{6}|<style|<metadata|font-family|xmlns", plot)
        assert set(re.findall(r"var\(--[a-z]+\)", plot)) >= {"var(--ink)", "var(--line)", "var(--accent)"}


def test_pictures_are_small(mixed: str) -> None:
    sizes = {(int(image["width"]), int(image["height"])) for image in Parsed(mixed).all("img")}
    assert (320, SIDE) in sizes
    assert max(map(max, sizes)) <= SIDE


def test_the_same_results_give_the_same_page() -> None:
    texts = []
    for _ in range(2):
        page = ReportPage()
        page.add(picture(1), photo_result("p.jpg", 50))
        page.add("v.mp4", video_result("v.mp4", 50, gamma=(0.5, 1.5)))
        texts += [page.render(), page.render()]
    assert len(set(texts)) == 1


def test_a_large_run_shows_the_extremes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_PICTURES", 30)
    monkeypatch.setattr(report, "WORST_SHOWN", 8)
    monkeypatch.setattr(report, "BEST_SHOWN", 3)
    monkeypatch.setattr(report, "MOST_ROWS", 25)
    page = ReportPage()
    scores = np.random.default_rng(2).permutation(60) + 20.0
    for number, score in enumerate(scores):
        page.add(picture(number, 8, 8), photo_result(f"n{number}.png", float(score)))
    for number in range(40):
        page.add("x", FailedResult(f"f{number}", CorruptInputError("is damaged"), MADE))
    html = page.render()
    assert "the 8 worst and the 3 best have pictures, the other 49 stand in" in " ".join(Parsed(html).text.split())
    shown = [float(item["data-score"]) for item in Parsed(html).all("li") if "data-score" in item]
    assert shown == [*range(20, 28), 77, 78, 79]
    rows = [float(row["data-score"]) for row in Parsed(html).all("tr") if "data-score" in row]
    assert rows == list(range(28, 53))
    assert "The first 25 of 40" in Parsed(html).text
    assert len(Parsed(html).all("img")) == 2 * len(shown)


def test_a_video_counts_with_all_its_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_PICTURES", 8)
    monkeypatch.setattr(report, "WORST_SHOWN", 2)
    monkeypatch.setattr(report, "BEST_SHOWN", 1)
    page = ReportPage()
    for number in range(5):
        page.add("v", video_result(f"v{number}.mp4", 30.0 + number))
    parsed = Parsed(page.render())
    assert [item["data-name"] for item in parsed.all("article")] == ["v0.mp4", "v1.mp4", "v4.mp4"]
    assert [row["data-name"] for row in parsed.all("tr")[1:]] == ["v2.mp4", "v3.mp4"]


def test_unusual_results() -> None:
    page = ReportPage()
    assert "Nothing was scored" in Parsed(page.render()).text
    page.add(
        "v",
        dataclasses.replace(video_result("short.mp4", 3.0, worst=0), timeline=None, frames=(FrameScore(0, 3.0, 3.0),)),
    )
    page.add(picture(1, 1, 300), photo_result("thin.png", 100.0, mapped=False))
    page.add(
        "x",
        FailedResult("none.mp4", CorruptInputError("is damaged"), dataclasses.replace(MADE, timesteps=(1,)), "video"),
    )
    parsed = Parsed(page.render())
    assert not [svg for svg in parsed.all("svg") if svg.get("class") == "plot"]
    assert len(parsed.all("img")) == 1
    assert "only those made alike compare" in parsed.text


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else real(name, *rest)
    )
    with pytest.raises(ConfigError, match=r"needs matplotlib.*genzqa\[report\]"):
        ReportPage()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    for number, name in enumerate(("a <b>.png", "ten10.png", "ten9.png")):
        Image.fromarray(picture(number, 96, 128)).save(folder / name)
    (folder / "clip.mp4").write_bytes(encode([np.roll(picture(4, 64, 96), n, 1) for n in range(50)]))
    (folder / "one.mp4").write_bytes(encode([picture(5, 64, 96)]))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing more")
    return folder


@pytest.fixture(scope="module")
def scored(small_video_scorer: Path, inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page made by the program, with real photos, a real video and a real model."""
    target = tmp_path_factory.mktemp("report") / "out.html"
    arguments = ["score", str(inputs), "--model", f"local-dir:{small_video_scorer}", "--report", str(target), "--json"]
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 1, run.output  # one input is broken
    assert '"timeline"' not in run.stdout  # asked for by the page alone
    return target


def test_program(scored: Path) -> None:
    parsed = Parsed(scored.read_text("utf-8"))
    assert "4 photos and 1 video scored; 1 input could not be" in parsed.text
    assert {"a <b>.png", "clip.mp4"} <= {Path(item["data-name"]).name for item in parsed.all("li") + parsed.all("article")
                                         if "data-name" in item}  # fmt: skip
    assert Counter(svg.get("class") for svg in parsed.all("svg"))["plot"] == 3
    assert genzqa.__version__ in parsed.text
    maps = [image["alt"] for image in parsed.all("img") if image["alt"].startswith("Quality map of ")]
    assert {"one.mp4", "a <b>.png"} <= {alt.removeprefix("Quality map of ").partition(",")[0] for alt in maps}


def test_an_unwritable_page_is_found_before_scoring(inputs: Path, tmp_path: Path) -> None:
    for target, said in ((tmp_path / "none" / "out.html", "folder does not exist"), (tmp_path, "not a regular file"),
                         (inputs / "ten9.png", "over a photo")):  # fmt: skip
        run = CliRunner().invoke(app, ["score", str(inputs), "--model", "local-dir:none", "--report", str(target)])
        assert run.exit_code == 2
        assert said in run.output


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Page:
    if PROGRAM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(360, 800), (1280, 800)])
@pytest.mark.parametrize("which", ["program", "by hand"])
def test_in_a_browser(browser: Page, which: str, width: int, height: int, scheme: str, scored: Path, mixed: str,
                      tmp_path: Path) -> None:  # fmt: skip
    target = scored
    if which == "by hand":
        target = tmp_path / "mixed.html"
        target.write_text(mixed, "utf-8")
    browser.open(target, width, height, scheme)
    assert browser.complaints == []
    assert {url.partition(":")[0] for url in browser.requests} == {"file", "data"}
    assert sum(url.startswith("file:") for url in browser.requests) == 1
    assert browser.run("innerWidth") == width  # a phone would zoom out to show what sticks out
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("Array.from(document.images).every(image => image.naturalWidth > 0)")
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) > 3 * 128) == (scheme == "light")
    assert browser.run("Array.from(document.querySelectorAll('.plot')).filter(plot => plot.clientWidth).length") >= 1
    assert len(browser.screenshot()) > 10_000


def test_sorting_in_a_browser(browser: Page, scored: Path) -> None:
    browser.open(scored, 1280, 800, "light")
    listed = "Array.from(document.querySelectorAll('.gallery > li'), item => item.dataset.%s)"
    scores = browser.run(listed % "score")
    assert sorted(scores, key=float) == scores
    for order, wanted in (("best", "score"), ("name", "name")):
        browser.run(f"document.querySelector('button[value={order}]').focus()")
        for kind in ("keyDown", "keyUp"):
            browser.call(
                "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
            )
        found = browser.run(listed % wanted)
        assert browser.run("document.querySelector('[aria-pressed=true]').value") == order
        if order == "best":
            assert found == scores[::-1]
        else:
            assert [Path(name).name for name in found] == ["a <b>.png", "one.mp4", "ten9.png", "ten10.png"]
    assert browser.complaints == []


def test_the_policy_blocks_in_a_browser(browser: Page, mixed: str, tmp_path: Path) -> None:
    """Even if something foreign got into the page, it could neither run nor call home; and we would hear of it."""
    foreign = '<script>window.ran = 1</script><img src="http://127.0.0.1:9/x.png" onerror="window.ran = 1">'
    target = tmp_path / "foreign.html"
    target.write_text(mixed.replace("</main>", foreign + "</main>"), "utf-8")
    browser.open(target, 1280, 800, "light", decoded=False)
    assert browser.run("String(window.ran)") == "undefined"
    heard = str(browser.complaints)
    for directive in ("script-src-elem", "script-src-attr", "img-src"):
        assert f"'violatedDirective': '{directive}'" in heard


def test_contrast_in_a_browser(browser: Page, scored: Path) -> None:
    """Text on the page's ground reaches WCAG AA (4.5 : 1) in both themes."""
    for scheme in ("light", "dark"):
        browser.open(scored, 1280, 800, scheme)
        names = ("--ground", "--ink", "--faint", "--accent")
        ground, *texts = [
            browser.run(f"getComputedStyle(document.documentElement).getPropertyValue('{name}')") for name in names
        ]
        for colour in texts:
            assert contrast(ground, colour) >= 4.5


def contrast(one: str, other: str) -> float:
    lights = []
    for colour in (one, other):
        red, green, blue = (int(colour.strip()[at : at + 2], 16) / 255 for at in (1, 3, 5))
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)
