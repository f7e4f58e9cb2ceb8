"""The page's plots: drawn by matplotlib, turned into SVG that takes its colours and fonts from the page's style sheet."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, MultipleLocator

from genzqa.result import GRADES
from genzqa.text import clock_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from genzqa.video_result import FrameScore

# Stand-ins that matplotlib can draw with; each becomes a variable of the style sheet, which knows light and dark.
_INK, _FAINT, _LINE, _ACCENT, _GROUND = "#010101", "#020202", "#030303", "#040404", "#050505"
_COLOURS = {_INK: "var(--ink)", _FAINT: "var(--faint)", _LINE: "var(--line)", _ACCENT: "var(--accent)",
            _GROUND: "var(--ground)"}  # fmt: skip
_SETTINGS: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "genzqa", "font.size": 12.0, "text.color": _FAINT,
             "axes.edgecolor": _LINE, "axes.labelcolor": _FAINT, "xtick.color": _FAINT, "ytick.color": _FAINT,
             "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False}  # fmt: skip
_TIME_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
_POINTS_PER_INCH = 72.0  # matplotlib's SVG unit; figures are sized so that one unit is one CSS pixel


def timeline_plot(points: Sequence[FrameScore], counted: Sequence[FrameScore], worst: FrameScore, score: float, *,
                  width: int, height: int, ids: str, label: str) -> str:  # fmt: skip
    """Score over time on the whole scale of 0 to 100, with the five grades.

    Args:
        points: What the line runs through, by time.
        counted: The frames that the score is made of, as dots.
        worst: The frame to mark with a ring.
        score: The video's, as a dashed line.
        width, height: In CSS pixels at natural size.
        ids: Begins every id in the SVG; must not be used twice on a page.
        label: Text alternative.
    """
    times = [frame.time for frame in points]
    half = max([late - early for early, late in pairwise(times)], default=1.0) / 2
    begin, end = max(0.0, times[0] - half), times[-1] + half
    with _figure(width, height, left=30, right=66, bottom=24, top=14) as (figure, axes):
        axes.set_xlim(begin, end)
        axes.set_ylim(0, 100)
        axes.yaxis.set_major_locator(FixedLocator(range(0, 101, 20)))
        axes.grid(axis="y", color=_LINE, linewidth=1, clip_on=False)
        axes.tick_params(length=0, pad=6)
        step = next((step for step in _TIME_STEPS if (end - begin) / step <= width / 90), (end - begin) / 4)
        axes.xaxis.set_major_locator(MultipleLocator(step))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda time, _: _tick(time, step)))
        for number, grade in enumerate(GRADES):
            axes.annotate(grade, (1, 0.1 + 0.2 * number), (8, 0), xycoords="axes fraction", textcoords="offset points",
                          va="center", color=_FAINT)  # fmt: skip
        axes.axhline(score, color=_INK, linewidth=1, linestyle=(0, (4, 4)))
        axes.plot(times, [frame.score for frame in points], color=_ACCENT, linewidth=1.75, clip_on=False)
        axes.plot([frame.time for frame in counted], [frame.score for frame in counted], "o", color=_ACCENT,
                  markeredgecolor=_GROUND, markeredgewidth=1.5, markersize=7, clip_on=False)  # fmt: skip
        axes.plot([worst.time], [worst.score], "o", color="none", markeredgecolor=_INK, markeredgewidth=1.5,
                  markersize=13, clip_on=False)  # fmt: skip
        return _inline(figure, ids, label)


def gamma_plot(gamma: Sequence[float], *, width: int, height: int, ids: str, label: str) -> str:
    """The weight of every cross-attention layer as bars, in the order the data flows; a line marks 1, no change."""
    with _figure(width, height, left=34, right=8, bottom=38, top=10) as (figure, axes):
        axes.set_xlim(0.4, len(gamma) + 0.6)
        axes.set_ylim(0, 1.1 * max(*gamma, 1.0))
        axes.set_axisbelow(True)
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_locator(MaxNLocator(min(len(gamma), width // 24), integer=True, min_n_ticks=1))
        axes.grid(axis="y", color=_LINE, linewidth=1)
        axes.tick_params(length=0, pad=6)
        axes.set_xlabel("cross-attention layer")
        axes.bar(range(1, len(gamma) + 1), gamma, width=0.62, color=_ACCENT)
        axes.axhline(1, color=_INK, linewidth=1, linestyle=(0, (4, 4)))
        return _inline(figure, ids, label)


def scatter_plot(scores: Sequence[float], mos: Sequence[float], curve: tuple[Sequence[float], Sequence[float]], *, width: int,
                 height: int, ids: str, label: str) -> str:  # fmt: skip
    """MOS over score, both 0 to 100, with the fitted curve and the diagonal.

    Args:
        scores, mos: One point each.
        curve: What the four-parameter logistic makes of rising scores.
        width, height: In CSS pixels at natural size.
        ids, label: As for `timeline_plot`.
    """
    with _figure(width, height, left=38, right=8, bottom=38, top=10) as (figure, axes):
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        _hundred(axes)
        axes.yaxis.set_major_locator(FixedLocator(range(0, 101, 20)))
        axes.set_xlabel("score")
        axes.set_ylabel("MOS on 0 to 100")
        axes.plot([0, 100], [0, 100], color=_LINE, linewidth=1)
        axes.plot(scores, mos, "o", **_dots(len(scores)))
        axes.plot(*curve, color=_INK, linewidth=1.5)
        return _inline(figure, ids, label)


def residual_plot(
    scores: Sequence[float], residuals: Sequence[float], *, width: int, height: int, ids: str, label: str
) -> str:
    """MOS less what the fitted curve makes of the score, over the score; arguments as for `scatter_plot`."""
    reach = max(10.0, *(abs(residual) for residual in residuals))
    with _figure(width, height, left=38, right=8, bottom=38, top=10) as (figure, axes):
        axes.set_xlim(0, 100)
        axes.set_ylim(-1.05 * reach, 1.05 * reach)
        _hundred(axes)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.set_xlabel("score")
        axes.set_ylabel("MOS less fitted")
        axes.axhline(0, color=_INK, linewidth=1)
        axes.plot(scores, residuals, "o", **_dots(len(scores)))
        return _inline(figure, ids, label)


def histogram_plot(counts: Sequence[int], *, width: int, height: int, ids: str, label: str) -> str:
    """How many scores lie in each of equal parts of 0 to 100.

    Args:
        counts: From low to high.
        width, height: In CSS pixels at natural size.
        ids, label: As for `timeline_plot`.
    """
    step = 100 / len(counts)
    with _figure(width, height, left=46, right=8, bottom=38, top=10) as (figure, axes):
        axes.set_xlim(0, 100)
        _hundred(axes)
        axes.grid(visible=False, axis="x")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("score")
        axes.bar([step * (number + 0.5) for number in range(len(counts))], counts, 0.9 * step, color=_ACCENT)
        return _inline(figure, ids, label)


def _dots(count: int) -> dict[str, Any]:
    """The more there are, the smaller and fainter."""
    size = 6 if count < 100 else 4.5 if count < 500 else 3
    return {"color": _ACCENT, "markersize": size, "markeredgewidth": 0, "alpha": 0.8 if count < 100 else 0.5}


def _hundred(axes: Axes) -> None:
    axes.xaxis.set_major_locator(FixedLocator(range(0, 101, 20)))
    axes.grid(color=_LINE, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)


def _tick(time: float, step: float) -> str:
    clock = clock_time(time)
    return clock if step < 1 else clock.rpartition(".")[0]


@contextmanager
def _figure(width: int, height: int, *, left: int, right: int, bottom: int, top: int) -> Iterator[tuple[Figure, Axes]]:
    """A figure and its axes, margins in CSS pixels, without anything a user's own matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        figure = Figure(figsize=(width / _POINTS_PER_INCH, height / _POINTS_PER_INCH))
        FigureCanvasSVG(figure)
        box = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
        yield figure, figure.add_axes(box)


def _inline(figure: Figure, ids: str, label: str) -> str:
    """An ``<svg>`` element for HTML: no metadata, no style sheet or names of its own, no id that is not needed."""
    file = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(file.getvalue())
    for definitions in root.findall("{*}defs"):
        for style in definitions.findall("{*}style"):
            definitions.remove(style)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.tail = None
        if element.tag != "text":
            element.text = None
        element.attrib = {_local(name): _attribute(_local(name), value, ids) for name, value in element.items()
                          if not (name == "id" and element.tag == "g") and not value.startswith("rotate(-0 ")}  # fmt: skip
    root.attrib = {"class": "plot", "viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _attribute(name: str, value: str, ids: str) -> str:
    if name == "id":
        return ids + value
    if name == "href":
        return f"#{ids}{value[1:]}"
    if name == "style":
        value = re.sub(r"font-family: [^;]*;? ?", "", value)
        value = re.sub(r"#[0-9a-f]{6}", lambda colour: _COLOURS[colour[0]], value)
    value = value.replace("url(#", f"url(#{ids}")
    value = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", value)
    return " ".join(value.split())
