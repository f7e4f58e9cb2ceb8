"""The output folder: parts, a manifest, a lock. At rest it holds exactly one row per input.

Rows are only ever added in new parts. Where two parts have a row about one input, the one of the higher number counts, so
that a run may be killed at any moment; `Store.tidy`, at the end of a run, writes what counts anew and removes the rest.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from genzqa.batch.known import Known, keys_of
from genzqa.batch.parts import (
    Part,
    find_parts,
    read_batches,
    read_columns,
    remove_unfinished,
    sync_folder,
    write_part,
)
from genzqa.batch.records import IDENTITY, completed, table_of
from genzqa.errors import ConfigError, DataError, OutputError
from genzqa.files import unwritable, write_atomically
from genzqa.result import SCHEMA as RECORDS

MANIFEST, _LOCK = "_manifest.json", ".lock"  # names that readers of Parquet folders pass over
VERSION = "genzqa-batch/1"
PART_ROWS = 50_000
_ROWS, _SECONDS = 5_000, 30.0  # rows that wait for their part: so many, and so long


class Store:
    """Rows of scores in a folder, one writer at a time.

    Args:
        folder: Made if it is not there.
        scored_by: What tells the model and settings that rows are made with now.

    Raises:
        ConfigError: If another run writes there, or the folder holds Parquet files of others.
        OutputError: If it cannot be written to.
    """

    def __init__(self, folder: Path, scored_by: str) -> None:
        self.folder, self.scored_by = folder, scored_by
        self._waiting: list[dict[str, Any]] = []
        self._since = time.monotonic()
        self._lock = _locked(folder)
        try:
            remove_unfinished(folder)
            self.parts = find_parts(folder)
        except BaseException:
            self._lock.close()
            raise
        self._first_new = self._next = max((part.number for part in self.parts), default=-1) + 1

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        """What is scored is kept, also when a run is interrupted; after a failure to write, nothing more is tried."""
        try:
            if not isinstance(error, OutputError):
                self.flush()
        finally:
            self._lock.close()

    @property
    def rows(self) -> int:
        """In all parts."""
        return sum(part.rows for part in self.parts)

    @property
    def failed(self) -> int:
        """Rows that are errors."""
        return sum(part.failed for part in self.parts)

    def known(self) -> Known:
        """What earlier runs have left here."""
        columns = ("input", "error", *IDENTITY)
        return Known(
            (part.number, read_columns(part, columns), part.scored_by == self.scored_by) for part in self.parts
        )

    def add(self, row: dict[str, Any]) -> None:
        """Take in a row; it is on the disk half a minute or some thousand rows later, or when the block ends.

        Raises:
            OutputError: If a part cannot be written.
        """
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(row)
        if len(self._waiting) >= _ROWS or time.monotonic() - self._since > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Put what waits on the disk.

        Raises:
            OutputError: If it cannot be written.
        """
        if self._waiting:
            part = write_part(self.folder, self._next, self.scored_by, [table_of(self._waiting)])
            self._waiting = []  # first of all: interrupted before it, the same part is written again
            self.parts.append(part)
            self._next += 1

    def tidy(self, known: Known, *, complete: bool) -> int:
        """Remove rows that do not hold any more, and join small parts.

        Args:
            known: As `known` gave it, marked by a plan that has gone through all of its listing.
            complete: Whether that listing was; rows of inputs that it did not meet stay otherwise.

        Returns:
            How many inputs have lost their row and got no new one.

        Raises:
            OutputError: If a part cannot be written.
        """
        self.flush()
        keep = known.keep if complete else known.keep | ~known.listed
        live = {part: self._live(part, known, keep) for part in self.parts}
        for scored_by in sorted({part.scored_by for part in self.parts}):
            mine = [part for part in self.parts if part.scored_by == scored_by]
            holed = [part for part in mine if live[part] < part.rows]
            small = [part for part in mine if part.rows < PART_ROWS // 2]
            old = sorted({*holed, *(small if len(small) > 1 else ())}, key=lambda part: part.number)
            if old:
                self._join(old, known, keep)
        return int((~known.listed & ~keep).sum())

    def _live(self, part: Part, known: Known, keep: np.ndarray[Any, Any]) -> int:
        if part.number >= self._first_new:
            return part.rows
        return int((keep & (known.part == part.number)).sum())

    def _join(self, old: Sequence[Part], known: Known, keep: np.ndarray[Any, Any]) -> None:
        """New parts first, then the old ones go: killed in between, rows are twice there, and the next run sees it."""
        batches = (batch for part in old for batch in self._living(part, known, keep))
        made: list[Part] = []
        for first in batches:
            tables = _up_to(PART_ROWS, chain([first], batches))
            made.append(write_part(self.folder, self._next, old[0].scored_by, tables))
            self._next += 1
        try:
            for part in old:
                part.path.unlink()
            sync_folder(self.folder)
        except OSError as error:
            raise unwritable(self.folder, error) from error
        self.parts = [part for part in self.parts if part not in old] + made

    def _living(self, part: Part, known: Known, keep: np.ndarray[Any, Any]) -> Iterator[pa.RecordBatch]:
        for batch in read_batches(part):
            if part.number < self._first_new:
                place = known.find(keys_of(batch.column("input").to_pylist()))
                batch = batch.filter(pa.array(keep[place] & (known.part[place] == part.number)))
            if len(batch):
                yield batch

    def write_manifest(self, facts: dict[str, Any]) -> None:
        """Describe the folder: ``facts`` of the run, and what is there.

        Raises:
            OutputError: If it cannot be written.
        """
        parts = [{"file": part.path.name, "rows": part.rows, "failed": part.failed} for part in self.parts]
        described = {"version": VERSION, "records": RECORDS, **facts, "rows": self.rows, "failed": self.failed,
                     "parts": parts}  # fmt: skip
        write_atomically(self.folder / MANIFEST, (json.dumps(described, indent=2) + "\n").encode())


def _up_to(rows: int, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """As many batches as it takes to have so many rows."""
    for batch in batches:
        yield completed(batch)
        rows -= len(batch)
        if rows <= 0:
            return


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What the last run said of itself, None if there was none.

    Raises:
        DataError: If it is none of ours.
    """
    path = folder / MANIFEST
    try:
        found: Any = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot be read: {error}", subject=str(path), hint="delete it, or name another folder"
        ) from error
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise DataError("is no manifest of this version of genzqa batch", subject=str(path),
                        hint="name another folder")  # fmt: skip
    return found


def _locked(folder: Path) -> BinaryIO:
    """The folder's lock, which the system takes back when this process ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK).open("ab")
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ConfigError("another genzqa batch is writing here", subject=str(folder),
                          hint="wait until it ends, or name another folder") from error  # fmt: skip
    return file
