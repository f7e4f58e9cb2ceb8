"""The databases by name; each is a module of its own beside this one, imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from genzqa.databases.database import Database, Samples, read_database, read_for_check
from genzqa.errors import ConfigError

IMAGES = (
    "flive", "koniq10k", "clive", "spaq", "biq2021", "kadid10k", "kadis", "tid2013", "live", "csiq", "cid2013", "pipal",
    "agiqa1k", "agiqa3k", "uhdiqa",
)  # fmt: skip
VIDEOS = (
    "lsvq", "lsvq1080p", "konvid1k", "livevqc", "youtubeugc", "cvd2014", "livequalcomm", "liveythfr", "liveytgaming", "liveetri",
    "bvihfr", "avtvqdbuhd1", "waterlooivc4k",
)  # fmt: skip
NAMES = (*IMAGES, *VIDEOS)


def database(name: str) -> Database:
    """The facts and reader of a database.

    Raises:
        ConfigError: If there is none of this name.
    """
    if name not in NAMES:
        raise ConfigError(
            "no such database", subject=name, hint=f"one of {', '.join(NAMES)}, or NAME=FILE.csv for one's own"
        )
    found: Database = importlib.import_module(f"genzqa.databases.{name}").DATABASE
    return found


def open_database(spec: str) -> Samples:
    """Read what ``NAME=PATH`` names: a database's folder, or with a path to a CSV file any scores of one's own.

    Raises:
        ConfigError: If ``spec`` is not of this form or there is no such database.
        DataError: If it cannot be read, or has no human scores.
    """
    return _open(spec, read_database)


def open_for_check(spec: str) -> Samples:
    """As `open_database`; a database without human scores gives its files, with NaN for a MOS.

    Raises:
        ConfigError: If ``spec`` is not of this form or there is no such database.
        DataError: If it cannot be read.
    """
    return _open(spec, read_for_check)


def _open(spec: str, read: Callable[[Database, Path], Samples]) -> Samples:
    name, path = name_and_path(spec)
    if path.name.lower().endswith(".csv") and not path.is_dir():
        from genzqa.databases.table import read_table

        return read_table(name, path)
    return read(database(name), path)


def name_and_path(spec: str) -> tuple[str, Path]:
    """The two halves of ``NAME=PATH``.

    Raises:
        ConfigError: If ``spec`` is not of this form.
    """
    name, separator, path = spec.partition("=")
    if not separator or not name or not path:
        raise ConfigError(
            "is not NAME=PATH", subject=spec, hint="for example koniq10k=/data/koniq-10k or mine=scores.csv"
        )
    return name, Path(path)
