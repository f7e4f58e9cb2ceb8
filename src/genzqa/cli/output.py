"""What ``genzqa score`` writes: the table, JSON lines, CSV, and the progress on stderr."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from genzqa.errors import OutputError
from genzqa.files import atomic_file, unwritable
from genzqa.text import clock_time, encodable, printable, spreadsheet_cell

if TYPE_CHECKING:
    from rich.progress import Progress

    from genzqa.result import FailedResult, ImageResult
    from genzqa.video_result import VideoResult

    Result: TypeAlias = ImageResult | VideoResult | FailedResult

CSV_COLUMNS = (
    "input", "kind", "status", "score", "raw", "interval_low", "interval_high", "grade", "percentile", "model", "base",
    "weights_sha256", "base_sha256", "preprocessing", "timesteps", "seed", "backend", "precision", "version", "width", "height",
    "notes", "seconds", "error_code", "error_reason", "duration", "frame_rate", "worst_time", "worst_score",
    "motion", "motion_sha256",
)  # fmt: skip
_GRADE_STYLES = {"bad": "bold red", "poor": "dark_orange", "fair": "yellow", "good": "green", "excellent": "bold cyan"}
PIPED_WIDTH = 120  # of a table that goes to a file; a terminal's own width is used otherwise
_QUIET_BELOW = 50  # inputs, or frames of a video; without a terminal, progress lines appear above
_NOTES_EXPLAINED = 8  # below the table
_BARS = "▁▂▃▄▅▆▇█"


def write_json_line(result: Result) -> None:
    """One record on one line of stdout, at once, as pure ASCII: right in every locale.

    Raises:
        OutputError: If stdout cannot be written (a full disk).
    """
    with _stdout():
        sys.stdout.write(json.dumps(encodable(result.to_dict()), allow_nan=False) + "\n")
        sys.stdout.flush()


def print_table(results: Sequence[Result]) -> None:
    """All results as one table on stdout, and below it what the notes in it mean.

    Raises:
        OutputError: If stdout cannot be written (a full disk).
    """
    from rich import box
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from genzqa.result import FailedResult
    from genzqa.video_result import VideoResult

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=PIPED_WIDTH)
    videos = any(isinstance(result, VideoResult) for result in results)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("file", overflow="fold", ratio=None)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("grade", no_wrap=True)
    if videos:
        table.add_column("worst moment", justify="right", no_wrap=True)
    table.add_column("notes", overflow="fold")
    for result in results:
        cells = _failed_cells(result) if isinstance(result, FailedResult) else _scored_cells(result)
        if videos:
            worst = result.worst if isinstance(result, VideoResult) else None
            cells.insert(4, f"{clock_time(worst.time)} ({worst.score:.1f})" if worst else "")
        table.add_row(*cells)
    with _stdout():
        console.print(table)
        if explained := _explained(results):
            meanings = Table.grid("", "", padding=(0, 2))
            meanings.columns[0].no_wrap = True
            for name, text in explained:
                meanings.add_row(Text(name), Text(text))
            console.print(Padding(meanings, (0, 0, 1, 1)))


def _explained(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Every note of the table once, as it is named there, with its sentence; the commonest first.

    Some sentences hold figures of one file; then the first one stands as an example.
    """
    from genzqa.result import FailedResult

    texts: dict[str, dict[str, None]] = {}
    count: Counter[str] = Counter()
    for result in results:
        for note in () if isinstance(result, FailedResult) else result.notes:
            texts.setdefault(note.code, {})[printable(note.text)] = None
            count[note.code] += 1
    lines = []
    for code, _ in count.most_common(_NOTES_EXPLAINED):
        first, *others = texts[code]
        lines.append((_spoken(code), f"for example: {first}" if others else first))
    if len(count) > _NOTES_EXPLAINED:
        lines.append(("others", "--json gives the sentence of every note."))
    return lines


def _spoken(code: str) -> str:
    return code.replace("_", " ")


def print_timelines(results: Sequence[Result]) -> None:
    """Of every video with a timeline, one line of bars, a bar a scored frame, from score 0 (low) to 100 (high).

    Raises:
        OutputError: If stdout cannot be written (a full disk).
    """
    from genzqa.video_result import VideoResult

    with _stdout():
        for result in results:
            if isinstance(result, VideoResult) and result.timeline:
                bars = "".join(_BARS[min(7, int(frame.score / 12.5))] for frame in result.timeline)
                end = clock_time(result.timeline[-1].time)
                print(f"{printable(result.input)}\n  {clock_time(result.timeline[0].time)} {bars} {end}")


def _scored_cells(result: ImageResult | VideoResult) -> list[Any]:
    from rich.text import Text

    low, high = result.interval
    return [Text(printable(result.input)), Text(f"{result.score:.1f}", "bold"), Text(f"{low:.1f} - {high:.1f}"),
            Text(result.grade, _GRADE_STYLES[result.grade]),
            Text(", ".join(_spoken(note.code) for note in result.notes))]  # fmt: skip


def _failed_cells(result: FailedResult) -> list[Any]:
    from rich.text import Text

    error = result.error
    why = f"{error.reason} ({error.hint})" if error.hint else error.reason
    return [Text(printable(result.input)), Text("-"), Text("-"), Text("error", "red"), Text(printable(why), "red")]


class CsvTable:
    """Results as rows of CSV (RFC 4180, UTF-8); lists are joined by ``;``, what does not apply is empty."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._write(CSV_COLUMNS)

    def add(self, result: Result) -> None:
        """Append one row.

        Raises:
            OutputError: If it cannot be written.
        """
        record = result.to_dict()
        low, high = record.pop("interval", ("", ""))
        error = record.pop("error", {"code": "", "reason": ""})
        flat = record | {
            "interval_low": low,
            "interval_high": high,
            "error_code": error["code"],
            "error_reason": error["reason"],
            "timesteps": ";".join(str(step) for step in record["timesteps"]),
            "notes": ";".join(note["code"] for note in record.get("notes", [])),
            "worst_time": record.get("worst", {}).get("time", ""),
            "worst_score": record.get("worst", {}).get("score", ""),
        }
        cells = [flat.get(column, "") for column in CSV_COLUMNS]
        self._write([spreadsheet_cell(cell) if isinstance(cell, str) else cell for cell in cells])

    def _write(self, cells: Sequence[Any]) -> None:
        line = io.StringIO(newline="")
        csv.writer(line).writerow(cells)
        try:
            self._file.write(line.getvalue().encode())
        except OSError as error:
            raise unwritable(self._path, error) from error


@contextmanager
def csv_table(path: Path) -> Iterator[CsvTable]:
    """A CSV file that appears when the block ends well.

    Raises:
        OutputError: On entry, if the file could not be written.
    """
    with atomic_file(path) as file:
        yield CsvTable(file, path)


class Shown:
    """Progress that nobody sees; the forms below show it."""

    def advance(self) -> None:
        """One more input is done."""

    def frames(self, name: str, done: int, total: int) -> None:
        """``done`` of ``total`` frames of a video are scored."""


class _Lines(Shown):
    """Plain lines on stderr, for logs: about ten, and only where there is much to do."""

    def __init__(self, total: int) -> None:
        self._done, self._total, self._frames_shown = 0, total, 0

    def advance(self) -> None:
        self._done += 1
        self._frames_shown = 0
        if self._total > _QUIET_BELOW and self._done * 10 // self._total > (self._done - 1) * 10 // self._total:
            print(f"{self._done} of {self._total} done", file=sys.stderr, flush=True)

    def frames(self, name: str, done: int, total: int) -> None:
        if total > _QUIET_BELOW and done * 10 // total > self._frames_shown:
            self._frames_shown = done * 10 // total
            print(f"{printable(name)}: {done} of {total} frames", file=sys.stderr, flush=True)


class _Bars(Shown):
    """Bars with the time left: one over the inputs, if there are several, one over the frames of a video."""

    def __init__(self, drawn: Progress, total: int) -> None:
        self._drawn, self._total = drawn, total
        self._inputs = drawn.add_task("inputs", total=total, visible=total > 1)
        self._video = drawn.add_task("", total=None, visible=False)

    def advance(self) -> None:
        self._drawn.advance(self._inputs)
        self._drawn.update(self._video, visible=False)

    def frames(self, name: str, done: int, total: int) -> None:
        if done >= total:
            self._drawn.update(self._video, visible=False)
            return
        if not self._drawn.tasks[self._video].visible:
            self._drawn.reset(self._video)
        self._drawn.update(self._video, description=printable(name), completed=done, total=total, visible=True)


@contextmanager
def progress(total: int, *, bar: bool) -> Iterator[Shown]:
    """Report progress on stderr; the block calls what it gets.

    Args:
        total: Number of inputs.
        bar: Whether a bar may be drawn on a terminal; not while stdout writes to the same one.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(total)
        return
    if not bar:
        yield Shown()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # stdout is for results alone: rich must not send it through its own console
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as drawn:
        yield _Bars(drawn, total)


@contextmanager
def _stdout() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror or error}", subject="standard output") from error
