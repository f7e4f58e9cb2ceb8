"""CLIVE, the LIVE In the Wild Image Quality Challenge Database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, number, read_mat, text
from genzqa.errors import DataError

NAMES = ("AllImages_release", "AllMOS_release", "AllStdDev_release")
PRACTICE = 7  # photos that trained the observers; they are in Images/trainingImages and no part of the database


def read(root: Path) -> Iterator[Sample]:
    """``AllImages_release.mat``, ``AllMOS_release.mat`` and ``AllStdDev_release.mat``, in the same order.

    Their first seven entries, photos the observers practised on, are left out.
    """
    tables = [find(root, f"Data/{name}.mat", f"{name}.mat") for name in NAMES]
    columns = [read_mat(table, (name,))[name].reshape(-1) for table, name in zip(tables, NAMES, strict=True)]
    for table, column in zip(tables, columns, strict=True):
        if len(column) != len(columns[0]):
            raise DataError(f"has {len(column)} entries, not {len(columns[0])}", subject=str(table))
    photos = find(root, "Images")
    for cell, mos, std in list(zip(*columns, strict=True))[PRACTICE:]:
        name = text(cell)
        yield Sample(
            path=photos / name,
            mos=number(mos, tables[1], f"MOS of {name}"),
            std=number(std, tables[2], f"standard deviation of {name}"),
        )


DATABASE = Database(
    name="clive",
    title="LIVE In the Wild Image Quality Challenge Database",
    kind="image",
    mos_range=(0, 100),
    items=1_162,
    domains=("user-generated",),
    licence="free to use, copy and change with its copyright notice and citation",
    citation="D. Ghadiyaram, A. C. Bovik, Massive Online Crowdsourced Study of Subjective and Objective Picture Quality, IEEE "
    "Transactions on Image Processing 25(1), 2016",
    home="https://live.ece.utexas.edu/research/ChallengeDB/index.html",
    layout="Data/AllImages_release.mat, Data/AllMOS_release.mat, Data/AllStdDev_release.mat and Images/",
    read=read,
)
