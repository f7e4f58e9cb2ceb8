"""KADID-10k."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, number, read_csv


def read(root: Path) -> Iterator[Sample]:
    """``dmos.csv``: 81 references, 25 distortions at 5 levels.

    The column is named dmos, yet 5 is imperceptible and 1 very annoying; and what is named var is a standard deviation: no
    variance as small as the table's goes with a mean as far from 5.
    """
    table = find(root, "dmos.csv")
    photos = find(root, "images")
    for row in read_csv(table, ("dist_img", "ref_img", "dmos", "var")):
        yield Sample(
            path=photos / row["dist_img"],
            mos=number(row["dmos"], table, f"dmos of {row['dist_img']}"),
            std=number(row["var"], table, f"var of {row['dist_img']}"),
            group=row["ref_img"],
        )


DATABASE = Database(
    name="kadid10k",
    title="KADID-10k",
    kind="image",
    mos_range=(1, 5),
    items=10_125,
    domains=("synthetic",),
    licence="photos under the Pixabay licence; scores free with citation",
    citation="H. Lin, V. Hosu, D. Saupe, KADID-10k: A Large-scale Artificially Distorted IQA Database, QoMEX, 2019",
    home="https://database.mmsp-kn.de/kadid-10k-database.html",
    layout="dmos.csv and images/",
    read=read,
)
