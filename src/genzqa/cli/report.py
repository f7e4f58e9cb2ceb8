"""The report that ``genzqa score --report`` writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from genzqa.files import atomic_file, unwritable

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
