"""What ``genzqa score`` writes: the table, JSON lines, CSV, and the progress on stderr."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from genzqa.cli.text import printable, spreadsheet_cell, valid_utf8
from genzqa.errors import OutputError
from genzqa.files import atomic_file, unwritable

if TYPE_CHECKING:
    from genzqa.result import FailedResult, ImageResult

    Result: TypeAlias = ImageResult | FailedResult

CSV_COLUMNS = (
    "input", "kind", "status", "score", "raw", "interval_low", "interval_high", "grade", "percentile", "model", "base",
    "weights_sha256", "base_sha256", "preprocessing", "timesteps", "seed", "version", "width", "height", "notes",
    "seconds", "error_code", "error_reason",
)  # fmt: skip
_GRADE_STYLES = {"bad": "bold red", "poor": "dark_orange", "fair": "yellow", "good": "green", "excellent": "bold cyan"}
_PIPED_WIDTH = 120  # of a table that goes to a file; a terminal's own width is used otherwise
_QUIET_BELOW = 50  # inputs; without a terminal, progress lines appear above


def write_json_line(result: Result) -> None:
    """One record on one line of stdout, at once, as pure ASCII: right in every locale.

    Raises:
        OutputError: If stdout cannot be written (a full disk).
    """
    with _stdout():
        sys.stdout.write(json.dumps(_encodable(result.to_dict()), allow_nan=False) + "\n")
        sys.stdout.flush()


def print_table(results: Sequence[Result]) -> None:
    """All results as one table on stdout.

    Raises:
        OutputError: If stdout cannot be written (a full disk).
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from genzqa.result import FailedResult

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=_PIPED_WIDTH)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("file", overflow="fold", ratio=None)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("grade", no_wrap=True)
    table.add_column("notes", overflow="fold")
    for result in results:
        table.add_row(*(_failed_cells(result) if isinstance(result, FailedResult) else _scored_cells(result)))
    with _stdout():
        console.print(table)


def _scored_cells(result: ImageResult) -> list[Any]:
    from rich.text import Text

    low, high = result.interval
    return [Text(printable(result.input)), Text(f"{result.score:.1f}", "bold"), Text(f"{low:.1f} - {high:.1f}"),
            Text(result.grade, _GRADE_STYLES[result.grade]),
            Text(", ".join(note.code.replace("_", " ") for note in result.notes))]  # fmt: skip


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


@contextmanager
def progress(total: int, *, bar: bool) -> Iterator[Callable[[], None]]:
    """Report progress on stderr; the block calls what it gets once per input.

    Args:
        total: Number of inputs.
        bar: Whether a bar may be drawn on a terminal; not while stdout writes to the same one.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        if not bar or total < 2:
            yield lambda: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        # stdout is for results alone: rich must not send it through its own console
        with Progress(*columns, console=console, transient=True, redirect_stdout=False) as drawn:
            task = drawn.add_task("scoring", total=total)
            yield lambda: drawn.advance(task)
        return
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if total > _QUIET_BELOW and done * 10 // total > (done - 1) * 10 // total:
            print(f"{done} of {total} done", file=sys.stderr, flush=True)

    yield advance


@contextmanager
def _stdout() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror or error}", subject="standard output") from error


def _encodable(value: Any) -> Any:
    """The record with every text in it valid UTF-8."""
    if isinstance(value, str):
        return valid_utf8(value)
    if isinstance(value, dict):
        return {key: _encodable(part) for key, part in value.items()}
    return [_encodable(part) for part in value] if isinstance(value, list) else value
