"""AGIQA-1K."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Known, Sample
from genzqa.databases.labels import find, number, read_sheet


def read(root: Path) -> Iterator[Sample]:
    """``AIGC_MOS_Zscore.xlsx``: image, prompt and MOS. Images of one prompt, each by another model, make a group.

    The sheet names dreamStudio_8_9_1_1.jpg twice, with two scores; both rows are kept as published.
    """
    table = find(root, "AIGC_MOS_Zscore.xlsx")
    photos = find(root, "file", "images", "Images", "image")
    for row in read_sheet(table, ("Image", "Prompt", "MOS")):
        name = str(row["Image"]).strip()
        yield Sample(
            path=photos / name,
            mos=number(row["MOS"], table, f"MOS of {name}"),
            group=str(row["Prompt"]).strip(),
        )


DATABASE = Database(
    name="agiqa1k",
    title="AGIQA-1K",
    kind="image",
    mos_range=(0, 5),
    items=1_080,
    domains=("generated",),
    licence="MIT",
    citation="Z. Zhang, C. Li, W. Sun, X. Liu, X. Min, G. Zhai, A Perceptual Quality Assessment Exploration for AIGC Images, "
    "arXiv:2303.12618, 2023",
    home="https://github.com/lcysyzxdxc/AGIQA-1k-Database",
    layout="AIGC_MOS_Zscore.xlsx and file/",
    read=read,
    known=Known(twice=("dreamStudio_8_9_1_1.jpg",)),
)
