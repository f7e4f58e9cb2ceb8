"""CVD2014."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Known, Sample
from genzqa.databases.labels import find, number, read_csv
from genzqa.errors import DataError

NAME = re.compile(r"Test0(\d)_\w+")


def read(root: Path) -> Iterator[Sample]:
    """``Realignment_MOS.csv``: semicolons, decimal commas, and empty rows at the end.

    The scores are those laid on one scale for all tests, which takes a few of them below 0. ``Test01_City_D01`` is
    ``Test1/City/Test01_City_D01.avi``; the folder of the content ``Talking head`` is found with a blank or an underscore.
    """
    table = find(root, "Realignment_MOS.csv", "CVD2014_ratings/Realignment_MOS.csv")
    for row in read_csv(table, ("Content", "File_name", "Realignment MOS"), delimiter=";"):
        name = row["File_name"]
        if not name:
            continue
        found = NAME.fullmatch(name)
        if found is None:
            raise DataError(f"File_name is {name!r}, not such as Test01_City_D01", subject=str(table))
        scene = row["Content"].replace(" ", "_")
        folder = root / f"Test{found[1]}"
        spaced = folder / row["Content"]
        yield Sample(
            path=(spaced if spaced.is_dir() else folder / scene) / f"{name}.avi",
            mos=number(row["Realignment MOS"].replace(",", "."), table, f"Realignment MOS of {name}"),
            group=scene,
        )


DATABASE = Database(
    name="cvd2014",
    title="CVD2014",
    kind="video",
    mos_range=(0, 100),
    items=234,
    domains=("user-generated",),
    licence="Creative Commons Attribution 4.0, as on Zenodo; single videos may be restricted",
    citation="M. Nuutinen, T. Virtanen, M. Vaahteranoksa, T. Vuori, P. Oittinen, J. Häkkinen, CVD2014 - A Database for Evaluating "
    "No-Reference Video Quality Assessment Algorithms, IEEE Transactions on Image Processing 25(7), 2016",
    home="https://zenodo.org/records/2646315",
    layout="Realignment_MOS.csv and Test1/ to Test6/",
    read=read,
    known=Known(scores=(-6.5, 100)),
)
