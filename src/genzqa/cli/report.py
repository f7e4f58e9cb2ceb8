"""The reports: that which ``genzqa score --report`` writes, and ``genzqa report`` about a folder of scores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genzqa.files import atomic_file, unwritable, write_atomically
from genzqa.text import printable

if TYPE_CHECKING:
    from genzqa.limits import Limits
    from genzqa.report.page import ReportPage


@contextmanager
def report_page(path: Path, limits: Limits) -> Iterator[ReportPage]:
    """A page that appears at ``path`` when the block ends well.

    Raises:
        ConfigError: On entry, if the libraries for reports are not installed.
        OutputError: On entry, if the file could not be written.
    """
    with atomic_file(path) as file:
        from genzqa.report.page import ReportPage

        page = ReportPage(limits)
        yield page
        content = page.render().encode()
        try:
            file.write(content)
        except OSError as error:
            raise unwritable(path, error) from error


def report_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What genzqa batch has written.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The page [default: report.html in DIR].")] = None,
) -> None:
    """One HTML page about a folder of scores: histogram, worst and best with thumbnails, errors by kind."""
    from genzqa.cli.batch import need_batch_libraries

    need_batch_libraries()
    from genzqa.report.scores import scores_page

    target = out or folder / "report.html"
    write_atomically(target, scores_page(folder).encode())
    typer.echo(f"written: {printable(str(target))}", err=True)
