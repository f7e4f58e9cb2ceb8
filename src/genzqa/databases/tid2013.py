"""TID2013."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, number, read_lines
from genzqa.errors import DataError


def read(root: Path) -> Iterator[Sample]:
    """``mos_with_names.txt``, MOS and name, and ``mos_std.txt``, in the same order: 25 references, 24 distortions at 5
    levels."""
    table = find(root, "mos_with_names.txt")
    deviations = find(root, "mos_std.txt")
    photos = find(root, "distorted_images")
    on_disk = {file.name.lower(): file.name for file in photos.iterdir()}  # the table spells some names in another case
    rows = list(read_lines(table, 2))
    stds = list(read_lines(deviations, 1))
    if len(stds) != len(rows):
        raise DataError(f"has {len(stds)} lines, not {len(rows)} as {table.name}", subject=str(deviations))
    for (mos, name, *_), (std, *_) in zip(rows, stds, strict=True):
        yield Sample(
            path=photos / on_disk.get(name.lower(), name),
            mos=number(mos, table, f"MOS of {name}"),
            std=number(std, deviations, f"standard deviation of {name}"),
            group=name.split("_")[0].upper(),
        )


DATABASE = Database(
    name="tid2013",
    title="TID2013",
    kind="image",
    mos_range=(0, 9),
    items=3_000,
    domains=("synthetic",),
    licence="free for research with citation",
    citation="N. Ponomarenko, L. Jin, O. Ieremeiev, V. Lukin, K. Egiazarian, J. Astola, B. Vozel, K. Chehdi, M. Carli, "
    "F. Battisti, C.-C. J. Kuo, Image Database TID2013: Peculiarities, Results and Perspectives, Signal Processing: Image "
    "Communication 30, 2015",
    home="https://www.ponomarenko.info/tid2013.htm",
    layout="mos_with_names.txt, mos_std.txt and distorted_images/",
    read=read,
)
