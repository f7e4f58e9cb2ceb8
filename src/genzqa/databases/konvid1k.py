"""KoNViD-1k."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, number, read_csv


def read(root: Path) -> Iterator[Sample]:
    """``KoNViD_1k_mos.csv``: the videos are named by their Flickr numbers."""
    table = find(root, "KoNViD_1k_mos.csv", "KoNViD_1k_metadata/KoNViD_1k_mos.csv")
    videos = find(root, "KoNViD_1k_videos")
    for row in read_csv(table, ("flickr_id", "mos")):
        yield Sample(
            path=videos / f"{row['flickr_id']}.mp4", mos=number(row["mos"], table, f"mos of {row['flickr_id']}")
        )


DATABASE = Database(
    name="konvid1k",
    title="KoNViD-1k",
    kind="video",
    mos_range=(1, 5),
    items=1_200,
    domains=("user-generated",),
    licence="videos under Creative Commons licences (YFCC100m); scores free with citation",
    citation="V. Hosu, F. Hahn, M. Jenadeleh, H. Lin, H. Men, T. Sziranyi, S. Li, D. Saupe, The Konstanz Natural Video Database "
    "(KoNViD-1k), QoMEX, 2017",
    home="https://database.mmsp-kn.de/konvid-1k-database.html",
    layout="KoNViD_1k_mos.csv and KoNViD_1k_videos/",
    read=read,
)
