"""Parts: Parquet files that appear whole or not at all, and say in their metadata which model made them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from genzqa.batch.records import SCHEMA
from genzqa.errors import ConfigError
from genzqa.files import unwritable

_KEY = b"genzqa"
_VERSION = "genzqa-batch/1"
_PREFIX, _SUFFIX, _TEMPORARY = "part-", ".parquet", ".genzqa-part-"
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Part:
    """One finished file.

    Attributes:
        path: ``part-000012.parquet``; of two rows about one input, the one in the part of the higher number counts.
        rows: In it.
        failed: Those of them that are errors.
        scored_by: What tells the model and settings; see `genzqa.batch.run`.
    """

    path: Path
    rows: int
    failed: int
    scored_by: str

    @property
    def number(self) -> int:
        """As in its name."""
        return int(self.path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX))


def write_part(folder: Path, number: int, scored_by: str, tables: Iterable[pa.Table]) -> Part:
    """Write one part of rows of `SCHEMA`: to the disk first, then under its name, then the name to the disk.

    Raises:
        OutputError: If the system refuses to write; nothing of it is left then, nor after any other exception.
    """
    path, temporary = folder / f"{_PREFIX}{number:06}{_SUFFIX}", folder / f"{_TEMPORARY}{number:06}"
    try:
        with _writing(path):
            # Always a new file: a writer that an interrupt has cut off writes its end when Python lets go of it, which is
            # as late as its exception, and would put that over whatever came to be in the same file.
            temporary.unlink(missing_ok=True)
            with temporary.open("xb") as file:
                rows, failed = _write(file, scored_by, tables)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(folder)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return Part(path, rows, failed, scored_by)


def find_parts(folder: Path) -> list[Part]:
    """The parts of a folder, lowest number first.

    Raises:
        ConfigError: If a Parquet file there is none of ours, or is damaged.
    """
    return [_read_part(path) for path in sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: (len(path.name), path))]


def remove_unfinished(folder: Path) -> None:
    """Clear away what a killed run was writing. Only for the one who holds the folder's lock."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        path.unlink(missing_ok=True)


def read_columns(part: Part, columns: Sequence[str]) -> pa.Table:
    """Some columns of all rows.

    Raises:
        ConfigError: If the file is damaged.
    """
    with _reading(part.path):
        return pq.ParquetFile(part.path).read(columns=list(columns))


def read_batches(part: Part, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows, some thousand at a time.

    Raises:
        ConfigError: If the file is damaged.
    """
    with _reading(part.path), pq.ParquetFile(part.path) as file:
        yield from file.iter_batches(_ROWS_AT_ONCE, columns=None if columns is None else list(columns))


def sync_folder(folder: Path) -> None:
    """Names in a folder last only once the folder itself is on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(file: BinaryIO, scored_by: str, tables: Iterable[pa.Table]) -> tuple[int, int]:
    """How many rows it were, and how many of them errors."""
    rows = failed = 0
    writer = pq.ParquetWriter(file, SCHEMA, compression="zstd")
    try:
        for table in tables:
            writer.write_table(table)
            rows += len(table)
            failed += len(table) - table["error"].null_count
        facts = {"version": _VERSION, "scored_by": scored_by, "failed": failed}
        writer.add_key_value_metadata({_KEY.decode(): json.dumps(facts)})
        writer.close()
    except BaseException:
        with suppress(OSError, pa.ArrowException):  # its last bytes go nowhere, but while the file is still open
            writer.close()
        raise
    return rows, failed


def _read_part(path: Path) -> Part:
    with _reading(path):
        facts = pq.read_metadata(path)
        ours: dict[str, Any] = json.loads((facts.metadata or {}).get(_KEY, b"{}"))
    named = path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
    if ours.get("version") != _VERSION or not named.isdecimal():
        raise ConfigError(
            "is not a file of genzqa batch", subject=str(path), hint="name a folder of its own with --out"
        )
    return Part(path, facts.num_rows, int(ours["failed"]), str(ours["scored_by"]))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ConfigError(f"cannot be read: {error}", subject=str(path),
                          hint="delete it; its inputs will be scored again") from error  # fmt: skip


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except pa.ArrowException as error:
        raise unwritable(path, OSError(str(error))) from error
    except OSError as error:
        raise unwritable(path, error) from error
