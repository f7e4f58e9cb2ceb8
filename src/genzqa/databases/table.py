"""Scores of one's own: a CSV file with the columns ``path``, ``mos``, and if wanted ``std``, ``split``, ``group``, ``domain``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from genzqa.databases.database import Database, Domain, Kind, Sample, Samples
from genzqa.databases.labels import Row, number, read_csv
from genzqa.databases.splits import Split
from genzqa.errors import DataError

SPLIT_NAMES: dict[str, Split] = {"train": "train", "training": "train", "validation": "validation", "val": "validation",
                                 "test": "test", "testing": "test"}  # fmt: skip
COLUMNS = "path,mos[,std][,split][,group][,domain]"


def read_table(name: str, path: Path) -> Samples:
    """Read a table; paths in it are relative to its folder.

    The range of the scores is that of the scores themselves, higher is better, and all items are of the kind of the first.
    A domain is that of all rows or of none. Where some rows have a split, those without one are for training (`Samples.split_of`).

    Raises:
        DataError: If the file is missing or a cell of it is not as it should be.
    """
    if not path.is_file():
        raise DataError("no such file", subject=str(path))
    rows = list(read_csv(path, ("path", "mos")))
    items = tuple(_samples(rows, path))
    if not items:
        raise DataError("no item is listed", subject=str(path))
    scores = [item.mos for item in items]
    if min(scores) == max(scores):
        raise DataError("every score is the same", subject=str(path), hint="there is nothing to learn or to compare")
    kinds = {_kind(item.path) for item in items}
    if len(kinds) > 1:
        raise DataError("photos and videos are mixed", subject=str(path), hint="give each a table of its own")
    facts = Database(name=name, title=name, kind=kinds.pop(), mos_range=(min(scores), max(scores)), items=len(items),
                     licence="your own", citation="", home="", layout=COLUMNS, read=lambda _: items,
                     domains=_domains(rows, path), range_known=False)  # fmt: skip
    return Samples(facts, path.parent, items)


def _samples(rows: Sequence[Row], path: Path) -> list[Sample]:
    items = []
    for line, row in enumerate(rows, 2):
        split = row.get("split", "")
        if split and split not in SPLIT_NAMES:
            raise DataError(
                f"row {line}: split is {split!r}", subject=str(path), hint=f"one of {', '.join(get_args(Split))}"
            )
        std = row.get("std", "")
        items.append(
            Sample(
                path=path.parent / row["path"],
                mos=number(row["mos"], path, f"row {line}: mos"),
                std=number(std, path, f"row {line}: std") if std else None,
                split=SPLIT_NAMES[split] if split else None,
                group=row.get("group", ""),
            )
        )
    return items


def _domains(rows: Sequence[Row], path: Path) -> tuple[Domain, ...]:
    named = {row.get("domain", "") for row in rows}
    if len(named) > 1:
        raise DataError("rows differ in their domain", subject=str(path), hint="give each domain a table of its own")
    (name,) = named
    known: tuple[Domain, ...] = get_args(Domain)
    if name and name not in known:
        raise DataError(f"domain is {name!r}", subject=str(path), hint=f"one of {', '.join(known)}")
    return tuple(one for one in known if one == name)


def _kind(path: Path) -> Kind:
    from genzqa.media.video_sniff import VIDEO_SUFFIXES

    return "video" if path.suffix.lower() in VIDEO_SUFFIXES else "image"
