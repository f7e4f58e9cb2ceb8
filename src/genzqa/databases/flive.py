"""FLIVE, the database of PaQ-2-PiQ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, number, read_csv


def read(root: Path) -> Iterator[Sample]:
    """``labels_image.csv``: names with their folder below ``database/``, and MOS.

    Whole photos only, not their patches. The published table tells no official split.
    """
    table = find(root, "labels_image.csv", "database/labels_image.csv")
    photos = find(root, "database")
    for row in read_csv(table, ("name", "mos")):
        yield Sample(path=photos / row["name"], mos=number(row["mos"], table, f"mos of {row['name']}"))


DATABASE = Database(
    name="flive",
    title="FLIVE",
    kind="image",
    mos_range=(0, 100),
    items=39_810,
    domains=("user-generated",),
    licence="none stated; photos are those of AVA, VOC2012, EMOTIC and a blur detection data set, under their terms",
    citation="Z. Ying, H. Niu, P. Gupta, D. Mahajan, D. Ghadiyaram, A. Bovik, From Patches to Pictures (PaQ-2-PiQ): Mapping the "
    "Perceptual Space of Picture Quality, CVPR, 2020",
    home="https://github.com/niu-haoran/FLIVE_Database",
    layout="labels_image.csv and database/",
    read=read,
)
