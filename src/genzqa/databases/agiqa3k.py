"""AGIQA-3K."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, number, read_csv


def read(root: Path) -> Iterator[Sample]:
    """``data.csv``: MOS and standard deviation of perceived quality; those of the match with the prompt are left out.

    Images of one prompt, each by another model, make a group.
    """
    table = find(root, "data.csv")
    photos = find(root, "file", "AGIQA-3K", "images", "Images", "image")
    for row in read_csv(table, ("name", "prompt", "mos_quality", "std_quality")):
        yield Sample(
            path=photos / row["name"],
            mos=number(row["mos_quality"], table, f"mos_quality of {row['name']}"),
            std=number(row["std_quality"], table, f"std_quality of {row['name']}"),
            group=row["prompt"],
        )


DATABASE = Database(
    name="agiqa3k",
    title="AGIQA-3K",
    kind="image",
    mos_range=(0, 5),
    items=2_982,
    domains=("generated",),
    licence="MIT",
    citation="C. Li, Z. Zhang, H. Wu, W. Sun, X. Min, X. Liu, G. Zhai, W. Lin, AGIQA-3K: An Open Database for AI-Generated Image "
    "Quality Assessment, IEEE Transactions on Circuits and Systems for Video Technology, 2023",
    home="https://github.com/lcysyzxdxc/AGIQA-3k-Database",
    layout="data.csv and file/",
    read=read,
)
