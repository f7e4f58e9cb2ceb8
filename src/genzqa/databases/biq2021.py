"""BIQ2021."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, number
from genzqa.databases.splits import Split
from genzqa.errors import DataError

TABLES: dict[str, Split] = {"Train (Images and MOS).csv": "train", "Test (Images and MOS).csv": "test"}


def read(root: Path) -> Iterator[Sample]:
    """One table of each official part, name and MOS; their first lines, the heads, are not the same.

    No deviation is published: the two more columns of the training table are empty.
    """
    photos = find(root, "Images")
    on_disk = {file.name.lower(): file.name for file in photos.iterdir()}  # the tables spell one name in another case
    for name, split in TABLES.items():
        table = find(root, name)
        try:
            with table.open(newline="", encoding="utf-8-sig") as file:
                rows = list(csv.reader(file))[1:]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"cannot be read: {error}", subject=str(table)) from error
        for line, row in enumerate(rows, 2):
            if not any(row):
                continue
            if len(row) < 2:
                raise DataError(f"line {line} has too few columns", subject=str(table))
            file_name = on_disk.get(row[0].strip().lower(), row[0].strip())
            yield Sample(path=photos / file_name, mos=number(row[1], table, f"line {line}: MOS"), split=split)


DATABASE = Database(
    name="biq2021",
    title="BIQ2021",
    kind="image",
    mos_range=(0, 1),
    items=12_000,
    domains=("user-generated",),
    licence="none stated; photos of its third subset from Unsplash",
    citation="N. Ahmed, S. Asif, BIQ2021: A Large-Scale Blind Image Quality Assessment Database, Journal of Electronic Imaging "
    "31(5), 2022",
    home="https://github.com/nisarahmedrana/BIQ2021",
    layout="Images/, Train (Images and MOS).csv and Test (Images and MOS).csv",
    read=read,
)
