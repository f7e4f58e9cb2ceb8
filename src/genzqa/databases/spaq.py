"""SPAQ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, number, read_sheet

SHEET = "MOS and Image attribute scores.xlsx"


def read(root: Path) -> Iterator[Sample]:
    """``MOS and Image attribute scores.xlsx``: name and MOS. The scores of single attributes are left out."""
    table = find(root, f"Annotations/{SHEET}", SHEET)
    photos = find(root, "TestImage", "Dataset/TestImage")
    for row in read_sheet(table, ("Image name", "MOS")):
        name = str(row["Image name"]).strip()
        yield Sample(path=photos / name, mos=number(row["MOS"], table, f"MOS of {name}"))


DATABASE = Database(
    name="spaq",
    title="SPAQ",
    kind="image",
    mos_range=(0, 100),
    items=11_125,
    domains=("user-generated",),
    licence="none stated; free for research with citation",
    citation="Y. Fang, H. Zhu, Y. Zeng, K. Ma, Z. Wang, Perceptual Quality Assessment of Smartphone Photography, CVPR, 2020",
    home="https://github.com/h4nwei/SPAQ",
    layout="Annotations/MOS and Image attribute scores.xlsx and TestImage/",
    read=read,
)
