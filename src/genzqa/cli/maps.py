"""The folder of quality maps: one PNG per photo, named after it."""

from __future__ import annotations

import os
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from genzqa.errors import OutputError
from genzqa.files import unwritable, write_atomically

if TYPE_CHECKING:
    from genzqa.limits import Limits
    from genzqa.result import ImageResult

_LONGEST_NAME = 240  # bytes; file systems take 255


class MapFolder:
    """Writes overlays; made before scoring, so that a folder that cannot be written is found in time.

    Args:
        folder: Created with the first map.
        limits: For decoding the photo again; results do not keep pixels.

    Raises:
        OutputError: If ``folder`` is a file, or it or the folder to create it in is write-protected.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self._limits = folder, limits
        self._taken: set[str] = set()
        existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
        if not existing.is_dir():
            raise OutputError("exists and is not a folder", subject=str(existing), hint="give the name of a folder")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise OutputError("is write-protected", subject=str(existing), hint="give another folder for the maps")

    def write(self, source: str, result: ImageResult) -> Path:
        """Write the overlay of one photo and return its path.

        Raises:
            InputError: If the photo cannot be read any more.
            OutputError: If the file cannot be written.
        """
        from genzqa.media.overlay import overlay_png
        from genzqa.media.still import read_still

        if result.quality_map is None:
            raise ValueError("the result carries no quality map")
        pixels = read_still(source, self._limits)
        path = self._target(source)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(path, error) from error
        write_atomically(path, overlay_png(pixels, result.quality_map, score=result.score, grade=result.grade))
        return path

    def _target(self, source: str) -> Path:
        """``a/x.jpg`` -> ``FOLDER/a/x.jpg.png``; a name that is taken gets a number."""
        relative = map_name(source)
        name = relative.name
        if len(os.fsencode(name)) > _LONGEST_NAME:
            name = os.fsdecode(os.fsencode(name)[:_LONGEST_NAME])
        number, ending = 1, ""
        while (target := relative.with_name(f"{name}{ending}.png")).as_posix().casefold() in self._taken:
            number += 1
            ending = f"-{number}"
        self._taken.add(target.as_posix().casefold())  # some file systems do not tell A.jpg from a.jpg
        return self.folder / target


def map_name(source: str) -> PurePath:
    """Where a photo's map goes below the folder, without its ending; of a path from outside, the last two parts."""
    path = PurePath(source)
    if path.is_absolute() or path.drive or ".." in path.parts:
        plain = [part for part in path.parts if part not in ("..", path.anchor)]
        return PurePath(*plain[-2:])
    return path
