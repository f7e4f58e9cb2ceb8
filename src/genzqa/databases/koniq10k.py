"""KonIQ-10k."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, number, read_csv
from genzqa.databases.splits import Split
from genzqa.errors import DataError

SETS: dict[str, Split] = {"training": "train", "validation": "validation", "test": "test"}


def read(root: Path) -> Iterator[Sample]:
    """``koniq10k_distributions_sets.csv``: MOS, laid on 1..100, and the official split. Its ``SD`` is in other
    units, those of the five-point opinions, and is left out."""
    table = find(root, "koniq10k_distributions_sets.csv", "metadata/koniq10k_distributions_sets.csv")
    photos = find(root, "1024x768", "images/1024x768", "512x384")
    for row in read_csv(table, ("image_name", "MOS", "set")):
        if row["set"] not in SETS:
            raise DataError(f"{row['image_name']}: set is {row['set']!r}", subject=str(table))
        yield Sample(
            path=photos / row["image_name"],
            mos=number(row["MOS"], table, f"MOS of {row['image_name']}"),
            split=SETS[row["set"]],
        )


DATABASE = Database(
    name="koniq10k",
    title="KonIQ-10k",
    kind="image",
    mos_range=(1, 100),
    items=10_073,
    domains=("user-generated",),
    licence="photos under Creative Commons licences (YFCC100m); scores free with citation",
    citation="V. Hosu, H. Lin, T. Sziranyi, D. Saupe, KonIQ-10k: An Ecologically Valid Database for Deep Learning of Blind "
    "Image Quality Assessment, IEEE Transactions on Image Processing 29, 2020",
    home="https://database.mmsp-kn.de/koniq-10k-database.html",
    layout="koniq10k_distributions_sets.csv and 1024x768/",
    read=read,
)
