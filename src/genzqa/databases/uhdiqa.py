"""UHD-IQA."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, number, read_csv
from genzqa.databases.splits import Split
from genzqa.errors import DataError

SETS: dict[str, Split] = {"training": "train", "validation": "validation", "test": "test"}


def read(root: Path) -> Iterator[Sample]:
    """``uhd-iqa-metadata.csv``: MOS and the official split, which is also the folder a photo is in."""
    table = find(root, "uhd-iqa-metadata.csv", "metadata/uhd-iqa-metadata.csv")
    photos = find(root, "challenge/training", "training", "UHD-IQA-database/training").parent
    for row in read_csv(table, ("image_name", "quality_mos", "set")):
        if row["set"] not in SETS:
            raise DataError(f"{row['image_name']}: set is {row['set']!r}", subject=str(table))
        yield Sample(
            path=photos / row["set"] / row["image_name"],
            mos=number(row["quality_mos"], table, f"quality_mos of {row['image_name']}"),
            split=SETS[row["set"]],
        )


DATABASE = Database(
    name="uhdiqa",
    title="UHD-IQA",
    kind="image",
    mos_range=(0, 1),
    items=6_073,
    domains=("uhd",),
    licence="photos from Pixabay under CC0; scores free with citation",
    citation="V. Hosu, L. Agnolucci, O. Wiedemann, D. Iso, D. Saupe, UHD-IQA Benchmark Database: Pushing the Boundaries of Blind "
    "Photo Quality Assessment, ECCV Workshops, 2024",
    home="https://database.mmsp-kn.de/uhd-iqa-benchmark-database.html",
    layout="uhd-iqa-metadata.csv and challenge/ with training/, validation/, test/",
    read=read,
)
