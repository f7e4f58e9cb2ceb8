"""PIPAL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, number, read_lines
from genzqa.errors import DataError


def read(root: Path) -> Iterator[Sample]:
    """``Train_Label/``: a file for each reference, name and Elo rating in a line.

    The distorted images are in ``Train_Dist/`` or, as downloaded, in ``Distortion_1/`` to ``Distortion_4/``. All that is
    labelled is the training part of the authors' challenge, so it tells no split. Elo ratings have no ends; the range is
    that of the published ones, rounded outwards.
    """
    labels = find(root, "Train_Label")
    folders = sorted(folder for name in ("Train_Dist*", "Distortion*") for folder in root.glob(name) if folder.is_dir())
    if not folders:
        raise DataError("not there", subject=str(root / "Distortion_1"))
    on_disk = {file.name: file for folder in folders for file in folder.rglob("*.bmp")}
    for table in sorted(labels.glob("*.txt")):
        for name, elo, *_ in read_lines(table, 2, delimiter=","):
            yield Sample(
                path=on_disk.get(name, folders[0] / name),
                mos=number(elo, table, f"rating of {name}"),
                group=f"{name.split('_')[0]}.bmp",
            )


DATABASE = Database(
    name="pipal",
    title="PIPAL",
    kind="image",
    mos_range=(900, 1850),
    items=23_200,
    domains=("synthetic",),
    licence="none stated; free for research with citation",
    citation="J. Gu, H. Cai, H. Chen, X. Ye, J. S. Ren, C. Dong, PIPAL: A Large-Scale Image Quality Assessment Dataset for "
    "Perceptual Image Restoration, ECCV, 2020",
    home="https://www.jasongt.com/projectpages/pipal.html",
    layout="Train_Label/ and Train_Dist/ or Distortion_1/ to Distortion_4/",
    read=read,
)
