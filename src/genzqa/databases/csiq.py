"""CSIQ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, number, read_sheet
from genzqa.errors import DataError

# As the sheet names a distortion: its folder, and its part of the file names.
DISTORTIONS = {
    "noise": ("awgn", "AWGN"),
    "blur": ("blur", "BLUR"),
    "contrast": ("contrast", "contrast"),
    "fnoise": ("fnoise", "fnoise"),
    "jpeg": ("jpeg", "JPEG"),
    "jpeg 2000": ("jpeg2000", "jpeg2000"),
}


def read(root: Path) -> Iterator[Sample]:
    """Sheet ``all_by_image`` of ``csiq.DMOS.xlsx``, its head in the fourth row: 30 references, six distortions at up to
    five levels."""
    table = find(root, "csiq.DMOS.xlsx")
    photos = find(root, "dst_imgs")
    folders = {folder.name.lower(): folder for folder in photos.iterdir()}  # some copies have AWGN/ for awgn/
    for row in read_sheet(table, ("image", "dst_type", "dst_lev", "dmos", "dmos_std"), sheet="all_by_image", header=4):
        if row["image"] is None:
            continue
        image = str(row["image"]).strip().removesuffix(".0")  # one reference is named 1600, a number to the sheet
        distortion = str(row["dst_type"]).strip()
        if distortion not in DISTORTIONS:
            raise DataError(f"{image}: dst_type is {distortion!r}", subject=str(table))
        folder, token = DISTORTIONS[distortion]
        name = f"{image}.{token}.{number(row['dst_lev'], table, f'dst_lev of {image}'):g}.png"
        yield Sample(
            path=folders.get(folder, photos / folder) / name,
            mos=number(row["dmos"], table, f"dmos of {name}"),
            std=number(row["dmos_std"], table, f"dmos_std of {name}"),
            group=f"{image}.png",
        )


DATABASE = Database(
    name="csiq",
    title="CSIQ",
    kind="image",
    mos_range=(0, 1),
    items=866,
    domains=("synthetic",),
    licence="none stated; free for research with citation",
    citation="E. C. Larson, D. M. Chandler, Most Apparent Distortion: Full-Reference Image Quality Assessment and the Role of "
    "Strategy, Journal of Electronic Imaging 19(1), 2010",
    home="https://s2.smu.edu/~eclarson/csiq.html",
    layout="csiq.DMOS.xlsx and dst_imgs/ with awgn/, blur/, contrast/, fnoise/, jpeg/, jpeg2000/",
    read=read,
    higher_is_better=False,
)
