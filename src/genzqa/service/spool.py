"""The private folder that uploads lie in while they are scored.

Only this user may enter it, names in it are random, and nothing a client sends becomes part of a path. It goes when the
service ends; if that was killed, the next one of the same user removes what it left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO

from genzqa.service.metrics import Metrics
from genzqa.service.refusals import BusyError

_PREFIX, _LOCK = "genzqa-serve-", "lock"
_RETRY = 10  # seconds


class Spool:
    """Creates files and counts their bytes; `close` it.

    Args:
        max_bytes: Of all files together.
        metrics: Told how many bytes there are.

    Raises:
        OSError: If no folder can be made.
    """

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        _remove_leftovers()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))  # with mode 0700
        self._lock = (self.folder / _LOCK).open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._max_bytes, self._bytes, self._metrics = max_bytes, 0, metrics

    def create(self) -> tuple[BinaryIO, str]:
        """A new empty file and its path."""
        descriptor, path = tempfile.mkstemp(dir=self.folder, prefix="")  # with mode 0600
        return os.fdopen(descriptor, "wb", buffering=0), path

    def reserve(self, count: int) -> None:
        """Count bytes before they are written.

        Raises:
            BusyError: All uploads together would take too much room.
        """
        if self._bytes + count > self._max_bytes:
            raise BusyError("the room for uploads is full", hint="send it again later", retry_after=_RETRY)
        self._bytes += count
        self._metrics.stored_bytes.set(self._bytes)

    def remove(self, path: str, count: int) -> None:
        """Remove a file for which ``count`` bytes were reserved."""
        Path(path).unlink(missing_ok=True)
        self._bytes -= count
        self._metrics.stored_bytes.set(self._bytes)

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()


def _remove_leftovers() -> None:
    """Of services that were killed: a folder whose lock nobody holds. One without a lock is just being made."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / _LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
