"""The report: one HTML page about photos and videos that needs nothing but itself (docs/report.md)."""

from __future__ import annotations

import base64
import bisect
import dataclasses
import hashlib
import importlib.util
import statistics
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeAlias

from genzqa.errors import ConfigError
from genzqa.files import write_atomically
from genzqa.limits import DEFAULT_LIMITS, Limits
from genzqa.media.overlay import legend_colours
from genzqa.report.pictures import Picture, picture_of, read_picture
from genzqa.result import GRADES, FailedResult, ImageResult, Provenance
from genzqa.text import clock_time, printable
from genzqa.video_result import VideoResult

if TYPE_CHECKING:
    from jinja2 import Environment

    from genzqa.media.image import ImageSource
    from genzqa.video_result import FrameScore

Scored: TypeAlias = ImageResult | VideoResult

MOST_PICTURES = 500  # photos and frames, each with its map; beyond that only the extremes keep theirs
WORST_SHOWN, BEST_SHOWN = 200, 50
MOST_ROWS = 5000  # of the table of the others, and of the list of failures
_WIDE, _NARROW, _BARS = (1040, 260), (328, 220), (328, 190)  # plots in CSS pixels; the narrow one is for phones
_CONTENT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src '{script}'; base-uri 'none'; "
    "form-action 'none'"
)


@dataclass(eq=False)
class _Entry:
    """One scored input: its result without pixels, and its pictures unless it is only a row of the table."""

    number: int
    result: Scored
    pictures: tuple[Picture, ...] = ()
    moments: tuple[FrameScore, ...] = ()  # of a video, what its pictures show

    @property
    def rank(self) -> tuple[float, int]:
        """Worst first; among equals, the one added first."""
        return self.result.score, self.number

    @property
    def name(self) -> str:
        """The file's own name."""
        return PurePath(self.result.input).name or self.result.input

    @property
    def folder(self) -> str:
        """Where it is, empty for the current folder."""
        folder = str(PurePath(self.result.input).parent)
        return "" if folder == "." else folder


class ReportPage:
    """Collects results as they arrive; of what it keeps, pictures and plots are bounded, and the rest is small.

    Args:
        limits: For reading photos again; results keep no pixels.

    Raises:
        ConfigError: If the libraries that make the page are not installed.

    Example:
        >>> page = ReportPage()                                                # doctest: +SKIP
        >>> page.add("photo.jpg", scorer.score("photo.jpg", quality_map=True)) # doctest: +SKIP
        >>> page.write(Path("out.html"))                                       # doctest: +SKIP
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        need_libraries()
        self._limits = limits
        self._shown: list[_Entry] = []  # worst first
        self._rows: list[_Entry] = []
        self._failed: list[FailedResult] = []
        self._made_by: dict[Provenance, Counter[str]] = {}
        self._pictures = self._seen = 0
        self._crowded = False

    def add(self, source: ImageSource, result: Scored | FailedResult) -> None:
        """Take in one result.

        Args:
            source: What was scored; a photo is read again for its thumbnail.
            result: Of a photo, best with its quality map; of a video, best with its timeline and worst frames.
        """
        made = self._made_by.setdefault(result.provenance, Counter())
        if isinstance(result, FailedResult):
            self._failed.append(result)
            return
        made["video" if isinstance(result, VideoResult) else "photo"] += 1
        self._seen += 1
        entry = _Entry(self._seen, _without_pixels(result))
        if self._crowded and WORST_SHOWN <= self._place(entry) <= len(self._shown) - BEST_SHOWN:
            self._rows.append(_as_row(entry))
            return
        entry.pictures = _pictures(source, result, self._limits)
        if isinstance(result, VideoResult):
            entry.moments = tuple(kept.frame for kept in result.worst_frames)
        self._shown.insert(self._place(entry), entry)
        self._pictures += len(entry.pictures)
        self._crowded = self._crowded or self._pictures > MOST_PICTURES
        if self._crowded and len(self._shown) > WORST_SHOWN + BEST_SHOWN:
            middle = slice(WORST_SHOWN, len(self._shown) - BEST_SHOWN)
            self._rows.extend(map(_as_row, self._shown[middle]))
            del self._shown[middle]

    def render(self) -> str:
        """The page. The same results give the same text: it holds no date and nothing random."""
        from markupsafe import Markup

        script = page_part("report.js")
        rows = sorted(self._rows, key=lambda entry: entry.rank)
        plots = {entry.number: {name: Markup(plot) for name, plot in _plots(entry).items()} for entry in self._shown
                 if isinstance(entry.result, VideoResult)}  # fmt: skip
        return (
            environment()
            .from_string(page_part("report.html.j2"))
            .render(
                policy=_CONTENT_POLICY.format(script=_digest(script)),
                style=Markup(page_part("report.css")),
                script=Markup(script),
                videos=[entry for entry in self._shown if isinstance(entry.result, VideoResult)],
                photos=[entry for entry in self._shown if isinstance(entry.result, ImageResult)],
                plots=plots,
                rows=rows[:MOST_ROWS],
                failed=self._failed[:MOST_ROWS],
                made_by=list(self._made_by.items()),
                grades=GRADES,
                swatches=["#{:02x}{:02x}{:02x}".format(*colour) for colour in legend_colours(7).tolist()],
                facts_of=_stream_facts,
                **self._totals(rows),
            )
        )

    def write(self, path: Path) -> None:
        """Put the page at ``path``, whole or not at all.

        Raises:
            OutputError: If it cannot be written.
        """
        write_atomically(path, self.render().encode("utf-8"))

    def _place(self, entry: _Entry) -> int:
        return bisect.bisect(self._shown, entry.rank, key=lambda other: other.rank)

    def _totals(self, rows: list[_Entry]) -> dict[str, Any]:
        ranked = sorted([*self._shown, *rows], key=lambda entry: entry.rank)
        kinds = Counter("video" if isinstance(entry.result, VideoResult) else "photo" for entry in ranked)
        return {
            "counts": {"scored": len(ranked), "photos": kinds["photo"], "videos": kinds["video"],
                       "failed": len(self._failed), "shown": len(self._shown), "rows": len(rows)},
            "median": statistics.median([entry.result.score for entry in ranked]) if ranked else None,
            "worst": ranked[0] if ranked else None,
            "best": ranked[-1] if ranked else None,
            "per_grade": Counter(entry.result.grade for entry in ranked),
            "extremes": (WORST_SHOWN, BEST_SHOWN),
        }  # fmt: skip


def _without_pixels(result: Scored) -> Scored:
    if isinstance(result, VideoResult):
        return dataclasses.replace(result, worst_frames=())
    return dataclasses.replace(result, quality_map=None)


def _as_row(entry: _Entry) -> _Entry:
    """What the table shows of it: no frame, no picture."""
    if isinstance(entry.result, VideoResult):
        return _Entry(entry.number, dataclasses.replace(entry.result, frames=(), timeline=None))
    return _Entry(entry.number, entry.result)


def _pictures(source: ImageSource, result: Scored, limits: Limits) -> tuple[Picture, ...]:
    if isinstance(result, VideoResult):
        return tuple(picture_of(kept.pixels, kept.quality_map) for kept in result.worst_frames)
    picture = read_picture(source, result.quality_map, limits)
    return (picture,) if picture is not None else ()


def _plots(entry: _Entry) -> dict[str, str]:
    """Of a video: its timeline for wide and for narrow screens, and its layers' weights; empty if there is nothing to plot."""
    from genzqa.report.plots import gamma_plot, timeline_plot

    video, plots = entry.result, dict.fromkeys(("wide", "narrow", "gamma"), "")
    assert isinstance(video, VideoResult)
    points = video.timeline or video.frames
    if len(points) > 1:
        label = (f"Score over time: {len(points)} frames from {clock_time(points[0].time)} to "
                 f"{clock_time(points[-1].time)}, lowest {video.worst.score:.1f} at {clock_time(video.worst.time)}, "
                 f"highest {max(point.score for point in points):.1f}; the video's score is {video.score:.1f}.")  # fmt: skip
        for name, (width, height) in {"wide": _WIDE, "narrow": _NARROW}.items():
            plots[name] = timeline_plot(points, video.frames, video.worst, video.score, width=width, height=height,
                                        ids=f"v{entry.number}-{name}-", label=label)  # fmt: skip
    if set(video.gamma) - {1.0}:
        label = (f"Weight of {len(video.gamma)} layers, from {min(video.gamma):.2f} to {max(video.gamma):.2f}, "
                 f"mean {statistics.fmean(video.gamma):.2f}.")  # fmt: skip
        plots["gamma"] = gamma_plot(
            video.gamma, width=_BARS[0], height=_BARS[1], ids=f"v{entry.number}-gamma-", label=label
        )
    return plots


def _stream_facts(video: VideoResult) -> dict[str, Any]:
    """Name and value of what is known about the file, coded size in one."""
    stream = dict(video.stream)
    facts: dict[str, Any] = {"size": f"{video.width} × {video.height}"}
    if "coded_width" in stream and "coded_height" in stream:
        facts["coded size"] = f"{stream.pop('coded_width')} × {stream.pop('coded_height')}"
    facts["part scored"] = f"{clock_time(video.duration)} of playing time"
    facts["frame rate"] = "unknown" if video.frame_rate is None else f"{video.frame_rate:.3g} per second"
    facts |= {name.replace("_", " "): value for name, value in stream.items()}
    declared = "not declared" if video.counts.declared is None else f"{video.counts.declared} declared"
    facts["frames"] = f"{declared}, {video.counts.decoded} decoded, {video.counts.corrupt} corrupt"
    return facts


def _fact(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def need_libraries() -> None:
    """Raise `ConfigError` if the libraries that make pages are not installed."""
    for library in ("jinja2", "matplotlib"):
        if importlib.util.find_spec(library) is None:
            raise ConfigError(f"a report needs {library}, which is not installed", subject="report",
                              hint='install it with: pip install "genzqa[report]"')  # fmt: skip


def environment() -> Environment:
    """Where pages are made: everything is escaped, and what is undefined is an error.

    Raises:
        ConfigError: If the libraries that make pages are not installed.
    """
    need_libraries()
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        """Every value on its way into the page; escaping for HTML comes after it."""
        return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    # printable() keeps control and direction marks in names from changing how the page reads
    made = Environment(autoescape=True, undefined=StrictUndefined, finalize=shown, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"points": "{:.1f}".format, "figure": "{:.3f}".format, "signed": "{:+.3f}".format, "clock": clock_time,
                     "fact": _fact}  # fmt: skip
    return made


def page_part(name: str) -> str:
    """A template, style sheet or script of this folder."""
    return files("genzqa.report").joinpath(name).read_text("utf-8")


def _digest(script: str) -> str:
    """As a content policy names a script it allows: of the exact text between the tags."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')}"
