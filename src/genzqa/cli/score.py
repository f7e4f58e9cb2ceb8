"""``genzqa score``: photos and videos in, a table, JSON lines, CSV, quality maps and a report out."""

from __future__ import annotations

import dataclasses
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genzqa.cli.inputs import find_inputs
from genzqa.cli.maps import MapFolder
from genzqa.cli.output import CsvTable, csv_table, print_table, print_timelines, progress, write_json_line
from genzqa.cli.report import report_page
from genzqa.cli.running import Backend, BackendOption, DeviceOption, Precision, PrecisionOption
from genzqa.errors import ConfigError, InputError
from genzqa.limits import DEFAULT_LIMITS, MEGAPIXEL, Limits
from genzqa.text import printable

if TYPE_CHECKING:
    from genzqa.cli.output import Result
    from genzqa.report.page import ReportPage
    from genzqa.result import ImageResult

Paths = Annotated[
    list[str], typer.Argument(metavar="PATH", help="Photos, videos, and folders, searched to the bottom.")
]
Model = Annotated[str, typer.Option(help="mini, mini-student (faster), or local-dir:FOLDER for a model of your own.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line instead of a table.")]
Csv = Annotated[Path | None, typer.Option(metavar="FILE", help="Also write all results to this CSV file.")]
Map = Annotated[Path | None, typer.Option("--map", metavar="DIR", help="Also write each photo's quality map here.")]
Report = Annotated[Path | None, typer.Option(metavar="FILE", help="Also write one HTML page with pictures and maps.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Photos read ahead and handed over together.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never open a network connection.")]
MaxMegapixels = Annotated[float, typer.Option(min=0.0001, help="Refuse larger photos and videos.")]
Timeline = Annotated[bool, typer.Option("--timeline", help="Also score one frame per second of every video.")]
Frames = Annotated[int | None, typer.Option(min=1, help="Frames a video's score is made of [default: the model's].")]
Start = Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Leave out the beginning of every video.")]
Duration = Annotated[float | None, typer.Option(metavar="SECONDS", help="Score this much of every video.")]

_REPORTED_FRAMES = 3  # of the worst of every video


def score_command(
    paths: Paths,
    model: Model = "mini",
    as_json: AsJson = False,
    csv: Csv = None,
    map_folder: Map = None,
    report: Report = None,
    batch_size: BatchSize = 16,
    backend: BackendOption = Backend.torch,
    precision: PrecisionOption = Precision.fp32,
    device: DeviceOption = "auto",
    offline: Offline = False,
    max_megapixels: MaxMegapixels = DEFAULT_LIMITS.max_pixels / MEGAPIXEL,
    timeline: Timeline = False,
    frames: Frames = None,
    start: Start = 0.0,
    duration: Duration = None,
) -> None:
    """Score photos and videos: 0 (bad) to 100 (excellent), with a 95 % interval, a grade, and notes.

    Exit status: 0 all scored, 1 some failed, 2 usage, model or output error.
    """
    from genzqa.media.image import SUPPORTED_SUFFIXES
    from genzqa.media.video_sniff import VIDEO_SUFFIXES

    suffixes = (*SUPPORTED_SUFFIXES, *VIDEO_SUFFIXES)
    limits = Limits(max_pixels=round(max_megapixels * MEGAPIXEL))
    found = find_inputs(paths, suffixes, skip_folder=str(map_folder) if map_folder else None)
    for warning in found.warnings:
        _warn(warning)
    for option, target in (("csv", csv), ("html", report)):
        if target is not None and target.suffix.lower() in suffixes:  # `--csv *.jpg`
            raise ConfigError("this would be written over a photo or a video", subject=str(target),
                              hint=f"name a file.{option}")  # fmt: skip
    maps = MapFolder(map_folder, limits) if map_folder else None
    started = time.perf_counter()
    with ExitStack() as stack:
        # Entered before anything slow: a result that cannot be written is not worth computing.
        table = stack.enter_context(csv_table(csv)) if csv else None
        page = stack.enter_context(report_page(report, limits)) if report else None
        from genzqa.scoring.scorer import load
        from genzqa.scoring.video_options import VideoOptions

        options = VideoOptions(frames=frames, start=start, duration=duration, timeline=timeline or page is not None,
                               worst_frames=_REPORTED_FRAMES if page else 0)  # fmt: skip
        scorer = load(model, limits=limits, offline=offline,
                      backend=backend.value, precision=precision.value, device=device)  # fmt: skip
        if maps:
            scorer.model.require_drawing()
        shown = stack.enter_context(progress(len(found.files), bar=not (as_json and sys.stdout.isatty())))
        sinks = _Sinks(as_json, table, maps, page, timeline=timeline)
        scored = scorer.score_many(found.files, batch_size=batch_size, quality_map=scorer.draws_maps and bool(maps or page),
                                   video=options, progress=shown.frames)  # fmt: skip
        for path, result in zip(found.files, scored, strict=True):
            sinks.take(path, result)
            shown.advance()
    if not as_json:
        print_table(sinks.results)
        print_timelines(sinks.results)
    seconds = time.perf_counter() - started
    typer.echo(f"{sinks.scored} scored, {sinks.failed} failed, {seconds:.1f} seconds", err=True)
    if sinks.failed or sinks.maps_lost or not found.complete:
        raise typer.Exit(1)


class _Sinks:
    """Where results go as they arrive."""

    def __init__(self, as_json: bool, table: CsvTable | None, maps: MapFolder | None, page: ReportPage | None, *,
                 timeline: bool) -> None:  # fmt: skip
        self._as_json, self._table, self._maps, self._page, self._timeline = as_json, table, maps, page, timeline
        self.results: list[Result] = []
        self.scored = self.failed = self.maps_lost = 0
        self._told_of_videos = False

    def take(self, path: str, result: Result) -> None:
        from genzqa.result import FailedResult, ImageResult

        if self._page is not None:
            self._page.add(path, result)
        if isinstance(result, FailedResult):
            self.failed += 1
        else:
            self.scored += 1
        # What follows is kept until the table is printed, so it is made small; a timeline that only the report asked
        # for does not change what else is written.
        if isinstance(result, ImageResult):
            self._draw(path, result)
            result = dataclasses.replace(result, quality_map=None)
        elif not isinstance(result, FailedResult):
            if self._maps is not None and not self._told_of_videos:
                self._told_of_videos = True
                _warn("a quality map is drawn of a photo; those of a video's worst frames are in --report")
            timeline = result.timeline if self._timeline else None
            result = dataclasses.replace(result, worst_frames=(), timeline=timeline)
        if self._table is not None:
            self._table.add(result)
        if self._as_json:
            write_json_line(result)
        else:
            self.results.append(result)

    def _draw(self, path: str, result: ImageResult) -> None:
        if self._maps is None or result.quality_map is None:
            return
        try:
            self._maps.write(path, result)
        except InputError as error:  # the photo went away after it was scored; the score is good
            self.maps_lost += 1
            _warn(f"{path}: no quality map: {error.reason}")


def _warn(line: str) -> None:
    typer.echo(f"warning: {printable(line)}", err=True)
