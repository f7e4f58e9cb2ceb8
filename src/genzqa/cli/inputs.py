"""Which photos and videos the given paths mean."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from genzqa.errors import ConfigError

_MAGIC = re.compile(r"[*?[]")


@dataclass
class Found:
    """The photos and videos, in order and as to be shown, and what went wrong while looking for them.

    Attributes:
        files: Paths; those in folders sorted, one given twice by name twice, one reached by name and folder once.
        warnings: Lines for the user.
        complete: False if a folder could not be listed.
    """

    files: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    complete: bool = True


def find_inputs(paths: Sequence[str], suffixes: Iterable[str], *, skip_folder: str | None = None) -> Found:
    """Expand folders and patterns.

    A named file is taken whatever its suffix, and even if it does not exist: it becomes a row with an error. Folders
    are walked to the bottom for ``suffixes`` in any case; hidden entries are skipped, each real folder is entered once.

    Args:
        paths: As given by the user; a pattern that the shell left alone is expanded here.
        suffixes: With their dot, lower case.
        skip_folder: Never walked: the folder that the maps go to.

    Raises:
        ConfigError: If a path is ``-`` or empty, or nothing at all was found.
    """
    if "-" in paths:
        raise ConfigError("nothing is read from standard input", subject="-",
                          hint="save it to a file and give its name; a file called - is written ./-")  # fmt: skip
    if "" in paths:
        raise ConfigError("an empty name names no file", hint="a variable in the command may be unset")
    found = Found()
    walk = _Walk(tuple(suffixes), found, skip_folder)
    by_folder: set[str] = set()
    named: set[str] = set()
    for path in _expand(paths):
        if not Path(path).is_dir():
            if _identity(path) not in by_folder:
                named.add(_identity(path))
                found.files.append(path)
            continue
        files = sorted(walk.files(path), key=lambda file: PurePath(file).parts)
        if not files:
            found.warnings.append(f"{path}: no photos or videos in this folder")
        for file in files:
            if _identity(file) not in by_folder | named:
                by_folder.add(_identity(file))
                found.files.append(file)
    if not found.files:
        raise ConfigError("no photos or videos found", subject=", ".join(paths),
                          hint=f"folders are searched for {' '.join(suffixes)}; other files must be named")  # fmt: skip
    return found


def _expand(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        if _MAGIC.search(path) and not os.path.lexists(path):
            yield from sorted(glob.glob(path, recursive=True)) or [path]  # noqa: PTH207  (keeps `./` and the spelling)
        else:
            yield path


def _identity(path: str) -> str:
    """The same for every way to one directory entry; two links to one file are two entries."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)  # noqa: PTH118


class _Walk:
    """Folders already entered are remembered over all given paths, which also ends loops of links."""

    def __init__(self, suffixes: tuple[str, ...], found: Found, skip_folder: str | None) -> None:
        self._suffixes, self._found = suffixes, found
        self._skip = os.path.realpath(skip_folder) if skip_folder else None
        self._entered: dict[str, list[str]] = {}

    def files(self, folder: str) -> list[str]:
        """Photos in ``folder`` and below."""
        real = os.path.realpath(folder)
        if real == self._skip:
            return []
        if real in self._entered:
            return self._entered[real]
        self._entered[real] = files = []
        from genzqa.media.video_sniff import is_source_code

        folders: list[tuple[bool, str]] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    path = entry.path.removeprefix("./")
                    if _is_folder(entry):
                        folders.append((entry.is_symlink(), path))
                    elif entry.name.lower().endswith(self._suffixes) and not is_source_code(path):
                        files.append(path)
        except OSError as error:
            self._found.warnings.append(f"{folder}: this folder cannot be listed: {error.strerror or error}")
            self._found.complete = False
        for _, path in sorted(folders):  # real folders before links to them, so that photos keep their plain path
            if os.path.realpath(path) not in self._entered:
                files.extend(self.files(path))
        return files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links, which is no folder
        return False
