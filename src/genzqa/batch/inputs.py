"""One streaming listing of photos and videos, wherever they are: folders, patterns, list files, Parquet, object stores."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from genzqa.batch.item import Item
from genzqa.batch.remote import is_url, list_remote, stat_remote
from genzqa.errors import ConfigError
from genzqa.media.image import SUPPORTED_SUFFIXES
from genzqa.media.video_sniff import VIDEO_SUFFIXES, is_source_code

SUFFIXES = (*SUPPORTED_SUFFIXES, *VIDEO_SUFFIXES)
_MAGIC = re.compile(r"[*?[]")


def normal_source(source: str) -> str:
    """A source in the one spelling that scores remember: ``./photos/`` is ``photos``."""
    return source if is_url(source) or not source else os.path.normpath(source)


class Listing:
    """What some sources hold. Never more than one folder's names are in memory; the order is the same every time.

    Args:
        sources: Folders (searched to the bottom for known suffixes, hidden entries skipped), patterns, ``.txt`` files with
            a path a line, ``.parquet`` files with a column of paths, single files, or addresses such as ``s3://...``.
        column: Of Parquet files.
        http: Whether ``http(s)://`` addresses may be opened.
        warn: Called with a line for the user.

    Attributes:
        complete: False once something could not be listed.

    Raises:
        ConfigError: If a source does not exist, or is an address that must not be opened.
    """

    def __init__(self, sources: Sequence[str], *, column: str = "path", http: bool = False,
                 warn: Callable[[str], object] = lambda _: None) -> None:  # fmt: skip
        self._sources = [normal_source(source) for source in sources]
        self._column, self._http, self._warn = column, http, warn
        self._entered: set[tuple[int, int]] = set()
        self.complete = True
        for source in self._sources:
            self._check(source)

    def __iter__(self) -> Iterator[Item]:
        """Inputs as they are found; one that two sources name comes twice."""
        self._entered.clear()
        for source in self._sources:
            yield from self._items(source)

    def _check(self, source: str) -> None:
        if is_url(source):
            self._check_address(source)
        elif source in ("", "-"):
            raise ConfigError("nothing is read from standard input", subject=source, hint="write a list file.txt")
        elif not os.path.lexists(source) and not _MAGIC.search(source):
            raise ConfigError("no such file or folder", subject=source, hint="check the path")

    def _check_address(self, address: str) -> None:
        if _is_web(address) and not self._http:
            raise ConfigError("web addresses are not fetched unless asked", subject=address, hint="add --http")

    def _items(self, source: str) -> Iterator[Item]:
        if is_url(source) and not _is_web(source):  # the web has no folders, and a question mark is no pattern there
            yield from list_remote(source, SUFFIXES, self._give_up)
        elif Path(source).is_dir():
            yield from self._folder(source)
        elif source.lower().endswith(".txt") and Path(source).is_file():
            yield from map(self._named, _lines(source))
        elif source.lower().endswith(".parquet") and Path(source).is_file():
            yield from map(self._named, _column(source, self._column))
        elif is_url(source) or os.path.lexists(source):
            yield self._named(source)
        else:
            yield from self._pattern(source)

    def _named(self, path: str) -> Item:
        """An input by its name, whatever its suffix; one that does not exist becomes a row with an error."""
        if is_url(path):
            self._check_address(path)
            return stat_remote(path)
        return _stat(path)

    def _folder(self, folder: str) -> Iterator[Item]:
        """As `genzqa score` orders them: by name, folders among files; links to folders come last."""
        try:
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in self._entered:
                return
            self._entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as found:
                entries = sorted((entry for entry in found if not entry.name.startswith(".")), key=_last_links)
        except OSError as error:
            self._give_up(folder, error)
            return
        for entry in entries:
            path = entry.path.removeprefix("./")
            if _is_folder(entry):
                yield from self._folder(path)
            elif path.lower().endswith(SUFFIXES) and not is_source_code(path):
                yield _stat(path)

    def _pattern(self, pattern: str) -> Iterator[Item]:
        parts = Path(pattern).parts
        start = "/" if parts[0] == "/" else ""
        for path in self._matches(start, parts[1:] if start else parts):
            if Path(path).is_dir():
                yield from self._folder(path)
            else:
                yield _stat(path)

    def _matches(self, folder: str, parts: Sequence[str]) -> Iterator[str]:
        """Paths below ``folder`` that match one part of a pattern each; ``**`` is any number of folders."""
        if not parts:
            yield folder
            return
        first, rest = parts[0], parts[1:]
        if not _MAGIC.search(first):
            path = os.path.join(folder, first)  # noqa: PTH118  (keeps the spelling)
            if os.path.lexists(path):
                yield from self._matches(path, rest)
            return
        if first == "**" and rest:
            yield from self._matches(folder, rest)
        try:
            with os.scandir(folder or ".") as found:
                names = sorted((entry.name, _is_folder(entry), entry.is_symlink()) for entry in found)
        except OSError as error:
            self._give_up(folder or ".", error)
            return
        for name, is_folder, is_link in names:
            path = os.path.join(folder, name)  # noqa: PTH118
            if name.startswith(".") and not first.startswith("."):
                continue
            if first == "**":
                if is_folder and not is_link:  # links may form loops
                    yield from self._matches(path, parts)
                elif not rest and not is_folder:
                    yield path
            elif fnmatch.fnmatchcase(name, first) and (is_folder or not rest):
                yield from self._matches(path, rest)

    def _give_up(self, place: str, error: OSError) -> None:
        self._warn(f"{place}: cannot be listed: {error.strerror or error}")
        self.complete = False


def _is_web(address: str) -> bool:
    return address.lower().startswith(("http://", "https://"))


def _stat(path: str) -> Item:
    try:
        status = Path(path).stat()
    except (OSError, ValueError):  # ValueError: a NUL character; decoding says what is wrong
        return Item(path)
    return Item(path, status.st_size, status.st_mtime_ns)


def _last_links(entry: os.DirEntry[str]) -> tuple[bool, str]:
    return entry.is_symlink() and _is_folder(entry), entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links, which is no folder
        return False


def _lines(path: str) -> Iterator[str]:
    """The paths of a list file, one a line; empty lines do not count. Bytes that are not UTF-8 are kept, as in names."""
    try:
        with Path(path).open(encoding="utf-8-sig", errors="surrogateescape") as file:
            for line in file:
                if name := line.rstrip("\r\n"):
                    yield name
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", subject=path) from error


def _column(path: str, column: str) -> Iterator[str]:
    """The paths in a column of a Parquet file; nulls do not count."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            kind: Any = file.schema_arrow.field(column).type if column in file.schema_arrow.names else None
            if kind is None or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise ConfigError(f"has no text column {column!r}", subject=path,
                                  hint=f"name one with --column: {', '.join(file.schema_arrow.names)}")  # fmt: skip
            for batch in file.iter_batches(columns=[column]):
                yield from (name for name in batch.column(0).to_pylist() if name)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"is no Parquet file: {error}", subject=path) from error
